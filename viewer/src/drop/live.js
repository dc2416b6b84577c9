// The camera through the model: masks over the picture, and the prototypes and coefficients as an equaliser.

import { element } from "../dom.js";
import { fromCanvas } from "../geometry.js";
import { contrastingColours, dim, greysAround, greysOf, paintMask, SIDE } from "../mask_style.js";
import { eachInside, Frame, iou, mix } from "../masks.js";
import { paint, rgb } from "../palette.js";

/** @typedef {{ name: string, score: number, box: number[], weights: Float32Array }} LiveInstance `box` in canvas pixels. */
/**
 * @typedef {{ prototypes: { k: number, h: number, w: number, values: Float32Array }, letterbox:
 * import("../geometry.js").Letterbox, rule: import("../masks.js").MaskRule, backend: string, instances: LiveInstance[] }} CameraFrame
 */
/** @typedef {{ x: number, y: number, width: number, height: number }} Rectangle */

const LABEL_PX = 18;
/** An instance of the frame before whose box overlaps this much is the same, and keeps its colour. */
const SAME_IOU = 0.4;
const [CELL, BAR] = [40, 56];
const SMOOTHING = 0.8;

/** The camera through a model. */
export class LiveCamera {
  /** @param {import("./remote.js").RemoteModel} model @param {(text: string) => void} tell */
  constructor(model, tell) {
    this.model = model;
    this.tell = tell;
    this.picture = element(document, "#live-picture", HTMLCanvasElement);
    this.equaliser = element(document, "#live-equaliser", HTMLCanvasElement);
    this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    this.running = false;
    /** The answer of the model to the last picture. @type {Promise<unknown>} */
    this.looking = Promise.resolve();
    this.seconds = 0;
    /** The picture that the model looks at: the camera has a newer one when the masks are there. */
    this.still = new OffscreenCanvas(1, 1);
    /** The instances of the frame before, and their colours. @type {(LiveInstance & { colour: string })[]} */
    this.before = [];
  }

  async start() {
    if (!navigator.mediaDevices)
      throw new Error("this page has no camera: open it from localhost or over https, in a browser with a camera");
    this.running = true;
    this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    if (!this.running) {
      this.stop(); // it was ended before the camera was there
      return;
    }
    this.video.srcObject = this.stream;
    await this.video.play();
    while (this.running) {
      const began = performance.now();
      const { videoWidth: width, videoHeight: height } = this.video;
      Object.assign(this.still, { width, height });
      this.still.getContext("2d", { willReadFrequently: true })?.drawImage(this.video, 0, 0);
      const image = await createImageBitmap(this.still);
      if (!this.running) return;
      const looking = this.model.frame(image);
      this.looking = looking;
      const frame = await looking;
      if (!this.running) return;
      this.draw(frame);
      const seconds = (performance.now() - began) / 1000;
      this.seconds = this.seconds ? SMOOTHING * this.seconds + (1 - SMOOTHING) * seconds : seconds;
      this.tell(`${(1 / this.seconds).toFixed(1)} frames per second, ${frame.backend}`);
      await new Promise(requestAnimationFrame);
    }
  }

  /** The picture that the model looked at last, as a file; null where there is none yet. @returns {Promise<File | null>} */
  async snapshot() {
    if (!this.seconds) return null;
    return new File([await this.still.convertToBlob({ type: "image/png" })], "camera.png", { type: "image/png" });
  }

  /** @returns {Promise<unknown>} Comes once the model has answered. */
  stop() {
    this.running = false;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    return this.looking.catch(() => undefined);
  }

  /** @param {CameraFrame} frame */
  draw(frame) {
    const { picture, still } = this;
    const { letterbox, instances, prototypes, rule } = frame;
    const [height, width] = letterbox.image_hw;
    Object.assign(picture, { width, height });
    const context = picture.getContext("2d", { willReadFrequently: true });
    if (!context) return;
    context.drawImage(still, 0, 0);
    this.before = this.coloured(frame);
    const pixels = context.getImageData(0, 0, width, height);
    const grey = greysOf(pixels.data);
    dim(pixels, grey);
    eachMask(frame, [height, width], (patch, i) =>
      paintMask(pixels, grey, patch, rule.threshold, rgb(this.before[i].colour)),
    );
    context.putImageData(pixels, 0, 0);
    const unit = Math.max(1, width / (picture.clientWidth || width)); // texts keep their size where the picture is shrunk
    context.font = `600 ${14 * unit}px system-ui, sans-serif`;
    /** @type {Rectangle[]} */
    const labels = [];
    instances.forEach(({ name, score, box }, i) => {
      const [x1, y1, x2, y2] = box.map((value, edge) => fromCanvas(letterbox, "image", edge % 2 ? 0 : 1, value));
      context.strokeStyle = context.fillStyle = `#${this.before[i].colour}`;
      context.lineWidth = 2 * unit;
      context.strokeRect(x1, y1, x2 - x1, y2 - y1);
      const text = `${name} ${score.toFixed(2)}`;
      const size = { width: context.measureText(text).width + 8 * unit, height: LABEL_PX * unit };
      const label = placedLabel([x1, y1, x2, y2], size, { width, height }, labels);
      labels.push(label);
      context.fillRect(label.x, label.y, label.width, label.height);
      context.fillStyle = "#000";
      context.fillText(text, label.x + 4 * unit, label.y + 14 * unit);
    });
    this.equalise(prototypes, instances[0]);
  }

  /**
   * The instances with their colours: those of the frame before, new ones by contrast.
   * @param {CameraFrame} frame
   * @returns {(LiveInstance & { colour: string })[]}
   */
  coloured(frame) {
    const { instances, letterbox, rule } = frame;
    const known = instances.map(
      ({ name, box }) => this.before.find((one) => one.name === name && iouOf(one.box, box) > SAME_IOU)?.colour,
    );
    if (known.every(Boolean)) return instances.map((one, i) => ({ ...one, colour: known[i] ?? "" }));
    const zoom = Math.min(1, SIDE / Math.max(...letterbox.image_hw));
    const [height, width] = letterbox.image_hw.map((length) => Math.max(Math.round(length * zoom), 1));
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context?.drawImage(this.still, 0, 0, width, height);
    const grey = greysOf(context?.getImageData(0, 0, width, height).data ?? new Uint8ClampedArray(4 * width * height));
    /** @type {(import("../mask_style.js").Greys | null)[]} */
    const greys = [];
    eachMask(frame, [height, width], (patch) => {
      const mask = new Uint8Array(grey.length);
      eachInside(patch, rule.threshold, (r, c) => (mask[r * width + c] = 1));
      greys.push(greysAround(grey, mask, width));
    });
    const chosen = contrastingColours(
      greys,
      instances.map(({ box }) => box),
    );
    return instances.map((one, i) => ({ ...one, colour: known[i] ?? chosen[i] }));
  }

  /** Every prototype, and below it the coefficient of the first instance. @param {CameraFrame["prototypes"]} prototypes @param {LiveInstance | undefined} instance */
  equalise(prototypes, instance) {
    const { equaliser } = this;
    const columns = Math.min(prototypes.k, 16);
    const rows = Math.ceil(prototypes.k / columns);
    Object.assign(equaliser, { width: columns * CELL, height: rows * (CELL + BAR) });
    const context = equaliser.getContext("2d");
    if (!context) return;
    const most = Math.max(...(instance?.weights ?? []).map(Math.abs), 1e-6);
    for (let i = 0; i < prototypes.k; i++) {
      const [x, y] = [(i % columns) * CELL, Math.floor(i / columns) * (CELL + BAR)];
      context.drawImage(prototypePicture(prototypes, i), x, y, CELL - 2, CELL - 2);
      const value = (instance?.weights[i] ?? 0) / most;
      context.fillStyle = value > 0 ? "#b2182b" : "#2166ac";
      const middle = y + CELL + BAR / 2;
      context.fillRect(x + 6, middle, CELL - 14, (-value * (BAR - 6)) / 2);
      context.fillStyle = "#8d8d8d";
      context.fillRect(x, middle, CELL - 2, 1);
    }
  }
}

/**
 * Decodes the masks at this size.
 * @param {CameraFrame} frame
 * @param {[number, number] | number[]} image_hw
 * @param {(patch: import("../masks.js").Patch, i: number) => void} visit
 */
function eachMask({ instances, letterbox, rule, prototypes: { h, w, values } }, [height, width], visit) {
  const decoder = new Frame({ ...letterbox, image_hw: [height, width] }, rule, "image");
  const logits = new Float32Array(h * w);
  instances.forEach(({ weights, box }, i) => {
    mix(weights, { cells: h * w, values }, logits);
    visit(decoder.decode(logits, box), i);
  });
}

/**
 * Where the label of a box goes: inside the picture and over no other label, near the box as far as that can be.
 * @param {number[]} box x1 y1 x2 y2
 * @param {{ width: number, height: number }} size
 * @param {{ width: number, height: number }} picture
 * @param {Rectangle[]} others
 * @returns {Rectangle}
 */
export function placedLabel([x1, y1, , y2], { width, height }, picture, others) {
  const x = Math.max(Math.min(x1, picture.width - width), 0);
  const beside = others.flatMap((other) => [other.y - height, other.y + other.height]);
  beside.sort((a, b) => Math.abs(a - y1) - Math.abs(b - y1));
  const places = [y1 - height, y1, y2, y2 - height, ...beside]
    .filter((y) => y >= 0 && y + height <= picture.height)
    .map((y) => ({ x, y, width, height }));
  const isFree = (/** @type {Rectangle} */ place) =>
    others.every(
      (other) =>
        place.x >= other.x + other.width ||
        other.x >= place.x + width ||
        place.y >= other.y + other.height ||
        other.y >= place.y + height,
    );
  return places.find(isFree) ?? places[0] ?? { x, y: 0, width, height };
}

/** @param {number[]} a @param {number[]} b */
function iouOf(a, b) {
  const area = (/** @type {number[]} */ [x1, y1, x2, y2]) => Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);
  const both = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  return iou(both, area(a), area(b));
}

/** @param {CameraFrame["prototypes"]} prototypes @param {number} i */
function prototypePicture({ h, w, values }, i) {
  const own = values.subarray(i * h * w, (i + 1) * h * w);
  let most = 1e-6;
  for (const value of own) most = Math.max(most, Math.abs(value));
  const image = new ImageData(w, h);
  paint(own, most, "prototype", new Uint32Array(image.data.buffer));
  return onCanvas(image);
}

/** @param {ImageData} image */
function onCanvas(image) {
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d")?.putImageData(image, 0, 0);
  return canvas;
}
