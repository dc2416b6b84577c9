// Where the map's points come from: elements of its own file, or the server. Columns are small numbers, deflated.

import { readFilters, writeFilters } from "../gallery/filters.js";

/**
 * @typedef {{ name: string, title: string, low: number, high: number, log: boolean }} Quality Numbers lie between low
 * and high; of their logarithm where `log`.
 */
/**
 * @typedef {object} Info
 * @property {string} title
 * @property {number} count
 * @property {{ title: string, note: string }[]} layouts
 * @property {{ name: string, count: number }[]} classes Most instances first.
 * @property {Quality[]} qualities
 * @property {boolean} clusters Whether kinds within classes are known.
 * @property {string[]} labels Of the coefficients.
 * @property {number[] | null} scales What the weights are to be multiplied by; null where they were left out.
 * @property {{ side: number, across: number, down: number, count: number } | null} thumbnails Sheets of small pictures.
 * @property {string} viewer Where instances open: a page that holds their images, or a server; empty where the map can
 * open them itself.
 */
/**
 * @typedef {object} Source
 * @property {() => Promise<Info>} info
 * @property {(name: string) => Promise<ArrayBuffer | null>} column
 * @property {(name: string, instance: number, point: number) => Promise<Picture | null>} picture
 */
/**
 * @typedef {{ url: string, x: number, y: number, sheet: [number, number] | null, own: number }} Picture A picture, or
 * the place of one with sides of `own` pixels in a sheet of that size.
 */

export const UNKNOWN = 65535;

/** The points of a page that holds everything. @returns {Source} */
export function embedded() {
  const info = JSON.parse(document.getElementById("maskprism-map")?.textContent ?? "null");
  /** @type {Map<number, string>} */
  const urls = new Map();
  /** @type {Promise<Map<number, number>> | null} */
  let places = null;
  return {
    info: async () => info,
    column: (name) => columnOf(name),
    picture: async (_, __, point) => {
      const { thumbnails } = /** @type {Info} */ (info);
      if (!thumbnails) return null;
      places ??= columnOf("pictured").then(
        (buffer) => new Map([...new Uint32Array(buffer ?? new ArrayBuffer(0))].map((one, at) => [one, at])),
      );
      const at = (await places).get(point);
      if (at === undefined) return null;
      const { side, across, down } = thumbnails;
      const sheet = Math.floor(at / (across * down));
      const inside = at % (across * down);
      if (!urls.has(sheet))
        urls.set(
          sheet,
          URL.createObjectURL(
            new Blob([bytesOf(`maskprism-sheet-${sheet}`) ?? new Uint8Array()], { type: "image/webp" }),
          ),
        );
      return {
        url: urls.get(sheet) ?? "",
        x: (inside % across) * side,
        y: Math.floor(inside / across) * side,
        sheet: [across * side, down * side],
        own: side,
      };
    },
  };
}

/** The points that a server knows so far, under the filter of the gallery. @returns {Source} */
export function served() {
  const query = writeFilters(readFilters(location.search));
  const answer = fetch(`/api/map?${query}`).then(async (response) => {
    const found = await response.json();
    if (!response.ok) throw new Error(found.error);
    return found;
  });
  return {
    info: async () => (await answer).info,
    column: async (name) => {
      const text = (await answer).columns[name];
      return text === undefined ? null : inflated(decoded(text));
    },
    picture: async (name, instance) => ({
      url: `/api/crops/${name.split("/").map(encodeURIComponent).join("/")}?index=${instance}`,
      x: 0,
      y: 0,
      sheet: null,
      own: 80,
    }),
  };
}

/** @param {string} name @returns {Promise<ArrayBuffer | null>} */
async function columnOf(name) {
  const bytes = bytesOf(`maskprism-map-${name}`);
  return bytes && inflated(bytes);
}

/** @param {string} id */
function bytesOf(id) {
  const element = document.getElementById(id);
  return element && decoded(element.textContent ?? "");
}

/** @param {string} text @returns {Uint8Array<ArrayBuffer>} */
function decoded(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
const inflated = (bytes) =>
  new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
