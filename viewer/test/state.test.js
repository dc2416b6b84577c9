// Edits, their history, and the text that restores them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { shortest, State } from "../src/state.js";

const rows = [
  [0.5, -1.25, 0.1],
  [2, 0, -3],
];
const f32 = (/** @type {number[]} */ values) => [...Float32Array.from(values)];

test("a drag is one step of the history", () => {
  const state = new State(rows);
  for (const value of [0.4, 0.3, -0.2]) state.move(0, value);
  state.commit();
  assert.deepEqual([...state.coefficients()], f32([-0.2, -1.25, 0.1]));
  state.undo();
  assert.deepEqual([...state.coefficients()], f32(rows[0]));
  assert.equal(state.edits.size, 0);
  state.redo();
  assert.deepEqual([...state.coefficients()], f32([-0.2, -1.25, 0.1]));
});

test("the moves of a drag are reported one by one, each from where the last one ended", () => {
  const state = new State(rows);
  /** @type {number[][]} */
  const moves = [];
  state.listen((change) => change.kind === "coefficient" && moves.push([change.from, change.to]));
  for (const value of [0.4, 1.75, -0.2]) state.move(0, value);
  const values = f32([rows[0][0], 0.4, 1.75, -0.2]);
  assert.deepEqual(
    moves,
    [0, 1, 2].map((i) => [values[i], values[i + 1]]),
  );
});

test("a change that changes nothing is no step", () => {
  const state = new State(rows);
  state.set(1, -1.25);
  state.setAll(rows[0]);
  assert.equal(state.done.length, 0);
});

test("keys in quick succession are undone together, other coefficients apart", () => {
  const state = new State(rows);
  state.set(0, 0.6, "k0");
  state.set(0, 0.7, "k0");
  state.set(1, 0, "k1");
  assert.equal(state.done.length, 2);
  state.undo();
  state.undo();
  assert.deepEqual([...state.coefficients()], f32(rows[0]));
});

test("an edit after undoing forgets what was undone", () => {
  const state = new State(rows);
  state.set(0, 1);
  state.undo();
  state.set(0, 2);
  state.redo();
  assert.equal(state.coefficients()[0], 2);
});

test("there and back again in quick succession is no step", () => {
  const state = new State(rows);
  state.set(1, 0, "k1");
  state.set(1, rows[0][1], "k1");
  assert.equal(state.done.length, 0);
  assert.equal(state.edits.size, 0);
});

test("taking back all edits is one step that can be undone", () => {
  const state = new State(rows);
  state.set(0, 1);
  state.select(1);
  state.set(2, 4);
  state.resetAll();
  assert.equal(state.edits.size, 0);
  state.resetAll();
  state.undo();
  assert.deepEqual([[...state.coefficients(0)], [...state.coefficients(1)]], [f32([1, -1.25, 0.1]), f32([2, 0, 4])]);
  state.redo();
  assert.equal(state.edits.size, 0);
});

test("undo goes back to the instance that was edited", () => {
  const state = new State(rows);
  state.set(0, 1);
  state.select(1);
  state.only([2]);
  assert.deepEqual([...state.coefficients()], [0, 0, -3]);
  state.undo();
  state.undo();
  assert.equal(state.selected, 0);
  assert.equal(state.edits.size, 0);
});

test("saved text restores everything, to the last bit", () => {
  const state = new State(rows);
  state.set(0, 1 / 3);
  state.select(1);
  state.set(2, 0);
  state.look({ view: "logits", crop: false, opacity: 0.85, order: "index", thumbnails: "term" });
  state.point({ x: 12, y: 7 });
  const again = new State(rows);
  again.restore(new URLSearchParams(state.save().toString()));
  for (const i of [0, 1]) assert.deepEqual([...again.coefficients(i)], [...state.coefficients(i)]);
  assert.deepEqual([again.selected, again.view, again.crop, again.pixel], [1, "logits", false, { x: 12, y: 7 }]);
  assert.deepEqual([again.opacity, again.order, again.thumbnails], [0.85, "index", "term"]);
  again.restore(new URLSearchParams("pixel=1,2"));
  assert.deepEqual([again.opacity, again.order, again.thumbnails, again.edits.size], [0.5, "effect", "prototype", 0]);
  assert.equal(new State(rows).save().toString(), "");
});

test("saved text that does not fit is left out", () => {
  const state = new State(rows);
  state.restore(
    new URLSearchParams("i=9&e0=7:1,1:x,0:2,2:1e39&e5=0:1&view=<b>&pixel=1,b&opacity=7&order=x&__proto__=1"),
  );
  assert.deepEqual([...state.coefficients(0)], f32([2, -1.25, 0.1]));
  assert.deepEqual([state.selected, state.view, state.pixel, state.edits.size], [0, "mask", null, 1]);
  assert.deepEqual([state.opacity, state.order], [0.5, "effect"]);
});

test("2,000 damaged texts restore a state that can be saved and restored again", () => {
  const pieces = [
    "e0",
    "e1",
    "e7",
    "i",
    "pixel",
    "view",
    "opacity",
    "__proto__",
    "=",
    "&",
    ",",
    ":",
    "-",
    ".",
    "%",
    "9",
    "1e39",
    "NaN",
    "Infinity",
    "0x1",
    "\u0000",
    "\ud800",
    "length",
  ];
  let seed = 1;
  const chance = (/** @type {number} */ below) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  for (let round = 0; round < 2000; round++) {
    let text = "i=1&view=logits&crop=off&opacity=0.85&order=index&show=term&pixel=12,7&e0=1:0.25,2:-1&e1=0:0";
    for (let damage = chance(6); damage >= 0; damage--) {
      const at = chance(text.length + 1);
      text = text.slice(0, at) + (chance(3) ? pieces[chance(pieces.length)] : "") + text.slice(at + chance(4));
    }
    const state = new State(rows);
    state.restore(new URLSearchParams(text));
    for (const i of [0, 1])
      assert.ok(state.coefficients(i).every(Number.isFinite) && state.coefficients(i).length === 3, text);
    assert.ok([0, 1].includes(state.selected) && state.opacity >= 0 && state.opacity <= 1, text);
    const again = new State(rows);
    again.restore(new URLSearchParams(state.save().toString()));
    assert.equal(again.save().toString(), state.save().toString(), text);
  }
});

test("edits from elsewhere are checked", () => {
  const state = new State(rows);
  state.replace({ 0: [1, 2, 3], 1: [1, 2], 7: [1, 2, 3] });
  assert.deepEqual([...state.edits.keys()], [0]);
  state.replace({ 0: [NaN, 2, 3] });
  assert.equal(state.edits.size, 0);
});

test("an edit ends the look at what was before", () => {
  const state = new State(rows);
  for (const edit of [() => state.move(0, 2), () => state.setAll(rows[1])]) {
    state.look({ before: "edits" });
    edit();
    assert.equal(state.before, "");
  }
});

test("coefficients from before tuning are looked at, and edits go from the tuned ones", () => {
  const state = new State(rows, [[9, 8, 7], null]);
  state.look({ before: "tuning" });
  assert.deepEqual([...state.shown()], [9, 8, 7]);
  state.set(0, 2);
  assert.equal(state.before, "");
  assert.deepEqual(state.coefficients(), Float32Array.from([2, ...rows[0].slice(1)]));
  state.select(1);
  state.look({ before: "tuning" });
  assert.deepEqual(state.shown(), Float32Array.from(rows[1]), "an instance without them shows what it has");
});

test("without instances nothing breaks", () => {
  const state = new State([]);
  state.set(0, 1);
  state.setAll([]);
  state.select(0);
  state.undo();
  assert.equal(state.selected, -1);
});

test("the shortest text is the same number", () => {
  for (const value of [0.1, 1 / 3, -1e-7, 123456.7, 0, 3])
    assert.equal(Math.fround(Number(shortest(Math.fround(value)))), Math.fround(value));
  assert.equal(shortest(Math.fround(0.1)), "0.1");
});
