// Masks have the colours that Python chooses.

import assert from "node:assert/strict";
import { test } from "node:test";

import { contrast, contrastingColours, greysAround, greysOf } from "../src/mask_style.js";
import { bytes, colours } from "./cases.js";

colours.forEach(({ width, grey, masks, boxes, greys, colours }, n) => {
  test(`the greys and colours of case ${n} are those of Python`, () => {
    const ours = masks.map((mask) => greysAround(bytes(grey), bytes(mask), width));
    ours.forEach((pair, i) => {
      assert.equal(pair === null, greys[i] === null);
      pair?.forEach((value, j) => assert.ok(Math.abs(value - (greys[i]?.[j] ?? NaN)) < 1e-9));
    });
    assert.deepEqual(contrastingColours(ours, boxes), colours);
  });
});

test("contrast is that of WCAG", () => {
  assert.equal(contrast([0, 0, 0], [255, 255, 255]), 21);
  assert.ok(Math.abs(contrast([118, 118, 118], [255, 255, 255]) - 4.54) < 0.01);
});

test("greys are those of OpenCV", () => {
  const rgba = new Uint8ClampedArray([255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255, 12, 200, 77, 255]);
  assert.deepEqual([...greysOf(rgba)], [76, 150, 29, 130]);
});
