// One image through one model, as the scene that the viewer takes.

import { messageOf } from "../dom.js";
import { linear, roundHalfEven } from "../geometry.js";
import { brokenPrototypes, brokenRows, detectLayout, readPrototypes, readRows } from "./layout.js";
import { metadataProps, readMetadata } from "./onnx_file.js";
import { ruleOf } from "./rules.js";
import { GREY, KEEP } from "./tables.js";

/** @typedef {import("../geometry.js").Letterbox} Letterbox */
/** @typedef {import("../scene.js").Header} Header */
/**
 * The part of onnxruntime-web that is used.
 * @typedef {{ InferenceSession: { create(bytes: Uint8Array, options: object): Promise<any> }, Tensor: new (type:
 * string, data: Float32Array, dims: number[]) => any, env: any, webgpu?: boolean }} Runtime
 */

const SHOWN_SIDE = 1280;
const MOST_LIVE = 8;
const USUAL_SIDE = 640;
const MOST_SIDE = 4096;

/**
 * The image in the middle of the canvas with its shape kept, and padding around (Letterbox.fit).
 * @param {[number, number]} image_hw
 * @param {[number, number]} canvas_hw
 * @param {[number, number]} grid_hw
 * @returns {Letterbox}
 */
export function fit(image_hw, canvas_hw, grid_hw) {
  const gain = Math.min(canvas_hw[0] / image_hw[0], canvas_hw[1] / image_hw[1]);
  const content = /** @type {[number, number]} */ (image_hw.map((length) => Math.max(roundHalfEven(length * gain), 1)));
  const offset = /** @type {[number, number]} */ ([0, 1].map((i) => Math.floor((canvas_hw[i] - content[i]) / 2)));
  return { image_hw, canvas_hw, content_hw: content, offset_yx: offset, grid_hw };
}

export class Network {
  /**
   * Refuses what takes no image, or whose outputs hold no masks.
   * @param {string} name
   * @param {any} session
   * @param {import("./onnx_file.js").Metadata} metadata
   * @param {Uint8Array | null} bytes Of a model on the GPU, which may fail yet.
   */
  constructor(name, session, metadata, bytes = null) {
    this.name = name;
    this.bytes = bytes;
    this.session = session;
    this.metadata = metadata;
    const { type, shape } = session.inputMetadata[0];
    const [batch, a, b, c] = shape.map((/** @type {number | string} */ length) => (known(length) ? length : 0));
    this.imagesLast = c === 3;
    const [channels, height, width] = this.imagesLast ? [c, a, b] : [a, b, c];
    if (type !== "float32" || shape.length !== 4 || batch > 1 || (channels && channels !== 3))
      throw new Error(
        `${name} takes ${type} (${shape.join(", ")}); expected a model that takes one image, float32 (1, 3, height, width) or (1, height, width, 3)`,
      );
    const [high, wide] = metadata.imgsz ?? [USUAL_SIDE, USUAL_SIDE];
    /** @type {[number, number]} */
    this.canvas = [height || high, width || wide];
    if (Math.max(...this.canvas) > MOST_SIDE)
      throw new Error(`${name} takes images of ${this.canvas.join(" x ")}; expected at most ${MOST_SIDE} a side`);
    const shapes = session.outputMetadata.map((/** @type {{ shape?: (number | string)[] }} */ one) => one.shape ?? []);
    if (shapes.flat().every(known)) detectLayout(shapes, this.canvas, metadata, this.imagesLast);
  }

  /** @param {Runtime} runtime @param {string} name @param {Uint8Array} bytes */
  static async open(runtime, name, bytes) {
    const metadata = readMetadata(metadataProps(bytes));
    if (runtime.webgpu) {
      const session = await create(runtime, bytes, "webgpu").catch(() => null);
      if (session) return new Network(name, session, metadata, bytes);
    }
    const session = await create(runtime, bytes, "wasm").catch((error) => {
      throw new Error(`onnxruntime-web cannot open ${name}: ${said(error)}`);
    });
    return new Network(name, session, metadata);
  }

  get backend() {
    return this.bytes ? "WebGPU" : "WASM";
  }

  /**
   * The outputs for an input; what the GPU cannot do, the processor can.
   * @param {Runtime} runtime
   * @param {any} input
   * @returns {Promise<Record<string, any>>}
   */
  async run(runtime, input) {
    const { session, bytes } = this;
    try {
      return await session.run({ [session.inputNames[0]]: input });
    } catch (error) {
      if (!bytes) throw new Error(`onnxruntime-web cannot run ${this.name}: ${said(error)}`);
      this.bytes = null;
      this.session = await create(runtime, bytes, "wasm");
      return this.run(runtime, input);
    }
  }

  /**
   * What the model says about an image.
   * @param {Runtime} runtime
   * @param {ImageBitmap} image
   */
  async look(runtime, image) {
    const { canvas, session, metadata } = this;
    /** @type {[number, number]} */
    const image_hw = [image.height, image.width];
    const box = fit(image_hw, canvas, canvas);
    const input = new runtime.Tensor(
      "float32",
      this.pixels(image, box),
      this.imagesLast ? [1, ...canvas, 3] : [1, 3, ...canvas],
    );
    const answers = await this.run(runtime, input);
    const outputs = session.outputNames.map((/** @type {string} */ name) => ({
      dims: answers[name].dims,
      data: answers[name].data,
    }));
    const layout = detectLayout(
      outputs.map((/** @type {{ dims: number[] }} */ one) => one.dims),
      canvas,
      metadata,
      this.imagesLast,
    );
    const prototypes = readPrototypes(layout, outputs);
    const broken = brokenPrototypes(prototypes);
    if (broken.length)
      throw new Error(
        `${this.name}: prototypes ${brief(broken)} contain NaN or infinity; export again, in single precision if this is half`,
      );
    const [lost, all] = brokenRows(layout, outputs);
    if (lost && lost === all)
      throw new Error(
        `${this.name}: all ${all} detections contain NaN or infinity; export again, in single precision if this is half`,
      );
    const found = readRows(layout, outputs, canvas, KEEP);
    const rows = found.filter((row) => row.box.every(Number.isFinite));
    const leftOut = lost + found.length - rows.length;
    const notes = leftOut
      ? [`Left out: ${leftOut} ${leftOut === 1 ? "detection" : "detections"} with NaN or infinity.`]
      : [];
    const letterbox = { ...box, grid_hw: /** @type {[number, number]} */ ([prototypes.h, prototypes.w]) };
    return { layout, prototypes, rows, notes, letterbox };
  }

  /**
   * An image as the viewer takes it.
   * @param {Runtime} runtime
   * @param {ImageBitmap} image
   * @param {string} source
   * @returns {Promise<import("./remote.js").DropScene>}
   */
  async scene(runtime, image, source) {
    const { canvas, metadata } = this;
    const { layout, prototypes, rows, notes, letterbox } = await this.look(runtime, image);
    /** @type {[number, number]} */
    const image_hw = [image.height, image.width];
    const picture = await shown(image);
    const buffer = new Uint8Array(picture.bytes.length + prototypes.values.byteLength);
    buffer.set(picture.bytes);
    buffer.set(new Uint8Array(prototypes.values.buffer), picture.bytes.length);
    const [zeros, ones] = [0, 1].map((value) => new Array(prototypes.k).fill(value));
    const inImage = (/** @type {number} */ value, /** @type {number} */ axis) =>
      Math.min(
        Math.max(((value - letterbox.offset_yx[axis]) * image_hw[axis]) / letterbox.content_hw[axis], 0),
        image_hw[axis],
      );
    return {
      header: {
        version: 1,
        source,
        boxes: true,
        letterbox,
        rule: ruleOf(layout.family, metadata.version),
        image: { offset: 0, length: picture.bytes.length, type: picture.type, size_hw: picture.size_hw },
        prototypes: {
          offset: picture.bytes.length,
          length: prototypes.values.byteLength,
          k: prototypes.k,
          h: prototypes.h,
          w: prototypes.w,
          bits: 32,
          low: zeros,
          step: ones,
          encoding: "raw",
        },
        instances: rows.map((row) => ({
          class: row.class,
          name: metadata.names?.[row.class] ?? `class${row.class}`,
          score: row.score,
          box: row.box.map((value, i) => inImage(value, i % 2 ? 0 : 1)),
          canvas_box: row.box.map((value, i) => near(value, canvas[i % 2 ? 0 : 1])),
          coefficients: Array.from(row.coefficients),
          untuned: null,
          objectness: row.objectness,
          logit_error: 0,
          truth: null,
        })),
      },
      buffer,
      notes,
      backend: this.backend,
    };
  }

  /**
   * A frame of a camera: its prototypes and detections, without what the viewer needs beside them.
   * @param {Runtime} runtime
   * @param {ImageBitmap} image
   * @returns {Promise<import("./live.js").CameraFrame>}
   */
  async frame(runtime, image) {
    const { layout, prototypes, rows, letterbox } = await this.look(runtime, image);
    return {
      prototypes,
      letterbox,
      rule: ruleOf(layout.family, this.metadata.version),
      backend: this.backend,
      instances: rows.slice(0, MOST_LIVE).map((row) => ({
        name: this.metadata.names?.[row.class] ?? `class${row.class}`,
        score: row.score,
        box: row.box.map((value, i) => near(value, this.canvas[i % 2 ? 0 : 1])),
        weights: row.coefficients.map((value) => value * (row.objectness ?? 1)),
      })),
    };
  }

  /** The image on the canvas as the model takes it: RGB, 0 to 1. @param {ImageBitmap} image @param {Letterbox} box */
  pixels(image, { canvas_hw: [height, width], content_hw, offset_yx }) {
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true });
    if (!context) throw new Error("this browser cannot draw on a canvas");
    context.drawImage(image, 0, 0);
    const content = resized(context.getImageData(0, 0, image.width, image.height), content_hw);
    const cells = width * height;
    const out = new Float32Array(3 * cells).fill(GREY / 255);
    for (let r = 0; r < content_hw[0]; r++) {
      for (let c = 0; c < content_hw[1]; c++) {
        const i = (r + offset_yx[0]) * width + c + offset_yx[1];
        for (let channel = 0; channel < 3; channel++)
          out[this.imagesLast ? 3 * i + channel : channel * cells + i] =
            content[3 * (r * content_hw[1] + c) + channel] / 255;
      }
    }
    return out;
  }
}

/** @param {Runtime} runtime @param {Uint8Array} bytes @param {"webgpu" | "wasm"} provider */
const create = (runtime, bytes, provider) => runtime.InferenceSession.create(bytes, { executionProviders: [provider] });

/** A length that is not left open. @param {number | string} length */
const known = (length) => typeof length === "number" && length > 0;

/**
 * A coordinate that leaves the canvas by at most its side: numbers beyond overflow, and say nothing more.
 * @param {number} value
 * @param {number} side
 */
const near = (value, side) => Math.min(Math.max(value, -side), 2 * side);

/** The first of many numbers. @param {number[]} numbers */
const brief = (numbers) =>
  numbers.length > 8 ? `${numbers.slice(0, 8).join(", ")} and ${numbers.length - 8} more` : numbers.join(", ");

/** A source file of the runtime on the machine that built it, and the function in it. */
const BUILD_PATH =
  /(?:[A-Za-z]:)?(?:[\\/][\w.+-]+)+\.(?:cc|cpp|cxx|hpp|hh|h|c)(?::\d+|\(\d+\))?(?:\s+[^()]*\([^()]*\)(?:\s*(?:const|mutable)\b)?(?:\s*\[[^\]]*\])?)?\s*/g;
const MOST_WORDS = 300;

/**
 * The words of the runtime without its codes, and without paths of the machine that built it.
 * @param {unknown} error
 */
export function said(error) {
  const words = messageOf(error)
    .replace(/^.*ERROR_MESSAGE: /s, "")
    .replaceAll(BUILD_PATH, "")
    .replaceAll(/\s+/g, " ")
    .trim();
  return words.length > MOST_WORDS ? `${words.slice(0, MOST_WORDS)} …` : words || "it gives no reason";
}

/**
 * RGB of another size, bilinearly from the nearest two pixels an axis, as OpenCV does; browsers' own ways smooth more.
 * @param {ImageData} image
 * @param {[number, number]} size_hw
 */
export function resized({ width, height, data }, [high, wide]) {
  const [rows, columns] = [linear(height, high), linear(width, wide)];
  const out = new Uint8Array(3 * high * wide);
  for (let r = 0; r < high; r++) {
    for (let c = 0; c < wide; c++) {
      for (let channel = 0; channel < 3; channel++) {
        let value = 0;
        for (let a = 0; a < rows.count; a++) {
          for (let b = 0; b < columns.count; b++) {
            value +=
              rows.weights[r * rows.count + a] *
              columns.weights[c * columns.count + b] *
              data[4 * ((rows.start[r] + a) * width + columns.start[c] + b) + channel];
          }
        }
        out[3 * (r * wide + c) + channel] = Math.round(value);
      }
    }
  }
  return out;
}

/** The image as the viewer shows it. @param {ImageBitmap} image */
async function shown(image) {
  const zoom = Math.min(1, SHOWN_SIDE / Math.max(image.width, image.height));
  const [width, height] = [image.width, image.height].map((length) => Math.max(Math.round(length * zoom), 1));
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d")?.drawImage(image, 0, 0, width, height);
  const blob = await canvas.convertToBlob({ type: "image/webp", quality: 0.9 });
  return {
    bytes: new Uint8Array(await blob.arrayBuffer()),
    type: blob.type,
    size_hw: /** @type {[number, number]} */ ([height, width]),
  };
}
