// The outlines of the ground truth over the image: what instances found, and what no instance found.

import { h } from "./dom.js";
import { abgr } from "./palette.js";

/** @typedef {import("./scene.js").Scene} Scene */

const FOUND = abgr([255, 255, 255], 255);
const AROUND = abgr([20, 20, 20], 150);
const MISSED = abgr([255, 92, 224], 255);
const MISSED_FILL = abgr([255, 92, 224], 70);

export class TruthLayer {
  /** @param {Scene} scene */
  constructor(scene) {
    this.scene = scene;
    const [height, width] = scene.header.image.size_hw;
    this.canvas = h("canvas", { className: "truth", width, height, hidden: true });
    this.painted = false;
  }

  /** Whether there is any ground truth. */
  get exists() {
    return this.scene.missed.length > 0 || this.scene.instances.some((instance) => instance.truth);
  }

  /** @param {boolean} shown */
  show(shown) {
    this.canvas.hidden = !shown;
    if (!shown || this.painted) return;
    this.painted = true;
    const { width, height } = this.canvas;
    const pixels = new ImageData(width, height);
    const colours = new Uint32Array(pixels.data.buffer);
    this.scene.instances.forEach((_, i) => {
      const mask = this.scene.truth(i);
      if (mask) this.outline(this.reduced(mask), colours, FOUND, 0);
    });
    for (const missed of this.scene.missed)
      this.outline(this.reduced(this.scene.runs(missed)), colours, MISSED, MISSED_FILL);
    this.canvas.getContext("2d")?.putImageData(pixels, 0, 0);
  }

  /** A mask of the image's size at the size that is shown. @param {Uint8Array} mask */
  reduced(mask) {
    const [imageHeight, imageWidth] = this.scene.letterbox.image_hw;
    const { width, height } = this.canvas;
    const out = new Uint8Array(width * height);
    const columns = Int32Array.from({ length: width }, (_, x) =>
      Math.min(Math.floor(((x + 0.5) * imageWidth) / width), imageWidth - 1),
    );
    for (let y = 0; y < height; y++) {
      const from = Math.min(Math.floor(((y + 0.5) * imageHeight) / height), imageHeight - 1) * imageWidth;
      for (let x = 0; x < width; x++) out[y * width + x] = mask[from + columns[x]];
    }
    return out;
  }

  /** @param {Uint8Array} mask @param {Uint32Array} colours @param {number} edge @param {number} fill */
  outline(mask, colours, edge, fill) {
    const { width, height } = this.canvas;
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const i = y * width + x;
        const inner =
          x > 0 &&
          x < width - 1 &&
          y > 0 &&
          y < height - 1 &&
          mask[i - 1] & mask[i + 1] & mask[i - width] & mask[i + width];
        if (mask[i]) {
          if (!inner) colours[i] = edge;
          else if (fill) colours[i] ||= fill;
        } else if (
          (x > 0 && mask[i - 1]) ||
          (x < width - 1 && mask[i + 1]) ||
          (y > 0 && mask[i - width]) ||
          (y < height - 1 && mask[i + width])
        )
          colours[i] ||= AROUND;
      }
    }
  }
}
