// The one style of masks: in colour on a dimmed grey image, with an outline of two tones; as
// src/maskprism/drawing/mask_style.py has it.

import { INSTANCE_COLOURS, rgb } from "./palette.js";

/** @typedef {{ data: Uint8ClampedArray, width: number, height: number }} Pixels */
/** The mean grey in a mask, and that of the pixels around it. @typedef {[number, number]} Greys */

export const OPACITY = 0.5;
/** What is left of the grey around masks. */
export const DIMMED = 0.55;
export const OUTER_LINE = /** @type {const} */ ([255, 255, 255]);
export const INNER_LINE = /** @type {const} */ ([20, 20, 20]);
export const HATCH_PX = 4;
/** Colours are chosen on the image at this size. */
export const SIDE = 160;

/** One pixel of each line for this number of pixels of a side, so that lines stay in sight where pictures are shrunk. */
const PER_LINE_PX = 900;
const AROUND_PX = 2;
const ENOUGH = 4.5;
const USED = 1.5;
const BESIDE = 4;

/** How wide each of the two lines of an outline is. @param {number} width @param {number} height */
export const lineWidth = (width, height) => Math.max(1, Math.round(Math.max(width, height) / PER_LINE_PX));

/** Makes a picture the dark greys that surround masks. @param {Pixels} picture @param {Uint8Array} grey */
export function dim({ data }, grey) {
  for (let i = 0; i < grey.length; i++) data.fill(Math.floor(DIMMED * grey[i]), 4 * i, 4 * i + 3);
}

/**
 * Paints a mask into a dimmed picture: in its colour, with an outline, white outside and black inside.
 * @param {Pixels} picture
 * @param {Uint8Array} grey The picture before it was dimmed.
 * @param {import("./masks.js").Patch} patch
 * @param {number} threshold
 * @param {ArrayLike<number>} colour
 */
export function paintMask({ data, width, height }, grey, { rows, columns, values }, threshold, colour) {
  const px = lineWidth(width, height);
  const [high, wide] = [rows[1] - rows[0], columns[1] - columns[0]];
  const stride = wide + 4 * px; // with a border wide enough for the outer line and its neighbours
  const marks = new Uint8Array(stride * (high + 4 * px));
  for (let r = 0, i = 0; r < high; r++)
    for (let c = 0, at = (r + 2 * px) * stride + 2 * px; c < wide; c++, at++, i++)
      marks[at] = Number(values[i] > threshold);
  const tints = Array.from(colour, (channel) => OPACITY * channel);
  for (let r = Math.max(rows[0] - px, 0); r < Math.min(rows[1] + px, height); r++) {
    const first = Math.max(columns[0] - px, 0);
    let at = (r - rows[0] + 2 * px) * stride + first - columns[0] + 2 * px;
    for (let i = r * width + first; i < r * width + Math.min(columns[1] + px, width); i++, at++) {
      const [left, right, above, below] = [
        marks[at - px],
        marks[at + px],
        marks[at - px * stride],
        marks[at + px * stride],
      ];
      const line = marks[at]
        ? !(left & right & above & below) && INNER_LINE
        : left | right | above | below && OUTER_LINE;
      for (let channel = 0; channel < 3; channel++) {
        if (line) data[4 * i + channel] = line[channel];
        else if (marks[at]) data[4 * i + channel] = Math.floor(tints[channel] + (1 - OPACITY) * grey[i]);
      }
    }
  }
}

/** Greys as OpenCV has them. @param {Uint8ClampedArray} rgba @returns {Uint8Array} */
export function greysOf(rgba) {
  const out = new Uint8Array(rgba.length / 4);
  for (let i = 0; i < out.length; i++)
    out[i] = (rgba[4 * i] * 9798 + rgba[4 * i + 1] * 19235 + rgba[4 * i + 2] * 3735 + 16384) >> 15;
  return out;
}

/**
 * @param {Uint8Array} grey @param {ArrayLike<number>} mask 0 or 1 per pixel @param {number} width
 * @returns {Greys | null} null for an empty mask
 */
export function greysAround(grey, mask, width) {
  const height = grey.length / width;
  const near = new Uint8Array(grey.length);
  let [inside, count] = [0, 0];
  for (let i = 0; i < grey.length; i++) {
    if (!mask[i]) continue;
    inside += grey[i];
    count += 1;
    const [r, c] = [Math.floor(i / width), i % width];
    for (let y = Math.max(r - AROUND_PX, 0); y <= Math.min(r + AROUND_PX, height - 1); y++)
      near.fill(1, y * width + Math.max(c - AROUND_PX, 0), y * width + Math.min(c + AROUND_PX + 1, width));
  }
  if (!count) return null;
  let [around, beside] = [0, 0];
  for (let i = 0; i < grey.length; i++) {
    if (!near[i] || mask[i]) continue;
    around += grey[i];
    beside += 1;
  }
  return [inside / count, beside ? around / beside : inside / count];
}

/**
 * A colour for each mask, large boxes first: by the contrast of its blend against what surrounds it. Colours that
 * are used already count less, those of overlapping boxes least.
 * @param {(Greys | null)[]} greys
 * @param {ArrayLike<number>[]} boxes x1 y1 x2 y2
 * @returns {string[]} Hexadecimal.
 */
export function contrastingColours(greys, boxes) {
  const palette = INSTANCE_COLOURS.map((colour) => ({ colour, used: 0 }));
  const area = (/** @type {ArrayLike<number>} */ box) => (box[2] - box[0]) * (box[3] - box[1]);
  /** @type {string[]} */
  const chosen = [];
  const order = boxes.map((_, i) => i).sort((a, b) => area(boxes[b]) - area(boxes[a]) || a - b);
  for (const i of order) {
    const beside = new Set(order.filter((j) => chosen[j] && overlap(boxes[i], boxes[j])).map((j) => chosen[j]));
    const worth = (/** @type {{ colour: string, used: number }} */ { colour, used }) =>
      contrastOf(colour, greys[i]) - USED * used - (beside.has(colour) ? BESIDE : 0);
    const best = palette.reduce((a, b) => (worth(b) > worth(a) ? b : a));
    best.used += 1;
    chosen[i] = best.colour;
  }
  return chosen;
}

/** The contrast ratio of two colours by WCAG. @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
export function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

/** @param {string} colour @param {Greys | null} greys */
function contrastOf(colour, greys) {
  if (!greys) return 0;
  const blended = rgb(colour).map((channel) => OPACITY * channel + (1 - OPACITY) * greys[0]);
  const around = DIMMED * greys[1];
  return Math.min(contrast(blended, [around, around, around]), ENOUGH);
}

/** @param {ArrayLike<number>} colour */
function luminance(colour) {
  const [r, g, b] = Array.from(colour, (channel) => channel / 255).map((share) =>
    share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4,
  );
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
const overlap = (a, b) => Math.min(a[2], b[2]) > Math.max(a[0], b[0]) && Math.min(a[3], b[3]) > Math.max(a[1], b[1]);
