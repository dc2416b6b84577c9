// Roles of prototypes in scenes like real ones, as Python finds them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { rolesOf } from "../src/roles.js";
import { Scene, unpack } from "../src/scene.js";
import { bytes, roles } from "./cases.js";

/** @param {import("./cases.js").RoleCase} one */
async function open(one) {
  const { header, buffer } = await unpack(bytes(one.scene).buffer);
  return Scene.open(header, buffer);
}

for (const one of roles) {
  test(`roles: ${one.name}`, async () => {
    const scene = await open(one);
    for (const instance of scene.instances) delete instance.roles; // so that they are found here
    one.found.forEach((expected, i) => {
      const found = rolesOf(scene, i, scene.instances[i].coefficients);
      assert.deepEqual(found.named, expected.named);
      for (const name of /** @type {const} */ (["inside", "ring", "edge", "share"])) {
        expected[name].forEach((value, k) =>
          value === null
            ? assert.ok(Number.isNaN(found[name][k]))
            : assert.ok(Math.abs(found[name][k] - value) < 1e-4 * Math.max(1, Math.abs(value)), `${name}[${k}]`),
        );
      }
    });
  });
}

test("a prototype with a negative share of the margin is never helpful", async () => {
  let negative = 0;
  for (const one of roles) {
    const scene = await open(one);
    for (const instance of scene.instances) delete instance.roles;
    scene.instances.forEach(({ coefficients }, i) => {
      for (const factor of [1, 0.5, -1]) {
        const { named, share } = rolesOf(
          scene,
          i,
          coefficients.map((value, k) => (k % 3 ? value : factor * value)),
        );
        share.forEach((value, k) => {
          if (!(value < 0)) return;
          negative += 1;
          assert.ok(["opposes", "negligible"].includes(named[k].join()), `${one.name}, ${i}, ${k}: ${named[k]}`);
        });
      }
    });
  }
  assert.ok(negative > 50);
});

test("roles that came with the scene hold for its own coefficients, and no others", async () => {
  const scene = await open(roles[0]);
  const { coefficients } = scene.instances[0];
  scene.instances[0].roles = coefficients.map(() => ["carves"]);
  assert.deepEqual(rolesOf(scene, 0, Float32Array.from(coefficients)).named, scene.instances[0].roles);
  assert.notDeepEqual(
    rolesOf(
      scene,
      0,
      coefficients.map((value, k) => (k ? value : value + 1)),
    ).named,
    scene.instances[0].roles,
  );
});
