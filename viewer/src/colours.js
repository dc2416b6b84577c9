// Which colour of the palette each instance has: one that stands out from what lies under it, and from its neighbours.

import { INSTANCE_COLOURS, rgb } from "./palette.js";

const USED = 90;
const BESIDE = 160;

/**
 * How far two colours are apart, about as it is seen (Riemersma's weighted distance in RGB).
 * @param {ArrayLike<number>} a
 * @param {ArrayLike<number>} b
 */
export function apart(a, b) {
  const red = (a[0] + b[0]) / 2;
  const [r, g, blue] = [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
  return Math.sqrt((2 + red / 256) * r * r + 4 * g * g + (2 + (255 - red) / 256) * blue * blue);
}

/**
 * @param {(ArrayLike<number> | null)[]} under Mean colour under each instance; null where it has no pixel.
 * @param {ArrayLike<number>[]} boxes x1 y1 x2 y2
 * @returns {string[]} Hexadecimal.
 */
export function distinctColours(under, boxes) {
  const palette = INSTANCE_COLOURS.map((colour) => ({ colour, rgb: rgb(colour), used: 0 }));
  const area = (/** @type {ArrayLike<number>} */ box) => (box[2] - box[0]) * (box[3] - box[1]);
  /** @type {string[]} */
  const chosen = [];
  const order = boxes.map((_, i) => i).sort((a, b) => area(boxes[b]) - area(boxes[a]) || a - b);
  for (const i of order) {
    const beside = new Set(order.filter((j) => chosen[j] && overlap(boxes[i], boxes[j])).map((j) => chosen[j]));
    const worth = (/** @type {typeof palette[number]} */ one) =>
      (under[i] ? apart(one.rgb, under[i]) : 0) - USED * one.used - (beside.has(one.colour) ? BESIDE : 0);
    const best = palette.reduce((a, b) => (worth(b) > worth(a) ? b : a));
    best.used += 1;
    chosen[i] = best.colour;
  }
  return chosen;
}

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
const overlap = (a, b) => Math.min(a[2], b[2]) > Math.max(a[0], b[0]) && Math.min(a[3], b[3]) > Math.max(a[1], b[1]);
