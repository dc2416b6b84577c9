// The page that needs no server behind it: drop a model and an image, and the browser runs the one over the other.

import { App } from "../app.js";
import { element, h, messageOf } from "../dom.js";
import { forget, keep, kept } from "./kept.js";
import { LiveCamera } from "./live.js";
import { bytesIn, RemoteModel, Stopped } from "./remote.js";

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
    this.keeping = Promise.resolve();
    const chooser = element(document, "#files", HTMLInputElement);
    chooser.addEventListener("change", () => {
      this.take([...(chooser.files ?? [])]);
      chooser.value = "";
    });
    element(document, ".choose").addEventListener("click", () => chooser.click());
    this.stopper.addEventListener("click", () => this.busy?.stop());
    /** @type {LiveCamera | null} */
    this.live = null;
    /** The model has answered the camera. @type {Promise<unknown>} */
    this.answered = Promise.resolve();
    element(document, ".sample").addEventListener("click", () => this.sample());
    this.camera = element(document, ".camera", HTMLButtonElement);
    this.camera.addEventListener("click", () => (this.live ? this.freeze() : this.watch()));
    /** Whether the reader has opened anything: the kept files are not opened then. */
    this.taken = false;
    this.forgetter = element(document, ".forget", HTMLButtonElement);
    this.forgetter.addEventListener("click", () => {
      this.keeping = this.keeping.then(async () => {
        if (await forget()) this.forgetter.hidden = true;
      });
    });
    wireTheme((theme) => this.app?.useTheme(theme));
    kept().then((files) => {
      this.forgetter.hidden = !files.length;
      if (files.length && !this.taken) this.take(files, true);
    });
    // Firefox keeps a page that is left, and its worker with it, for a way back
    addEventListener("pagehide", () => {
      this.busy?.stop();
      this.model?.stop();
    });
    addEventListener("pageshow", (event) => event.persisted && location.reload());
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
   * @param {boolean} [again] Whether this page had them before a reload: the address holds their edits.
   */
  take(files, again = false) {
    this.taken = true;
    this.before = this.before.then(() => this.open(files, again));
  }

  /** @param {File[]} files @param {boolean} again */
  async open(files, again) {
    try {
      const model = files.find((file) => file.name.toLowerCase().endsWith(".onnx"));
      const image = files.find((file) => file.type.startsWith("image/"));
      if (!model && !image) throw new Error(`${files[0]?.name ?? "That"} is neither an ONNX file nor an image.`);
      this.unwatch();
      await this.answered; // the model answers one question at a time
      if (image) this.image = image;
      if (model) await this.use(model);
      if (!again) this.keep({ ...(model && { model }), ...(image && { image }) });
      await this.look(again);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Opens a model in place of the one before. @param {File} file */
  async use(file) {
    this.tell(`Opening ${file.name} …`);
    const opened = new RemoteModel(file.name);
    await this.running(opened, opened.open(new Uint8Array(await file.arrayBuffer())));
    this.model?.stop();
    this.model = opened;
    return opened;
  }

  /**
   * Keeps the files while the model computes, and then offers to forget them.
   * @param {Partial<Record<import("./kept.js").Kind, File>>} files
   */
  keep(files) {
    this.keeping = this.keeping.then(async () => {
      if (await keep(files)) this.forgetter.hidden = false;
    });
  }

  /** The bundled model on a drawn scene. */
  async sample() {
    this.tell("Fetching the sample …");
    try {
      const model = await sampleFile("sample.onnx", "maskprism-sample-model", "application/octet-stream");
      this.take([model, await sampleFile("sample.webp", "maskprism-sample-image", "image/webp")]);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Shows the camera, after what was dropped before. */
  watch() {
    this.taken = true;
    this.before = this.before.then(() => this.film());
  }

  /** Shows the camera through the model; without one, through the bundled one. */
  async film() {
    if (this.live) return; // pressed twice
    try {
      await this.answered;
      let { model } = this;
      if (!model) {
        const file = await sampleFile("sample.onnx", "maskprism-sample-model", "application/octet-stream");
        model = await this.use(file);
        this.keep({ model: file }); // for the image that comes next
      }
      const live = new LiveCamera(model, (text) => this.tell(text));
      this.live = live;
      document.body.classList.add("shown", "live");
      this.camera.textContent = "Take this picture apart";
      live.start().catch((error) => {
        if (this.live !== live) return;
        this.unwatch();
        this.fail(error);
      });
    } catch (error) {
      this.fail(error);
    }
  }

  unwatch() {
    if (this.live) this.answered = this.live.stop();
    this.live = null;
    document.body.classList.remove("live");
    this.camera.textContent = "Live camera";
  }

  /** Ends the camera, and opens what it shows in the viewer. */
  async freeze() {
    const { live } = this;
    this.unwatch();
    const image = await live?.snapshot();
    if (image) this.take([image]);
  }

  /** @param {boolean} again */
  async look(again) {
    const { model, image } = this;
    this.tell();
    if (!model || !image) return;
    this.tell(`${model.name} is looking at ${image.name} …`);
    const began = performance.now();
    const { notes, backend, ...scene } = await this.running(model, model.scene(await decoded(image), image.name));
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    this.app?.destroy();
    const box = h("div");
    this.place.replaceChildren(box);
    const note = [`${model.name}, ${seconds} s in this browser (${backend}). Nothing was uploaded.`, ...notes].join(
      " ",
    );
    // a link would open without the files: the state in the address is only for a reload with the same files
    const files = [model.name, image.name, image.size].join("\n");
    if (!again || history.state !== files) history.replaceState(null, "", location.pathname + location.search);
    const app = new App(box, [{ title: image.name, open: async () => scene }], {
      hash: false,
      main: true,
      note,
      saved: new URLSearchParams(location.hash.slice(1)),
      onSave: () => history.replaceState(files, "", app.address()),
    });
    this.app = app;
    document.body.classList.add("shown");
    await app.ready;
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

/**
 * A file of the sample, which lies beside the page or is a part of it.
 * @param {string} name
 * @param {string} id
 * @param {string} type
 */
async function sampleFile(name, id, type) {
  const inside = bytesIn(id);
  if (inside) return new File([inside], name, { type });
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`the sample (${name}) is not there; write or serve the page anew`);
  return new File([await answer.blob()], name, { type });
}

/** The one switch of the page; the viewer goes with it. @param {(theme: string) => void} changed */
function wireTheme(changed) {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  try {
    const chosen = localStorage.getItem("maskprism-theme");
    if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  } catch {
    // a page that may read nothing follows the system
  }
  element(document, "#theme").addEventListener("click", () => {
    root.dataset.theme = (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark" ? "light" : "dark";
    changed(root.dataset.theme);
    try {
      localStorage.setItem("maskprism-theme", root.dataset.theme);
    } catch {
      // a page that may keep nothing forgets the choice
    }
  });
}

/** The raw values of its pixels, upright: as Python reads it. @param {File} image */
async function decoded(image) {
  return createImageBitmap(image, { colorSpaceConversion: "none" }).catch(() => {
    throw new Error(`${image.name} cannot be read as an image`);
  });
}

new DropPage();
