// How masks are drawn, by the version of Ultralytics in the file; the tables are written from Python.

import { FAMILIES, RULES, SINCE } from "./tables.js";

/** @typedef {import("../masks.js").MaskRule} MaskRule */

const rules = /** @type {Record<string, MaskRule>} */ (/** @type {unknown} */ (RULES));

/** The rule of a family, or else that of the version. @param {keyof typeof FAMILIES} family @param {string | null} version */
export function ruleOf(family, version) {
  const { rule } = FAMILIES[family];
  return rule ? rules[rule] : ruleOfVersion(version);
}

/** @param {string | null} version @returns {MaskRule} */
export function ruleOfVersion(version) {
  const found = /^(\d+)\.(\d+)\.(\d+)/.exec(version ?? "");
  if (!found) return rules.ultralytics;
  const release = found.slice(1).map(Number);
  const reaches = (/** @type {number[]} */ since) => {
    for (let i = 0; i < 3; i++) if (release[i] !== since[i]) return release[i] > since[i];
    return true;
  };
  const first = SINCE.find(([since]) => reaches(/** @type {number[]} */ (since)));
  return first ? rules[/** @type {string} */ (first[1])] : rules.ultralytics;
}
