// The page that needs no server behind it: drop a model and an image, and the browser runs the one over the other.

import { App } from "../app.js";
import { element, h, messageOf } from "../dom.js";
import { RemoteModel, Stopped } from "./remote.js";

class DropPage {
  constructor() {
    this.place = element(document, "#viewer");
    this.say = element(document, "#says");
    this.stopper = element(document, ".stop", HTMLButtonElement);
    /** @type {RemoteModel | null} */
    this.model = null;
    /** The model that is being opened, or looks at an image. @type {RemoteModel | null} */
    this.busy = null;
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
    this.stopper.addEventListener("click", () => this.busy?.stop());
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      this.take([...(event.dataTransfer?.files ?? [])]);
    });
    this.tell();
  }

  /**
   * After what was dropped before: a model that is still being opened waits for no other image.
   * @param {File[]} files
   */
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
        const opened = new RemoteModel(model.name);
        await this.running(opened, opened.open(new Uint8Array(await model.arrayBuffer())));
        this.model?.stop();
        this.model = opened;
      }
      await this.look();
    } catch (error) {
      this.fail(error);
    }
  }

  async look() {
    const { model, image } = this;
    this.tell();
    if (!model || !image) return;
    this.tell(`${model.name} is looking at ${image.name} …`);
    const began = performance.now();
    const { notes, ...scene } = await this.running(model, model.scene(await decoded(image), image.name));
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    this.app?.destroy();
    const box = h("div");
    this.place.replaceChildren(box);
    const note = [`${model.name}, ${seconds} s in this browser. Nothing was uploaded.`, ...notes].join(" ");
    this.app = new App(box, [{ title: image.name, open: async () => scene }], { hash: false, main: true, note });
    document.body.classList.add("shown");
    await this.app.ready;
    this.tell(["Drop another image or model.", ...notes].join(" "));
  }

  /**
   * What a model computes, with a button that stops it; a model that fails while it is opened, or is stopped, is gone.
   * @template T
   * @param {RemoteModel} model
   * @param {Promise<T>} work
   * @returns {Promise<T>}
   */
  async running(model, work) {
    this.busy = model;
    this.stopper.hidden = false;
    try {
      return await work;
    } catch (error) {
      if (model !== this.model) model.stop();
      else if (error instanceof Stopped) this.model = null;
      throw error;
    } finally {
      this.busy = null;
      this.stopper.hidden = true;
    }
  }

  /** @param {string} [text] */
  tell(text) {
    this.say.className = "";
    this.say.textContent =
      text ??
      (this.model
        ? `${this.model.name} is there. Now drop an image.`
        : this.image
          ? `${this.image.name} is there. Now drop a model.`
          : "Drop an ONNX file and an image here.");
  }

  /** @param {unknown} error */
  fail(error) {
    this.say.className = "failed";
    this.say.textContent =
      error instanceof Stopped ? `${messageOf(error)}. Drop another model.` : `That did not work: ${messageOf(error)}`;
  }
}

/** The raw values of its pixels, upright: as Python reads it. @param {File} image */
async function decoded(image) {
  return createImageBitmap(image, { colorSpaceConversion: "none" }).catch(() => {
    throw new Error(`${image.name} cannot be read as an image`);
  });
}

new DropPage();
