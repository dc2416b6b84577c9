// The equation, live: positive evidence + negative evidence = mask logits -> mask, around the chosen instance.

import { h, oncePerFrame, signed, style } from "./dom.js";
import { aspectOf, cellsAround, sizeOf } from "./geometry.js";
import { SmallMask } from "./mask_layer.js";
import { descending, side } from "./masks.js";
import { limitOf, paintParts, rgb } from "./palette.js";
import { rolesOf } from "./roles.js";

/** @typedef {import("./stage.js").Stage} Stage */
/** @typedef {import("./masks.js").Window} Window */

const MARGIN = 0.15;
const LEAST_CELLS = 14;
/** The longer side of the picture of the mask, on a screen with as many pixels as CSS counts, and on finer ones. */
const MASK_PX = Math.round(240 * Math.min(globalThis.devicePixelRatio ?? 1, 1.5));

const PANELS = /** @type {const} */ ([
  ["positive", "positive evidence", ""],
  ["negative", "negative evidence", "+"],
  ["logits", "mask logits (sum)", "="],
  ["mask", "mask = logit > 0", "→"],
]);

export class Equation {
  /** @param {Stage} stage */
  constructor(stage) {
    this.stage = stage;
    /** @type {Window} */
    this.window = { rows: [0, 1], columns: [0, 1] };
    this.limit = 1;
    /** What lies under the mask, and the opacity that it was drawn for. */
    this.ground = h("canvas", {});
    this.groundOpacity = -1;
    this.overlay = h("canvas", {});
    this.small = /** @type {SmallMask | null} */ (null);
    /** The maps of the panels, and their colours. @type {Record<string, ImageData>} */
    this.pixels = {};
    /** @type {Parameters<typeof paintParts>[1]} */
    this.colours = { logits: new Uint32Array(0), positive: new Uint32Array(0), negative: new Uint32Array(0) };
    this.panels = PANELS.map(([name, text, sign]) => {
      const canvas = h("canvas", { width: 1, height: 1 });
      if (name !== "mask") canvas.className = "diverging";
      const value = h("b", { className: "at" });
      const operator = sign ? h("span", { className: "operator", "aria-hidden": "true" }, sign) : null;
      return {
        name,
        canvas,
        value,
        element: h(
          "div",
          { className: `panel ${name}` },
          h(
            "div",
            { className: "drawn" },
            h("div", { className: "canvas" }, operator, canvas),
            h("span", { className: "label" }, h("span", {}, text), value),
          ),
        ),
      };
    });
    this.element = h("div", { className: "equation", role: "img" }, ...this.panels.map((panel) => panel.element));
    this.resize(); // an edit may come before the image
    this.draw = oncePerFrame(() => this.repaint());
    stage.state.listen((change) => {
      if (change.kind === "selected") this.choose();
      if (change.kind !== "pixel" && change.kind !== "highlight") this.draw();
    });
  }

  /** The image is there. */
  open() {
    this.choose();
    this.draw();
  }

  /** The visible part of the grid, and its scale. */
  choose() {
    const { scene, state } = this.stage;
    const { selected } = state;
    this.small = null;
    this.element.hidden = selected < 0;
    if (selected < 0) return;
    this.window = cellsAround(scene.letterbox, scene.instances[selected].canvas_box, MARGIN, LEAST_CELLS);
    const original = scene.weights(selected, state.original[selected]);
    const sums = new Float32Array(scene.prototypes.cells);
    this.limit = 0;
    for (const sign of /** @type {const} */ ([1, -1])) {
      side(original, scene.prototypes, sign, sums);
      this.limit = Math.max(this.limit, limitOf(this.cut(sums)));
    }
    this.resize();
    const aspect = String(aspectOf(scene.letterbox, this.window));
    for (const { canvas } of this.panels) style(canvas, { "aspect-ratio": aspect });
    style(this.element, { "--aspect": aspect });
  }

  /** The maps get the size of the visible part. */
  resize() {
    const { rows, columns } = this.window;
    const [height, width] = [rows[1] - rows[0], columns[1] - columns[0]];
    for (const name of /** @type {const} */ (["logits", "positive", "negative"])) {
      this.pixels[name] = new ImageData(width, height);
      this.colours[name] = new Uint32Array(this.pixels[name].data.buffer);
    }
    for (const { name, canvas } of this.panels) if (name !== "mask") [canvas.width, canvas.height] = [width, height];
  }

  /** The shown part of a map of the grid. @param {Float32Array} map */
  cut(map) {
    const { rows, columns } = this.window;
    const width = columns[1] - columns[0];
    const gridWidth = this.stage.scene.letterbox.grid_hw[1];
    const out = new Float32Array((rows[1] - rows[0]) * width);
    for (let r = rows[0]; r < rows[1]; r++)
      out.set(map.subarray(r * gridWidth + columns[0], r * gridWidth + columns[1]), (r - rows[0]) * width);
    return out;
  }

  repaint() {
    const { state } = this.stage;
    if (state.selected < 0) return;
    if (!this.stage.fresh) return; // the sum comes with the next picture of the mask, which is asked for
    const { logits, sizes, scene } = this.stage;
    const { rows, columns } = this.window;
    const [height, width] = [rows[1] - rows[0], columns[1] - columns[0]];
    const gridWidth = scene.letterbox.grid_hw[1];
    for (let r = 0; r < height; r++) {
      const start = (rows[0] + r) * gridWidth + columns[0];
      paintParts({ sum: logits, sizes, limit: this.limit, start, count: width }, this.colours, r * width);
    }
    for (const { name, canvas } of this.panels)
      if (name !== "mask") canvas.getContext("2d")?.putImageData(this.pixels[name], 0, 0);
    this.paintMask();
  }

  /** The same part of the image, with the mask as the stage has it. */
  paintMask() {
    const { colours, state } = this.stage;
    const { canvas } = this.panels[3];
    const [context, over] = [canvas, this.overlay].map((one) => one.getContext("2d"));
    if (!context || !over) return;
    this.small ??= this.smallMask();
    this.paintGround();
    over.putImageData(this.small.paint(rgb(colours[state.selected]), state.opacity), 0, 0);
    context.drawImage(this.ground, 0, 0);
    context.drawImage(this.overlay, 0, 0); // not the mask of the stage: a canvas shown elsewhere is copied at every change
  }

  /** The rows and columns of the window that is shown, on a raster that covers the image or the canvas. @param {number[]} size @param {boolean} ofImage */
  spans(size, ofImage) {
    const { grid_hw, canvas_hw, offset_yx, content_hw } = this.stage.scene.letterbox;
    return /** @type {const} */ (["rows", "columns"]).map((axis, i) =>
      this.window[axis].map((cell) => {
        const at = (cell / grid_hw[i]) * canvas_hw[i];
        return (ofImage ? (at - offset_yx[i]) / content_hw[i] : at / canvas_hw[i]) * size[i];
      }),
    );
  }

  /** The mask of the stage at the size of the panel, all of whose canvases get this size. */
  smallMask() {
    const { scene, frame, mask } = this.stage;
    const lengths = this.spans(scene.header.image.size_hw, true).map(([from, to]) => Math.max(to - from, 1));
    const scale = Math.min(1, MASK_PX / Math.max(...lengths));
    const [height, width] = lengths.map((length) => Math.max(Math.round(length * scale), 1));
    for (const canvas of [this.panels[3].canvas, this.ground, this.overlay])
      [canvas.width, canvas.height] = [width, height];
    this.groundOpacity = -1;
    return new SmallMask(mask, this.spans(sizeOf(scene.letterbox, frame.size), frame.size === "image"), height, width);
  }

  /** The image under the grey one. */
  paintGround() {
    const { scene, state, image, grey } = this.stage;
    const context = this.ground.getContext("2d");
    if (!context || this.groundOpacity === state.opacity) return;
    this.groundOpacity = state.opacity;
    const { width, height } = this.ground;
    const [[top, bottom], [left, right]] = this.spans(scene.header.image.size_hw, true);
    context.clearRect(0, 0, width, height);
    for (const layer of [image, grey]) {
      context.globalAlpha = layer === grey ? Number(grey.style.opacity) : 1;
      context.drawImage(layer, left, top, right - left, bottom - top, 0, 0, width, height);
    }
  }

  /** The equation at one pixel, in numbers. @param {ArrayLike<number>} terms @param {boolean} inside */
  at(terms, inside) {
    const [plus, minus] = [1, -1].map((sign) =>
      Array.from(terms).reduce((sum, term) => sum + (term * sign > 0 ? term : 0), 0),
    );
    const texts = [
      signed(plus, 1),
      signed(minus, 1),
      signed(plus + minus, 1),
      inside ? "in the mask" : "not in the mask",
    ];
    this.panels.forEach(({ value }, i) => (value.textContent = texts[i]));
    this.element.setAttribute(
      "aria-label",
      `At the examined pixel: positive evidence ${texts[0]}, negative evidence ${texts[1]}, logit ${texts[2]}, ${texts[3]}.`,
    );
  }

  /** The picture as a sentence. @returns {(Node | string)[]} */
  sentence() {
    const { scene, state } = this.stage;
    const { selected } = state;
    if (selected < 0) return [];
    const coefficients = state.coefficients();
    const { named, inside, ring, edge } = rolesOf(scene, selected, coefficients);
    const name = scene.instances[selected].name;
    const led = (
      /** @type {string} */ of,
      /** @type {ArrayLike<number>} */ by,
      /** @type {string} */ one,
      /** @type {string} */ many,
    ) => {
      const found = descending(by).filter((k) => named[k][0] === of);
      if (!found.length) return "";
      const strongest = found.slice(0, 2).join(" and ");
      return `${found.length} ${found.length === 1 ? one : many} (${found.length > 2 ? "above all " : ""}${strongest})`;
    };
    const parts = [
      led("builds", inside, "prototype raises its inside", "prototypes raise its inside"),
      led(
        "carves",
        ring.map((value) => -value),
        "lowers the background",
        "lower the background",
      ),
      led("sharpens", edge, "sharpens its edge", "sharpen its edge"),
      led(
        "opposes",
        inside.map((value, k) => Math.max(-value, ring[k], -edge[k])),
        "hurts it",
        "hurt it",
      ),
    ].filter(Boolean);
    const text = parts.length
      ? `${parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}` : parts[0]}.`
      : "no prototype contributes to it.";
    return [h("b", {}, name), ": ", text];
  }

  close() {
    this.draw.cancel();
  }
}
