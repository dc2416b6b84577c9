// The colours of src/maskprism/drawing/palette.py; a test holds the two together.

/** @typedef {"contribution" | "prototype"} MapName */

/** @type {Record<MapName, string>} */
export const ANCHORS = {
  contribution: "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f",
  prototype: "2d004b 542788 8073ac b2abd2 d8daeb f7f7f7 fee0b6 fdb863 e08214 b35806 7f3b08",
};
export const INSTANCE_COLOURS = "e69f00 56b4e9 009e73 f0e442 0072b2 d55e00 cc79a7".split(" ");

/** @param {string} colour @returns {[number, number, number]} */
export function rgb(colour) {
  const value = parseInt(colour, 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** The colour of an instance by its number; repeats after seven. @param {number} instance */
export const colourOf = (instance) => INSTANCE_COLOURS[instance % INSTANCE_COLOURS.length];

/**
 * A colour as ImageData keeps it in a Uint32Array on little-endian machines.
 * @param {ArrayLike<number>} colour
 * @param {number} alpha 0 to 255
 */
export const abgr = (colour, alpha) => ((alpha << 24) | (colour[2] << 16) | (colour[1] << 8) | colour[0]) >>> 0;

/**
 * 256 colours from the most negative over zero (128) to the most positive.
 * @param {MapName} name
 * @returns {Uint32Array}
 */
export function lookupTable(name) {
  const anchors = ANCHORS[name].split(" ").map(rgb);
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (anchors.length - 1);
    const below = Math.min(Math.floor(at), anchors.length - 2);
    return abgr(
      [0, 1, 2].map((c) => Math.round(anchors[below][c] + (at - below) * (anchors[below + 1][c] - anchors[below][c]))),
      255,
    );
  });
}

const TABLES = { contribution: lookupTable("contribution"), prototype: lookupTable("prototype") };

/**
 * Values as colours: -limit and limit are the ends of the map.
 * @param {ArrayLike<number>} values
 * @param {number} limit
 * @param {MapName} name
 * @param {Uint32Array} out
 */
export function paint(values, limit, name, out) {
  const table = TABLES[name];
  const scale = 127.5 / limit;
  for (let i = 0; i < values.length; i++) {
    const step = values[i] * scale + 128;
    out[i] = table[step < 0 ? 0 : step > 255 ? 255 : step | 0];
  }
}

/**
 * A sum and its positive and negative parts as colours, from the sum and that of the sizes of its terms.
 * @param {{ sum: Float32Array, sizes: Float32Array, limit: number, start: number, count: number }} from
 * @param {{ logits: Uint32Array, positive: Uint32Array, negative: Uint32Array }} out
 * @param {number} at Where the first colour goes.
 */
export function paintParts({ sum, sizes, limit, start, count }, { logits, positive, negative }, at) {
  const table = TABLES.contribution;
  const scale = 127.5 / limit;
  for (let i = start, to = at; i < start + count; i++, to++) {
    const value = sum[i] * scale;
    const size = Math.max(sizes[i] * scale, Math.abs(value)); // by rounding it may be below
    const [whole, plus, minus] = [value + 128, (size + value) / 2 + 128, (value - size) / 2 + 128];
    logits[to] = table[whole < 0 ? 0 : whole > 255 ? 255 : whole | 0];
    positive[to] = table[plus > 255 ? 255 : plus | 0];
    negative[to] = table[minus < 0 ? 0 : minus | 0];
  }
}

/**
 * The value that `share` of a sample of |values| stays below; 1 where all are zero.
 * @param {Float32Array} values
 * @param {number} share
 */
export function limitOf(values, share = 0.995) {
  const every = Math.max(1, Math.floor(values.length / 20000));
  const sample = new Float32Array(Math.ceil(values.length / every));
  for (let i = 0; i < sample.length; i++) sample[i] = Math.abs(values[i * every]);
  sample.sort();
  return sample[Math.floor((sample.length - 1) * share)] || 1;
}
