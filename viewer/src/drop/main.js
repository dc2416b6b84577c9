// The page that needs no server behind it: drop a network and an image, and the browser runs the one over the other.

import { App } from "../app.js";
import { element, h, messageOf } from "../dom.js";
import { Network } from "./predict.js";

/** @typedef {import("./predict.js").Runtime} Runtime */

const MOST_THREADS = 4;

class DropPage {
  constructor() {
    this.place = element(document, "#viewer");
    this.say = element(document, "#says");
    /** @type {Promise<Runtime> | null} */
    this.runtime = null;
    /** @type {Network | null} */
    this.network = null;
    /** @type {File | null} */
    this.image = null;
    /** @type {App | null} */
    this.app = null;
    /** What was dropped before is done with. @type {Promise<void>} */
    this.before = Promise.resolve();
    const chooser = element(document, "#files", HTMLInputElement);
    chooser.addEventListener("change", () => {
      this.take([...(chooser.files ?? [])]);
      chooser.value = "";
    });
    element(document, ".choose").addEventListener("click", () => chooser.click());
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      this.take([...(event.dataTransfer?.files ?? [])]);
    });
    this.tell();
  }

  /** After what was dropped before: a network that is still being opened waits for no other image. @param {File[]} files */
  take(files) {
    this.before = this.before.then(() => this.open(files));
  }

  /** @param {File[]} files */
  async open(files) {
    try {
      const model = files.find((file) => file.name.toLowerCase().endsWith(".onnx"));
      const image = files.find((file) => file.type.startsWith("image/"));
      if (!model && !image) throw new Error(`${files[0]?.name ?? "That"} is neither an ONNX file nor an image.`);
      if (image) this.image = image;
      if (model) {
        this.tell(`Opening ${model.name} …`);
        await painted();
        const network = await Network.open(await this.load(), model.name, new Uint8Array(await model.arrayBuffer()));
        await this.network?.session.release();
        this.network = network;
      }
      await this.look();
    } catch (error) {
      this.fail(error);
    }
  }

  async look() {
    const { network, image } = this;
    this.tell();
    if (!network || !image) return;
    this.tell(`${network.name} is looking at ${image.name} …`);
    await painted();
    const began = performance.now();
    const scene = await network.scene(await this.load(), await decoded(image), image.name);
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    this.app?.destroy();
    const box = h("div");
    this.place.replaceChildren(box);
    this.app = new App(box, [{ title: image.name, open: async () => scene }], { hash: false, main: true, note: `${network.name}, ${seconds} s in this browser. Nothing was uploaded.` });
    document.body.classList.add("shown");
    await this.app.ready;
    this.tell("Drop another image or network.");
  }

  /** onnxruntime-web, which lies beside this file. @returns {Promise<Runtime>} */
  load() {
    this.runtime ??= import(new URL("ort.wasm.min.mjs", import.meta.url).href).then((found) => {
      const runtime = found.default ?? found;
      runtime.env.logLevel = "error";
      runtime.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
      runtime.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;
      return runtime;
    });
    return this.runtime;
  }

  /** @param {string} [text] */
  tell(text) {
    this.say.className = "";
    this.say.textContent = text ?? (this.network ? `${this.network.name} is there. Now drop an image.` : this.image ? `${this.image.name} is there. Now drop a network.` : "Drop an ONNX file and an image here.");
  }

  /** @param {unknown} error */
  fail(error) {
    this.say.className = "failed";
    this.say.textContent = `That did not work: ${messageOf(error)}`;
  }
}

/** The values of its pixels as they are in the file, upright: as Python reads it. @param {File} image */
async function decoded(image) {
  return createImageBitmap(image, { colorSpaceConversion: "none" }).catch(() => {
    throw new Error(`${image.name} cannot be read as an image`);
  });
}

/** After the next frame: what is said is seen before the network blocks the page. */
const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));

new DropPage();
