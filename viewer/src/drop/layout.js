// How the outputs of YOLO-seg models are read, as src/maskprism/models/families/yolo.py has it.

import { CLASS_OFFSET, FAMILIES, MOST_CANDIDATES, NORMALISED_LIMIT, STRIDE_SETS } from "./tables.js";

/** @typedef {keyof typeof FAMILIES} Family */
/**
 * @typedef {{ family: Family, rowsOutput: number, prototypesOutput: number, channelsLast: boolean, prototypesLast:
 * boolean, classes: number | null, prototypes: number }} Layout
 */
/** @typedef {{ dims: readonly number[], data: Float32Array }} Tensor */
/** @typedef {import("./onnx_file.js").Metadata} Metadata */
/** @typedef {{ conf: number, iou: number, maxDet: number }} Thresholds */
/**
 * @typedef {{ box: number[], score: number, class: number, coefficients: Float32Array, objectness: number | null }} Row
 */
/** @typedef {[number, number]} Pair */

const f32 = Math.fround;
const families = /** @type {[Family, typeof FAMILIES[Family]][]} */ (Object.entries(FAMILIES));

/**
 * Where things are in outputs of these shapes; an error where nothing fits or several things do.
 * @param {(readonly number[])[]} shapes
 * @param {Pair} canvas [height, width]
 * @param {Metadata} metadata
 * @param {boolean} imagesLast
 * @returns {Layout}
 */
export function detectLayout(shapes, canvas, metadata, imagesLast) {
  if (metadata.task && metadata.task !== "segment")
    throw new Error(`this is a ${metadata.task} model; masks come from a segmentation model`);
  const described = shapes.map((shape) => `(${shape.join(", ")})`).join(", ");
  const prototypes = shapes.flatMap((shape, index) => {
    if (shape.length !== 4) return [];
    return [1, 3].flatMap((axis) => {
      const [h, w] = axis === 1 ? [shape[2], shape[3]] : [shape[1], shape[2]];
      const fits = h > 0 && h <= canvas[0] && canvas[0] * w === canvas[1] * h && canvas[0] % h === 0;
      return fits ? [{ index, last: axis === 3, k: shape[axis] }] : [];
    });
  });
  if (!prototypes.length)
    throw new Error(
      `no output of shapes ${described} holds prototypes (4 axes, two of them the input size over a stride); expected a segmentation model`,
    );
  let found = prototypes.flatMap((one) =>
    shapes.flatMap((shape, index) => (shape.length === 3 ? readings(index, shape, one, canvas) : [])),
  );
  const narrow = (/** @type {(layout: Layout) => boolean} */ fits) => {
    const left = found.filter(fits);
    if (left.length) found = left;
  };
  if (metadata.names)
    narrow((layout) => layout.classes === null || layout.classes === Object.keys(metadata.names ?? {}).length);
  if (metadata.end2end !== null || metadata.names)
    narrow((layout) => !FAMILIES[layout.family].perCell === (metadata.end2end || Boolean(metadata.nms)));
  if (metadata.version) narrow((layout) => !FAMILIES[layout.family].objectness);
  narrow((layout) => layout.prototypesLast === imagesLast);
  if (found.length === 1) return found[0];
  if (!found.length) throw new Error(`outputs of shapes ${described} hold prototypes and no detections that fit them`);
  throw new Error(
    `outputs of shapes ${described} can be read in several ways (${[...new Set(found.map((layout) => layout.family))].sort().join(", ")}); export the model with its class names in the metadata`,
  );
}

/**
 * @param {number} index
 * @param {readonly number[]} shape
 * @param {{ index: number, last: boolean, k: number }} prototypes
 * @param {Pair} canvas
 * @returns {Layout[]}
 */
function readings(index, shape, { index: prototypesOutput, last: prototypesLast, k }, [height, width]) {
  const anchors = STRIDE_SETS.map((strides) =>
    strides.reduce((sum, stride) => sum + Math.floor(height / stride) * Math.floor(width / stride), 0),
  );
  const layout = (
    /** @type {Family} */ family,
    /** @type {number | null} */ classes,
    /** @type {boolean} */ channelsLast,
  ) => ({ family, rowsOutput: index, prototypesOutput, channelsLast, prototypesLast, classes, prototypes: k });
  /** @type {Layout[]} */
  const found = [];
  for (const channelsLast of [false, true]) {
    const [channels, count] = channelsLast ? [shape[2], shape[1]] : [shape[1], shape[2]];
    for (const [family, { columns, perCell }] of families) {
      const classes = channels - columns - k;
      if (!perCell && channelsLast && !classes) found.push(layout(family, null, true));
      if (anchors.some((anchor) => perCell * anchor === count) && classes > 0)
        found.push(layout(family, classes, channelsLast));
    }
  }
  if (found.length) return found;
  const channelsLast = shape[1] > shape[2]; // heads that leave candidates out: the longer side is theirs
  for (const [family, { columns, perCell }] of families) {
    const classes = Math.min(shape[1], shape[2]) - columns - k;
    if (perCell && classes > 0) found.push(layout(family, classes, channelsLast));
  }
  return found;
}

/**
 * The prototypes of the first image, [k][h][w].
 * @param {Layout} layout
 * @param {Tensor[]} outputs
 * @returns {{ k: number, h: number, w: number, values: Float32Array }}
 */
export function readPrototypes({ prototypesOutput, prototypesLast }, outputs) {
  const { dims, data } = outputs[prototypesOutput];
  const [k, h, w] = prototypesLast ? [dims[3], dims[1], dims[2]] : [dims[1], dims[2], dims[3]];
  if (!prototypesLast) return { k, h, w, values: data.slice(0, k * h * w) };
  const values = new Float32Array(k * h * w);
  for (let cell = 0; cell < h * w; cell++) for (let i = 0; i < k; i++) values[i * h * w + cell] = data[cell * k + i];
  return { k, h, w, values };
}

/**
 * Which prototypes contain NaN or infinity.
 * @param {{ k: number, h: number, w: number, values: Float32Array }} prototypes
 * @returns {number[]}
 */
export function brokenPrototypes({ k, h, w, values }) {
  return Array.from({ length: k }, (_, i) => i).filter(
    (i) => !values.subarray(i * h * w, (i + 1) * h * w).every(Number.isFinite),
  );
}

/**
 * How many rows of the first image contain NaN or infinity, and how many there are.
 * @param {Layout} layout
 * @param {Tensor[]} outputs
 * @returns {[number, number]}
 */
export function brokenRows({ rowsOutput, channelsLast }, outputs) {
  const { dims, data } = outputs[rowsOutput];
  const [count, channels] = channelsLast ? [dims[1], dims[2]] : [dims[2], dims[1]];
  const broken = new Set();
  for (let i = 0; i < count * channels; i++)
    if (!Number.isFinite(data[i])) broken.add(channelsLast ? Math.floor(i / channels) : i % count);
  return [broken.size, count];
}

/**
 * The detections of the first image that pass, best first; boxes x1 y1 x2 y2 in canvas pixels.
 * @param {Layout} layout
 * @param {Tensor[]} outputs
 * @param {Pair} canvas
 * @param {Thresholds} keep
 * @returns {Row[]}
 */
export function readRows(layout, outputs, canvas, keep) {
  const { dims, data } = outputs[layout.rowsOutput];
  const [count, channels] = layout.channelsLast ? [dims[1], dims[2]] : [dims[2], dims[1]];
  const at = layout.channelsLast
    ? (/** @type {number} */ row, /** @type {number} */ c) => data[row * channels + c]
    : (/** @type {number} */ row, /** @type {number} */ c) => data[c * count + row];
  const rows = Array.from({ length: count }, (_, row) => row);
  const finite = rows.filter((row) => {
    for (let c = 0; c < channels; c++) if (!Number.isFinite(at(row, c))) return false;
    return true;
  });
  const scale = normalised(rows, at) ? [canvas[1], canvas[0], canvas[1], canvas[0]] : [1, 1, 1, 1];
  const coefficients = (/** @type {number} */ row, /** @type {number} */ first) =>
    Float32Array.from({ length: channels - first }, (_, i) => at(row, first + i));
  const { columns, perCell, objectness: hasObjectness } = FAMILIES[layout.family];
  if (!perCell) {
    const best = finite
      .filter((row) => at(row, 4) > keep.conf)
      .sort((a, b) => at(b, 4) - at(a, 4) || a - b)
      .slice(0, keep.maxDet);
    return best.map((row) => ({
      box: [0, 1, 2, 3].map((c) => f32(at(row, c) * scale[c])),
      score: at(row, 4),
      class: Math.trunc(at(row, 5)),
      coefficients: coefficients(row, columns),
      objectness: null,
    }));
  }
  const firstCoefficient = channels - layout.prototypes;
  /** @type {Row[]} */
  const candidates = [];
  for (const row of finite) {
    const objectness = hasObjectness ? at(row, 4) : null;
    if (objectness !== null && !(objectness > keep.conf)) continue;
    let [best, score] = [0, -Infinity];
    for (let c = columns; c < firstCoefficient; c++) {
      const value = objectness === null ? at(row, c) : f32(at(row, c) * objectness);
      if (value > score) [best, score] = [c - columns, value];
    }
    if (!(score > keep.conf)) continue;
    const [x, y, half, tall] = [at(row, 0), at(row, 1), f32(at(row, 2) / 2), f32(at(row, 3) / 2)];
    const box = [f32(x - half), f32(y - tall), f32(x + half), f32(y + tall)].map((value, c) => f32(value * scale[c]));
    candidates.push({ box, score, class: best, coefficients: coefficients(row, firstCoefficient), objectness });
  }
  return nonMaximumSuppression(candidates, keep.iou).slice(0, keep.maxDet);
}

/**
 * Whether all boxes lie within the first pixels of the canvas: then they are in 0..1.
 * @param {number[]} rows
 * @param {(row: number, c: number) => number} at
 */
function normalised(rows, at) {
  let most = 0;
  for (const row of rows) {
    for (let c = 0; c < 4; c++) {
      const value = at(row, c);
      if (Number.isFinite(value) && value > most) most = value;
    }
  }
  return most <= NORMALISED_LIMIT;
}

/**
 * The rows whose box no better one of the same class overlaps by more than `iou`, best first.
 * @param {Row[]} rows
 * @param {number} iou
 * @returns {Row[]}
 */
export function nonMaximumSuppression(rows, iou) {
  const order = rows
    .map((row, i) => ({ row, i }))
    .sort((a, b) => b.row.score - a.row.score || a.i - b.i)
    .slice(0, MOST_CANDIDATES);
  // Shifted by class in float32, as YOLO predictors do; boxes without area overlap nothing.
  const shifted = order.map(({ row }) => row.box.map((value) => f32(value + f32(row.class * CLASS_OFFSET))));
  /** @type {number[]} */
  const kept = [];
  shifted.forEach((box, i) => {
    const area = (box[2] - box[0]) * (box[3] - box[1]);
    const sized = box[2] > box[0] && box[3] > box[1];
    if (!sized || !kept.some((j) => overlap(box, area, shifted[j]) > iou + 1e-7)) kept.push(i);
  });
  return kept.map((i) => order[i].row);
}

/** @param {number[]} a @param {number} area @param {number[]} b */
function overlap(a, area, b) {
  const other = (b[2] - b[0]) * (b[3] - b[1]);
  if (!(b[2] > b[0] && b[3] > b[1])) return 0;
  const both =
    Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0) * Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  return both / (area + other - both);
}
