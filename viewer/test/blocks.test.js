// Masks in blocks against masks pixel by pixel, over a walk of edits.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Blocks } from "../src/blocks.js";
import { Frame, mix } from "../src/masks.js";
import { Scene, unpack } from "../src/scene.js";
import { bytes, cases } from "./cases.js";

for (const one of cases) {
  test(`${one.name}: blocks decide what pixels decide`, async () => {
    const { header, buffer } = await unpack(bytes(one.scene).buffer);
    const scene = await Scene.open(header, buffer);
    const logits = new Float32Array(scene.prototypes.cells);
    for (const size of /** @type {const} */ (["grid", "canvas", "image"])) {
      const frame = new Frame(scene.letterbox, scene.rule, size);
      scene.instances.forEach((instance, i) => {
        const window = frame.window(instance.canvas_box);
        const blocks = new Blocks(frame, window);
        const stride = frame.width + 2;
        const marks = new Uint8Array(stride * (frame.height + 2));
        for (let at = 0; at < marks.length; at += 3) marks[at] = 2;
        const before = marks.slice();
        const painted = new Uint8Array(frame.width * frame.height);
        const coefficients = [...instance.coefficients];
        for (let step = 0; step < 12; step++) {
          coefficients[step % scene.k] = step === 6 ? 40 : Math.sin(step * 1.7 + i);
          mix(scene.weights(i, coefficients), scene.prototypes, logits);
          const { area, both } = blocks.decide(logits, marks, stride);
          const patch = frame.decode(logits, instance.canvas_box);
          const width = patch.columns[1] - patch.columns[0];
          let [expected, shared] = [0, 0];
          patch.values.forEach((value, at) => {
            const [r, c] = [patch.rows[0] + Math.floor(at / width), patch.columns[0] + (at % width)];
            const mark = marks[(r + 1) * stride + c + 1];
            const is = Number(value > scene.rule.threshold);
            assert.equal(mark & 1, is, `${size}, instance ${i}, step ${step}, row ${r}, column ${c}`);
            expected += is;
            shared += is & (mark >> 1);
          });
          assert.deepEqual([area, both], [expected, shared]);
          // What is visited is all that changed: painting it and the pixels beside it is painting all.
          blocks.changed(step === 0, (rows, columns) => {
            const [top, bottom] = [Math.max(rows[0] - 1, 0), Math.min(rows[1] + 1, frame.height)];
            const [left, right] = [Math.max(columns[0] - 1, 0), Math.min(columns[1] + 1, frame.width)];
            for (let r = top; r < bottom; r++)
              for (let c = left; c < right; c++) painted[r * frame.width + c] = around(marks, stride, r, c);
          });
          for (let r = window.rows[0]; r < window.rows[1]; r++) {
            for (let c = window.columns[0]; c < window.columns[1]; c++)
              assert.equal(painted[r * frame.width + c], around(marks, stride, r, c));
          }
        }
        for (let at = 0; at < marks.length; at++) assert.equal(marks[at] & 2, before[at], "the other mark stays");
      });
    }
  });
}

/**
 * What a painted pixel depends on: its own marks and whether its four neighbours have the same.
 * @param {Uint8Array} marks
 * @param {number} stride
 * @param {number} r
 * @param {number} c
 */
function around(marks, stride, r, c) {
  const at = (r + 1) * stride + c + 1;
  return marks[at] | ((marks[at - 1] & marks[at + 1] & marks[at - stride] & marks[at + stride]) << 2);
}
