// Every number of the viewer's linear algebra against what maskprism says about the same scene.

import assert from "node:assert/strict";
import { test } from "node:test";

import { contributions, descending, effects, Frame, mix, shift, side, sigmoid, smallestFlip } from "../src/masks.js";
import { rolesOf } from "../src/roles.js";
import { Scene, unpack } from "../src/scene.js";
import { bytes, cases, floats } from "./cases.js";

const SIZES = /** @type {const} */ (["grid", "canvas", "image"]);
const NEAR = 2e-5;

/** @param {ArrayLike<number>} found @param {ArrayLike<number>} expected @param {string} what */
function near(found, expected, what) {
  assert.equal(found.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    assert.ok(
      Math.abs(found[i] - expected[i]) <= NEAR * Math.max(1, Math.abs(expected[i])),
      `${what}[${i}]: ${found[i]}, not ${expected[i]}`,
    );
  }
}

/** @param {import("./cases.js").Case} one */
async function open(one) {
  const { header, buffer } = await unpack(bytes(one.scene).buffer);
  return Scene.open(header, buffer);
}

/** @param {Scene} scene @param {number} i @param {Record<string, number>} edits */
function weightsOf(scene, i, edits) {
  const coefficients = [...scene.instances[i].coefficients];
  for (const [k, value] of Object.entries(edits)) coefficients[Number(k)] = value;
  return scene.weights(i, coefficients);
}

for (const one of cases) {
  for (const state of /** @type {const} */ (["original", "edited"])) {
    test(`${one.name}, ${state}`, async () => {
      const scene = await open(one);
      one[state].forEach((said, i) => {
        const weights = weightsOf(scene, i, state === "edited" ? one.edits : {});
        const box = scene.instances[i].canvas_box;
        near(weights, said.weights, "weights");
        const logits = new Float32Array(scene.prototypes.cells);
        mix(weights, scene.prototypes, logits);
        for (const size of SIZES.filter((size) => size in said.patches)) {
          const frame = new Frame(scene.letterbox, scene.rule, size);
          const patch = frame.decode(logits, box);
          const expected = said.patches[size];
          const empty = floats(expected.values).length === 0;
          if (!empty)
            assert.deepEqual([patch.rows, patch.columns], [expected.rows, expected.columns], `window of ${size}`);
          near(patch.values, floats(expected.values), size);
          sameMask(patch.values, floats(expected.values), scene.rule.threshold, size);
        }
        const canvas = new Frame(scene.letterbox, scene.rule, "canvas");
        near(canvas.decode(logits, box, "none", false).values, floats(said.uncropped.values), "uncropped logits");
        for (const [sign, expected] of /** @type {const} */ ([
          [1, said.positive],
          [-1, said.negative],
        ])) {
          side(weights, scene.prototypes, sign, logits);
          near(logits, floats(expected), "side");
        }
        near(effects(weights, scene.prototypes, scene.letterbox, box), said.effects, "effects");
        assert.deepEqual(descending(effects(weights, scene.prototypes, scene.letterbox, box)), said.order);
        const coefficients = [...scene.instances[i].coefficients];
        if (state === "edited") for (const [k, value] of Object.entries(one.edits)) coefficients[Number(k)] = value;
        delete scene.instances[i].roles; // so that they are found here
        assert.deepEqual(rolesOf(scene, i, coefficients).named, said.roles, "roles");
        const reads = canvas.reads(said.pixel.y, said.pixel.x);
        near(contributions(weights, scene.prototypes, reads), said.pixel.terms, "terms at a pixel");
        if (said.flip) {
          const flip = smallestFlip(weights, scene.prototypes, reads, scene.rule);
          assert.equal(flip?.k, said.flip.k);
          assert.ok(Math.abs((flip?.change ?? NaN) - said.flip.change) < 1e-3 * Math.abs(said.flip.change));
        }
      });
    });
  }
}

/**
 * Equal, but where rounding decides.
 * @param {Float32Array} found
 * @param {Float32Array} expected
 * @param {number} threshold
 * @param {string} what
 */
function sameMask(found, expected, threshold, what) {
  for (let i = 0; i < expected.length; i++) {
    if (Math.abs(expected[i] - threshold) > NEAR)
      assert.equal(found[i] > threshold, expected[i] > threshold, `${what}[${i}]`);
  }
}

test("the ground truth comes back pixel by pixel", async () => {
  for (const one of cases) {
    const scene = await open(one);
    const truth = scene.truth(0) ?? new Uint8Array();
    const packed = bytes(one.truth);
    truth.forEach((inside, i) => assert.equal(inside, (packed[i >> 3] >> (7 - (i & 7))) & 1));
    assert.equal(
      truth.reduce((a, b) => a + b, 0),
      scene.instances[0].truth?.area,
    );
    assert.equal(scene.truth(1), null);
  }
});

test("shifting the sum by one weight is mixing anew", async () => {
  const scene = await open(cases[0]);
  const weights = weightsOf(scene, 0, {});
  const [moved, movedSizes, anew, sizes] = [0, 0, 0, 0].map(() => new Float32Array(scene.prototypes.cells));
  mix(weights, scene.prototypes, moved, movedSizes);
  for (let k = 0; k < scene.k; k++) {
    shift(moved, movedSizes, weights[k], -0.75, k, scene.prototypes);
    weights[k] = -0.75;
    mix(weights, scene.prototypes, anew, sizes);
    near(moved, anew, "sum");
    near(movedSizes, sizes, "sizes");
  }
});

test("sizes and sum of the terms are the positive and negative evidence", async () => {
  for (const one of cases) {
    const scene = await open(one);
    const { cells } = scene.prototypes;
    for (let i = 0; i < scene.instances.length; i++) {
      const weights = Float32Array.from(scene.instances[i].coefficients);
      weights[1] = 0;
      const [sum, sizes, part, expected] = [0, 1, 2, 3].map(() => new Float32Array(cells));
      mix(weights, scene.prototypes, part);
      mix(weights, scene.prototypes, sum, sizes);
      near(sum, part, "the sum alone");
      side(weights, scene.prototypes, 1, expected);
      near(
        sizes.map((size, at) => (size + sum[at]) / 2),
        expected,
        "for",
      );
      side(weights, scene.prototypes, -1, expected);
      near(
        sizes.map((size, at) => (sum[at] - size) / 2),
        expected,
        "against",
      );
    }
  }
});

test("a flip brings the pixel to the threshold, and no smaller change of any weight does", async () => {
  for (const one of cases) {
    const scene = await open(one);
    const { squash } = scene.rule;
    const frame = new Frame(scene.letterbox, scene.rule, "canvas");
    const reads = frame.reads(7, 6);
    const weights = weightsOf(scene, 0, {});
    /** @param {number} k @param {number} change */
    const inside = (k, change) => {
      const logits = reads.map(({ cell }) =>
        weights.reduce(
          (sum, w, i) =>
            sum + (w + (i === k ? change : 0)) * scene.prototypes.values[i * scene.prototypes.cells + cell],
          0,
        ),
      );
      const value = reads.reduce((sum, { weight }, i) => sum + weight * (squash ? sigmoid(logits[i]) : logits[i]), 0);
      return value > scene.rule.threshold;
    };
    const flip = smallestFlip(weights, scene.prototypes, reads, scene.rule);
    assert.ok(flip, one.name);
    assert.notEqual(inside(flip.k, flip.change * 1.001), inside(0, 0), one.name);
    for (let k = 0; k < scene.k; k++) {
      for (const share of [-0.99, -0.6, -0.3, 0.3, 0.6, 0.99])
        assert.equal(inside(k, flip.change * share), inside(0, 0), `${one.name}: ${k}`);
    }
  }
});

test("a scene of another kind or version is refused", async () => {
  await assert.rejects(unpack(new TextEncoder().encode("<!doctype html><html>").buffer), /not a maskprism scene/);
  const { header, buffer } = await unpack(bytes(cases[0].scene).buffer);
  await assert.rejects(Scene.open({ ...header, version: 99 }, buffer), /format 99/);
});
