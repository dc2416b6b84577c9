// The camera through the model: masks over the picture, and the prototypes and coefficients as an equaliser.

import { element } from "../dom.js";
import { paint } from "../palette.js";

/** @typedef {{ name: string, score: number, box: number[], weights: Float32Array }} LiveInstance */
/**
 * @typedef {{ prototypes: { k: number, h: number, w: number, values: Float32Array }, letterbox:
 * import("../geometry.js").Letterbox, backend: string, instances: LiveInstance[] }} Frame
 */

/** Okabe and Ito's, as everywhere. */
const COLOURS = [
  [230, 159, 0],
  [86, 180, 233],
  [0, 158, 115],
  [240, 228, 66],
  [0, 114, 178],
  [213, 94, 0],
  [204, 121, 167],
];
const [CELL, BAR] = [40, 56];
const SMOOTHING = 0.8;

export class LiveCamera {
  /** @param {import("./remote.js").RemoteModel} model @param {(text: string) => void} tell */
  constructor(model, tell) {
    this.model = model;
    this.tell = tell;
    this.picture = element(document, "#live-picture", HTMLCanvasElement);
    this.equaliser = element(document, "#live-equaliser", HTMLCanvasElement);
    this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    this.running = false;
    this.seconds = 0;
  }

  async start() {
    if (!navigator.mediaDevices)
      throw new Error("this page has no camera: open it from localhost or over https, in a browser with a camera");
    this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    this.video.srcObject = this.stream;
    await this.video.play();
    this.running = true;
    while (this.running) {
      const began = performance.now();
      const image = await createImageBitmap(this.video);
      const frame = await this.model.frame(image);
      if (!this.running) return;
      this.draw(frame);
      const seconds = (performance.now() - began) / 1000;
      this.seconds = this.seconds ? SMOOTHING * this.seconds + (1 - SMOOTHING) * seconds : seconds;
      this.tell(`${(1 / this.seconds).toFixed(1)} frames per second, ${frame.backend}`);
      await new Promise(requestAnimationFrame);
    }
  }

  /** The picture of now, as a file. @returns {Promise<File>} */
  async snapshot() {
    const canvas = new OffscreenCanvas(this.video.videoWidth, this.video.videoHeight);
    canvas.getContext("2d")?.drawImage(this.video, 0, 0);
    return new File([await canvas.convertToBlob({ type: "image/png" })], "camera.png", { type: "image/png" });
  }

  stop() {
    this.running = false;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
  }

  /** @param {Frame} frame */
  draw(frame) {
    const { picture, video } = this;
    const { letterbox, instances, prototypes } = frame;
    const [height, width] = [video.videoHeight, video.videoWidth];
    Object.assign(picture, { width, height });
    const context = picture.getContext("2d");
    if (!context) return;
    context.drawImage(video, 0, 0);
    const zoom = [0, 1].map((axis) => [height, width][axis] / letterbox.content_hw[axis]);
    const placed = (/** @type {number} */ value, /** @type {number} */ axis) =>
      (value - letterbox.offset_yx[axis]) * zoom[axis];
    instances.forEach((instance, number) => {
      const colour = COLOURS[number % COLOURS.length];
      const mask = maskOf(instance, frame, colour);
      const [x1, y1, x2, y2] = instance.box.map((value, i) => placed(value, i % 2 ? 0 : 1));
      context.save();
      context.beginPath();
      context.rect(x1, y1, x2 - x1, y2 - y1);
      context.clip();
      const [high, wide] = letterbox.canvas_hw;
      context.drawImage(mask, placed(0, 1), placed(0, 0), wide * zoom[1], high * zoom[0]);
      context.restore();
      const css = `rgb(${colour.join(" ")})`;
      context.strokeStyle = css;
      context.lineWidth = 2;
      context.strokeRect(x1, y1, x2 - x1, y2 - y1);
      context.font = "600 14px system-ui, sans-serif";
      const text = `${instance.name} ${instance.score.toFixed(2)}`;
      context.fillStyle = css;
      context.fillRect(x1, y1 - 18, context.measureText(text).width + 8, 18);
      context.fillStyle = "#000";
      context.fillText(text, x1 + 4, y1 - 4);
    });
    this.equalise(prototypes, instances[0]);
  }

  /** Every prototype, and below it the coefficient of the first instance. @param {Frame["prototypes"]} prototypes @param {LiveInstance | undefined} instance */
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

/** The mask of an instance on the prototype grid, in its colour. @param {LiveInstance} instance @param {Frame} frame @param {number[]} colour */
function maskOf({ weights }, { prototypes: { k, h, w, values } }, [red, green, blue]) {
  const logits = new Float32Array(h * w);
  for (let i = 0; i < k; i++) {
    const weight = weights[i];
    for (let cell = 0, at = i * h * w; cell < h * w; cell++, at++) logits[cell] += weight * values[at];
  }
  const image = new ImageData(w, h);
  for (let cell = 0; cell < h * w; cell++) if (logits[cell] > 0) image.data.set([red, green, blue, 140], 4 * cell);
  return onCanvas(image);
}

/** @param {Frame["prototypes"]} prototypes @param {number} i */
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
