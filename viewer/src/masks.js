// From weights and prototypes to masks, as src/maskprism/core/masks.py and decompose.py have it.

import { axisTaps, fromCanvas, pixelsBetween, sizeOf } from "./geometry.js";

/** @typedef {import("./geometry.js").Letterbox} Letterbox */
/** @typedef {import("./geometry.js").Pair} Pair */
/** @typedef {import("./geometry.js").Size} Size */
/** @typedef {import("./geometry.js").Taps} Taps */
/** @typedef {"before" | "after" | "none"} Crop */
/**
 * @typedef {{ name: string, squash: boolean, crop: Crop, crop_image: Crop, crop_padding: number, round_box: boolean,
 *   unpad: import("./geometry.js").Unpad, objectness: boolean, size: Size, crop_margin: number, logit_threshold: number, threshold: number }} MaskRule
 */
/** The rows and columns of a frame, each as [first, stop]. @typedef {{ rows: Pair, columns: Pair }} Window */
/**
 * With the cells of the grid that a crop before resizing keeps.
 * @typedef {Window & { cells: Window | null }} CroppedWindow
 */
/** A window of a frame with its values, row by row. @typedef {Window & { values: Float32Array }} Patch */
/** @typedef {{ cells: number, values: Float32Array }} Prototypes */
/** Cells of the grid that a pixel is interpolated from. @typedef {{ cell: number, weight: number }[]} Reads */

/**
 * The sum of weight times prototype on the grid, and that of the sizes of these terms: together they say how much is
 * positive and how much negative.
 * @param {ArrayLike<number>} weights
 * @param {Prototypes} prototypes
 * @param {Float32Array} out
 * @param {Float32Array | null} sizes
 */
export function mix(weights, { cells, values }, out, sizes = null) {
  out.fill(0);
  sizes?.fill(0);
  const used = Array.from(weights, (_, k) => k).filter((k) => weights[k] !== 0);
  for (let n = 0; n < used.length; n += 4) {
    const [pa, pb, pc, pd] = [0, 1, 2, 3]
      .map((i) => used[n + i] ?? used[n])
      .map((k) => values.subarray(k * cells, (k + 1) * cells));
    const [wa, wb, wc, wd] = [0, 1, 2, 3].map((i) => (n + i < used.length ? weights[used[n + i]] : 0));
    if (sizes) {
      for (let i = 0; i < cells; i++) {
        const a = wa * pa[i];
        const b = wb * pb[i];
        const c = wc * pc[i];
        const d = wd * pd[i];
        out[i] += a + b + c + d;
        sizes[i] += Math.abs(a) + Math.abs(b) + Math.abs(c) + Math.abs(d);
      }
    } else for (let i = 0; i < cells; i++) out[i] += wa * pa[i] + wb * pb[i] + wc * pc[i] + wd * pd[i];
  }
}

/**
 * Moves both sums by a change of one weight.
 * @param {Float32Array} sum
 * @param {Float32Array} sizes
 * @param {number} before
 * @param {number} after
 * @param {number} k
 * @param {Prototypes} prototypes
 */
export function shift(sum, sizes, before, after, k, { cells, values }) {
  const p = values.subarray(k * cells, (k + 1) * cells);
  const [delta, grown] = [after - before, Math.abs(after) - Math.abs(before)];
  for (let i = 0; i < cells; i++) {
    sum[i] += delta * p[i];
    sizes[i] += grown * Math.abs(p[i]);
  }
}

/**
 * The sum of the positive (sign 1) or negative (sign -1) parts of the terms.
 * @param {ArrayLike<number>} weights
 * @param {Prototypes} prototypes
 * @param {1 | -1} sign
 * @param {Float32Array} out
 */
export function side(weights, { cells, values }, sign, out) {
  out.fill(0);
  for (let k = 0; k < weights.length; k++) {
    const p = values.subarray(k * cells, (k + 1) * cells);
    const w = weights[k];
    for (let i = 0; i < cells; i++) {
      const term = w * p[i];
      if (term * sign > 0) out[i] += term;
    }
  }
}

/** @param {number} x */
export const sigmoid = (x) => 0.5 * (1 + Math.tanh(0.5 * x));

/** An edge of a box as it cuts masks: moved outwards by the margin. @param {ArrayLike<number>} box @param {number} i @param {number} margin */
function widened(box, i, margin) {
  return Math.fround(
    box[i] + (i < 2 ? -1 : 1) * Math.fround(Math.fround(margin) * Math.fround(box[2 + (i % 2)] - box[i % 2])),
  );
}

/** One frame of a letterbox under a rule: decodes what lies on the grid. Its buffers are reused by every decode. */
export class Frame {
  /** @param {Letterbox} letterbox @param {MaskRule} rule @param {Size} size */
  constructor(letterbox, rule, size) {
    this.letterbox = letterbox;
    this.rule = rule;
    this.size = size;
    const [height, width] = sizeOf(letterbox, size);
    this.height = height;
    this.width = width;
    this.rowTaps = axisTaps(letterbox, size, rule.unpad, 0);
    this.columnTaps = axisTaps(letterbox, size, rule.unpad, 1);
    this.crop = size === "image" ? rule.crop_image : rule.crop;
    this.cut = new Float32Array(0);
    this.out = new Float32Array(0);
  }

  /**
   * The window that an instance can touch, and for a crop before resizing the cells of the grid that it keeps.
   * @param {ArrayLike<number>} box
   * @param {Crop} crop
   * @returns {CroppedWindow}
   */
  window(box, crop = this.crop) {
    if (crop === "none") return { rows: [0, this.height], columns: [0, this.width], cells: null };
    const frame = crop === "before" ? "grid" : this.size;
    const padding = crop === "before" ? this.rule.crop_padding : 0;
    const [height, width] = sizeOf(this.letterbox, frame);
    const [x1, y1, x2, y2] = [1, 0, 1, 0].map((axis, i) =>
      fromCanvas(this.letterbox, frame, axis, widened(box, i, this.rule.crop_margin)),
    );
    const rows = pixelsBetween(y1, y2, height, padding, this.rule.round_box);
    const columns = pixelsBetween(x1, x2, width, padding, this.rule.round_box);
    if (rows[1] <= rows[0] || columns[1] <= columns[0]) return { rows: [0, 0], columns: [0, 0], cells: null };
    if (crop === "after") return { rows, columns, cells: null };
    return { rows: touched(this.rowTaps, rows), columns: touched(this.columnTaps, columns), cells: { rows, columns } };
  }

  /**
   * Values of the grid in the window that a box leaves; squashed first if asked. The values are good until the next
   * decode.
   * @param {Float32Array} grid
   * @param {ArrayLike<number>} box
   * @param {Crop} crop
   * @param {boolean} squash
   * @returns {Patch}
   */
  decode(grid, box, crop = this.crop, squash = this.rule.squash) {
    const window = this.window(box, crop);
    const width = window.columns[1] - window.columns[0];
    this.out = sized(this.out, (window.rows[1] - window.rows[0]) * width);
    this.eachRow(grid, window, squash, (r, line) => this.out.set(line, (r - window.rows[0]) * width));
    return {
      rows: window.rows,
      columns: window.columns,
      values: this.out.subarray(0, (window.rows[1] - window.rows[0]) * width),
    };
  }

  /**
   * Decodes a window row by row, without keeping it.
   * @param {Float32Array} grid
   * @param {CroppedWindow} window
   * @param {boolean} squash
   * @param {(row: number, line: Float32Array) => void} visit
   */
  eachRow(grid, { rows, columns, cells }, squash, visit) {
    const width = columns[1] - columns[0];
    if (rows[1] <= rows[0] || !width) return;
    const source = this.source(grid, cells, squash);
    const { rowTaps, columnTaps } = this;
    const gridWidth = this.letterbox.grid_hw[1];
    const first = columnTaps.start[columns[0]];
    const last = columnTaps.start[columns[1] - 1] + columnTaps.count;
    const cellsOfRow = new Float32Array(gridWidth);
    const line = new Float32Array(width);
    for (let r = rows[0]; r < rows[1]; r++) {
      for (let c = first, at = rowTaps.start[r] * gridWidth + first; c < last; c++, at++)
        cellsOfRow[c] = interpolated(source, at, gridWidth, rowTaps, r);
      for (let j = 0, i = columns[0]; j < width; j++, i++)
        line[j] = interpolated(cellsOfRow, columnTaps.start[i], 1, columnTaps, i);
      visit(r, line);
    }
  }

  /**
   * What pixels are interpolated from.
   * @param {Float32Array} grid
   * @param {Window | null} cells
   * @param {boolean} squash
   */
  source(grid, cells, squash) {
    return squash || cells ? this.prepared(grid, cells, squash) : grid;
  }

  /**
   * The grid squashed, and zero outside of the cells that a crop before resizing keeps.
   * @param {Float32Array} grid
   * @param {Window | null} cells
   * @param {boolean} squash
   */
  prepared(grid, cells, squash) {
    const [height, width] = this.letterbox.grid_hw;
    const [r0, r1] = cells?.rows ?? [0, height];
    const [c0, c1] = cells?.columns ?? [0, width];
    this.cut = sized(this.cut, grid.length);
    this.cut.fill(0);
    for (let r = r0; r < r1; r++) {
      for (let i = r * width + c0; i < r * width + c1; i++) this.cut[i] = squash ? sigmoid(grid[i]) : grid[i];
    }
    return this.cut;
  }

  /**
   * The cells of the grid that a pixel reads, and their weights; only those of `cells` if given.
   * @param {number} y
   * @param {number} x
   * @param {Window | null} cells
   * @returns {Reads}
   */
  reads(y, x, cells = null) {
    const found = [];
    const { rowTaps, columnTaps } = this;
    for (let a = 0; a < rowTaps.count; a++) {
      for (let b = 0; b < columnTaps.count; b++) {
        const weight = rowTaps.weights[y * rowTaps.count + a] * columnTaps.weights[x * columnTaps.count + b];
        const [row, column] = [rowTaps.start[y] + a, columnTaps.start[x] + b];
        if (weight && (!cells || holds(cells, row, column)))
          found.push({ cell: row * this.letterbox.grid_hw[1] + column, weight });
      }
    }
    return found;
  }

  /**
   * What decides a pixel: the cells it reads behind the crop; none where the crop cuts it away.
   * @param {number} y
   * @param {number} x
   * @param {ArrayLike<number>} box
   * @param {Crop} crop
   * @returns {Reads}
   */
  deciding(y, x, box, crop = this.crop) {
    const window = this.window(box, crop);
    return holds(window, y, x) ? this.reads(y, x, window.cells) : [];
  }
}

/**
 * One output of a resampling: of values from `at` on, every `step`.
 * @param {Float32Array} values @param {number} at @param {number} step @param {Taps} taps @param {number} i
 */
function interpolated(values, at, step, { weights, count }, i) {
  if (count === 2) return weights[2 * i] * values[at] + weights[2 * i + 1] * values[at + step];
  let value = 0;
  for (let t = 0; t < count; t++) value += weights[i * count + t] * values[at + t * step];
  return value;
}

/** @param {Window} window @param {number} row @param {number} column */
function holds({ rows, columns }, row, column) {
  return row >= rows[0] && row < rows[1] && column >= columns[0] && column < columns[1];
}

/** The pixels that read at least one of the cells. @param {Taps} taps @param {Pair} cells @returns {Pair} */
function touched({ start, weights, count }, [first, stop]) {
  let [low, high] = [0, 0];
  for (let i = 0; i < start.length; i++) {
    let reads = 0;
    for (let t = 0; t < count; t++) if (start[i] + t >= first && start[i] + t < stop) reads += weights[i * count + t];
    if (reads === 0) continue;
    if (high === 0) low = i;
    high = i + 1;
  }
  return [low, high];
}

/** @param {Float32Array<ArrayBuffer>} array @param {number} length */
function sized(array, length) {
  return array.length < length ? new Float32Array(length) : array;
}

/**
 * What each prototype adds at a place; they sum to its logit.
 * @param {ArrayLike<number>} weights
 * @param {Prototypes} prototypes
 * @param {Reads} reads
 */
export function contributions(weights, prototypes, reads) {
  const at = prototypesAt(prototypes, weights.length, reads);
  return Float64Array.from(at, (value, k) => value * weights[k]);
}

/** @param {Prototypes} prototypes @param {number} k @param {Reads} reads */
function prototypesAt({ cells, values }, k, reads) {
  return Float64Array.from({ length: k }, (_, i) =>
    reads.reduce((sum, { cell, weight }) => sum + weight * values[i * cells + cell], 0),
  );
}

/**
 * The smallest change of a single weight that brings the value of a pixel to the threshold, or null if none does.
 * Exact for rules that resize logits; found by halving for rules that resize probabilities.
 * @param {ArrayLike<number>} weights @param {Prototypes} prototypes @param {Reads} reads
 * @param {Pick<MaskRule, "squash" | "threshold">} rule @returns {{ k: number, change: number } | null}
 */
export function smallestFlip(weights, prototypes, reads, { squash, threshold }) {
  const at = prototypesAt(prototypes, weights.length, reads);
  const logit = at.reduce((sum, value, k) => sum + value * weights[k], 0);
  /** @type {{ k: number, change: number } | null} */
  let best = null;
  for (let k = 0; k < weights.length; k++) {
    const change = squash
      ? squashedFlip(weights, prototypes, reads, k, threshold)
      : at[k]
        ? (threshold - logit) / at[k]
        : NaN;
    if (Number.isFinite(change) && (!best || Math.abs(change) < Math.abs(best.change))) best = { k, change };
  }
  return best;
}

/**
 * The value of a pixel that the threshold is held against.
 * @param {ArrayLike<number>} weights
 * @param {Prototypes} prototypes
 * @param {Reads} reads
 * @param {boolean} squash
 */
export function valueAt(weights, prototypes, reads, squash) {
  const logits = cellLogits(weights, prototypes, reads);
  return reads.reduce((sum, { weight }, i) => sum + weight * (squash ? sigmoid(logits[i]) : logits[i]), 0);
}

/** @param {ArrayLike<number>} weights @param {Prototypes} prototypes @param {Reads} reads */
function cellLogits(weights, { cells, values }, reads) {
  return reads.map(({ cell }) => {
    let sum = 0;
    for (let k = 0; k < weights.length; k++) sum += weights[k] * values[k * cells + cell];
    return sum;
  });
}

/** @param {ArrayLike<number>} weights @param {Prototypes} prototypes @param {Reads} reads @param {number} k @param {number} threshold */
function squashedFlip(weights, prototypes, reads, k, threshold) {
  const { cells, values } = prototypes;
  const logits = cellLogits(weights, prototypes, reads);
  /** @param {number} change */
  const over = (change) =>
    reads.reduce(
      (sum, { cell, weight }, i) => sum + weight * sigmoid(logits[i] + change * values[k * cells + cell]),
      0,
    ) - threshold;
  const here = over(0) > 0;
  for (let far = 1 / 64; far <= 4096; far *= 2) {
    for (const sign of [1, -1]) {
      if (over(sign * far) > 0 === here) continue;
      let [low, high] = [far === 1 / 64 ? 0 : far / 2, far];
      for (let n = 0; n < 40; n++) {
        const middle = (low + high) / 2;
        if (over(sign * middle) > 0 === here) low = middle;
        else high = middle;
      }
      return sign * high;
    }
  }
  return NaN;
}

/**
 * Per prototype the mean of |weight x prototype| over the cells inside the box.
 * @param {ArrayLike<number>} weights
 * @param {Prototypes} prototypes
 * @param {Letterbox} letterbox
 * @param {ArrayLike<number>} box
 */
export function effects(weights, { cells, values }, letterbox, box) {
  const width = letterbox.grid_hw[1];
  const [columns, rows] = [1, 0].map((axis) => {
    const [start, stop] = [box[1 - axis], box[3 - axis]].map((v) => fromCanvas(letterbox, "grid", axis, v));
    const length = letterbox.grid_hw[axis];
    const [first, end] = pixelsBetween(start, stop, length);
    const cell = Math.trunc(Math.min(Math.max(start, 0), length - 1));
    return end > first ? [first, end] : [cell, cell + 1];
  });
  return Float64Array.from(weights, (weight, k) => {
    let sum = 0;
    for (let r = rows[0]; r < rows[1]; r++) {
      for (let c = columns[0]; c < columns[1]; c++) sum += Math.abs(values[k * cells + r * width + c]);
    }
    return (Math.abs(weight) * sum) / ((rows[1] - rows[0]) * (columns[1] - columns[0]));
  });
}

/** Indices sorted by falling value; ties keep index order. @param {ArrayLike<number>} values @returns {number[]} */
export function descending(values) {
  return Array.from(values, (_, k) => k).sort((a, b) => values[b] - values[a] || a - b);
}

/**
 * Visits the pixels above the threshold.
 * @param {Patch} patch
 * @param {number} threshold
 * @param {(row: number, column: number) => void} visit
 */
export function eachInside({ rows, columns, values }, threshold, visit) {
  let i = 0;
  for (let r = rows[0]; r < rows[1]; r++) {
    for (let c = columns[0]; c < columns[1]; c++) if (values[i++] > threshold) visit(r, c);
  }
}

/**
 * Intersection over union from three counts; two empty masks agree.
 * @param {number} both
 * @param {number} a
 * @param {number} b
 */
export const iou = (both, a, b) => (a + b - both ? both / (a + b - both) : 1);
