// What Python sends (src/maskprism/viewer/payload.py): unpacking, prototypes, instances.

/** @typedef {import("./geometry.js").Letterbox} Letterbox */
/** @typedef {import("./masks.js").MaskRule} MaskRule */
/** @typedef {{ offset: number, length: number }} Section */
/**
 * @typedef {{ class: number, name: string, score: number, box: number[], canvas_box: number[], coefficients: number[],
 *   untuned?: number[] | null, objectness: number | null, logit_error: number, truth: (Section & { area: number }) |
 *   null,
 *   colour?: string, roles?: import("./roles.js").Role[][], outcome?: "true positive" | "false positive" | "excused", error?: string |
 *   null }} Instance
 */
/**
 * @typedef {Section & { class: number, name: string, area: number, box: number[] }} Missed A labelled instance that no
 * prediction found.
 * @typedef {{ version: number, source: string, boxes?: boolean, missed?: Missed[], matching?: { rule: string, errors:
 * Record<string, string> }, letterbox: Letterbox, rule: MaskRule, instances: Instance[],
 *   image: Section & { type: string, size_hw: [number, number] },
 *   prototypes: Section & { k: number, h: number, w: number, bits: 8 | 16 | 32, low: number[], step: number[],
 *   encoding: "raw" | "deflate" } }} Header
 */

const MAGIC = "MPRISM\0\x01";
const VERSION = 1;

/**
 * Header and buffer of a packed scene.
 * @param {ArrayBuffer} message
 * @returns {Promise<{ header: Header, buffer: Uint8Array }>}
 */
export async function unpack(message) {
  const bytes = new Uint8Array(message);
  if (String.fromCharCode(...bytes.subarray(0, 8)) !== MAGIC) throw new Error("these bytes are not a maskprism scene");
  const length = new DataView(message).getUint32(8, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(12, 12 + length)));
  return { header, buffer: bytes.subarray(12 + length) };
}

/** One image, its prediction, and its prototypes as numbers. */
export class Scene {
  /** @param {Header} header @param {Uint8Array} buffer @param {Float32Array} values */
  constructor(header, buffer, values) {
    this.header = header;
    this.buffer = buffer;
    this.letterbox = header.letterbox;
    this.rule = header.rule;
    this.instances = header.instances;
    this.missed = header.missed ?? [];
    this.k = header.prototypes.k;
    this.prototypes = { cells: header.prototypes.h * header.prototypes.w, values };
  }

  /** @param {Header} header @param {ArrayBuffer | ArrayBufferView} data */
  static async open(header, data) {
    if (header.version !== VERSION)
      throw new Error(`the scene has format ${header.version}; this viewer reads format ${VERSION}`);
    const buffer = ArrayBuffer.isView(data)
      ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
      : new Uint8Array(data);
    return new Scene(header, buffer, await readPrototypes(header.prototypes, buffer));
  }

  /**
   * What multiplies the prototypes, given coefficients of an instance.
   * @param {number} instance
   * @param {ArrayLike<number>} coefficients
   */
  weights(instance, coefficients) {
    const factor = this.factor(instance);
    return Float32Array.from(coefficients, (value) => Math.fround(value) * factor);
  }

  /** What the rule multiplies an instance's coefficients by. @param {number} instance */
  factor(instance) {
    return this.rule.objectness ? Math.fround(this.instances[instance].objectness ?? 1) : 1;
  }

  /** @param {Section} section */
  bytes({ offset, length }) {
    return this.buffer.slice(offset, offset + length);
  }

  /**
   * The ground truth of an instance at the image's size, 0 or 1 per pixel; null where there is none.
   * @param {number} instance
   */
  truth(instance) {
    const section = this.instances[instance].truth;
    return section && this.runs(section);
  }

  /** A mask of the image's size out of RLE. @param {Section} section */
  runs(section) {
    const [height, width] = this.letterbox.image_hw;
    const mask = new Uint8Array(height * width);
    let [at, inside] = [0, false];
    for (const run of new Uint32Array(this.bytes(section).buffer)) {
      if (inside) mask.fill(1, at, at + run);
      at += run;
      inside = !inside;
    }
    return mask;
  }
}

/** @param {Header["prototypes"]} about @param {Uint8Array} buffer */
async function readPrototypes(about, buffer) {
  const { k, h, w, bits, low, step, offset, length } = about;
  const stored = buffer.slice(offset, offset + length);
  const raw = about.encoding === "deflate" ? await inflate(stored) : stored;
  if (bits === 32) return new Float32Array(raw.buffer, raw.byteOffset, raw.length / 4);
  const count = k * h * w;
  const values = new Float32Array(count);
  const mask = bits === 8 ? 0xff : 0xffff;
  for (let row = 0; row < k * h; row++) {
    const prototype = Math.floor(row / h);
    let level = 0;
    for (let i = row * w; i < (row + 1) * w; i++) {
      level = (level + raw[i] + (bits === 16 ? raw[count + i] << 8 : 0)) & mask;
      values[i] = low[prototype] + step[prototype] * level;
    }
  }
  return values;
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
