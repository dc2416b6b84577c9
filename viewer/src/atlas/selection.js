// What a selection of points has in common, against all others.

import { UNKNOWN } from "./data.js";

/** @typedef {import("./data.js").Quality} Quality */

/** A packed number as it was. @param {Quality} quality @param {number} packed */
export function unpackedValue(quality, packed) {
  if (packed === UNKNOWN) return NaN;
  const value = quality.low + (packed / (UNKNOWN - 1)) * (quality.high - quality.low);
  return quality.log ? Math.exp(value) : value;
}

/**
 * The mean of the known ones among some points, NaN without any.
 * @param {Quality} quality
 * @param {Uint16Array} values
 * @param {ArrayLike<number>} points
 */
export function meanOf(quality, values, points) {
  let [sum, known] = [0, 0];
  for (let i = 0; i < points.length; i++) {
    const value = unpackedValue(quality, values[points[i]]);
    if (Number.isNaN(value)) continue;
    sum += value;
    known += 1;
  }
  return known ? sum / known : NaN;
}

/**
 * By how much each coefficient of the selected points lies above that of the others, in standard deviations of all.
 * @param {Int8Array} weights N rows of K. @param {number} k @param {ArrayLike<number>} points @returns {Float64Array}
 */
export function signatureOf(weights, k, points) {
  const n = weights.length / k;
  const [all, squares, own] = [new Float64Array(k), new Float64Array(k), new Float64Array(k)];
  for (let i = 0, at = 0; i < n; i++) {
    for (let j = 0; j < k; j++, at++) {
      const value = weights[at];
      all[j] += value;
      squares[j] += value * value;
    }
  }
  for (let i = 0; i < points.length; i++) for (let j = 0, at = points[i] * k; j < k; j++, at++) own[j] += weights[at];
  const [some, others] = [points.length, n - points.length];
  return own.map((sum, j) => {
    const spread = Math.sqrt(Math.max(squares[j] / n - (all[j] / n) ** 2, 0));
    return some && others && spread ? (sum / some - (all[j] - sum) / others) / spread : 0;
  });
}

/** Rows of texts and numbers as CSV. @param {(string | number)[][]} rows */
export const asCsv = (rows) => `${rows.map((row) => row.map(field).join(",")).join("\n")}\n`;

/** @param {string | number} value */
function field(value) {
  if (typeof value === "number") return Number.isNaN(value) ? "" : String(Number(value.toPrecision(6)));
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value; // spreadsheets take these for formulas
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/**
 * The points with the most similar coefficients, nearest first.
 * @param {Int8Array} weights N rows of K.
 * @param {number[]} scales What the weights are to be multiplied by.
 * @param {number} point
 * @param {number} count
 */
export function nearestOf(weights, scales, point, count) {
  const k = scales.length;
  /** @type {{ other: number, far: number }[]} */
  const nearest = [];
  for (let other = 0; other < weights.length / k; other++) {
    if (other === point) continue;
    let far = 0;
    for (let j = 0; j < k; j++) far += (scales[j] * (weights[other * k + j] - weights[point * k + j])) ** 2;
    if (nearest.length === count && far >= nearest[count - 1].far) continue;
    const at = nearest.findIndex((one) => far < one.far);
    nearest.splice(at < 0 ? nearest.length : at, 0, { other, far });
    nearest.length = Math.min(nearest.length, count);
  }
  return nearest.map(({ other }) => other);
}
