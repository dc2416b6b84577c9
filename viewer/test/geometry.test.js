// Frames: where pixels and cells lie in each other.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  aspectOf,
  cellInImage,
  cellsAround,
  compose,
  linear,
  pixelInFrame,
  pixelsBetween,
  roundHalfEven,
} from "../src/geometry.js";

/** @type {import("../src/geometry.js").Letterbox} */
const letterbox = {
  image_hw: [240, 320],
  canvas_hw: [640, 640],
  content_hw: [480, 640],
  offset_yx: [80, 0],
  grid_hw: [160, 160],
};

test("halves are rounded as in Python", () => {
  assert.deepEqual([0.5, 1.5, 2.5, -0.5, -1.5, 2.4, -2.6].map(roundHalfEven), [0, 2, 2, 0, -2, 2, -3]);
});

test("a pixel of the image lies under its own point of every frame", () => {
  assert.deepEqual(pixelInFrame(letterbox, "image", { x: 7, y: 9 }), { x: 7, y: 9 });
  assert.deepEqual(pixelInFrame(letterbox, "canvas", { x: 0, y: 0 }), { x: 1, y: 81 });
  assert.deepEqual(pixelInFrame(letterbox, "canvas", { x: 319, y: 239 }), { x: 639, y: 559 });
  assert.deepEqual(pixelInFrame(letterbox, "grid", { x: 0, y: 0 }), { x: 0, y: 20 });
});

test("a cell and the pixel under its middle are the same position", () => {
  for (let row = 20; row < 140; row += 7) {
    for (let column = 0; column < 160; column += 7) {
      const pixel = cellInImage(letterbox, row * 160 + column);
      assert.deepEqual(pixelInFrame(letterbox, "grid", pixel), { x: column, y: row });
    }
  }
  assert.ok(cellInImage(letterbox, 0).y < 0, "padding lies outside of the image");
});

test("pixels between two edges are those whose index lies there", () => {
  assert.deepEqual(pixelsBetween(1.2, 4.7, 10), [2, 5]);
  assert.deepEqual(pixelsBetween(1.2, 4.7, 10, 1), [1, 6]);
  assert.deepEqual(pixelsBetween(1.2, 4.7, 10, 0, true), [1, 5]);
  assert.deepEqual(pixelsBetween(-3, 99, 10), [0, 10]);
  assert.deepEqual(pixelsBetween(7, 2, 10), [7, 7]);
});

test("weights of every output add up to one, also of two steps at once", () => {
  for (const [from, to] of [
    [1, 5],
    [2, 3],
    [8, 32],
    [7, 3],
    [16, 16],
  ]) {
    const once = linear(from, to);
    const twice = compose(linear(to, 11), once, from);
    for (const { weights, count, start } of [once, twice]) {
      for (let i = 0; i < start.length; i++) {
        const sum = weights.slice(i * count, (i + 1) * count).reduce((a, b) => a + b, 0);
        assert.ok(Math.abs(sum - 1) < 1e-5 && start[i] >= 0 && start[i] + count <= from);
      }
    }
  }
});

test("the cells around a box lie within the image, and a thin box gets neighbours", () => {
  // content: rows 20 to 140 of 160
  assert.deepEqual(cellsAround(letterbox, [0, 0, 640, 640], 0, 0), { rows: [20, 140], columns: [0, 160] });
  assert.deepEqual(cellsAround(letterbox, [320, 320, 360, 360], 0.5, 0), { rows: [75, 95], columns: [75, 95] });
  assert.deepEqual(cellsAround(letterbox, [0, 200, 40, 240], 0, 14), { rows: [48, 62], columns: [0, 12] });
  const { rows, columns } = cellsAround(letterbox, [300, 100, 320, 540], 0, 0, 0.5);
  assert.deepEqual(rows, [25, 135]);
  assert.equal(columns[1] - columns[0], 55);
  assert.equal(aspectOf(letterbox, { rows: [20, 140], columns: [0, 160] }), 320 / 240);
});
