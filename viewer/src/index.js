// What hosts use: `default.render` (anywidget), `mount` (any page), `unpack`. A page with #maskprism-scenes starts by
// itself.

import { App } from "./app.js";
import { oncePerFrame } from "./dom.js";
import { openEmbedded } from "./embedded.js";
import { Pair } from "./pair.js";
import { unpack } from "./scene.js";

export { unpack };

const PARSING_MS = 30;

/** @typedef {{ title: string, detail?: string, thumbnail?: string, open: () => Promise<ArrayBuffer> }} PackedSource */
/** @typedef {Omit<import("./app.js").Options, "onOpen">} MountOptions */
/** @typedef {import("./scene.js").Header} Header */
/**
 * The part of anywidget's model that is used here.
 * @typedef {{ get(key: string): any, set(key: string, value: unknown): void, save_changes(): void,
 *   on(event: string, act: () => void): void, off(event: string, act: () => void): void }} WidgetModel
 */

/**
 * Shows one packed scene, or several of which one is open at a time.
 * @param {HTMLElement} el @param {ArrayBuffer | PackedSource[]} scenes @param {MountOptions} options
 * @returns {{ destroy: () => void, ready: Promise<void>, app: App }}
 */
export function mount(el, scenes, options = {}) {
  const packed = scenes instanceof ArrayBuffer ? [{ title: "", open: async () => scenes }] : scenes;
  const sources = packed.map((source) => ({ ...source, open: async () => unpack(await source.open()) }));
  const app = new App(el, sources, { hash: true, ...options });
  return { destroy: () => app.destroy(), ready: app.ready, app };
}

/**
 * Shows two packed scenes side by side, with linked sliders.
 * @param {HTMLElement} el @param {{ name: string, instance?: number, open: () => Promise<ArrayBuffer> }[]} sides
 * @param {MountOptions} options
 */
export function mountPair(el, [a, b], options = {}) {
  const [first, second] = [a, b].map((side) => ({
    ...side,
    source: { title: side.name, open: async () => unpack(await side.open()) },
  }));
  return new Pair(el, [first, second], options);
}

/** @param {{ model: WidgetModel, el: HTMLElement }} context */
function render({ model, el }) {
  /** @type {App | undefined} */
  let app;
  const state = () => app?.viewer?.state;

  const send = oncePerFrame(() => {
    const now = state();
    if (!now) return;
    model.set("selected", now.selected);
    model.set("edits", Object.fromEntries([...now.edits].map(([i, row]) => [String(i), Array.from(row)])));
    model.save_changes();
  });
  const takeSelected = () => state()?.select(model.get("selected"));
  const takeEdits = () => {
    const [now, given] = [state(), model.get("edits") ?? {}];
    if (now && !sameEdits(now.edits, given)) now.replace(given);
  };
  const open = () => {
    app?.destroy();
    const source = {
      title: model.get("header").source,
      open: async () => ({ header: model.get("header"), buffer: model.get("buffer") }),
    };
    app = new App(el, [source], {
      hash: false,
      theme: hostTheme(),
      onOpen: (viewer) => {
        takeEdits();
        takeSelected();
        viewer.state.listen((change) => change.kind !== "pixel" && change.kind !== "look" && send());
      },
    });
  };
  const listeners = /** @type {const} */ ([
    ["change:header", open],
    ["change:selected", takeSelected],
    ["change:edits", takeEdits],
  ]);
  for (const [event, act] of listeners) model.on(event, act);
  el.addEventListener("keydown", keepKey);
  const themes = new MutationObserver(() => app?.useTheme(hostTheme()));
  for (const one of [document.documentElement, document.body]) themes.observe(one, { attributes: true });
  open();
  return () => {
    el.removeEventListener("keydown", keepKey);
    themes.disconnect();
    for (const [event, act] of listeners) model.off(event, act);
    send.cancel();
    app?.destroy();
  };
}

/**
 * In a notebook B inserts a cell, D deletes one, and arrows leave it: keys that are pressed in here stay here.
 * @param {KeyboardEvent} event
 */
function keepKey(event) {
  if (event.defaultPrevented || !(event.ctrlKey || event.metaKey || event.altKey)) event.stopPropagation();
}

/** Light or dark as the notebook around has it; nothing where it does not say. */
function hostTheme() {
  const { body, documentElement } = document;
  const { jpThemeLight, theme, vscodeThemeKind } = body.dataset; // JupyterLab, marimo, VS Code
  if (jpThemeLight) return jpThemeLight === "true" ? "light" : "dark";
  const said = theme ?? vscodeThemeKind ?? documentElement.getAttribute("theme") ?? ""; // the last one is Colab's
  return ["dark", "light"].find((name) => said.includes(name));
}

/** @param {Map<number, Float32Array>} edits @param {Record<string, ArrayLike<number>>} given */
function sameEdits(edits, given) {
  const keys = Object.keys(given);
  return (
    keys.length === edits.size &&
    keys.every((key) => Array.from(edits.get(Number(key)) ?? []).join() === Array.from(given[key], Math.fround).join())
  );
}

export default { render };

/**
 * The text of an element that is perhaps still to come: this script runs while the page is read.
 * An element is whole once something follows it.
 * @param {string} id @returns {Promise<string>}
 */
async function textOf(id) {
  for (;;) {
    const done = document.readyState !== "loading";
    const element = document.getElementById(id);
    if (element && (done || element.nextElementSibling)) return element.textContent ?? "";
    if (done) throw new Error("the file is not whole; get or write it anew");
    await new Promise((later) => setTimeout(later, PARSING_MS));
  }
}

/** @param {string} id */
const bufferOf = async (id) => Uint8Array.from(atob(await textOf(id)), (c) => c.charCodeAt(0)).buffer;

/** The one-file page: an index as JSON, and every scene as base64 text in an element of its own. */
function start() {
  const report = document.getElementById("maskprism-embedded");
  if (report) openEmbedded(report, mount, bufferOf);
  const index = document.getElementById("maskprism-scenes");
  if (!index) return;
  const { scenes, note, kinds, pair } = JSON.parse(index.textContent ?? "");
  const sources = scenes.map((/** @type {object} */ scene, /** @type {number} */ i) => ({
    ...scene,
    open: () => bufferOf(`maskprism-scene-${i}`),
  }));
  const host = document.getElementById("maskprism");
  if (host && pair) {
    mountPair(
      host,
      sources.slice(0, 2).map((/** @type {PackedSource} */ { title, open }, /** @type {number} */ i) => ({
        name: pair[i] || title,
        open,
      })),
      { note, hash: true, main: true },
    );
  } else if (host) mount(host, sources, { note, kinds, main: true });
}

if (typeof document !== "undefined") start();
