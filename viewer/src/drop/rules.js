// How masks are drawn, by the version of Ultralytics in the file: the presets of src/maskprism/core/masks.py, and their
// order.

/** @typedef {import("../masks.js").MaskRule} MaskRule */

/** @type {MaskRule} */
const NOW = {
  name: "ultralytics",
  squash: false,
  crop: "after",
  crop_image: "after",
  crop_padding: 0,
  round_box: false,
  unpad: "whole",
  objectness: false,
  size: "canvas",
  crop_margin: 0,
  logit_threshold: 0,
  threshold: 0,
};
/** @type {MaskRule} */
const BEFORE = { ...NOW, name: "ultralytics-8.4.83", unpad: "round", crop: "before" };
/** @type {MaskRule} */
const OLD = { ...BEFORE, name: "ultralytics-8.2", unpad: "floor", squash: true, threshold: 0.5 };
/** @type {MaskRule} */
export const YOLOV5 = { ...OLD, name: "yolov5", objectness: true };

/** The first release with each behaviour, newest first. @type {[number[], MaskRule][]} */
const SINCE = [
  [[8, 4, 175], NOW],
  [[8, 4, 90], { ...NOW, name: "ultralytics-8.4.90", unpad: "round" }],
  [[8, 4, 83], BEFORE],
  [[8, 3, 215], { ...BEFORE, name: "ultralytics-8.3.215", round_box: true }],
  [[8, 3, 189], { ...BEFORE, name: "ultralytics-8.3.189" }],
  [[8, 3, 0], { ...BEFORE, name: "ultralytics-8.3", unpad: "floor" }],
  [[0, 0, 0], OLD],
];

/** @param {string | null} version @returns {MaskRule} */
export function ruleOfVersion(version) {
  const found = /^(\d+)\.(\d+)\.(\d+)/.exec(version ?? "");
  if (!found) return NOW;
  const release = found.slice(1).map(Number);
  const reaches = (/** @type {number[]} */ since) => {
    for (let i = 0; i < 3; i++) if (release[i] !== since[i]) return release[i] > since[i];
    return true;
  };
  return /** @type {[number[], MaskRule]} */ (SINCE.find(([since]) => reaches(since)))[1];
}
