// Colours are those of Python, and zero is in their middle.

import assert from "node:assert/strict";
import { test } from "node:test";

import { abgr, colourOf, limitOf, lookupTable, paint, paintParts, rgb } from "../src/palette.js";
import { bytes, palette } from "./cases.js";

for (const name of /** @type {const} */ (["contribution", "prototype"])) {
  test(`the map "${name}" is that of Python`, () => {
    const expected = bytes(palette[name]);
    lookupTable(name).forEach((colour, i) => {
      for (let c = 0; c < 3; c++) assert.ok(Math.abs(((colour >>> (8 * c)) & 255) - expected[3 * i + c]) <= 1, `${i}`);
      assert.equal(colour >>> 24, 255);
    });
  });
}

test("instances have the colours of Python, again and again", () => {
  const expected = bytes(palette.instances);
  for (let i = 0; i < 20; i++) assert.deepEqual(rgb(colourOf(i)), [...expected.subarray(3 * (i % 7), 3 * (i % 7) + 3)]);
});

test("values are painted between the two ends, zero in the middle", () => {
  const out = new Uint32Array(5);
  paint([-9, -2, 0, 2, 9], 2, "contribution", out);
  const table = lookupTable("contribution");
  assert.deepEqual([...out], [table[0], table[0], table[128], table[255], table[255]]);
});

test("a sum and its parts are painted on one scale", () => {
  // terms 3 and -1, then -5 alone, then none; the first value is not of the shown part
  const sum = Float32Array.of(99, 2, -5, 0);
  const sizes = Float32Array.of(99, 4, 5, 0);
  const out = { logits: new Uint32Array(4), positive: new Uint32Array(4), negative: new Uint32Array(4) };
  paintParts({ sum, sizes, limit: 4, start: 1, count: 3 }, out, 1);
  for (const [name, values] of /** @type {const} */ ([
    ["logits", [2, -5, 0]],
    ["positive", [3, 0, 0]],
    ["negative", [-1, -5, 0]],
  ])) {
    const expected = new Uint32Array(3);
    paint(values, 4, "contribution", expected);
    assert.deepEqual([...out[name]], [0, ...expected]);
  }
});

test("a colour is kept as ImageData has it", () => {
  assert.deepEqual([...new Uint8Array(Uint32Array.of(abgr(rgb("0a14ff"), 7)).buffer)], [0x0a, 0x14, 0xff, 7]);
});

test("the limit leaves outliers out, and is never zero", () => {
  const values = new Float32Array(1000).fill(0.5);
  values[3] = -100;
  assert.equal(limitOf(values), 0.5);
  assert.equal(limitOf(new Float32Array(4)), 1);
});
