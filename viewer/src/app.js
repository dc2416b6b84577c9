// The frame around one or several scenes: title bar, gallery, links and files that hold the state, light and dark.

import { download, ends, fileNameOf, h, icon, messageOf, rest, roving } from "./dom.js";
import { mostTelling } from "./roles.js";
import { Scene } from "./scene.js";
import { State } from "./state.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./scene.js").Header} Header */
/**
 * A scene to be opened when it is wanted.
 * @typedef {{ title: string, detail?: string, thumbnail?: string, open: () => Promise<{ header: Header, buffer:
 * ArrayBuffer | ArrayBufferView }> }} Source
 */
/**
 * An object that keeps the states of images while the page shows others.
 * @typedef {object} Keeper
 * @property {(fresh: State, saved: URLSearchParams) => State} recall The state to go on with, in place of a fresh one.
 * @property {(state: State) => void} changed
 * @property {() => void} forget Drops the kept state of this image for that of an address or a file.
 * @property {() => number} edited How many images have edits.
 * @property {() => void} resetAll
 */
/**
 * @typedef {{ hash?: boolean, main?: boolean, instance?: number, truth?: boolean, note?: string, kinds?:
 * import("./strip.js").Kinds | null, theme?: string, keeper?: Keeper, onOpen?: (viewer: Viewer) => void,
 * saved?: URLSearchParams, onSave?: () => void }} Options `saved` and `onSave` stand in for the address.
 */

const SAVE_MS = 250;
/** In ten seconds; browsers refuse about 100. */
const MOST_WRITES = 40;
const THEME = "maskprism-theme";
/** Marks the places in the browser's history that this page made: Back then returns to an image, not to older edits. */
const OWN = { maskprism: true };

export class App {
  /** @param {HTMLElement} host @param {Source[]} sources @param {Options} options */
  constructor(host, sources, options = {}) {
    this.sources = sources;
    this.options = options;
    /** @type {Map<number, State>} */
    this.states = new Map();
    /** @type {Viewer | null} */
    this.viewer = null;
    /** The viewer of the image that is wanted, while its picture is decoded. @type {Viewer | null} */
    this.coming = null;
    this.current = -1;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.saving = undefined;
    /** When the address was written, of late. @type {number[]} */
    this.writes = [];
    this.saved = asked(options.saved ?? new URLSearchParams(options.hash ? location.hash.slice(1) : ""), sources);
    this.title = h("h1", { className: "source" });
    this.detail = h("span", { className: "quiet" });
    this.history = h("span", { className: "history" });
    this.slot = h(options.main ? "main" : "div", { className: "slot" });
    this.reset = h(
      "button",
      {
        type: "button",
        className: "reset-all",
        title: "Take back all edits of all images; undo brings back those of an image",
        onclick: () => this.resetAll(),
      },
      "Reset all",
    );
    this.note = h("p", { className: "note" });
    this.toast = h("div", { className: "toast" });
    this.tiles = sources.map((source, i) => this.tile(source, i));
    this.gallery = h("nav", { className: "gallery", "aria-label": "Images" }, ...this.tiles);
    this.rove = roving(this.gallery, ".tile");
    this.root = h(
      "div",
      { className: "maskprism" },
      h(
        "header",
        { className: "bar" },
        h("div", { className: "title" }, this.title, this.detail),
        this.history,
        this.reset,
        this.menu(),
        this.themeButton(),
      ),
      sources.length > 1 && this.gallery,
      this.slot,
      h("footer", {}, this.note, options.note ? h("p", { className: "note" }, options.note) : null),
      this.toast,
    );
    this.useTheme(options.theme ?? remembered());
    host.append(this.root);
    this.onHistory = (/** @type {PopStateEvent} */ event) =>
      this.arrive(new URLSearchParams(location.hash.slice(1)), event.state?.maskprism);
    if (options.hash) addEventListener("popstate", this.onHistory);
    this.onPress = (/** @type {Event} */ event) => {
      for (const menu of this.root.querySelectorAll("details[open]"))
        if (!event.composedPath().includes(menu)) menu.removeAttribute("open");
    };
    document.addEventListener("pointerdown", this.onPress);
    /** Keys count wherever the focus is; in a notebook only where it is in here. @type {EventTarget} */
    this.keyboard = options.hash ? document : this.root;
    this.onKey = (/** @type {Event} */ event) => event instanceof KeyboardEvent && this.viewer?.key(event);
    this.keyboard.addEventListener("keydown", this.onKey);
    this.showEdited();
    this.ready = this.open(this.savedIndex(this.saved));
  }

  /** Which image is open, as an address or a file says. @param {URLSearchParams} saved */
  savedIndex(saved) {
    const index = Number(saved.get("s") ?? 0);
    return this.sources[index] ? index : 0;
  }

  /** @param {Source} source @param {number} index */
  tile(source, index) {
    const picture = source.thumbnail ? h("img", { src: source.thumbnail, alt: "", loading: "lazy" }) : null;
    return h(
      "button",
      { type: "button", className: "tile", title: source.title, onclick: () => this.visit(index) },
      picture,
      h("span", { className: "name ends" }, ...ends(short(source.title))),
      h("span", { className: "quiet" }, source.detail ?? ""),
    );
  }

  /** Opens an image as the reader wants it: Back leads to the one before. @param {number} index */
  visit(index) {
    if (index === this.current) return undefined;
    this.writeHash();
    const opening = this.open(index);
    if (this.options.hash) history.pushState(OWN, "", this.address());
    return opening;
  }

  /** @param {number} index */
  async open(index) {
    const source = this.sources[index];
    if (!source || index === this.current) return;
    this.current = index;
    this.coming?.close();
    this.coming = null;
    this.tiles.forEach((tile, i) => tile.setAttribute("aria-current", String(i === index)));
    this.rove();
    this.tiles[index]?.scrollIntoView?.({ block: "nearest", inline: "nearest" });
    this.slot.setAttribute("aria-busy", "true");
    if (!this.slot.childNodes.length) this.slot.replaceChildren(h("p", { className: "failure quiet" }, "Opening …"));
    this.title.textContent = short(source.title);
    this.title.title = source.title;
    try {
      const { header, buffer } = await source.open();
      const scene = await Scene.open(header, buffer);
      if (this.current === index) await this.show(scene, index);
    } catch (error) {
      if (this.current !== index) return;
      this.close();
      this.detail.textContent = this.note.textContent = "";
      const again = h(
        "button",
        { type: "button", onclick: () => ((this.current = -1), this.open(index)) },
        "Try again",
      );
      const text = `This image cannot be shown: ${messageOf(error)}`;
      this.slot.removeAttribute("aria-busy");
      this.slot.replaceChildren(h("div", { className: "failure" }, h("p", { role: "alert" }, text), again));
    }
  }

  /** @param {Scene} scene @param {number} index */
  async show(scene, index) {
    this.close();
    const state = this.states.get(index) ?? this.stateOf(scene, index);
    this.states.set(index, state);
    const viewer = new Viewer(scene, state, this.options.kinds);
    this.coming = viewer;
    await viewer.open();
    if (this.coming !== viewer) return undefined; // another image is wanted meanwhile, or none
    this.coming = null;
    this.viewer = viewer;
    this.slot.replaceChildren(viewer.element);
    this.slot.removeAttribute("aria-busy");
    this.history.replaceChildren(viewer.tour.button, ...viewer.historyButtons());
    this.toast.replaceChildren(viewer.status);
    const many = scene.instances.length;
    this.detail.textContent = `${many} ${many === 1 ? "instance" : "instances"}, ${scene.k} ${scene.k === 1 ? "prototype" : "prototypes"}`;
    state.listen((change) => {
      if (change.kind === "selected") this.note.textContent = viewer.note();
      if (change.kind === "coefficients" || change.kind === "selected") this.options.keeper?.changed(state);
      if (change.kind === "coefficients") this.showEdited();
      if (change.kind === "coefficients" || change.kind === "selected") this.saveNow();
      else this.saveSoon();
    });
    this.showEdited();
    if (this.options.hash) this.writeHash();
    this.note.textContent = viewer.note();
    const missed = Number(this.saved.get(`${this.prefix(index)}missed`) ?? -1);
    if (missed >= 0) viewer.showMissed(missed);
    this.saved.delete(`${this.prefix(index)}missed`);
    this.options.onOpen?.(viewer);
    return undefined;
  }

  /** @param {Scene} scene @param {number} index */
  stateOf(scene, index) {
    const saved = part(this.saved, this.prefix(index));
    const fresh = new State(
      scene.instances.map((one) => one.coefficients),
      scene.instances.map((one) => one.untuned),
      this.opening(scene),
    );
    fresh.truth = Boolean(this.options.truth);
    fresh.restore(saved);
    return this.options.keeper?.recall(fresh, saved) ?? fresh;
  }

  /** Which instance is looked at first. @param {Scene} scene */
  opening(scene) {
    const { instance } = this.options;
    return instance !== undefined && scene.instances[instance] ? instance : mostTelling(scene);
  }

  /** Whether the instances of an image have edits, opened so far or not. @param {number} index */
  isEdited(index) {
    const state = this.states.get(index);
    if (state) return state.edits.size > 0;
    return [...part(this.saved, this.prefix(index)).keys()].some((name) => /^e\d+$/.test(name));
  }

  /** Marks the images with edits. */
  showEdited() {
    let many = 0;
    this.tiles.forEach((tile, i) => {
      const edited = this.isEdited(i);
      many += Number(edited);
      tile.classList.toggle("edited", edited);
    });
    rest(this.reset, !(this.options.keeper?.edited() ?? many));
  }

  resetAll() {
    if (this.reset.getAttribute("aria-disabled") === "true") return;
    if (this.options.keeper) this.options.keeper.resetAll();
    else {
      for (const name of [...this.saved.keys()]) if (/^(\d+\.)?e\d+$/.test(name)) this.saved.delete(name);
      for (const state of this.states.values()) state.resetAll();
    }
    if (this.reset.matches(":focus"))
      /** @type {HTMLElement | null} */ (this.history.querySelector("button:nth-last-child(2)"))?.focus();
    this.showEdited();
    this.viewer?.say("All edits are taken back; undo brings those of an image back.");
  }

  /** Everything that was done to all scenes. */
  save() {
    const saved = new URLSearchParams(this.saved);
    for (const [index, state] of this.states) {
      const prefix = this.prefix(index);
      for (const name of [...saved.keys()]) if (name.startsWith(prefix)) saved.delete(name);
      for (const [name, value] of state.save()) saved.set(prefix + name, value);
    }
    saved.delete("s");
    if (this.current > 0) saved.set("s", String(this.current));
    return saved;
  }

  /** What marks the parameters of a scene, where there are several. @param {number} index */
  prefix(index) {
    return this.sources.length > 1 ? `${index}.` : "";
  }

  /**
   * Writes what is done at once, so that a reload finds it; later where much is done at once, which browsers refuse to
   * write.
   */
  saveNow() {
    const now = Date.now();
    this.writes = this.writes.filter((at) => now - at < 10_000);
    if (this.writes.length < MOST_WRITES) this.writeHash();
    else this.saveSoon();
  }

  saveSoon() {
    if (!this.options.hash && !this.options.onSave) return;
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.writeHash(), SAVE_MS);
  }

  writeHash() {
    clearTimeout(this.saving);
    const { hash, onSave } = this.options;
    if (!hash && !onSave) return;
    this.writes.push(Date.now());
    if (onSave) onSave();
    else history.replaceState(OWN, "", this.address());
  }

  address() {
    const text = readable(this.save());
    return text ? `#${text}` : location.pathname + location.search;
  }

  /**
   * What the browser's history or an address asks for: one of our own places an image, any other all that it says.
   * @param {URLSearchParams} saved
   * @param {boolean} own
   */
  async arrive(saved, own) {
    if (!own) return this.restore(saved);
    await this.open(this.savedIndex(saved));
    return this.writeHash();
  }

  /** Shows what a link or file holds. @param {URLSearchParams} saved */
  async restore(saved) {
    this.saved = asked(saved, this.sources);
    this.states.clear();
    this.options.keeper?.forget();
    this.current = -1;
    await this.open(this.savedIndex(saved));
  }

  menu() {
    const close = () => {
      details.open = false;
      details.querySelector("summary")?.focus();
    };
    const item = (/** @type {string} */ text, /** @type {() => unknown} */ act) =>
      h("button", { type: "button", onclick: async () => (close(), await this.attempt(act)) }, text);
    const file = h("input", {
      type: "file",
      accept: ".json,application/json",
      hidden: true,
      "aria-label": "State file",
      onchange: () => this.attempt(() => this.readState(file)),
    });
    const details = h(
      "details",
      {
        className: "menu",
        onkeydown: (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && close(),
        onfocusout: (/** @type {FocusEvent} */ event) =>
          // a press elsewhere closes it, too
          event.relatedTarget instanceof Node && !details.contains(event.relatedTarget) && (details.open = false),
      },
      h("summary", {}, "Share"),
      h(
        "div",
        { className: "items" },
        this.options.hash ? item("Copy link to this state", () => this.copyLink()) : null,
        item("Save state to a file", () => this.writeState()),
        item("Open a state file…", () => file.click()),
        item("Export picture (PNG)", () => this.viewer?.exportPng()),
        item("Export coefficients (JSON)", () => this.viewer?.exportCoefficients()),
        file,
      ),
    );
    return details;
  }

  /** @param {() => unknown} act */
  async attempt(act) {
    try {
      await act();
    } catch (error) {
      this.viewer?.say(messageOf(error));
    }
  }

  async copyLink() {
    this.writeHash();
    try {
      await navigator.clipboard.writeText(location.href);
      this.viewer?.say("Link copied.");
    } catch {
      this.viewer?.say("The address bar holds the link.");
    }
  }

  writeState() {
    const content = { maskprism: 1, images: this.sources.map((source) => source.title), state: readable(this.save()) };
    download(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }), "maskprism-state.json");
  }

  /** @param {HTMLInputElement} input */
  async readState(input) {
    const file = input.files?.[0];
    input.value = "";
    if (!file) return;
    let content;
    try {
      content = JSON.parse(await file.text());
    } catch {
      content = null;
    }
    if (content?.maskprism !== 1 || typeof content.state !== "string")
      throw new Error(`${file.name} is no state file of this page.`);
    await this.restore(new URLSearchParams(content.state));
    const same = JSON.stringify(content.images) === JSON.stringify(this.sources.map((source) => source.title));
    this.viewer?.say(same ? "State restored." : "Restored, but the file was saved with other images.");
    this.saveSoon();
  }

  themeButton() {
    return h(
      "button",
      {
        type: "button",
        className: "icon-button",
        title: "Light or dark",
        "aria-label": "Light or dark",
        onclick: () => this.useTheme(this.isDark() ? "light" : "dark", true),
      },
      icon("theme"),
    );
  }

  isDark() {
    const chosen = this.root.closest("[data-theme]")?.getAttribute("data-theme");
    return (chosen ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  }

  /** @param {string | null | undefined} theme */
  useTheme(theme, remember = false) {
    if (theme !== "light" && theme !== "dark") return;
    this.root.dataset.theme = theme;
    if (!remember) return;
    try {
      localStorage.setItem(THEME, theme);
    } catch {
      // storage is closed to some pages; the theme is then forgotten
    }
  }

  close() {
    this.viewer?.close();
    this.coming?.close();
    this.viewer = this.coming = null;
    this.history.replaceChildren();
  }

  destroy() {
    this.current = -1; // what is still to come is not shown
    this.close();
    clearTimeout(this.saving);
    removeEventListener("popstate", this.onHistory);
    document.removeEventListener("pointerdown", this.onPress);
    this.keyboard.removeEventListener("keydown", this.onKey);
    this.root.remove();
  }
}

function remembered() {
  try {
    return localStorage.getItem(THEME);
  } catch {
    return null;
  }
}

/** The parameters of one scene. @param {URLSearchParams} saved @param {string} prefix */
export function part(saved, prefix) {
  const own = [...saved].filter(([name]) => name.startsWith(prefix));
  return new URLSearchParams(own.map(([name, value]) => [name.slice(prefix.length), value]));
}

/**
 * What a link asks for: open=IMAGE#INSTANCE, as other pages know them, becomes the numbers of both.
 * @param {URLSearchParams} saved @param {Source[]} sources
 */
function asked(saved, sources) {
  const [, title, instance] = /^(.*)#(\d+)$/s.exec(saved.get("open") ?? "") ?? [];
  const index = sources.findIndex((source) => source.title === title);
  saved.delete("open");
  if (index < 0) return saved;
  saved.set("s", String(index));
  saved.set(sources.length > 1 ? `${index}.i` : "i", instance);
  return saved;
}

/** @param {string} title */
const short = (title) => fileNameOf(title) || "image";

/** As text, with the harmless characters left readable. @param {URLSearchParams} saved */
export const readable = (saved) => saved.toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
