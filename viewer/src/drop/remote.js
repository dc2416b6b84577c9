// A model as the page sees it: questions to a worker, one at a time, and an end to it at any time.

/** @typedef {import("../scene.js").Header} Header */
/** @typedef {{ header: Header, buffer: Uint8Array, notes: string[], backend: string }} DropScene */

/**
 * What a page that is one file holds, as base64 in an element; null where it lies beside the page.
 * @param {string} id
 */
export function bytesIn(id) {
  const text = document.getElementById(id)?.textContent;
  return text ? Uint8Array.from(atob(text), (c) => c.charCodeAt(0)) : null;
}

/** @param {string} name */
function startedWorker(name) {
  const inside = bytesIn("maskprism-worker");
  if (!inside) return new Worker(new URL("worker.js", import.meta.url), { type: "module", name });
  const url = URL.createObjectURL(new Blob([inside], { type: "text/javascript" }));
  const worker = new Worker(url, { name });
  worker.addEventListener("message", () => URL.revokeObjectURL(url), { once: true }); // it is read by then
  return worker;
}

/** The user has stopped what was running. */
export class Stopped extends Error {}

export class RemoteModel {
  /** @param {string} name */
  constructor(name) {
    this.name = name;
    this.worker = startedWorker(name);
    /** @type {(reason: Error) => void} */
    this.reject = () => {};
  }

  /** Opens a model in a worker of its own. @param {Uint8Array} bytes */
  async open(bytes) {
    const wasm = bytesIn("maskprism-runtime")?.buffer;
    await this.ask({ open: { name: this.name, bytes, wasm } }, [bytes.buffer, ...(wasm ? [wasm] : [])]);
  }

  /** @param {ImageBitmap} image @param {string} source @returns {Promise<DropScene>} */
  scene(image, source) {
    return this.ask({ scene: { image, source } }, [image]);
  }

  /** @param {ImageBitmap} image @returns {Promise<import("./live.js").CameraFrame>} */
  frame(image) {
    return this.ask({ frame: image }, [image]);
  }

  /** Ends the worker, whatever it computes; the model is gone. @param {Error} [reason] */
  stop(reason = new Stopped(`${this.name} was stopped`)) {
    this.worker.terminate();
    this.reject(reason);
  }

  /** @param {import("./worker.js").Question} question @param {Transferable[]} transfer @returns {Promise<any>} */
  ask(question, transfer) {
    return new Promise((resolve, reject) => {
      this.reject = reject;
      this.worker.onmessage = ({ data }) => ("failed" in data ? reject(new Error(data.failed)) : resolve(data.result));
      this.worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(`${this.name} cannot be run: ${event.message || "the worker did not start"}`));
      };
      this.worker.postMessage(question, transfer);
    });
  }
}
