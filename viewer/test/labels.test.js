import assert from "node:assert/strict";
import test from "node:test";
import { allows, exported, keptAt, restored } from "../src/labels/decisions.js";

const label = { image: "a.png", label_id: 3, box: [1, 2, 3, 4], kind: "shifted" };
const mask = { size: [4, 4], counts: "5" };
const cards = [
  { label, remedy: { action: "replace", mask } },
  { label: { ...label, label_id: null }, remedy: { action: "add", category: 7, mask } },
  { label: { ...label, label_id: "x" }, remedy: null },
];
const page = { key: "k", head: { format: 1 }, cards };

test("what there is to accept and to delete", () => {
  assert.deepEqual(
    cards.map((card) => [allows(card, "accept"), allows(card, "keep"), allows(card, "delete")]),
    [
      [true, true, true],
      [true, true, false],
      [false, true, true],
    ],
  );
});

test("kept verdicts come back, and nothing else does", () => {
  const kept = new Map([
    [0, /** @type {const} */ ("accept")],
    [2, /** @type {const} */ ("delete")],
  ]);
  assert.deepEqual(restored(JSON.stringify(Object.fromEntries(kept)), cards), kept);
  for (const text of [null, "", "{", "null", "[]", '{"0": "burn", "7": "keep", "1": "delete", "2": "accept"}'])
    assert.equal(restored(text, cards).size, 0, String(text));
});

test("decisions are exported in the order of the cards, with what to do", () => {
  const verdicts = new Map([
    [2, /** @type {const} */ ("delete")],
    [1, /** @type {const} */ ("accept")],
    [0, /** @type {const} */ ("keep")],
  ]);
  assert.deepEqual(exported(page, verdicts), {
    format: 1,
    decisions: [
      { ...label, action: "keep" },
      { ...label, label_id: null, action: "add", category: 7, mask },
      { ...label, label_id: "x", action: "delete" },
    ],
  });
});

test("the time at which verdicts were kept is no verdict", () => {
  const text = JSON.stringify({ 0: "keep", at: 12 });
  assert.equal(keptAt(text), 12);
  assert.equal(restored(text, cards).has(0), true);
  for (const other of [null, "", "[]", "{", "null", '{"at":"later"}', '{"0":"keep"}']) assert.equal(keptAt(other), 0);
});
