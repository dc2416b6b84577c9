// The prototypes: of each a thumbnail, the weight as a signed bar, and a slider.

import { h, icon, signed, style } from "./dom.js";
import { draggable } from "./drag.js";
import { aspectOf, cellsAround } from "./geometry.js";
import { descending, effects } from "./masks.js";
import { limitOf, paint } from "./palette.js";
import { kindsOf, ROLE_LABELS, ROLES, rolesOf } from "./roles.js";

/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./state.js").State} State */
/**
 * @typedef {{ element: HTMLLIElement, canvas: HTMLCanvasElement, thumb: HTMLButtonElement, drop: HTMLButtonElement,
 * slider: HTMLInputElement, value: HTMLElement, role: HTMLElement }} Card
 */

/**
 * Over many images: their number, the tags of every prototype, and what the tags mean
 * (src/maskprism/viewer/prototype_tags.py).
 * @typedef {{ images: number, tags: string[][], rules: Record<string, string> }} Kinds
 */

/** Tags as they stand on the page, where they have other names. @type {Record<string, string>} */
const TAG_LABELS = { handed: "left-right sensitive" };
const STEPS = 100;
/** The number of prototypes shown at first: those with the largest effect. */
const MOST = 64;
const MARGIN = 0.25;
const LEAST_CELLS = 14;
const THINNEST = 0.7;
/** Images whose shorter side is a smaller share of the longer one are long. */
const LONG = 0.4;

export class Strip {
  /**
   * @param {Scene} scene
   * @param {State} state
   * @param {(k: number | null) => void} showLarge
   * @param {Kinds | null} over What is known over many images.
   */
  constructor(scene, state, showLarge, over = null) {
    this.over = over?.tags.length === scene.k ? over : null;
    this.scene = scene;
    this.state = state;
    this.showLarge = showLarge;
    this.range = 1;
    /** The prototype that is kept large over the image. @type {number | null} */
    this.pinned = null;
    this.cards = Array.from({ length: scene.k }, (_, k) => this.card(k));
    this.element = h("ul", { className: "strip", "aria-label": "Prototypes" });
    this.more = h("button", {
      type: "button",
      className: "quiet-button more",
      onclick: () => state.look({ all: !state.all }),
    });
    /** What of the grid the thumbnails show. */
    this.window = this.windowOf();
    /** What `contributingLittle` found last. */
    this.little = { instance: -1, found: /** @type {boolean[]} */ ([]) };
    /** @type {number[]} */
    this.limits = [];
    /** Which cards are shown, in their order. @type {number[]} */
    this.order = [];
    /** @type {import("./roles.js").Kind[]} */
    this.kinds = [];
    this.naming = setTimeout(() => {
      this.kinds = kindsOf(scene);
      this.nameAll();
    });
    state.listen((change) => this.changed(change));
    this.update();
    this.nameAll();
    this.reorder();
    this.paintAll();
  }

  /** Whether the image is so long that thumbnails of it cannot be read. */
  get isLong() {
    const { content_hw } = this.scene.letterbox;
    return Math.min(...content_hw) < LONG * Math.max(...content_hw);
  }

  /** Whether thumbnails show a part of the image, unless the whole is asked for. */
  get hasWindow() {
    return this.state.selected >= 0 || this.isLong;
  }

  /**
   * What surrounds the box of the chosen instance; without one, the middle of a long image; else what of the grid is
   * image and not padding.
   */
  windowOf() {
    const { letterbox, instances } = this.scene;
    const { selected, whole } = this.state;
    const { canvas_hw, content_hw, offset_yx } = letterbox;
    const [height, width] = canvas_hw;
    if (whole || !this.hasWindow) return cellsAround(letterbox, [0, 0, width, height], 0, 0);
    if (selected >= 0) return cellsAround(letterbox, instances[selected].canvas_box, MARGIN, LEAST_CELLS, THINNEST);
    const half = Math.min(...content_hw) / 2;
    const [y, x] = offset_yx.map((offset, axis) => offset + content_hw[axis] / 2);
    return cellsAround(letterbox, [x - half, y - half, x + half, y + half], 0, 0);
  }

  /** The end of the colour map of a prototype on its own. @param {number} k */
  limitAt(k) {
    return (this.limits[k] ??= limitOf(this.prototype(k)));
  }

  /** @param {number} k @returns {Card} */
  card(k) {
    const { state } = this;
    const reset = () => state.set(k, state.original[state.selected]?.[k] ?? 0, `k${k}`);
    const canvas = h("canvas", { className: "diverging", width: 1, height: 1 });
    const thumb = h(
      "button",
      {
        type: "button",
        className: "thumb",
        title: "Point at this prototype to see it large over the image; click to keep it there",
        "aria-label": `Prototype ${k}, large over the image`,
        onclick: () => this.pin(this.pinned === k ? null : k),
        onpointerenter: (/** @type {PointerEvent} */ event) => event.pointerType !== "touch" && state.highlight(k),
        onpointerleave: () => state.highlight(null),
        onfocus: () => thumb.matches(":focus-visible") && state.highlight(k),
        onblur: () => state.highlight(null),
      },
      canvas,
    );
    // Out of the order of Tab, where the slider beside it does the same with Delete.
    const drop = h(
      "button",
      {
        type: "button",
        className: "drop",
        tabIndex: -1,
        title: "Drop this prototype; once more brings it back",
        "aria-label": `Drop prototype ${k}`,
        onclick: () => (state.coefficients()[k] === 0 ? reset() : state.set(k, 0, `k${k}`)),
      },
      icon("times"),
    );
    const slider = h("input", {
      type: "range",
      className: "slider",
      step: "any",
      "aria-label": `Coefficient of prototype ${k}`,
      oninput: () => state.move(k, slider.valueAsNumber),
      onchange: () => state.commit(),
    });
    const value = h("span", { className: "value", "aria-hidden": "true" }); // the slider says it
    const role = h("div", { className: "role" });
    const track = h("div", { className: "track" }, slider);
    draggable(track, slider, { move: (now) => state.move(k, now), end: () => state.commit() });
    const keys = (/** @type {KeyboardEvent} */ event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const now = state.coefficients()[k];
      const step = (this.range / STEPS) * (event.shiftKey ? 10 : 1);
      const range = Number(slider.max);
      /** @type {Record<string, number>} */
      const targets = {
        ArrowLeft: now - step,
        ArrowDown: now - step,
        ArrowRight: now + step,
        ArrowUp: now + step,
        PageDown: now - 10 * step,
        PageUp: now + 10 * step,
        Home: -range,
        End: range,
        Delete: 0,
        Backspace: 0,
      };
      if (event.key.toLowerCase() === "r") reset();
      else if (event.key === "Escape" && this.pinned !== null) this.pin(null);
      else if (event.key in targets && (event.target === slider || targets[event.key] === 0))
        state.set(k, Math.min(Math.max(targets[event.key], -range), range), `k${k}`);
      else return;
      event.preventDefault();
    };
    const element = h(
      "li",
      { className: "card", onkeydown: keys },
      thumb,
      h("div", { className: "label" }, h("span", { className: "index" }, String(k)), value, drop),
      role,
      track,
    );
    element.dataset.k = String(k);
    return { element, canvas, thumb, drop, slider, value, role };
  }

  /** What each prototype does for the chosen instance, and of which kind it is. */
  nameAll() {
    const { state, scene } = this;
    const found = state.selected < 0 ? null : rolesOf(scene, state.selected, state.coefficients());
    this.cards.forEach(({ role, element }, k) => {
      const does = found?.named[k] ?? [];
      const { semantic, same } = this.kinds[k] ?? { semantic: false, same: [] };
      const { over } = this;
      const tags = over?.tags[k] ?? (semantic ? ["semantic"] : []);
      const kinds = [
        ...tags.map((tag) => TAG_LABELS[tag] ?? tag),
        same.length > 0 &&
          `r ≥ 0.9 with ${same
            .slice(0, 2)
            .map((other) => `#${other}`)
            .join(", ")}`,
      ].filter((one) => typeof one === "string");
      const names = does.map((one) => ROLE_LABELS[one]);
      role.replaceChildren(h("span", {}, names[0] ?? ""), h("span", {}, [...names.slice(1), ...kinds].join(", ")));
      role.title = [
        ...does.map((one) => `${ROLE_LABELS[one]}: ${ROLES[one]}`),
        ...(over ? tags.map((tag) => `${tag}: ${over.rules[tag]} (over ${over.images} images)`) : []),
        !over && semantic && "semantic: the masks of this image explain a quarter of its variance, or more",
        same.length > 0 && `redundant: correlates with ${same.join(", ")} by 0.9 or more in this image`,
      ]
        .filter(Boolean)
        .join("\n");
      element.dataset.role = does[0] ?? "";
    });
  }

  /**
   * Marks the prototypes that do most at the pixel that is looked at.
   * @param {number[]} order
   * @param {ArrayLike<number>} terms
   */
  markTop(order, terms) {
    this.cards.forEach(({ element }) => element.classList.remove("top-for", "top-against"));
    for (const k of order) this.cards[k].element.classList.add(terms[k] > 0 ? "top-for" : "top-against");
  }

  /** Shows a prototype large while something that stands for it is pointed at. */
  point() {
    const { highlighted } = this.state;
    this.cards.forEach(({ element }, k) => element.classList.toggle("highlighted", k === highlighted));
    this.showLarge(highlighted ?? this.pinned);
  }

  /** Keeps a prototype large over the image, or none. @param {number | null} k */
  pin(k) {
    this.pinned = k;
    this.cards.forEach(({ thumb }, i) => thumb.setAttribute("aria-pressed", String(i === k)));
    this.showLarge(k ?? this.state.highlighted);
  }

  /** @param {number} k */
  prototype(k) {
    const { cells, values } = this.scene.prototypes;
    return values.subarray(k * cells, (k + 1) * cells);
  }

  /** @param {import("./state.js").Change} change */
  changed(change) {
    if (change.kind === "pixel") return;
    if (change.kind === "highlight") {
      this.point();
      return;
    }
    if (change.kind === "coefficient" && this.pinned !== null) this.pin(null); // an edit shows the mask
    if (change.kind === "coefficient") {
      this.updateCard(change.k, Number(this.cards[change.k].slider.max)); // the scale stays while something moves on it
      if (this.state.thumbnails === "term" && this.cards[change.k].element.isConnected) this.paintThumbnail(change.k);
      return;
    }
    this.update();
    if (change.kind !== "look") this.nameAll();
    if (change.kind === "selected" || change.kind === "look") this.reorder();
    if (change.kind !== "coefficients" || this.state.thumbnails === "term") this.paintAll();
  }

  /**
   * All sliders, over a range half as wide again as the coefficients of the instance; one that an edit put beyond it is
   * as wide as that.
   */
  update() {
    const { state } = this;
    const largest = (/** @type {Float32Array} */ row) =>
      row.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const original = largest(state.original[state.selected] ?? new Float32Array(0));
    this.range = Math.max(0.1, Math.ceil(original * 15) / 10);
    for (let k = 0; k < this.cards.length; k++) this.updateCard(k);
  }

  /** @param {number} k @param {number} least How far the slider goes at least. */
  updateCard(k, least = 0) {
    const { drop, slider, value, element } = this.cards[k];
    const { state } = this;
    const now = state.coefficients()[k] ?? 0;
    const original = state.original[state.selected]?.[k] ?? 0;
    const range = Math.max(this.range, Math.abs(now), least);
    slider.min = String(-range);
    slider.max = String(range);
    if (slider.valueAsNumber !== now) slider.valueAsNumber = now;
    slider.disabled = state.selected < 0;
    const text = state.selected < 0 ? "" : signed(now);
    slider.setAttribute("aria-valuetext", now === original ? text : `${text}, originally ${signed(original)}`);
    value.textContent = text;
    element.classList.toggle("edited", now !== original);
    if (now !== original) element.classList.remove("folded");
    const dropped = state.selected >= 0 && now === 0;
    element.classList.toggle("dropped", dropped);
    drop.setAttribute("aria-pressed", String(dropped));
    drop.disabled = state.selected < 0;
    element.classList.toggle("negative", now < 0);
    style(slider, { "--at": String((now + range) / (2 * range)), "--was": String((original + range) / (2 * range)) });
  }

  /** By effect of the original, so that cards stay where they are while a slider moves; or by index. */
  ranking() {
    const { scene, state } = this;
    if (state.selected < 0) return this.cards.map((_, k) => k);
    const weights = scene.weights(state.selected, state.original[state.selected]);
    return descending(effects(weights, scene.prototypes, scene.letterbox, scene.instances[state.selected].canvas_box));
  }

  reorder() {
    const { state, scene } = this;
    const many = scene.k > MOST;
    const shown = this.ranking().slice(0, many && !state.all ? MOST : scene.k);
    this.order = state.order === "effect" ? shown : shown.sort((a, b) => a - b);
    const little = this.contributingLittle();
    let folded = 0;
    this.cards.forEach(({ element }, k) => {
      const fold = !state.all && little[k] && !element.classList.contains("edited");
      element.classList.toggle("folded", fold);
      folded += Number(fold);
    });
    this.more.hidden = !many && !little.some(Boolean);
    if (many)
      this.more.textContent = state.all ? `Show the ${MOST} with the largest effect` : `Show all ${scene.k} prototypes`;
    else
      this.more.textContent = state.all
        ? "Hide those that contribute little"
        : `${folded} more ${folded === 1 ? "contributes" : "contribute"} little`;
    const elements = this.order.map((k) => this.cards[k].element);
    if (
      elements.length !== this.element.children.length ||
      elements.some((element, i) => element !== this.element.children[i])
    )
      this.element.replaceChildren(...elements);
  }

  /** Of each prototype whether it does hardly anything for the chosen instance, as the model has it. */
  contributingLittle() {
    const { scene, state } = this;
    if (state.selected < 0) return this.cards.map(() => false);
    if (this.little.instance !== state.selected)
      this.little = {
        instance: state.selected,
        found: rolesOf(scene, state.selected, state.original[state.selected]).named.map(
          ([role]) => role === "negligible",
        ),
      };
    return this.little.found;
  }

  paintAll() {
    this.window = this.windowOf();
    const aspect = String(aspectOf(this.scene.letterbox, this.window));
    for (const { canvas } of this.cards) style(canvas, { "aspect-ratio": aspect });
    for (const k of this.order) this.paintThumbnail(k);
  }

  /** The prototype, each on its own scale; or weight times prototype, all on one. @param {number} k */
  paintThumbnail(k) {
    const { canvas } = this.cards[k];
    const { state, scene } = this;
    const {
      rows: [top, bottom],
      columns: [left, right],
    } = this.window;
    const gridWidth = scene.letterbox.grid_hw[1];
    if (canvas.width !== right - left) canvas.width = right - left;
    if (canvas.height !== bottom - top) canvas.height = bottom - top;
    const terms = state.thumbnails === "term" && state.selected >= 0;
    const factor = terms ? scene.factor(state.selected) * state.coefficients()[k] : 1;
    const limit = terms ? this.termLimit() : this.limitAt(k);
    const pixels = new ImageData(right - left, bottom - top);
    const colours = new Uint32Array(pixels.data.buffer);
    const values = this.prototype(k);
    for (let r = top; r < bottom; r++) {
      const line = Float32Array.from(
        values.subarray(r * gridWidth + left, r * gridWidth + right),
        (value) => value * factor,
      );
      paint(
        line,
        limit,
        terms ? "contribution" : "prototype",
        colours.subarray((r - top) * (right - left), (r - top + 1) * (right - left)),
      );
    }
    canvas.getContext("2d")?.putImageData(pixels, 0, 0);
  }

  /** The end of the colour map that all terms of the original share. */
  termLimit() {
    const original = this.state.original[this.state.selected];
    const factor = this.scene.factor(this.state.selected);
    return this.cards.reduce((most, _, k) => Math.max(most, Math.abs(this.limitAt(k) * original[k] * factor)), 0) || 1;
  }
}
