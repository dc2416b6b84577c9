// The colours of points: a palette, and for each point a number in it.

import { UNKNOWN } from "./data.js";

const VIRIDIS = "440154 482475 414487 355f8d 2a788e 21918c 22a884 44bf70 7ad151 bddf26 fde725".split(" ");
/** Of the classes that have one; those of Okabe and Ito that stand out from light and dark. */
export const CLASS_COLOURS = "#e69f00 #56b4e9 #009e73 #d55e00 #cc79a7 #0072b2".split(" ");
export const OTHER = "#8d8d8d";
const STEPS = 255;

/** 255 colours from low to high. */
export const SEQUENCE = Array.from({ length: STEPS }, (_, i) => {
  const at = (i / (STEPS - 1)) * (VIRIDIS.length - 1);
  const below = Math.min(Math.floor(at), VIRIDIS.length - 2);
  const parts = [0, 2, 4].map((start) => {
    const [low, high] = [VIRIDIS[below], VIRIDIS[below + 1]].map((colour) =>
      parseInt(colour.slice(start, start + 2), 16),
    );
    return Math.round(low + (at - below) * (high - low))
      .toString(16)
      .padStart(2, "0");
  });
  return `#${parts.join("")}`;
});

/** @typedef {{ palette: string[], indices: Uint8Array }} Colouring */

/**
 * Which colour a class has: the largest classes always their own, a smaller one while it is chosen, one that is free.
 * @param {Iterable<number>} chosen
 * @param {Map<number, number>} before What this gave for the choice before: colours stay.
 * @returns {Map<number, number>}
 */
export function classColours(chosen, before = new Map()) {
  const own = CLASS_COLOURS.length;
  const places = new Map(CLASS_COLOURS.map((_, id) => [id, id]));
  const small = [...chosen].filter((id) => id >= own);
  for (const id of small) if (before.has(id)) places.set(id, before.get(id) ?? 0);
  const used = new Set([...chosen].map((id) => places.get(id)));
  for (const id of small) {
    if (places.has(id)) continue;
    const free = [...CLASS_COLOURS.keys()].filter((place) => !used.has(place));
    places.set(id, free.at(-1) ?? id % own);
    used.add(places.get(id));
  }
  return places;
}

/**
 * Classes as colours, and one for those that have none of their own.
 * @param {Uint32Array} classes
 * @param {Map<number, number>} places
 * @returns {Colouring}
 */
export const byClass = (classes, places) => ({
  palette: [...CLASS_COLOURS, OTHER],
  indices: Uint8Array.from(classes, (id) => places.get(id) ?? CLASS_COLOURS.length),
});

/** Numbers as colours, what is not known in grey. @param {Uint16Array} values @returns {Colouring} */
export function byValue(values) {
  return {
    palette: [...SEQUENCE, OTHER],
    indices: Uint8Array.from(values, (value) => (value === UNKNOWN ? STEPS : Math.floor((value / UNKNOWN) * STEPS))),
  };
}

/** Kinds within a class. @param {Uint8Array} clusters @returns {Colouring} */
export const byCluster = (clusters) => ({
  palette: CLASS_COLOURS,
  indices: clusters.map((number) => number % CLASS_COLOURS.length),
});
