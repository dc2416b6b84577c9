// Two instances, or two models on one image: two viewers whose sliders, pixel and look are linked, with the differences
// of their coefficients between them.

import { App, part, readable } from "./app.js";
import { h, signed, style } from "./dom.js";

/** @typedef {import("./app.js").Source} Source */
/** @typedef {import("./viewer.js").Viewer} Viewer */
/** @typedef {{ source: Source, instance?: number, name: string }} Side */

const SIDES = /** @type {const} */ (["A", "B"]);
const LOOKS = /** @type {const} */ (["view", "crop", "opacity", "order", "thumbnails", "whole", "all"]);
let pairs = 0;

export class Pair {
  /** @param {HTMLElement} host @param {[Side, Side]} sides @param {import("./app.js").Options} options */
  constructor(host, sides, options = {}) {
    this.sides = sides;
    /** @type {(Viewer | undefined)[]} */
    this.viewers = [undefined, undefined];
    /** The coefficients of both as they were last seen. @type {Float32Array[]} */
    this.seen = [new Float32Array(0), new Float32Array(0)];
    /** Whether one side follows the other just now. */
    this.following = false;
    this.hash = Boolean(options.hash);
    /** What the address says: of each side under its letter, and what is shown. */
    this.saved = new URLSearchParams(this.hash ? location.hash.slice(1) : "");
    this.linked = h("input", {
      type: "checkbox",
      checked: this.saved.get("linked") !== "0",
      onchange: () => this.write(),
    });
    this.note = h("p", { className: "quiet" });
    this.rows = h("ol", { className: "differences", "aria-label": "Differences of coefficients, largest first" });
    const places = sides.map(({ name }, i) =>
      h("section", { className: "side", "aria-label": `${SIDES[i]}: ${name}` }),
    );
    const shown = this.saved.get("shown") ?? "";
    this.root = h(
      options.main ? "main" : "div",
      { className: "maskprism pair" },
      h(
        "div",
        { className: "controls" },
        this.switch(shown),
        h(
          "label",
          { className: "check", title: "An edit of one side is made on the other side, too" },
          this.linked,
          "Link sliders",
        ),
        h("span", {}, h("b", {}, "A "), sides[0].name),
        h("span", {}, h("b", {}, "B "), sides[1].name),
      ),
      h(
        "div",
        { className: "both" },
        places[0],
        h(
          "section",
          { className: "between", "aria-label": "Differences" },
          h("h2", {}, "w: A, B, B − A"),
          this.note,
          this.rows,
        ),
        places[1],
      ),
    );
    this.root.dataset.shown = SIDES.some((side) => side === shown) ? shown : "both";
    host.append(this.root);
    this.apps = sides.map(
      ({ source, instance }, i) =>
        new App(places[i], [source], {
          ...options,
          hash: false,
          saved: part(this.saved, `${SIDES[i]}.`),
          onSave: this.hash ? () => this.write() : undefined,
          main: false,
          instance,
          onOpen: (viewer) => this.opened(i, viewer),
        }),
    );
    this.ready = Promise.all(this.apps.map((app) => app.ready));
    this.themes = new MutationObserver(([{ target }]) =>
      this.useTheme(/** @type {HTMLElement} */ (target).dataset.theme),
    );
    for (const { root } of this.apps) this.themes.observe(root, { attributeFilter: ["data-theme"] });
    this.useTheme(this.apps[0].root.dataset.theme);
  }

  /** Writes the state of both sides into the address. */
  write() {
    if (!this.hash || !this.viewers[0] || !this.viewers[1]) return;
    const saved = new URLSearchParams();
    this.apps.forEach((app, i) => {
      for (const [name, value] of app.save()) saved.set(`${SIDES[i]}.${name}`, value);
    });
    if (this.root.dataset.shown !== "both") saved.set("shown", this.root.dataset.shown ?? "");
    if (!this.linked.checked) saved.set("linked", "0");
    history.replaceState(null, "", `#${readable(saved)}`);
  }

  /** Both sides, or one at the place of the other. @param {string} shown */
  switch(shown) {
    const name = `maskprism-pair-${(pairs += 1)}`;
    const choices = /** @type {const} */ ([
      ["both", "Side by side"],
      ["A", "A"],
      ["B", "B"],
    ]).map(([value, text]) =>
      h(
        "label",
        {},
        h("input", {
          type: "radio",
          name,
          value,
          checked: value === shown || (value === "both" && shown !== "A" && shown !== "B"),
          onchange: () => {
            this.root.dataset.shown = value;
            this.write();
          },
        }),
        h("span", {}, text),
      ),
    );
    return h("fieldset", { className: "segments" }, h("legend", {}, "Show"), ...choices);
  }

  /** @param {number} i @param {Viewer} viewer */
  opened(i, viewer) {
    this.viewers[i] = viewer;
    for (const part of viewer.element.querySelectorAll("section[aria-label]"))
      part.setAttribute("aria-label", `${SIDES[i]}: ${part.getAttribute("aria-label")}`);
    viewer.state.listen((change) => this.changed(i, change));
    if (this.viewers[0] && this.viewers[1]) this.start();
  }

  start() {
    const [a, b] = this.viewers;
    if (!a || !b) return;
    this.sameImage =
      a.scene.header.source === b.scene.header.source &&
      String(a.scene.letterbox.image_hw) === String(b.scene.letterbox.image_hw);
    const otherMaps =
      this.sameImage &&
      (a.scene.k !== b.scene.k || a.scene.prototypes.values.some((value, n) => value !== b.scene.prototypes.values[n]));
    if (a.scene.k !== b.scene.k)
      this.note.textContent = `A has ${a.scene.k} prototypes and B ${b.scene.k}: their coefficients do not compare.`;
    else if (otherMaps) this.note.textContent = "Two models: prototypes of the same number can be different maps.";
    if (otherMaps && !this.saved.has("B.i")) this.follow(0, () => this.select(0));
    this.keep();
    this.list();
  }

  /** @param {number} from @param {() => void} act */
  follow(from, act) {
    if (this.following || !this.viewers[1 - from]) return;
    this.following = true;
    try {
      act();
    } finally {
      this.following = false;
    }
  }

  /** @param {number} from @param {import("./state.js").Change} change */
  changed(from, change) {
    this.follow(from, () => {
      if (change.kind === "pixel") this.point(from);
      else if (change.kind === "highlight")
        this.other(from)?.state.highlight(this.viewers[from]?.state.highlighted ?? null);
      else if (change.kind === "look") this.look(from);
      else if (change.kind === "selected") {
        if (this.sameImage && this.viewers[0]?.scene !== this.viewers[1]?.scene) this.select(from);
      } else if (this.linked.checked) this.edit(from, change.kind === "coefficients");
      this.keep();
    });
    if (change.kind !== "pixel" && change.kind !== "look" && change.kind !== "highlight") this.list();
  }

  /** @param {number} from */
  other(from) {
    return this.viewers[1 - from];
  }

  keep() {
    this.seen = this.viewers.map((viewer) => viewer?.state.coefficients().slice() ?? new Float32Array(0));
  }

  /** The same change on the other side: zero where it is zero, original where it is original. @param {number} from @param {boolean} ended */
  edit(from, ended) {
    const [own, other] = [this.viewers[from]?.state, this.other(from)?.state];
    if (!own || !other || own.selected < 0 || other.selected < 0) return;
    const [now, original] = [own.coefficients(), own.original[own.selected]];
    if (now.length !== other.coefficients().length) return;
    now.forEach((value, k) => {
      const before = this.seen[from][k];
      if (value === before) return;
      const first = other.original[other.selected][k];
      other.move(k, value === original[k] ? first : value === 0 ? 0 : other.coefficients()[k] + value - before);
    });
    if (ended) other.commit("linked");
  }

  /** @param {number} from */
  look(from) {
    const [own, other] = [this.viewers[from]?.state, this.other(from)?.state];
    if (!own || !other) return;
    const changed = LOOKS.filter((name) => own[name] !== other[name]);
    if (changed.length) other.look(Object.fromEntries(changed.map((name) => [name, own[name]])));
  }

  /** The instance of the other model at the same position. @param {number} from */
  select(from) {
    const [own, other] = [this.viewers[from], this.other(from)];
    if (!own || !other || own.state.selected < 0) return;
    const box = own.scene.instances[own.state.selected].box;
    const overlaps = other.scene.instances.map((instance) => boxIou(box, instance.box));
    const best = overlaps.indexOf(Math.max(...overlaps));
    if (overlaps[best] > 0) other.state.select(best);
  }

  /** The same pixel of one image; of two, that at the same position in the box. @param {number} from */
  point(from) {
    const [own, other] = [this.viewers[from], this.other(from)];
    if (!own || !other) return;
    const to = (/** @type {import("./state.js").Pixel | null} */ pixel) => {
      if (!pixel || this.sameImage) return pixel;
      const [a, b] = [own, other].map(({ scene, state }) => scene.instances[state.selected]?.box);
      if (!a || !b) return null;
      const [height, width] = other.scene.letterbox.image_hw;
      const at = (/** @type {number} */ value, /** @type {number} */ axis, /** @type {number} */ length) => {
        const share = (value - a[axis]) / Math.max(a[axis + 2] - a[axis], 1e-6);
        return Math.min(Math.max(Math.floor(b[axis] + share * (b[axis + 2] - b[axis])), 0), length - 1);
      };
      return { x: at(pixel.x, 0, width), y: at(pixel.y, 1, height) };
    };
    other.stage.hovered = to(own.stage.hovered);
    other.state.point(to(own.state.pixel));
  }

  /** Both coefficients of every prototype, the largest difference first. */
  list() {
    const [a, b] = this.viewers;
    if (!a || !b || a.scene.k !== b.scene.k || a.state.selected < 0 || b.state.selected < 0)
      return this.rows.replaceChildren();
    const [wa, wb] = [a.state.coefficients(), b.state.coefficients()];
    const order = Array.from(wa, (_, k) => k).sort(
      (i, j) => Math.abs(wb[j] - wa[j]) - Math.abs(wb[i] - wa[i]) || i - j,
    );
    const most = Math.max(Math.abs(wb[order[0]] - wa[order[0]]), 1e-6);
    return this.rows.replaceChildren(
      ...order.map((k) => {
        const difference = wb[k] - wa[k];
        const bar = h("span", { className: "run" }, h("i"));
        const ends = [0.5, 0.5 + difference / most / 2].sort((x, y) => x - y);
        style(bar, { "--from": String(ends[0]), "--to": String(ends[1]), "--zero": "0.5" });
        const row = h(
          "li",
          {
            className: difference < 0 ? "negative" : "",
            onpointerenter: () => a.state.highlight(k),
            onpointerleave: () => a.state.highlight(null),
          },
          h("span", { className: "index" }, `#${k}`),
          h("span", {}, signed(wa[k])),
          h("span", {}, signed(wb[k])),
          bar,
          h("b", {}, signed(difference)),
        );
        row.dataset.k = String(k);
        return row;
      }),
    );
  }

  /** All in the theme of the side that was switched. @param {string | undefined} theme */
  useTheme(theme) {
    if (!theme) return;
    for (const root of [this.root, ...this.apps.map((app) => app.root)])
      if (root.dataset.theme !== theme) root.dataset.theme = theme;
  }

  destroy() {
    this.themes.disconnect();
    for (const app of this.apps) app.destroy();
    this.root.remove();
  }
}

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
function boxIou(a, b) {
  const sides = [0, 1].map((axis) => Math.max(Math.min(a[axis + 2], b[axis + 2]) - Math.max(a[axis], b[axis]), 0));
  const [own, other] = [a, b].map((box) => (box[2] - box[0]) * (box[3] - box[1]));
  return (sides[0] * sides[1]) / Math.max(own + other - sides[0] * sides[1], 1e-6);
}
