// One model in a thread of its own, so that the page stays awake while the model runs, and can stop it.

import { messageOf } from "../dom.js";
import { Network } from "./predict.js";

/** @typedef {import("./predict.js").Runtime} Runtime */
/**
 * @typedef {{ open: { name: string, bytes: Uint8Array, wasm?: ArrayBuffer } }
 *   | { scene: { image: ImageBitmap, source: string } } | { frame: ImageBitmap }} Question
 */

const MOST_THREADS = 4;
/** The runtime for WASM, packed: a quarter of its size on the way, and for every web server the same. */
const WASM_FILE = "ort-wasm-simd-threaded.wasm.gz";
/** What WebGPU needs beside the runtime; it is not part of the wheel. */
const GPU_FILES = "ort-wasm-simd-threaded.asyncify.wasm";
/** @type {Promise<Runtime> | null} */
let runtime = null;
/** @type {Network | null} */
let network = null;

/** Whether this browser has WebGPU on a GPU, and the files for it lie beside this one. */
async function hasWebGpu() {
  const { gpu } = /** @type {any} */ (navigator);
  const adapter = await gpu?.requestAdapter().catch(() => null);
  if (!adapter || adapter.info?.isFallbackAdapter) return false; // a GPU that is drawn by the processor is far slower
  return (await fetch(new URL(GPU_FILES, import.meta.url), { method: "HEAD" }).catch(() => null))?.ok ?? false;
}

/** @param {BodyInit} packed @returns {Promise<ArrayBuffer>} */
function unpacked(packed) {
  const stream = /** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (new Response(packed).body);
  return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/**
 * onnxruntime-web, which lies beside this file, or is a part of it.
 * @param {ArrayBuffer} [wasm] The packed runtime in a page that is one file.
 * @returns {Promise<Runtime>}
 */
async function load(wasm) {
  // @ts-expect-error: defined by the build
  if (SINGLE_FILE) {
    if (!wasm) throw new Error("this page is not whole; save it anew");
    const found = await import("onnxruntime-web/wasm");
    found.env.logLevel = "error";
    found.env.wasm.wasmBinary = await unpacked(wasm);
    found.env.wasm.numThreads = 1;
    return found;
  }
  const webgpu = await hasWebGpu();
  const runtimeFile = webgpu ? null : await fetch(new URL(WASM_FILE, import.meta.url));
  if (runtimeFile && !runtimeFile.ok) throw new Error(`the runtime (${WASM_FILE}) is not there; serve the page anew`);
  const found = await import(new URL(webgpu ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs", import.meta.url).href);
  const loaded = found.default ?? found;
  loaded.env.logLevel = "error";
  loaded.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
  if (runtimeFile) loaded.env.wasm.wasmBinary = await unpacked(await runtimeFile.arrayBuffer());
  // In Firefox, opening a model with threads never ended in 3 of 183 tries, with one thread in none of 263.
  loaded.env.wasm.numThreads =
    globalThis.crossOriginIsolated && !navigator.userAgent.includes("Firefox")
      ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS)
      : 1;
  return { InferenceSession: loaded.InferenceSession, Tensor: loaded.Tensor, env: loaded.env, webgpu };
}

/** @param {Question} question @returns {Promise<{ result: any, transfer: Transferable[] }>} */
async function answer(question) {
  if ("open" in question) {
    runtime ??= load(question.open.wasm);
    network = await Network.open(await runtime, question.open.name, question.open.bytes);
    return { result: null, transfer: [] };
  }
  if (!network || !runtime) throw new Error("no model is open");
  if ("frame" in question) {
    const result = await network.frame(await runtime, question.frame);
    question.frame.close();
    return { result, transfer: [result.prototypes.values.buffer] };
  }
  const result = await network.scene(await runtime, question.scene.image, question.scene.source);
  return { result, transfer: [/** @type {ArrayBuffer} */ (result.buffer.buffer)] };
}

addEventListener("message", async ({ data }) => {
  try {
    const { result, transfer } = await answer(data);
    postMessage({ result }, { transfer });
  } catch (error) {
    postMessage({ failed: messageOf(error) });
  }
});
