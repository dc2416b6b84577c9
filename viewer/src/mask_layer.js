// The mask of the chosen instance as pixels: which are inside, how that compares with the original, and their colours.

import { Blocks } from "./blocks.js";
import { h } from "./dom.js";
import { DIMMED, HATCH_PX, INNER_LINE, lineWidth, OPACITY, OUTER_LINE } from "./mask_style.js";
import { eachInside, iou } from "./masks.js";
import { abgr, paint } from "./palette.js";

/** @typedef {import("./masks.js").Frame} Frame */
/** @typedef {import("./masks.js").Window} Window */
/**
 * Which pixels are marked, with a border of `linePx` that is not, and their colours.
 * @typedef {{ marks: Uint8Array, stride: number, linePx: number, colours: Uint32Array, width: number }} Marked
 */
/** @typedef {{ area: number, gained: number, lost: number, iou: number }} Measures */

const INSIDE = 1;
const ORIGINAL = 2;
const INNER = abgr(INNER_LINE, 255);
const OUTER = abgr(OUTER_LINE, 255);
/** Stripes of pixels that an edit took away. */
const LOST = [abgr([255, 255, 255], 210), abgr([0, 0, 0], 150)];

export class MaskLayer {
  /** @param {Frame} frame */
  constructor(frame) {
    const { width, height } = frame;
    this.frame = frame;
    this.width = width;
    this.canvas = h("canvas", { className: "layer mask", width, height });
    const context = this.canvas.getContext("2d");
    if (!context) throw new Error("this browser cannot draw on a canvas");
    this.context = context;
    this.pixels = new ImageData(width, height);
    this.colours = new Uint32Array(this.pixels.data.buffer);
    this.linePx = lineWidth(width, height);
    /** Per pixel INSIDE and ORIGINAL; with a border that is neither, so that all have four neighbours. */
    this.stride = width + 2 * this.linePx;
    this.marks = new Uint8Array(this.stride * (height + 2 * this.linePx));
    this.originalArea = 0;
    /** @type {Window | null} */
    this.painted = null;
    /** @type {Blocks | null} */
    this.blocks = null;
    /** What holds all that was painted since the last copy: one request for it costs less than many. @type {Window} */
    this.changed = { rows: [0, 0], columns: [0, 0] };
    /** Colour and opacity that are painted now. */
    this.look = "";
    /** How dark the image is around the mask, 0 to 255. */
    this.shade = 0;
  }

  /** Where a pixel lies in a mask with its border. @param {number} r @param {number} c */
  bordered(r, c) {
    return (r + this.linePx) * this.stride + c + this.linePx;
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
   * The mask in a colour, where that is not painted yet, with an outline, and the image around it darker; pixels that
   * an edit took away are striped.
   * @param {Window} window
   * @param {[number, number, number]} colour
   * @param {number} opacity
   */
  fill(window, colour, opacity) {
    const look = `${colour} ${opacity}`;
    const all = this.ground(window, opacity) || look !== this.look;
    this.look = look;
    const colours = coloursOf(colour, opacity);
    const { changed } = this;
    changed.rows[0] = changed.columns[0] = Infinity;
    changed.rows[1] = changed.columns[1] = 0;
    this.blocks?.changed(all, (rows, columns) => {
      const part = this.grown({ rows, columns });
      fillMarks(this, part, colours);
      for (const axis of /** @type {const} */ (["rows", "columns"])) {
        changed[axis][0] = Math.min(changed[axis][0], part[axis][0]);
        changed[axis][1] = Math.max(changed[axis][1], part[axis][1]);
      }
    });
    if (all) this.copy(this.grown(window));
    else if (changed.rows[1]) this.copy(changed);
  }

  /**
   * Prepares what lies around a window; gives whether that was needed.
   * @param {Window} window
   * @param {number} opacity
   */
  ground(window, opacity) {
    const shade = shadeOf(opacity);
    if (this.painted && equal(this.painted, window) && shade === this.shade) return false;
    const { width, height } = this.frame;
    this.context.clearRect(0, 0, width, height);
    this.context.fillStyle = `rgb(0 0 0 / ${shade / 255})`;
    this.context.fillRect(0, 0, width, height);
    this.painted = window;
    this.shade = shade;
    return true;
  }

  /** A part with the pixels beside it that its outline may lie on. @param {Window} part @returns {Window} */
  grown({ rows, columns }) {
    const { linePx, frame } = this;
    return {
      rows: [Math.max(rows[0] - linePx, 0), Math.min(rows[1] + linePx, frame.height)],
      columns: [Math.max(columns[0] - linePx, 0), Math.min(columns[1] + linePx, frame.width)],
    };
  }

  /** @param {Window} window */
  copy({ rows, columns }) {
    this.context.putImageData(this.pixels, 0, 0, columns[0], rows[0], columns[1] - columns[0], rows[1] - rows[0]);
  }

  /**
   * Values as colours, with the edge of the mask as a line.
   * @param {import("./masks.js").Patch} patch
   * @param {number} limit
   * @param {number} opacity
   */
  heat({ rows, columns, values }, limit, opacity) {
    this.look = "";
    this.painted = null; // an outline may lie beside the window
    this.ground({ rows, columns }, opacity);
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
        if (marks[i] & INSIDE & ~around) colours[to + j] = INNER;
      }
    }
    this.copy({ rows, columns });
  }
}

/** A part of a mask as a small picture, with lines of one pixel. */
export class SmallMask {
  /**
   * @param {MaskLayer} layer
   * @param {number[][]} spans Rows and columns of the frame, from and to; they may reach over its edges.
   * @param {number} height
   * @param {number} width
   */
  constructor(layer, [rows, columns], height, width) {
    this.layer = layer;
    this.pixels = new ImageData(width, height);
    this.colours = new Uint32Array(this.pixels.data.buffer);
    this.width = width;
    this.linePx = 1;
    this.stride = width + 2;
    this.marks = new Uint8Array(this.stride * (height + 2));
    this.whole = /** @type {Window} */ ({ rows: [0, height], columns: [0, width] });
    this.rows = nearest(rows, height, layer.frame.height);
    this.columns = nearest(columns, width, layer.frame.width);
  }

  /** The current mask. @param {[number, number, number]} colour @param {number} opacity */
  paint(colour, opacity) {
    const { layer, marks, rows, columns, stride } = this;
    for (let r = 0; r < rows.length; r++) {
      const from = layer.bordered(rows[r], 0);
      const to = (r + 1) * stride + 1;
      for (let c = 0; c < columns.length; c++) marks[to + c] = layer.marks[from + columns[c]];
    }
    fillMarks(this, this.whole, coloursOf(colour, opacity));
    return this.pixels;
  }
}

/**
 * The pixels under the centres of others; beyond an edge the one beside it.
 * @param {number[]} span @param {number} count @param {number} length
 */
function nearest([from, to], count, length) {
  return Int32Array.from({ length: count }, (_, i) =>
    Math.min(Math.max(Math.floor(from + ((i + 0.5) * (to - from)) / count), -1), length),
  );
}

/** How dark the image is around the mask, 0 to 255. @param {number} opacity */
const shadeOf = (opacity) => Math.round(255 * (1 - DIMMED) * Math.min(1, opacity / OPACITY));

/** @param {[number, number, number]} colour @param {number} opacity */
const coloursOf = (colour, opacity) => ({
  full: abgr(colour, Math.round(opacity * 255)),
  shade: abgr([0, 0, 0], shadeOf(opacity)),
});

/**
 * Colours of marks in a part of them: the mask with its outline, stripes where it was before, and shade around it.
 * @param {Marked} marked
 * @param {Window} part
 * @param {{ full: number, shade: number }} of
 */
function fillMarks({ marks, stride, linePx, colours, width }, { rows, columns }, { full, shade }) {
  const line = linePx * stride;
  const many = columns[1] - columns[0];
  for (let r = rows[0]; r < rows[1]; r++) {
    const to = r * width + columns[0];
    const at = (r + linePx) * stride + columns[0] + linePx;
    for (let j = 0; j < many; j++) {
      const i = at + j;
      const here = marks[i];
      if (here & INSIDE)
        colours[to + j] =
          marks[i - linePx] & marks[i + linePx] & marks[i - line] & marks[i + line] & INSIDE ? full : INNER;
      else if ((marks[i - linePx] | marks[i + linePx] | marks[i - line] | marks[i + line]) & INSIDE)
        colours[to + j] = OUTER;
      else if (here) colours[to + j] = LOST[((r + columns[0] + j) / HATCH_PX) & 1];
      else colours[to + j] = shade;
    }
  }
}

/** @param {Window} a @param {Window} b */
function equal(a, b) {
  return (
    a.rows[0] === b.rows[0] && a.rows[1] === b.rows[1] && a.columns[0] === b.columns[0] && a.columns[1] === b.columns[1]
  );
}
