// Frames and resampling, as src/maskprism/core/geometry.py has them. Sizes are [height, width], coordinates x1 y1 x2
// y2.

/** @typedef {"grid" | "canvas" | "image"} Size */
/** @typedef {"floor" | "round" | "whole"} Unpad */
/** @typedef {[number, number]} Pair */
/** @typedef {{ image_hw: Pair, canvas_hw: Pair, content_hw: Pair, offset_yx: Pair, grid_hw: Pair }} Letterbox */
/**
 * One axis of a resampling: output `i` is the sum of `count` neighbouring inputs from `start[i]` on, times their
 * weights.
 * @typedef {{ start: Int32Array, weights: Float32Array, count: number }} Taps
 */

const f32 = Math.fround;

/** Rounds halves to the even neighbour, as Python does. @param {number} x */
export function roundHalfEven(x) {
  const below = Math.floor(x);
  const rest = x - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
}

/** @param {Letterbox} letterbox @param {Size} size @returns {Pair} */
export function sizeOf(letterbox, size) {
  return { grid: letterbox.grid_hw, canvas: letterbox.canvas_hw, image: letterbox.image_hw }[size];
}

/**
 * A canvas coordinate on another frame; axis 0 is y, 1 is x.
 * @param {Letterbox} letterbox
 * @param {Size} size
 * @param {number} axis
 * @param {number} value
 */
export function fromCanvas(letterbox, size, axis, value) {
  const v = f32(value);
  if (size === "canvas") return v;
  if (size === "grid") return f32(v * f32(letterbox.grid_hw[axis] / letterbox.canvas_hw[axis]));
  const gain = f32(letterbox.content_hw[axis] / letterbox.image_hw[axis]);
  return Math.min(Math.max(f32(f32(v - letterbox.offset_yx[axis]) / gain), 0), letterbox.image_hw[axis]);
}

/**
 * Pixels `i` with `start - padding <= i < stop + padding`, as [first, stop].
 * @param {number} start
 * @param {number} stop
 * @param {number} length
 * @param {number} padding
 * @param {boolean} rounded
 * @returns {Pair}
 */
export function pixelsBetween(start, stop, length, padding = 0, rounded = false) {
  const edge = rounded ? roundHalfEven : Math.ceil;
  const clip = (/** @type {number} */ x) => Math.min(Math.max(x, 0), length);
  const first = clip(edge(f32(start - padding)));
  return [first, Math.max(first, clip(edge(f32(stop + padding))))];
}

/**
 * Bilinear resampling of one axis: centres aligned, edges repeated.
 * @param {number} from
 * @param {number} to
 * @returns {Taps}
 */
export function linear(from, to) {
  const count = Math.min(2, from);
  const start = new Int32Array(to);
  const weights = new Float32Array(to * count);
  for (let i = 0; i < to; i++) {
    const at = Math.min(Math.max(f32((i + 0.5) * (from / to) - 0.5), 0), from - 1);
    const cell = Math.min(Math.floor(at), from - count);
    start[i] = cell;
    weights[i * count] = count === 1 ? 1 : 1 - f32(at - cell);
    if (count === 2) weights[i * count + 1] = at - cell;
  }
  return { start, weights, count };
}

/** @param {Taps} taps @param {number} first @param {number} stop @returns {Taps} */
function slice(taps, first, stop) {
  const { count } = taps;
  return { start: taps.start.slice(first, stop), weights: taps.weights.slice(first * count, stop * count), count };
}

/**
 * First `inner`, then `outer`, as one step.
 * @param {Taps} outer
 * @param {Taps} inner
 * @param {number} from
 * @returns {Taps}
 */
export function compose(outer, inner, from) {
  const count = Math.min(from, widestSpan(outer, inner));
  const start = new Int32Array(outer.start.length);
  const weights = new Float32Array(outer.start.length * count);
  for (let i = 0; i < start.length; i++) {
    start[i] = Math.min(inner.start[outer.start[i]], from - count);
    for (let a = 0; a < outer.count; a++) {
      const between = outer.start[i] + a;
      for (let b = 0; b < inner.count; b++) {
        const weight = outer.weights[i * outer.count + a] * inner.weights[between * inner.count + b];
        if (weight) weights[i * count + inner.start[between] + b - start[i]] += weight;
      }
    }
  }
  return { start, weights, count };
}

/** @param {Taps} outer @param {Taps} inner */
function widestSpan(outer, inner) {
  let widest = 1;
  for (const first of outer.start) {
    widest = Math.max(widest, inner.start[first + outer.count - 1] + inner.count - inner.start[first]);
  }
  return widest;
}

/** The smallest enlargement of the grid that puts the padding on whole pixels. @param {Letterbox} letterbox */
function wholePixelZoom({ canvas_hw, grid_hw, offset_yx, content_hw }) {
  const stride = Math.max(roundHalfEven(canvas_hw[0] / grid_hw[0]), roundHalfEven(canvas_hw[1] / grid_hw[1]));
  let zoom = 1;
  const off = () =>
    [offset_yx, content_hw].some((edge) => [0, 1].some((i) => (edge[i] * grid_hw[i] * zoom) % canvas_hw[i]));
  while (zoom < stride && off()) zoom *= 2;
  return zoom;
}

/** Whether the image kept its shape, up to a pixel, and lies in the middle. @param {Letterbox} letterbox */
export function isCentredFit({ canvas_hw, content_hw, image_hw, offset_yx }) {
  const gain = Math.min(canvas_hw[0] / image_hw[0], canvas_hw[1] / image_hw[1]);
  return [0, 1].every(
    (i) =>
      Math.abs(content_hw[i] - image_hw[i] * gain) <= 1 &&
      offset_yx[i] === Math.floor((canvas_hw[i] - content_hw[i]) / 2),
  );
}

/**
 * Where the image lies on an axis of the enlarged grid; at least one cell.
 * @param {Letterbox} letterbox
 * @param {number} axis
 * @param {number} zoom
 * @param {Unpad} unpad
 * @returns {Pair}
 */
function contentSpan({ canvas_hw, content_hw, grid_hw, image_hw, offset_yx }, axis, zoom, unpad) {
  const grid = grid_hw[axis] * zoom;
  let start, stop;
  if (unpad === "whole") {
    const scale = grid / canvas_hw[axis];
    start = roundHalfEven(offset_yx[axis] * scale);
    stop = start + roundHalfEven(content_hw[axis] * scale);
  } else {
    const gain = Math.min(grid_hw[0] / image_hw[0], grid_hw[1] / image_hw[1]);
    if (unpad === "floor") {
      const pad = (grid - image_hw[axis] * gain) / 2;
      [start, stop] = [Math.trunc(pad), Math.trunc(grid - pad)];
    } else {
      const pad = (grid - roundHalfEven(image_hw[axis] * gain)) / 2;
      [start, stop] = [roundHalfEven(pad - 0.1), grid - roundHalfEven(pad + 0.1)];
    }
  }
  start = Math.min(start, grid - 1);
  return [start, Math.min(Math.max(stop, start + 1), grid)];
}

/**
 * How an axis of the grid becomes one of the frame `size`.
 * @param {Letterbox} letterbox
 * @param {Size} size
 * @param {Unpad} unpad
 * @param {number} axis
 * @returns {Taps}
 */
export function axisTaps(letterbox, size, unpad, axis) {
  const grid = letterbox.grid_hw[axis];
  if (size === "grid")
    return { start: Int32Array.from({ length: grid }, (_, i) => i), weights: new Float32Array(grid).fill(1), count: 1 };
  if (size === "canvas") return linear(grid, letterbox.canvas_hw[axis]);
  const way = isCentredFit(letterbox) ? unpad : "whole"; // the others reckon with such a fit
  const zoom = way === "whole" ? wholePixelZoom(letterbox) : 1;
  const [start, stop] = contentSpan(letterbox, axis, zoom, way);
  const unzoomed = slice(linear(grid, grid * zoom), start, stop);
  return compose(linear(stop - start, letterbox.image_hw[axis]), unzoomed, grid);
}

/**
 * A pixel of the image in another frame.
 * @param {Letterbox} letterbox
 * @param {Size} size
 * @param {{ x: number, y: number }} pixel
 * @returns {{ x: number, y: number }}
 */
export function pixelInFrame(letterbox, size, { x, y }) {
  if (size === "image") return { x, y };
  const lengths = sizeOf(letterbox, size);
  const at = (/** @type {number} */ value, /** @type {number} */ axis) => {
    const canvas = ((value + 0.5) * letterbox.content_hw[axis]) / letterbox.image_hw[axis] + letterbox.offset_yx[axis];
    return Math.min(Math.floor((canvas * lengths[axis]) / letterbox.canvas_hw[axis]), lengths[axis] - 1);
  };
  return { x: at(x, 1), y: at(y, 0) };
}

/**
 * The pixel of the image under the middle of a cell of the grid; it may lie in the padding.
 * @param {Letterbox} letterbox
 * @param {number} cell
 * @returns {{ x: number, y: number }}
 */
export function cellInImage({ grid_hw, canvas_hw, offset_yx, image_hw, content_hw }, cell) {
  const at = (/** @type {number} */ value, /** @type {number} */ axis) => {
    const canvas = ((value + 0.5) * canvas_hw[axis]) / grid_hw[axis];
    return Math.floor(((canvas - offset_yx[axis]) * image_hw[axis]) / content_hw[axis]);
  };
  return { x: at(cell % grid_hw[1], 1), y: at(Math.floor(cell / grid_hw[1]), 0) };
}

/**
 * The cells of the grid around a box, within the image, as [first, stop] of rows and columns.
 * @param {Letterbox} letterbox
 * @param {ArrayLike<number>} box In the canvas.
 * @param {number} margin Share of the sides of the box.
 * @param {number} leastCells
 * @param {number} thinnest The shorter side is at least this share of the longer one, where the image has room.
 * @returns {{ rows: Pair, columns: Pair }}
 */
export function cellsAround(letterbox, box, margin, leastCells, thinnest = 0) {
  const cell = [0, 1].map((axis) => letterbox.canvas_hw[axis] / letterbox.grid_hw[axis]);
  const reach = [0, 1].map((axis) => (box[3 - axis] - box[1 - axis]) * (0.5 + margin));
  const longest = Math.max(...reach) * thinnest;
  const [rows, columns] = [0, 1].map((axis) => {
    const { offset_yx, content_hw, grid_hw } = letterbox;
    const least = Math.floor(offset_yx[axis] / cell[axis]);
    const most = Math.min(Math.ceil((offset_yx[axis] + content_hw[axis]) / cell[axis]), grid_hw[axis]);
    const middle = (box[1 - axis] + box[3 - axis]) / 2 / cell[axis];
    const half = Math.max(Math.max(reach[axis], longest) / cell[axis], leastCells / 2);
    const first = Math.min(Math.max(Math.floor(middle - half), least), most - 1);
    return /** @type {Pair} */ ([first, Math.max(Math.min(Math.ceil(middle + half), most), first + 1)]);
  });
  return { rows, columns };
}

/** Width by height of a part of the grid, on the image. @param {Letterbox} letterbox @param {{ rows: Pair, columns: Pair }} window */
export function aspectOf({ grid_hw, canvas_hw, image_hw, content_hw }, { rows, columns }) {
  const [height, width] = [rows, columns].map(
    ([first, stop], axis) => (((stop - first) / grid_hw[axis]) * canvas_hw[axis] * image_hw[axis]) / content_hw[axis],
  );
  return width / height;
}
