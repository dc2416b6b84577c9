// One model in a thread of its own, so that the page stays awake while the model runs, and can stop it.

import { messageOf } from "../dom.js";
import { Network } from "./predict.js";

/** @typedef {import("./predict.js").Runtime} Runtime */
/**
 * @typedef {{ open: { name: string, bytes: Uint8Array } } | { scene: { image: ImageBitmap, source: string } }} Question
 */

const MOST_THREADS = 4;
/** @type {Promise<Runtime> | null} */
let runtime = null;
/** @type {Network | null} */
let network = null;

/** onnxruntime-web, which lies beside this file. @returns {Promise<Runtime>} */
function load() {
  runtime ??= import(new URL("ort.wasm.min.mjs", import.meta.url).href).then((found) => {
    const loaded = found.default ?? found;
    loaded.env.logLevel = "error";
    loaded.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
    loaded.env.wasm.numThreads = globalThis.crossOriginIsolated
      ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS)
      : 1;
    return loaded;
  });
  return runtime;
}

/** @param {Question} question */
async function answer(question) {
  if ("open" in question) {
    network = await Network.open(await load(), question.open.name, question.open.bytes);
    return null;
  }
  if (!network) throw new Error("no model is open");
  return network.scene(await load(), question.scene.image, question.scene.source);
}

addEventListener("message", async ({ data }) => {
  try {
    const result = await answer(data);
    postMessage({ result }, { transfer: result ? [result.buffer.buffer] : [] });
  } catch (error) {
    postMessage({ failed: messageOf(error) });
  }
});
