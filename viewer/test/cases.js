// The cases that Python and JavaScript share; see tests/helpers/viewer_cases.py.

import { readFileSync } from "node:fs";

/** @typedef {{ rows: [number, number], columns: [number, number], values: string }} Patch */
/**
 * @typedef {{ patches: Record<string, Patch>, uncropped: Patch, positive: string, negative: string, weights: number[],
 * effects: number[], order: number[], roles: string[][], pixel: { y: number, x: number, terms: number[] }, flip: { k:
 * number, change: number } | null }} Said
 */
/**
 * @typedef {{ name: string, scene: string, truth: string, edits: Record<string, number>, original: Said[], edited:
 * Said[] }} Case
 */

/**
 * @typedef {{ name: string, scene: string, found: { named: string[][], inside: (number | null)[], ring: (number |
 * null)[], edge: (number | null)[], share: (number | null)[] }[] }} RoleCase
 */

/**
 * @typedef {{ width: number, grey: string, masks: string[], boxes: number[][], greys: ([number, number] | null)[],
 * colours: string[] }} ColourCase
 */

/** @type {{ cases: Case[], roles: RoleCase[], colours: ColourCase[], palette: Record<string, string> }} */
export const { cases, roles, colours, palette } = JSON.parse(
  readFileSync(new URL("../../tests/helpers/viewer_cases.json", import.meta.url), "utf8"),
);

/** @param {string} text @returns {Uint8Array<ArrayBuffer>} */
export const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));
/** @param {string} text */
export const floats = (text) => new Float32Array(bytes(text).buffer);
