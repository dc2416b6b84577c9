// A frame in blocks of pixels that are interpolated from the same cells of the grid. Where these agree the block is
// inside or
// outside as a whole, so that a moved coefficient costs the pixels at the edge of the mask and not those of the image.

/** @typedef {import("./masks.js").Frame} Frame */
/** @typedef {import("./masks.js").CroppedWindow} CroppedWindow */
/** @typedef {import("./geometry.js").Taps} Taps */
/** @typedef {import("./geometry.js").Pair} Pair */

const OUTSIDE = 0;
const INSIDE = 1;
const MIXED = 2;
const UNKNOWN = 3;
/** A pixel reads at most as many cells along an axis: two of an enlarged grid, which reads two of the grid. */
const MOST_TAPS = 3;
/** Interpolated values may leave the range of their cells by rounding: by no more than this share of them. */
const ROUNDING = 1e-5;

/** Which pixels of a window are inside, kept from one call to the next. */
export class Blocks {
  /** @param {Frame} frame @param {CroppedWindow} window */
  constructor(frame, window) {
    this.frame = frame;
    this.window = window;
    this.rows = segments(frame.rowTaps, window.rows);
    this.columns = segments(frame.columnTaps, window.columns);
    this.lefts = Int32Array.from(this.columns, ([from]) => frame.columnTaps.start[from]);
    const count = this.rows.length * this.columns.length;
    this.kinds = new Uint8Array(count).fill(UNKNOWN);
    /** How many pixels of each block are inside; and of these, are marked otherwise as `shared`. */
    this.areas = new Uint32Array(count);
    this.shared = new Uint32Array(count);
    this.dirty = new Uint8Array(count);
    const { grid_hw } = frame.letterbox;
    this.low = new Float32Array(grid_hw[1]);
    this.high = new Float32Array(grid_hw[1]);
    this.cellsOfRow = new Float32Array(MOST_TAPS);
  }

  /**
   * Decides all pixels anew, and marks them by bit 1; says which blocks changed in `dirty`. Bit 2 of the marks is
   * counted where
   * both are set.
   * @param {Float32Array} grid
   * @param {Uint8Array} marks
   * @param {number} stride Of marks, which have a border, as wide on all sides.
   * @returns {{ area: number, both: number }}
   */
  decide(grid, marks, stride) {
    const { frame, window, rows, columns, kinds, low, high } = this;
    const { rule, rowTaps, columnTaps, letterbox } = frame;
    const source = frame.source(grid, window.cells, rule.squash);
    const width = letterbox.grid_hw[1];
    const [first, last] = columns.length
      ? [columnTaps.start[columns[0][0]], columnTaps.start[columns[columns.length - 1][0]] + columnTaps.count]
      : [0, 0];
    const { threshold } = rule;
    let area = 0;
    let both = 0;
    for (let i = 0; i < rows.length; i++) {
      const top = rowTaps.start[rows[i][0]];
      let largest = 1e-3;
      for (let c = first, at = top * width + first; c < last; c++, at++) {
        let least = source[at];
        let most = least;
        for (let a = 1; a < rowTaps.count; a++) {
          const value = source[at + a * width];
          if (value < least) least = value;
          if (value > most) most = value;
        }
        low[c] = least;
        high[c] = most;
        if (most > largest) largest = most;
        if (-least > largest) largest = -least;
      }
      const [above, below] = [threshold + ROUNDING * largest, threshold - ROUNDING * largest];
      for (let j = 0; j < columns.length; j++) {
        const b = i * columns.length + j;
        const from = this.lefts[j];
        let least = low[from];
        let most = high[from];
        for (let c = from + 1; c < from + columnTaps.count; c++) {
          if (low[c] < least) least = low[c];
          if (high[c] > most) most = high[c];
        }
        const kind = least > above ? INSIDE : most < below ? OUTSIDE : MIXED;
        if (kind === MIXED) this.mixed(b, rows[i], columns[j], source, marks, stride, above, below);
        else if (kind !== kinds[b]) this.uniform(b, kind, rows[i], columns[j], marks, stride);
        kinds[b] = kind;
        area += this.areas[b];
        both += this.shared[b];
      }
    }
    return { area, both };
  }

  /**
   * @param {number} b
   * @param {number} kind
   * @param {Pair} rows
   * @param {Pair} columns
   * @param {Uint8Array} marks
   * @param {number} stride
   */
  uniform(b, kind, rows, columns, marks, stride) {
    let shared = 0;
    const border = (stride - this.frame.width) / 2;
    for (let r = rows[0]; r < rows[1]; r++) {
      for (let at = (r + border) * stride + columns[0] + border, end = at + columns[1] - columns[0]; at < end; at++) {
        const was = marks[at] & 2;
        marks[at] = was | kind;
        shared += was >> 1;
      }
    }
    this.areas[b] = kind ? (rows[1] - rows[0]) * (columns[1] - columns[0]) : 0;
    this.shared[b] = kind ? shared : 0;
    this.dirty[b] = 1;
  }

  /**
   * Row by row, and pixel by pixel where the cells of a row lie on both sides of the threshold; numbers are those of
   * Frame.eachRow.
   * @param {number} b
   * @param {Pair} rows
   * @param {Pair} columns
   * @param {Float32Array} source
   * @param {Uint8Array} marks
   * @param {number} stride
   * @param {number} above Interpolations of values above it are inside.
   * @param {number} below Interpolations of values below it are outside.
   */
  mixed(b, rows, columns, source, marks, stride, above, below) {
    const { frame } = this;
    const { rowTaps, columnTaps, letterbox } = frame;
    const { threshold } = frame.rule;
    const { weights: down, count: many } = rowTaps;
    const { weights: along, count: across } = columnTaps;
    const width = columns[1] - columns[0];
    const gridWidth = letterbox.grid_hw[1];
    const corner = rowTaps.start[rows[0]] * gridWidth + columnTaps.start[columns[0]];
    const border = (stride - frame.width) / 2;
    const firstWeight = columns[0] * across;
    let area = 0;
    let both = 0;
    let changed = 0;
    for (let r = rows[0]; r < rows[1]; r++) {
      const cells = this.cellsOfRow;
      let least = Infinity;
      let most = -Infinity;
      for (let t = 0; t < across; t++) {
        let value = 0;
        for (let a = 0, from = corner + t, w = r * many; a < many; a++, from += gridWidth)
          value += down[w + a] * source[from];
        cells[t] = value;
        if (value < least) least = value;
        if (value > most) most = value;
      }
      const at = (r + border) * stride + columns[0] + border;
      const end = at + width;
      if (least > above || most < below) {
        const is = least > above ? 1 : 0;
        for (let i = at; i < end; i++) {
          const before = marks[i];
          const now = (before & 2) | is;
          marks[i] = now;
          changed |= before ^ now;
          both += is & (now >> 1);
        }
        area += is * width;
        continue;
      }
      const left = cells[0];
      const middle = cells[1];
      const right = cells[2];
      for (let i = at, w = firstWeight; i < end; i++, w += across) {
        let value = along[w] * left;
        if (across > 1) value += along[w + 1] * middle;
        if (across > 2) value += along[w + 2] * right;
        const before = marks[i];
        const is = Math.fround(value) > threshold ? 1 : 0;
        const now = (before & 2) | is;
        marks[i] = now;
        changed |= before ^ now;
        area += is;
        both += is & (now >> 1);
      }
    }
    this.areas[b] = area;
    this.shared[b] = both;
    if (changed || this.kinds[b] === UNKNOWN) this.dirty[b] = 1;
  }

  /**
   * Visits the blocks that changed, runs of them at once.
   * @param {boolean} all
   * @param {(rows: Pair, columns: Pair) => void} visit
   */
  changed(all, visit) {
    const { rows, columns, dirty } = this;
    const many = columns.length;
    for (let i = 0; i < rows.length; i++) {
      let run = -1;
      for (let j = 0; j <= many; j++) {
        const asked = j < many && (all || dirty[i * many + j]);
        if (asked && run < 0) run = j;
        else if (!asked && run >= 0) {
          visit(rows[i], [columns[run][0], columns[j - 1][1]]);
          run = -1;
        }
      }
    }
    dirty.fill(0);
  }
}

/** Runs of outputs that read the same inputs. @param {Taps} taps @param {Pair} range @returns {Pair[]} */
function segments({ start }, [from, to]) {
  /** @type {Pair[]} */
  const found = [];
  let first = from;
  for (let i = from + 1; i <= to; i++) {
    if (i < to && start[i] === start[first]) continue;
    found.push([first, i]);
    first = i;
  }
  return found;
}
