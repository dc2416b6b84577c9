// The mask of the chosen instance as pixels: which are inside, how that compares with the original, and their colours.

import { Blocks } from "./blocks.js";
import { h } from "./dom.js";
import { eachInside, iou } from "./masks.js";
import { abgr, paint } from "./palette.js";

/** @typedef {import("./masks.js").Frame} Frame */
/** @typedef {import("./masks.js").Window} Window */
/** @typedef {{ area: number, gained: number, lost: number, iou: number }} Measures */

/** To copy this number of pixels of a row along costs less than one more request. */
const GAP = 400;
const INSIDE = 1;
const ORIGINAL = 2;
const INK = abgr([34, 34, 34], 255);
const LOST = abgr([255, 255, 255], 80);
const LOST_EDGE = abgr([255, 255, 255], 230);

export class MaskLayer {
  /** @param {Frame} frame */
  constructor(frame) {
    const { width, height } = frame;
    this.frame = frame;
    this.canvas = h("canvas", { className: "layer mask", width, height });
    const context = this.canvas.getContext("2d");
    if (!context) throw new Error("this browser cannot draw on a canvas");
    this.context = context;
    this.pixels = new ImageData(width, height);
    this.colours = new Uint32Array(this.pixels.data.buffer);
    /** Per pixel INSIDE and ORIGINAL; with a border of one pixel that is neither, so that all have four neighbours. */
    this.stride = width + 2;
    this.marks = new Uint8Array(this.stride * (height + 2));
    this.originalArea = 0;
    /** @type {Window | null} */
    this.painted = null;
    /** @type {Blocks | null} */
    this.blocks = null;
    /** Colour and opacity that are painted now. */
    this.look = "";
  }

  /** Where a pixel lies in a mask with its border. @param {number} r @param {number} c */
  bordered(r, c) {
    return (r + 1) * this.stride + c + 1;
  }

  /** @param {number} r @param {number} c */
  holds(r, c) {
    return (this.marks[this.bordered(r, c)] & INSIDE) !== 0;
  }

  clear() {
    this.colours.fill(0);
    this.unmark(INSIDE);
    this.context.clearRect(0, 0, this.frame.width, this.frame.height);
    this.painted = null;
    this.blocks = null;
  }

  /** @param {number} mark */
  unmark(mark) {
    for (let i = 0; i < this.marks.length; i++) this.marks[i] &= ~mark;
  }

  /** Takes a mask as the original. @param {import("./masks.js").Patch} patch */
  remember(patch) {
    this.unmark(ORIGINAL);
    this.originalArea = 0;
    this.blocks = null;
    eachInside(patch, this.frame.rule.threshold, (r, c) => {
      this.marks[this.bordered(r, c)] |= ORIGINAL;
      this.originalArea += 1;
    });
  }

  /**
   * Which pixels are inside, and how that compares with the original.
   * @param {Float32Array} logits
   * @param {import("./masks.js").CroppedWindow} window
   * @returns {Measures}
   */
  measure(logits, window) {
    if (this.painted && !equal(this.painted, window)) this.unmark(INSIDE);
    if (!this.blocks || !equal(this.blocks.window, window)) {
      this.blocks = new Blocks(this.frame, window);
      this.look = "";
    }
    const { area, both } = this.blocks.decide(logits, this.marks, this.stride);
    return { area, gained: area - both, lost: this.originalArea - both, iou: iou(both, area, this.originalArea) };
  }

  /**
   * The mask in a colour, where that is not painted yet; pixels that an edit took away stay as a pale shadow.
   * @param {Window} window
   * @param {[number, number, number]} colour
   * @param {number} opacity
   */
  fill(window, colour, opacity) {
    const look = `${colour} ${opacity}`;
    const all = look !== this.look || !this.painted || !equal(this.painted, window);
    this.look = look;
    if (this.painted && !equal(this.painted, window)) this.context.clearRect(0, 0, this.frame.width, this.frame.height);
    this.painted = window;
    const full = abgr(colour, Math.round(opacity * 255));
    const edge = abgr(colour, 255);
    /** Parts that were painted and are still to be shown. @type {Window | null} */
    let part = null;
    this.blocks?.changed(all, (rows, columns) => {
      this.fillPart(rows, columns, full, edge);
      if (all) return;
      if (part && part.rows[0] === rows[0] && columns[0] - part.columns[1] <= GAP) part.columns[1] = columns[1];
      else {
        if (part) this.copy(part);
        part = { rows, columns: [...columns] };
      }
    });
    if (all) this.put(window);
    else if (part) this.copy(part);
  }

  /** @param {Window} window */
  copy({ rows, columns }) {
    this.context.putImageData(this.pixels, 0, 0, columns[0], rows[0], columns[1] - columns[0], rows[1] - rows[0]);
  }

  /**
   * @param {import("./geometry.js").Pair} rows
   * @param {import("./geometry.js").Pair} columns
   * @param {number} full
   * @param {number} edge
   */
  fillPart(rows, columns, full, edge) {
    const { marks, colours, frame, stride } = this;
    const width = columns[1] - columns[0];
    for (let r = rows[0]; r < rows[1]; r++) {
      const to = r * frame.width + columns[0];
      const at = this.bordered(r, columns[0]);
      let [left, here] = [marks[at - 1], marks[at]];
      for (let j = 0; j < width; j++) {
        const i = at + j;
        const right = marks[i + 1];
        if (here === 0) colours[to + j] = 0;
        else {
          const around = left & right & marks[i - stride] & marks[i + stride];
          if (here & INSIDE) colours[to + j] = around & INSIDE ? full : edge;
          else colours[to + j] = around & ORIGINAL ? LOST : LOST_EDGE;
        }
        left = here;
        here = right;
      }
    }
  }

  /**
   * Values as colours, with the edge of the mask as a line.
   * @param {import("./masks.js").Patch} patch
   * @param {number} limit
   */
  heat({ rows, columns, values }, limit) {
    this.look = "";
    const { colours, frame, marks, stride } = this;
    const width = columns[1] - columns[0];
    for (let r = rows[0]; r < rows[1]; r++) {
      const to = r * frame.width + columns[0];
      const from = (r - rows[0]) * width;
      paint(values.subarray(from, from + width), limit, "contribution", colours.subarray(to, to + width));
      const at = this.bordered(r, columns[0]);
      for (let j = 0; j < width; j++) {
        const i = at + j;
        const around = marks[i - 1] & marks[i + 1] & marks[i - stride] & marks[i + stride];
        if (marks[i] & INSIDE & ~around) colours[to + j] = INK;
      }
    }
  }

  /** @param {Window} window */
  put({ rows, columns }) {
    if (this.painted && !equal(this.painted, { rows, columns }))
      this.context.clearRect(0, 0, this.frame.width, this.frame.height);
    this.painted = { rows, columns };
    this.copy(this.painted);
  }
}

/** @param {Window} a @param {Window} b */
function equal(a, b) {
  return (
    a.rows[0] === b.rows[0] && a.rows[1] === b.rows[1] && a.columns[0] === b.columns[0] && a.columns[1] === b.columns[1]
  );
}
