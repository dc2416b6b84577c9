// A mask as a small picture.

import assert from "node:assert/strict";
import { test } from "node:test";

import { SmallMask } from "../src/mask_layer.js";
import { INNER_LINE, OUTER_LINE } from "../src/mask_style.js";
import { abgr } from "../src/palette.js";

/** The part of a browser's ImageData that is used. */
class Pixels {
  /** @param {number} width @param {number} height */
  constructor(width, height) {
    this.data = new Uint8ClampedArray(4 * width * height);
  }
}
Object.assign(globalThis, { ImageData: Pixels });

test("a small mask has the marks under its pixels, lines of one pixel, and nothing beyond the frame", () => {
  const [width, height, linePx] = [40, 24, 2];
  const stride = width + 2 * linePx;
  const bordered = (/** @type {number} */ r, /** @type {number} */ c) => (r + linePx) * stride + c + linePx;
  const marks = new Uint8Array(stride * (height + 2 * linePx));
  for (let r = 8; r < 24; r++) for (let c = 16; c < 32; c++) marks[bordered(r, c)] = 1;
  const layer = /** @type {any} */ ({ frame: { width, height }, marks, bordered });
  // Half as large, and two rows more than the frame has below it.
  const small = new SmallMask(
    layer,
    [
      [0, 28],
      [0, 40],
    ],
    14,
    20,
  );
  small.paint([230, 159, 0], 0.5);
  const kinds = new Map([
    [abgr(INNER_LINE, 255), "i"],
    [abgr(OUTER_LINE, 255), "o"],
    [abgr([230, 159, 0], 128), "#"],
  ]);
  const lines = Array.from({ length: 14 }, (_, r) =>
    Array.from({ length: 20 }, (_, c) => kinds.get(small.colours[20 * r + c]) ?? ".").join(""),
  );
  assert.deepEqual(lines.slice(0, 3), Array(3).fill(".".repeat(20)));
  assert.equal(lines[3], "........oooooooo....");
  assert.equal(lines[4], ".......oiiiiiiiio...");
  for (const line of lines.slice(5, 11)) assert.equal(line, ".......oi######io...");
  assert.equal(lines[11], ".......oiiiiiiiio...");
  assert.equal(lines[12], "........oooooooo....");
  assert.equal(lines[13], ".".repeat(20));
});
