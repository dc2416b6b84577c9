// The frame around one or several scenes: title bar, gallery, links and files that hold the state, light and dark.

import { download, h, icon } from "./dom.js";
import { Scene } from "./scene.js";
import { State } from "./state.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./scene.js").Header} Header */
/**
 * A scene to be opened when it is wanted.
 * @typedef {{ title: string, detail?: string, thumbnail?: string, open: () => Promise<{ header: Header, buffer: ArrayBuffer | ArrayBufferView }> }} Source
 */
/** @typedef {{ hash?: boolean, note?: string, theme?: string, onOpen?: (viewer: Viewer) => void }} Options */

const SAVE_MS = 250;
const THEME = "maskprism-theme";

export class App {
  /** @param {HTMLElement} host @param {Source[]} sources @param {Options} options */
  constructor(host, sources, options = {}) {
    this.sources = sources;
    this.options = options;
    /** @type {Map<number, State>} */
    this.states = new Map();
    /** @type {Viewer | null} */
    this.viewer = null;
    this.current = -1;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.saving = undefined;
    this.saved = new URLSearchParams(options.hash ? location.hash.slice(1) : "");
    this.title = h("h1", { className: "source" });
    this.detail = h("span", { className: "quiet" });
    this.history = h("span", { className: "history" });
    this.slot = h("div", { className: "slot" });
    this.note = h("p", { className: "note" });
    this.toast = h("div", { className: "toast" });
    this.tiles = sources.map((source, i) => this.tile(source, i));
    this.root = h(
      "div",
      { className: "maskprism" },
      h("header", { className: "bar" }, h("div", { className: "title" }, this.title, this.detail), this.history, this.menu(), this.themeButton()),
      sources.length > 1 && h("nav", { className: "gallery", "aria-label": "Images" }, ...this.tiles),
      this.slot,
      h("footer", {}, this.note, options.note ? h("p", { className: "note" }, options.note) : null),
      this.toast,
    );
    this.useTheme(options.theme ?? remembered());
    host.append(this.root);
    this.onHash = () => this.restore(new URLSearchParams(location.hash.slice(1)));
    if (options.hash) addEventListener("hashchange", this.onHash);
    /** Keys count wherever the focus is; in a notebook only where it is in here. @type {EventTarget} */
    this.keyboard = options.hash ? document : this.root;
    this.onKey = (/** @type {Event} */ event) => event instanceof KeyboardEvent && this.viewer?.key(event);
    this.keyboard.addEventListener("keydown", this.onKey);
    const first = Number(this.saved.get("s") ?? 0);
    this.ready = this.open(sources[first] ? first : 0);
  }

  /** @param {Source} source @param {number} index */
  tile(source, index) {
    const picture = source.thumbnail ? h("img", { src: source.thumbnail, alt: "", loading: "lazy" }) : null;
    return h("button", { type: "button", className: "tile", title: source.title, onclick: () => this.open(index) }, picture, h("span", { className: "name" }, short(source.title)), h("span", { className: "quiet" }, source.detail ?? ""));
  }

  /** @param {number} index */
  async open(index) {
    const source = this.sources[index];
    if (!source || index === this.current) return;
    this.current = index;
    this.tiles.forEach((tile, i) => tile.setAttribute("aria-current", String(i === index)));
    this.tiles[index]?.scrollIntoView?.({ block: "nearest", inline: "nearest" });
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
      this.slot.replaceChildren(h("p", { className: "failure", role: "alert" }, `This image cannot be shown: ${error instanceof Error ? error.message : error}`));
    }
  }

  /** @param {Scene} scene @param {number} index */
  async show(scene, index) {
    this.close();
    const state = this.states.get(index) ?? new State(scene.instances.map((one) => one.coefficients), scene.instances.map((one) => one.untuned));
    if (!this.states.has(index)) state.restore(part(this.saved, this.prefix(index)));
    this.states.set(index, state);
    const viewer = new Viewer(scene, state);
    await viewer.stage.open();
    if (this.current !== index) return viewer.close();
    this.viewer = viewer;
    this.slot.replaceChildren(viewer.element);
    this.history.replaceChildren(...viewer.historyButtons());
    this.toast.replaceChildren(viewer.status);
    const many = scene.instances.length;
    this.detail.textContent = `${many} ${many === 1 ? "instance" : "instances"}, ${scene.k} ${scene.k === 1 ? "prototype" : "prototypes"}`;
    state.listen((change) => {
      if (change.kind === "selected") this.note.textContent = viewer.note();
      this.saveSoon();
    });
    this.note.textContent = viewer.note();
    this.options.onOpen?.(viewer);
    return undefined;
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

  saveSoon() {
    if (!this.options.hash) return;
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.writeHash(), SAVE_MS);
  }

  writeHash() {
    clearTimeout(this.saving);
    const text = readable(this.save());
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }

  /** Shows what a link or file holds. @param {URLSearchParams} saved */
  async restore(saved) {
    this.saved = saved;
    this.states.clear();
    const index = Number(saved.get("s") ?? 0);
    this.current = -1;
    await this.open(this.sources[index] ? index : 0);
  }

  menu() {
    const close = () => {
      details.open = false;
      details.querySelector("summary")?.focus();
    };
    const item = (/** @type {string} */ text, /** @type {() => unknown} */ act) =>
      h("button", { type: "button", onclick: async () => (close(), await this.attempt(act)) }, text);
    const file = h("input", { type: "file", accept: ".json,application/json", hidden: true, "aria-label": "State file", onchange: () => this.attempt(() => this.readState(file)) });
    const details = h(
      "details",
      {
        className: "menu",
        onkeydown: (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && close(),
        onfocusout: (/** @type {FocusEvent} */ event) => event.relatedTarget instanceof Node && !details.contains(event.relatedTarget) && (details.open = false),
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
      this.viewer?.say(error instanceof Error ? error.message : String(error));
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
    if (content?.maskprism !== 1 || typeof content.state !== "string") throw new Error(`${file.name} is no state file of this page.`);
    await this.restore(new URLSearchParams(content.state));
    const same = JSON.stringify(content.images) === JSON.stringify(this.sources.map((source) => source.title));
    this.viewer?.say(same ? "State restored." : "Restored, but the file was saved with other images.");
    this.saveSoon();
  }

  themeButton() {
    return h("button", { type: "button", className: "icon-button", title: "Light or dark", "aria-label": "Light or dark", onclick: () => this.useTheme(this.isDark() ? "light" : "dark", true) }, icon("theme"));
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
    this.viewer = null;
    this.history.replaceChildren();
  }

  destroy() {
    this.close();
    clearTimeout(this.saving);
    removeEventListener("hashchange", this.onHash);
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
function part(saved, prefix) {
  const own = [...saved].filter(([name]) => name.startsWith(prefix));
  return new URLSearchParams(own.map(([name, value]) => [name.slice(prefix.length), value]));
}

/** The last part of a path. @param {string} title */
const short = (title) => title.replace(/^.*[\\/]/, "") || "image";

/** As text, with the harmless characters left readable. @param {URLSearchParams} saved */
const readable = (saved) => saved.toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
