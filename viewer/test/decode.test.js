// What the page that runs models in the browser reads out of their outputs, against what maskprism reads.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { brokenPrototypes, brokenRows, detectLayout, readPrototypes, readRows } from "../src/drop/layout.js";
import { metadataProps, namesOf, readMetadata } from "../src/drop/onnx_file.js";
import { fit, resized, said } from "../src/drop/predict.js";
import { ruleOf, ruleOfVersion } from "../src/drop/rules.js";
import { floats } from "./cases.js";

const table = JSON.parse(readFileSync(new URL("../../tests/helpers/decode_cases.json", import.meta.url), "utf8"));

for (const one of table.cases) {
  test(`${one.name}: read as in Python`, () => {
    const outputs = one.outputs.map((/** @type {{ dims: number[], data: string }} */ { dims, data }) => ({
      dims,
      data: floats(data),
    }));
    const layout = detectLayout(
      outputs.map((/** @type {{ dims: number[] }} */ output) => output.dims),
      one.canvas,
      readMetadata(one.metadata),
      one.images_last,
    );
    const { family, rows_output, prototypes_output, channels_last, prototypes_last, classes, prototypes } = one.layout;
    assert.deepEqual(layout, {
      family,
      rowsOutput: rows_output,
      prototypesOutput: prototypes_output,
      channelsLast: channels_last,
      prototypesLast: prototypes_last,
      classes,
      prototypes,
    });
    assert.deepEqual([...readPrototypes(layout, outputs).values], [...floats(one.prototypes)]);
    const rows = readRows(layout, outputs, one.canvas, one.keep);
    assert.ok(rows.length > 3, "something is left to compare");
    assert.deepEqual(
      rows.map((row) => row.class),
      one.rows.classes,
    );
    assert.deepEqual(
      rows.map((row) => row.score),
      one.rows.scores,
    );
    assert.deepEqual(
      rows.map((row) => row.box),
      one.rows.boxes,
    );
    assert.deepEqual(
      rows.map((row) => [...row.coefficients]),
      one.rows.coefficients,
    );
    if (one.rows.objectness)
      assert.deepEqual(
        rows.map((row) => row.objectness),
        one.rows.objectness,
      );
  });
}

test("images lie on the canvas as in Python", () => {
  for (const { image_hw, canvas_hw, content_hw, offset_yx, grid_hw } of table.letterboxes) {
    assert.deepEqual(fit(image_hw, canvas_hw, grid_hw), { image_hw, canvas_hw, content_hw, offset_yx, grid_hw });
  }
});

test("images are resized as OpenCV resizes them, up to one level of rounding", () => {
  for (const { image, size_hw, to_hw, found } of table.resized) {
    const [height, width] = size_hw;
    const data = new Uint8ClampedArray(4 * width * height).map((_, i) =>
      i % 4 === 3 ? 255 : image[3 * Math.floor(i / 4) + (i % 4)],
    );
    resized(/** @type {ImageData} */ ({ width, height, data, colorSpace: "srgb" }), to_hw).forEach((value, i) =>
      assert.ok(Math.abs(value - found[i]) <= 1, `${value}, not ${found[i]}`),
    );
  }
});

test("rules are those of the version", () => {
  for (const [version, rule] of Object.entries(table.rules))
    assert.deepEqual(ruleOfVersion(version === "None" ? null : version), rule, version);
  assert.deepEqual(ruleOf("yolov5", "8.4.0"), table.yolov5);
});

test("names are read, and nothing of them is evaluated", () => {
  for (const [text, names] of Object.entries(table.names)) assert.deepEqual({ ...namesOf(text) }, names);
  for (const text of ["{0: alert(1)}", "[1]", "{0: 'a' + 'b'}", "{'a': 'b'}", "{0: 'a'", ""])
    assert.throws(() => namesOf(text), /no dictionary/, text);
  assert.deepEqual(namesOf("{ }"), {});
});

test("metadata is found in a file, and other files are refused", () => {
  const text = (/** @type {string} */ value) => [...new TextEncoder().encode(value)];
  const part = (/** @type {number} */ field, /** @type {number[]} */ bytes) => [field * 8 + 2, bytes.length, ...bytes];
  const file = Uint8Array.from([
    8,
    8,
    ...part(7, text("a graph")),
    ...part(14, [...part(1, text("task")), ...part(2, text("segment"))]),
  ]);
  assert.deepEqual({ ...metadataProps(file) }, { task: "segment" });
  for (let length = 1; length < 200; length++) {
    const random = Uint8Array.from({ length }, (_, i) => (i * 73 + length * 31) % 256);
    try {
      metadataProps(random);
    } catch (error) {
      assert.match(String(error), /this is no ONNX file/);
    }
  }
});

test("a detection model is refused with a message", () => {
  const nothing = readMetadata({});
  assert.throws(() => detectLayout([[1, 84, 84]], [64, 64], nothing, false), /holds prototypes/);
  assert.throws(
    () =>
      detectLayout(
        [
          [1, 11, 84],
          [1, 4, 16, 16],
        ],
        [64, 64],
        readMetadata({ task: "detect" }),
        false,
      ),
    /detect model/,
  );
});

test("messages of the runtime lose the paths of the machine that built it", () => {
  const cases = [
    [
      "failed to call OrtRun(). ERROR_CODE: 6, ERROR_MESSAGE: Non-zero status code returned while running Gather node. Name:'/model.22/Gather' Status Message: /mnt/vss/_work/1/s/onnxruntime/core/providers/cpu/tensor/gather.cc:154 onnxruntime::common::Status onnxruntime::Gather::Compute(OpKernelContext *) const indices element out of data bounds",
      "Non-zero status code returned while running Gather node. Name:'/model.22/Gather' Status Message: indices element out of data bounds",
    ],
    [
      "ERROR_MESSAGE: /onnxruntime_src/onnxruntime/core/graph/model.cc:149 onnxruntime::Model::Model(ModelProto &&, const PathString &, const logging::Logger &, const ModelOptions &) Unsupported model IR version: 99",
      "Unsupported model IR version: 99",
    ],
    ["C:\\a\\_work\\1\\s\\onnxruntime\\core\\session\\x.cpp:12 No graph was found", "No graph was found"],
    ["", "it gives no reason"],
  ];
  for (const [message, words] of cases) assert.equal(said(new Error(message)), words);
  assert.ok(said("x".repeat(9999)).length < 400);
});

test("numbers that are not finite are found, in either order of memory", () => {
  const layout = /** @type {any} */ ({ rowsOutput: 0, channelsLast: true });
  const data = Float32Array.from([1, 2, 3, NaN, 5, 6, 7, 8, 9, Infinity, NaN, 12]);
  assert.deepEqual(brokenRows(layout, [{ dims: [1, 4, 3], data }]), [2, 4]);
  assert.deepEqual(brokenRows({ ...layout, channelsLast: false }, [{ dims: [1, 3, 4], data }]), [3, 4]);
  assert.deepEqual(brokenPrototypes({ k: 3, h: 2, w: 2, values: data }), [0, 2]);
});
