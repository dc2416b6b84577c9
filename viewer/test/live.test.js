// Labels over the picture of the camera, and masks in it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { placedLabel } from "../src/drop/live.js";
import { dim, INNER_LINE, OUTER_LINE, paintMask } from "../src/mask_style.js";

const picture = { width: 200, height: 100 };
const size = { width: 60, height: 18 };

test("labels stay inside the picture, wherever their boxes are", () => {
  for (const box of [
    [-40, -30, 20, 10],
    [190, 2, 240, 300],
    [0, 0, 200, 100],
    [150, 95, 199, 99],
  ]) {
    const { x, y } = placedLabel(box, size, picture, []);
    assert.ok(x >= 0 && x + size.width <= picture.width, `${box}`);
    assert.ok(y >= 0 && y + size.height <= picture.height, `${box}`);
  }
});

test("labels of boxes in one place do not overlap", () => {
  /** @type {import("../src/drop/live.js").Rectangle[]} */
  const labels = [];
  for (let i = 0; i < 5; i++) labels.push(placedLabel([50, 40, 90, 60], size, picture, labels));
  const rows = labels.map(({ y }) => y).sort((a, b) => a - b);
  rows.slice(1).forEach((y, i) => assert.ok(y - rows[i] >= size.height));
  assert.deepEqual(labels[0], { x: 50, y: 22, ...size }); // above its box where that is free
});

test("a mask is painted in its colour on dark greys, with an outline of two tones", () => {
  const [width, height] = [7, 6];
  const grey = new Uint8Array(width * height).fill(100);
  const painted = { data: new Uint8ClampedArray(4 * width * height).fill(255), width, height };
  dim(painted, grey);
  const patch = {
    rows: /** @type {[number, number]} */ ([1, 5]),
    columns: /** @type {[number, number]} */ ([1, 6]),
    values: Float32Array.from({ length: 20 }, (_, i) => (i % 5 < 4 ? 1 : -1)),
  };
  paintMask(painted, grey, patch, 0, [200, 0, 100]);
  const row = Array.from({ length: width }, (_, c) => [
    ...painted.data.subarray(4 * (2 * width + c), 4 * (2 * width + c) + 3),
  ]);
  const [mask, dark] = [
    [150, 50, 100],
    [55, 55, 55],
  ];
  assert.deepEqual(row, [[...OUTER_LINE], [...INNER_LINE], mask, mask, [...INNER_LINE], [...OUTER_LINE], dark]);
  assert.deepEqual([...painted.data.subarray(0, 3)], dark); // corners of the outline are open, as with a cross
  assert.deepEqual([...painted.data.subarray(4 * 2, 4 * 2 + 3)], [...OUTER_LINE]);
  assert.ok(painted.data.every((value, i) => i % 4 < 3 || value === 255));
});
