// How numbers are written.

import assert from "node:assert/strict";
import { test } from "node:test";

import { signed } from "../src/dom.js";

test("what is rounded to zero has no sign", () => {
  assert.deepEqual(
    [0, -0.004, 0.004, -0.005001, 0.005001].map((value) => signed(value)),
    ["0.00", "0.00", "0.00", "−0.01", "+0.01"],
  );
  assert.equal(signed(-0.04, 1), "0.0");
});
