import assert from "node:assert/strict";
import { test } from "node:test";
import { instancesOf, readAddress, writeAddress } from "../src/atlas/address.js";
import { byClass, byCluster, byValue, classColours, OTHER, SEQUENCE } from "../src/atlas/colours.js";
import { UNKNOWN } from "../src/atlas/data.js";
import { asCsv, meanOf, nearestOf, signatureOf, unpackedValue } from "../src/atlas/selection.js";

const even = { name: "iou", title: "", low: 0.2, high: 0.7, log: false };

test("packed numbers read back, also of logarithms, and what is not known is NaN", () => {
  assert.equal(unpackedValue(even, 0), 0.2);
  assert.ok(Math.abs(unpackedValue(even, UNKNOWN - 1) - 0.7) < 1e-12);
  assert.ok(Number.isNaN(unpackedValue(even, UNKNOWN)));
  assert.ok(
    Math.abs(unpackedValue({ ...even, low: Math.log(2), high: Math.log(32), log: true }, (UNKNOWN - 1) / 2) - 8) < 1e-9,
  );
});

test("means are of known values", () => {
  const values = Uint16Array.from([0, UNKNOWN, UNKNOWN - 1]);
  assert.ok(Math.abs(meanOf(even, values, [0, 1, 2]) - 0.45) < 1e-12);
  assert.ok(Number.isNaN(meanOf(even, values, [1])));
  assert.ok(Number.isNaN(meanOf(even, values, [])));
});

test("a signature is the difference of means in standard deviations", () => {
  const [n, k] = [40, 3];
  const weights = Int8Array.from({ length: n * k }, (_, i) => ((i * 37) % 101) - 50);
  const points = [0, 3, 5, 8, 13, 21];
  const found = signatureOf(weights, k, points);
  for (let j = 0; j < k; j++) {
    const column = Array.from({ length: n }, (_, i) => weights[i * k + j]);
    const mean = (/** @type {number[]} */ values) => values.reduce((a, b) => a + b, 0) / values.length;
    const spread = Math.sqrt(mean(column.map((value) => (value - mean(column)) ** 2)));
    const expected = (mean(points.map((i) => column[i])) - mean(column.filter((_, i) => !points.includes(i)))) / spread;
    assert.ok(Math.abs(found[j] - expected) < 1e-9);
  }
  assert.deepEqual(
    [
      ...signatureOf(
        weights,
        k,
        Array.from({ length: n }, (_, i) => i),
      ),
    ],
    [0, 0, 0],
  );
  assert.deepEqual([...signatureOf(new Int8Array(12), 3, [1])], [0, 0, 0]);
});

test("CSV keeps names as text", () => {
  const text = asCsv([
    ["image", "iou"],
    ['a, "b"\n.jpg', 0.123456789],
    ["=HYPERLINK(1)", NaN],
    ["-x.jpg", -3],
  ]);
  assert.equal(text, 'image,iou\n"a, ""b""\n.jpg",0.123457\n\'=HYPERLINK(1),\n\'-x.jpg,-3\n');
});

test("every point has a colour of its palette", () => {
  const classes = byClass(Uint32Array.from([0, 5, 9, 7]), classColours([9, 0]));
  assert.deepEqual([...classes.indices], [0, 5, 5, 6]);
  assert.equal(classes.palette[6], OTHER);
  const values = byValue(Uint16Array.from([0, UNKNOWN - 1, UNKNOWN, 30_000]));
  assert.equal(values.palette.length, SEQUENCE.length + 1);
  assert.deepEqual([...values.indices.slice(0, 3)], [0, 254, 255]);
  const kinds = byCluster(Uint8Array.from([0, 1, 5, 6]));
  assert.ok(kinds.indices.every((index) => index < kinds.palette.length));
});

test("colours of classes stay, whichever are chosen", () => {
  const all = classColours([]);
  const chosen = classColours([3, 8], all);
  for (let id = 0; id < 6; id++) assert.equal(chosen.get(id), all.get(id));
  assert.equal(all.get(8), undefined);
  const more = classColours([3, 8, 5, 9], chosen);
  assert.equal(more.get(8), chosen.get(8));
  assert.ok(![3, 5, 8].some((id) => more.get(id) === more.get(9)));
  assert.equal(classColours([9], more).get(9), more.get(9));
  assert.equal(classColours(Array.from({ length: 20 }, (_, id) => id)).size, 20); // more than there are colours
});

test("an address says what the map shows, and what it does not have is left out", () => {
  const shown = { layout: 1, colour: "quality-iou", classes: ["a&b", "knife"], text: "ü#", selected: ["a#b.png#3"] };
  assert.deepEqual(readAddress(writeAddress(shown)), shown);
  assert.equal(writeAddress(readAddress("#other=1")), "");
  const points = instancesOf(
    ["a#1", "b#0", "none#4", "b#9"],
    ["a", "b"],
    Uint32Array.of(0, 0, 1),
    Uint32Array.of(0, 1, 0),
  );
  assert.deepEqual(points, [1, 2]);
});

test("the sequence grows lighter", () => {
  const light = SEQUENCE.map((colour) =>
    [1, 3, 5].reduce(
      (sum, at) => sum + parseInt(colour.slice(at, at + 2), 16) * [0.2126, 0.7152, 0.0722][(at - 1) / 2],
      0,
    ),
  );
  assert.ok(light.every((value, i) => !i || value >= light[i - 1] - 1));
});

test("the nearest points are those of the smallest distance, nearest first", () => {
  const [k, count] = [3, 40];
  const weights = Int8Array.from({ length: k * count }, (_, i) => ((i * 7919) % 251) - 125);
  const scales = [0.1, 1, 0.01];
  const far = Array.from({ length: count }, (_, other) =>
    scales.reduce((sum, scale, j) => sum + (scale * (weights[other * k + j] - weights[5 * k + j])) ** 2, 0),
  );
  const expected = [...far.keys()].filter((i) => i !== 5).sort((a, b) => far[a] - far[b]);
  assert.deepEqual(nearestOf(weights, scales, 5, 4), expected.slice(0, 4));
  assert.equal(nearestOf(weights, scales, 5, 100).length, count - 1);
});
