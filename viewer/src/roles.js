// What each prototype does for one mask, by the rules of src/maskprism/analysis/instance/prototype_roles.py, on the
// prototype grid;
// and of which kind it is in this image: what of it the masks explain, and which others say the same.

import { fromCanvas, pixelsBetween, sizeOf } from "./geometry.js";
import { Frame, mix } from "./masks.js";

/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {"builds" | "carves" | "sharpens" | "opposes" | "negligible"} Role */
/**
 * Of each prototype its role, or the two helpful ones between which none leads.
 * @typedef {{ named: Role[][], inside: Float64Array, ring: Float64Array, edge: Float64Array, share: Float64Array }}
 * Roles
 */
/** @typedef {{ semantic: boolean, same: number[] }} Kind */

const NEGLIGIBLE = 0.5;
const CLEAR_LEAD = 1.25;
const ROUNDING = 1e-9;
const HELPFUL = /** @type {const} */ (["builds", "carves", "sharpens"]);
/**
 * Masks explain at least this share of the variance of a semantic prototype; redundant ones correlate at least so much.
 */
const SEMANTIC = 0.25;
const REDUNDANT = 0.9;
const MOST_PRODUCTS = 12_000_000;

/** Roles as they stand on the page. @type {Record<Role, string>} */
export const ROLE_LABELS = {
  builds: "+ inside",
  carves: "− background",
  sharpens: "+ edge",
  opposes: "hurts",
  negligible: "~0",
};

/** What a role means, for legends. @type {Record<Role, string>} */
export const ROLES = {
  builds: "lifts the inside of the mask",
  carves: "lowers what lies around the mask",
  sharpens: "makes a step at the edge of the mask",
  opposes: "does more harm to this mask than help, or has a negative share of the difference between mask and ring",
  negligible: "does hardly anything here",
};

/** @param {Scene} scene @param {number} instance @param {ArrayLike<number>} coefficients @returns {Roles} */
export function rolesOf(scene, instance, coefficients) {
  const { letterbox, rule, prototypes } = scene;
  const frame = new Frame(letterbox, rule, "grid");
  const box = scene.instances[instance].canvas_box;
  const weights = scene.weights(instance, coefficients);
  const logits = new Float32Array(prototypes.cells);
  mix(weights, prototypes, logits);
  const { rows, columns, values } = frame.decode(logits, box);
  const width = columns[1] - columns[0];
  const mask = Uint8Array.from(values, (value) => Number(value > rule.threshold));
  const within =
    frame.crop === "none" ? boxOf(scene, box, width, values.length) : new Uint8Array(values.length).fill(1);
  const ring = within.map((inside, i) => Number(inside && !mask[i]));
  const [last, first] = [both(mask, grown(ring, width)), both(ring, grown(mask, width))];
  const acts = [mask, ring, last, first].map((region) =>
    means(prototypes, weights, region, { rows, columns }, letterbox.grid_hw[1]),
  );
  const [inside, around] = acts;
  const edge = acts[2].map((value, k) => value - acts[3][k]);
  const margin = inside.map((value, k) =>
    Math.abs(value - around[k]) <= ROUNDING * (Math.abs(value) + Math.abs(around[k])) ? 0 : value - around[k],
  );
  const total = margin.reduce((sum, value) => sum + value, 0);
  const share = margin.map((value) => (total ? value / total : NaN));
  // Of the coefficients as they came the roles came, too: from prototypes of all bits.
  const { roles, coefficients: original } = scene.instances[instance];
  const kept = roles && original.every((value, k) => Math.fround(value) === Math.fround(coefficients[k]));
  return { named: kept ? roles : named(inside, around, edge, share), inside, ring: around, edge, share };
}

/**
 * The cells of the box, where nothing crops.
 * @param {Scene} scene
 * @param {number[]} box
 * @param {number} width
 * @param {number} length
 */
function boxOf({ letterbox }, box, width, length) {
  const [height, full] = sizeOf(letterbox, "grid");
  const edge = (/** @type {number} */ axis, /** @type {number} */ i) => fromCanvas(letterbox, "grid", axis, box[i]);
  const rows = pixelsBetween(edge(0, 1), edge(0, 3), height);
  const columns = pixelsBetween(edge(1, 0), edge(1, 2), full);
  const inside = new Uint8Array(length);
  for (let r = rows[0]; r < rows[1]; r++) inside.fill(1, r * width + columns[0], r * width + columns[1]);
  return inside;
}

/** @param {Uint8Array} a @param {Uint8Array} b */
const both = (a, b) => a.map((value, i) => value & b[i]);

/** A region and all cells that touch it, corners too. @param {Uint8Array} region @param {number} width */
function grown(region, width) {
  const out = new Uint8Array(region.length);
  const height = width ? region.length / width : 0;
  for (let r = 0; r < height; r++) {
    for (let c = 0; c < width; c++) {
      if (!region[r * width + c]) continue;
      for (let y = Math.max(r - 1, 0); y <= Math.min(r + 1, height - 1); y++) {
        out.fill(1, y * width + Math.max(c - 1, 0), y * width + Math.min(c + 2, width));
      }
    }
  }
  return out;
}

/**
 * What each prototype contributes to a region on average; NaN over none.
 * @param {import("./masks.js").Prototypes} prototypes
 * @param {Float32Array} weights
 * @param {Uint8Array} region
 * @param {import("./masks.js").Window} window
 * @param {number} gridWidth
 */
function means({ cells, values }, weights, region, { rows, columns }, gridWidth) {
  const width = columns[1] - columns[0];
  /** @type {number[]} */
  const held = [];
  region.forEach((is, i) => is && held.push((rows[0] + Math.floor(i / width)) * gridWidth + columns[0] + (i % width)));
  return Float64Array.from(weights, (weight, k) => {
    let sum = 0;
    for (const cell of held) sum += values[k * cells + cell];
    return held.length ? (weight * sum) / held.length : NaN;
  });
}

/**
 * @param {Float64Array} inside
 * @param {Float64Array} ring
 * @param {Float64Array} edge
 * @param {Float64Array} share
 * @returns {Role[][]}
 */
function named(inside, ring, edge, share) {
  const acts = [inside, ring.map((value) => -value), edge].map((act) =>
    act.map((value) => (Number.isNaN(value) ? 0 : value)),
  );
  const totals = acts.map((act) => act.reduce((sum, value) => sum + Math.abs(value), 0));
  return Array.from(inside, (_, k) => {
    const parts = acts.map((act, i) => (totals[i] ? act[k] / totals[i] : 0));
    const [best, second] = [0, 1, 2].sort((a, b) => parts[b] - parts[a] || a - b);
    const harms = -Math.min(...parts);
    const least = NEGLIGIBLE / inside.length;
    if (Math.max(parts[best], harms) < least) return ["negligible"];
    if (share[k] < 0 || harms > parts[best]) return ["opposes"];
    const close = parts[second] >= least && parts[best] < CLEAR_LEAD * parts[second];
    return close ? [HELPFUL[best], HELPFUL[second]] : [HELPFUL[best]];
  });
}

/** Of which kind the prototypes are in this image, on the cells that show it. @param {Scene} scene @returns {Kind[]} */
export function kindsOf(scene) {
  const { letterbox, prototypes, rule, k } = scene;
  const { cells, values } = prototypes;
  const whole = contentCells(letterbox);
  const every = Math.ceil((whole.length * k * k) / MOST_PRODUCTS);
  const shown = whole.filter((_, i) => i % every === 0); // of many prototypes a sample of the cells
  const frame = new Frame(letterbox, rule, "grid");
  const covered = new Float32Array(cells);
  const logits = new Float32Array(cells);
  scene.instances.forEach((instance, i) => {
    mix(scene.weights(i, instance.coefficients), prototypes, logits);
    const { rows, columns, values: patch } = frame.decode(logits, instance.canvas_box);
    const width = columns[1] - columns[0];
    patch.forEach((value, at) => {
      if (value > rule.threshold)
        covered[(rows[0] + Math.floor(at / width)) * letterbox.grid_hw[1] + columns[0] + (at % width)] = 1;
    });
  });
  const columns = Array.from({ length: k }, (_, i) => standardised(values.subarray(i * cells, (i + 1) * cells), shown));
  const masks = standardised(covered, shown);
  return columns.map((column, i) => ({
    semantic: dot(column, masks) ** 2 >= SEMANTIC,
    same: columns.flatMap((other, j) => (j !== i && Math.abs(dot(column, other)) >= REDUNDANT ? [j] : [])),
  }));
}

/** The cells of the grid that show the image. @param {import("./geometry.js").Letterbox} letterbox */
function contentCells({ grid_hw, canvas_hw, content_hw, offset_yx }) {
  const [[top, bottom], [left, right]] = [0, 1].map((axis) => {
    const scale = grid_hw[axis] / canvas_hw[axis];
    const first = Math.min(Math.floor(offset_yx[axis] * scale), grid_hw[axis] - 1);
    return [first, Math.max(first + 1, Math.ceil((offset_yx[axis] + content_hw[axis]) * scale))];
  });
  const found = new Uint32Array((bottom - top) * (right - left));
  let n = 0;
  for (let r = top; r < bottom; r++) for (let c = left; c < right; c++) found[n++] = r * grid_hw[1] + c;
  return found;
}

/**
 * Some cells of a map with mean 0 and length 1, so that products are correlations; zeros where all are equal.
 * @param {Float32Array} map
 * @param {Uint32Array} cells
 */
function standardised(map, cells) {
  const out = Float32Array.from(cells, (cell) => map[cell]);
  const mean = out.reduce((sum, value) => sum + value, 0) / out.length;
  let square = 0;
  for (let i = 0; i < out.length; i++) {
    out[i] -= mean;
    square += out[i] ** 2;
  }
  const scale = square > 1e-12 ? 1 / Math.sqrt(square) : 0;
  for (let i = 0; i < out.length; i++) out[i] *= scale;
  return out;
}

/** @param {Float32Array} a @param {Float32Array} b */
function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/**
 * The instance that says most about prototypes: large, sure, and made by parts for and against it.
 * @param {Scene} scene @returns {number} -1 where there is none
 */
export function mostTelling(scene) {
  const { letterbox, prototypes } = scene;
  let best = { index: scene.instances.length ? 0 : -1, says: -1 };
  const width = letterbox.grid_hw[1];
  scene.instances.forEach((instance, index) => {
    const weights = scene.weights(index, instance.coefficients);
    const [c1, r1, c2, r2] = [1, 0, 1, 0].map((axis, i) =>
      Math.round(
        Math.min(Math.max(fromCanvas(letterbox, "grid", axis, instance.canvas_box[i]), 0), letterbox.grid_hw[axis]),
      ),
    );
    let [plus, minus] = [0, 0];
    for (let k = 0; k < weights.length; k++) {
      for (let r = r1; r < r2; r++) {
        for (let i = r * width + c1; i < r * width + c2; i++) {
          const term = weights[k] * prototypes.values[k * prototypes.cells + i];
          if (term > 0) plus += term;
          else minus -= term;
        }
      }
    }
    const mixed = plus + minus ? (2 * Math.min(plus, minus)) / (plus + minus) : 0;
    const says = instance.score * Math.sqrt(Math.max((c2 - c1) * (r2 - r1), 0) / prototypes.cells) * mixed;
    if (says > best.says + 1e-9) best = { index, says };
  });
  return best.index;
}
