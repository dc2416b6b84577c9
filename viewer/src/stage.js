// The image with its masks: painting, and pointing at things.

import { h, oncePerFrame, signed, style, svg } from "./dom.js";
import { cellInImage, pixelInFrame, sizeOf } from "./geometry.js";
import { MaskLayer } from "./mask_layer.js";
import { contrastingColours, greysAround, greysOf, OPACITY, SIDE } from "./mask_style.js";
import { eachInside, Frame, iou, mix, shift, side } from "./masks.js";
import { abgr, ANCHORS, colourOf, limitOf, paint, rgb } from "./palette.js";
import { TruthLayer } from "./truth_layer.js";
import { Zoom } from "./zoom.js";

/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./mask_layer.js").Measures & { truthIou: number | null }} Measures */

const HEAT = { logits: "logits", positive: "for the mask", negative: "against the mask" };
const MOST_PIXELS = 3_000_000;
const OTHERS_FILL = 46;
const OTHERS_EDGE = 190;

export class Stage {
  /** @param {Scene} scene @param {State} state @param {(measures: Measures) => void} report */
  constructor(scene, state, report) {
    this.scene = scene;
    this.state = state;
    this.report = report;
    const [height, width] = scene.letterbox.image_hw;
    const { rule } = scene;
    if (state.pixel && !(state.pixel.x >= 0 && state.pixel.x < width && state.pixel.y >= 0 && state.pixel.y < height))
      state.pixel = null; // of a link to another image
    // A mask of a very large image is shown as it is on the canvas, so that it can follow a slider.
    this.frame = new Frame(
      scene.letterbox,
      rule,
      rule.size === "image" && height * width > MOST_PIXELS ? "canvas" : rule.size,
    );
    this.imageFrame = this.frame.size === "image" ? this.frame : new Frame(scene.letterbox, rule, "image");
    this.logits = new Float32Array(scene.prototypes.cells);
    /** The sums of the sizes of the terms that make `logits`. */
    this.sizes = new Float32Array(scene.prototypes.cells);
    this.sideSum = new Float32Array(scene.prototypes.cells);
    this.mask = new MaskLayer(this.frame);
    /** The colours of the instances; those of the palette in its order until the image is there. */
    this.colours = scene.instances.map((_, i) => colourOf(i));
    this.truthLayer = new TruthLayer(scene);
    this.owners = new Int16Array(this.frame.width * this.frame.height).fill(-1);
    this.limit = 1;
    this.truth = /** @type {Uint8Array | null} */ (null);
    this.truthIou = /** @type {number | null} */ (null);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.truthTimer = undefined;
    /** @type {import("./mask_layer.js").Measures} */
    this.measures = { area: 0, gained: 0, lost: 0, iou: 1 };
    /** Whether `logits` are those of the weights, and what `original` was made for. */
    this.fresh = false;
    this.remembered = "";
    this.ownersFresh = false;

    const [imageHeight, imageWidth] = scene.header.image.size_hw;
    this.image = h("canvas", { className: "image", width: imageWidth, height: imageHeight });
    /** The same in greys, over it where a mask is shown. */
    this.grey = h("canvas", { className: "grey", width: imageWidth, height: imageHeight });
    this.others = h("canvas", { className: "layer others", width: this.frame.width, height: this.frame.height });
    const [gridHeight, gridWidth] = scene.letterbox.grid_hw;
    this.prototype = h("canvas", {
      className: "layer prototype diverging",
      width: gridWidth,
      height: gridHeight,
      hidden: true,
    });
    for (const layer of [this.others, this.mask.canvas]) place(layer, scene, this.frame.size);
    place(this.prototype, scene, "grid");
    this.box = svg("rect", { class: "box" });
    this.boxShadow = svg("rect", { class: "box shadow" });
    this.cross = svg("g", { class: "cross" }, ...["shadow", ""].map((name) => svg("path", { class: name })));
    this.captionText = h("span", {});
    this.scale = h("i", { className: "scale" });
    this.caption = h("div", { className: "caption", hidden: true }, this.captionText, this.scale);
    this.name = h("span", { className: "pointed", hidden: true });
    this.plane = h(
      "div",
      { className: "plane" },
      this.image,
      this.grey,
      this.others,
      this.mask.canvas,
      this.prototype,
      this.truthLayer.canvas,
      svg(
        "svg",
        { class: "marks", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
        this.boxShadow,
        this.box,
        this.cross,
      ),
    );
    this.element = h(
      "div",
      {
        className: "stage",
        tabIndex: 0,
        role: "application",
        "aria-roledescription": "image with masks",
        "aria-label": `${scene.header.source || "Image"}, ${scene.instances.length} instances. Left and right arrow choose an instance; with Shift, arrow keys move the examined pixel. Plus and minus zoom, F fits the instance, 0 the image.`,
        onpointermove: (/** @type {PointerEvent} */ event) => event.pointerType === "mouse" && this.hover(event),
        onpointerleave: () => this.hover(null),
        onclick: (/** @type {MouseEvent} */ event) => this.click(event),
        onkeydown: (/** @type {KeyboardEvent} */ event) => this.key(event),
      },
      this.plane,
      this.name,
      this.caption,
    );
    this.zoom = new Zoom(this.element, this.plane, [height, width]);
    this.draw = oncePerFrame(() => this.repaint());
    /**
     * The pixel under the pointer, which is looked at instead of the chosen one.
     * @type {import("./state.js").Pixel | null}
     */
    this.hovered = null;
    this.certain = this.strongest();
    state.listen((change) => this.changed(change));
  }

  /** Draws the image and all masks. */
  async open() {
    const { header } = this.scene;
    const bitmap = await createImageBitmap(new Blob([this.scene.bytes(header.image)], { type: header.image.type }));
    this.image.getContext("2d")?.drawImage(bitmap, 0, 0);
    this.paintGrey(bitmap);
    const given = this.scene.instances.map((instance) => instance.colour);
    this.colours = given.every((colour) => colour !== undefined) ? given : this.contrasting(bitmap);
    this.truthLayer.show(this.state.truth);
    this.choose();
    if (this.zoom.isThin) this.fitInstance();
  }

  /** @param {ImageBitmap} bitmap */
  paintGrey(bitmap) {
    const pixels = pixelsOf(bitmap, bitmap.width, bitmap.height);
    greysOf(pixels.data).forEach((grey, i) => pixels.data.fill(grey, 4 * i, 4 * i + 3));
    this.grey.getContext("2d")?.putImageData(pixels, 0, 0);
  }

  /** The colours of the instances, where Python has not chosen them. @param {ImageBitmap} bitmap */
  contrasting(bitmap) {
    const { scene } = this;
    const { image_hw } = scene.letterbox;
    const zoom = Math.min(1, SIDE / Math.max(...image_hw));
    const [height, width] = image_hw.map((length) => Math.max(Math.round(length * zoom), 1));
    const grey = greysOf(pixelsOf(bitmap, width, height).data);
    const frame = new Frame({ ...scene.letterbox, image_hw: [height, width] }, scene.rule, "image");
    const greys = scene.instances.map((instance, i) => {
      mix(scene.weights(i, instance.coefficients), scene.prototypes, this.logits);
      const mask = new Uint8Array(grey.length);
      eachInside(frame.decode(this.logits, instance.canvas_box), scene.rule.threshold, (r, c) => {
        mask[r * width + c] = 1;
      });
      return greysAround(grey, mask, width);
    });
    return contrastingColours(
      greys,
      scene.instances.map((instance) => instance.box),
    );
  }

  /** Looks closer at the chosen instance. */
  fitInstance() {
    const { selected } = this.state;
    if (selected >= 0) this.fitBox(this.scene.instances[selected].box);
  }

  /** @param {ArrayLike<number>} box In pixels of the image. */
  fitBox(box) {
    const [height, width] = this.scene.letterbox.image_hw;
    this.zoom.fit([box[0] / width, box[1] / height, box[2] / width, box[3] / height]);
  }

  /** @param {import("./state.js").Change} change */
  changed(change) {
    if (change.kind === "highlight") return;
    if (change.kind === "look") this.truthLayer.show(this.state.truth);
    if (change.kind === "coefficient") {
      const { scene } = this;
      const [from, to] = [change.from, change.to].map((value) => value * scene.factor(this.state.selected));
      if (this.fresh && !this.state.before) shift(this.logits, this.sizes, from, to, change.k, scene.prototypes);
    } else if (change.kind !== "pixel") this.fresh = false;
    if (change.kind === "coefficient" || change.kind === "coefficients") this.ownersFresh = false;
    if (change.kind === "selected") this.choose();
    else if (change.kind === "pixel") this.mark();
    else this.draw();
  }

  /** Prepares for the chosen instance: what it was, where it is, what the ground truth is. */
  choose() {
    const { selected } = this.state;
    this.paintOthers();
    const boxed = selected >= 0 && this.scene.header.boxes !== false;
    this.hide(this.boxShadow, !boxed);
    this.hide(this.box, !boxed);
    this.hide(this.grey, selected < 0);
    this.truth = selected < 0 ? null : this.scene.truth(selected);
    this.truthIou = null;
    this.fresh = false;
    this.certain = this.strongest();
    if (selected >= 0) {
      const [x1, y1, x2, y2] = this.scene.instances[selected].box;
      for (const mark of [this.box, this.boxShadow]) {
        for (const [name, value] of Object.entries({
          x: x1,
          y: y1,
          width: Math.max(x2 - x1, 0),
          height: Math.max(y2 - y1, 0),
        }))
          mark.setAttribute(name, String(value));
      }
    }
    this.mask.clear();
    this.mark();
    this.draw();
  }

  /** @param {Element} element @param {boolean} hidden */
  hide(element, hidden) {
    element.classList.toggle("hidden", hidden);
  }

  /** The crop that is on, or none. @param {Frame} frame */
  cropOf(frame = this.frame) {
    return this.state.crop ? frame.crop : "none";
  }

  /** Everything anew: product, decode, colours. Nothing is kept from the frame before but what is incremental. */
  repaint() {
    const { state, scene, frame } = this;
    const { selected } = state;
    if (selected < 0) return;
    const weights = scene.weights(selected, state.shown());
    const box = scene.instances[selected].canvas_box;
    this.remember(box);
    if (!this.fresh) {
      mix(weights, scene.prototypes, this.logits, this.sizes);
      this.fresh = true;
    }
    const window = frame.window(box, this.cropOf());
    this.measures = this.mask.measure(this.logits, window);
    if (state.view === "mask") {
      this.mask.fill(window, rgb(this.colours[selected]), state.opacity);
    } else {
      const shown = state.view === "logits" ? this.logits : this.sideSum;
      if (state.view !== "logits") side(weights, scene.prototypes, state.view === "positive" ? 1 : -1, this.sideSum);
      this.mask.heat(frame.decode(shown, box, this.cropOf(), false), this.limit, state.opacity);
    }
    if (this.prototype.hidden)
      this.describe(state.view === "mask" ? null : HEAT[state.view], this.limit, "contribution");
    style(this.grey, { opacity: String(Math.min(1, state.opacity / OPACITY)) });
    style(this.mask.canvas, { opacity: state.view === "mask" ? "1" : String(Math.min(1, 0.3 + state.opacity)) });
    this.measureTruth();
    this.report({ ...this.measures, truthIou: this.truthIou });
  }

  /** The mask before all edits, under the crop that is on. @param {number[]} box */
  remember(box) {
    const { scene, state, frame } = this;
    const key = `${state.selected} ${state.crop}`;
    if (key === this.remembered) return;
    this.remembered = key;
    mix(scene.weights(state.selected, state.original[state.selected]), scene.prototypes, this.logits, this.sizes);
    this.fresh = state.shown() === state.original[state.selected];
    this.mask.remember(frame.decode(this.logits, box, this.cropOf()));
    this.limit = limitOf(frame.decode(this.logits, box, frame.crop, false).values);
  }

  /** IoU with the ground truth, at the image's size: at once where that is small, else when there is time. */
  measureTruth() {
    clearTimeout(this.truthTimer);
    if (!this.truth) return;
    const [height, width] = this.scene.letterbox.image_hw;
    if (height * width <= 500_000) this.compareTruth();
    else {
      this.truthTimer = setTimeout(() => {
        this.compareTruth();
        this.report({ ...this.measures, truthIou: this.truthIou });
      }, 120);
    }
  }

  compareTruth() {
    const { truth, imageFrame, scene } = this;
    const { selected } = this.state;
    if (!truth || selected < 0) return;
    const patch = imageFrame.decode(this.logits, scene.instances[selected].canvas_box, this.cropOf(imageFrame));
    let [area, both] = [0, 0];
    eachInside(patch, scene.rule.threshold, (r, c) => {
      area += 1;
      both += truth[r * imageFrame.width + c];
    });
    this.truthIou = iou(both, area, scene.instances[selected].truth?.area ?? 0);
  }

  /** The masks of all other instances, smaller ones above larger ones. */
  paintOthers() {
    if (!this.ownersFresh) this.findOwners();
    const pixels = new ImageData(this.frame.width, this.frame.height);
    const colours = new Uint32Array(pixels.data.buffer);
    const { owners } = this;
    const { width } = this.frame;
    for (let i = 0; i < owners.length; i++) {
      const owner = owners[i];
      if (owner < 0 || owner === this.state.selected) continue;
      const edge =
        owners[i - 1] !== owner ||
        owners[i + 1] !== owner ||
        owners[i - width] !== owner ||
        owners[i + width] !== owner;
      colours[i] = abgr(rgb(this.colours[owner]), edge ? OTHERS_EDGE : OTHERS_FILL);
    }
    this.others.getContext("2d")?.putImageData(pixels, 0, 0);
  }

  /** Per pixel the instance that a click on it means: the smallest whose mask holds it. */
  findOwners() {
    const { scene, frame, owners, state } = this;
    owners.fill(-1);
    const masks = scene.instances.map((instance, i) => {
      mix(scene.weights(i, state.coefficients(i)), scene.prototypes, this.logits);
      /** @type {number[]} */
      const held = [];
      eachInside(frame.decode(this.logits, instance.canvas_box), scene.rule.threshold, (r, c) =>
        held.push(r * frame.width + c),
      );
      return { i, held };
    });
    masks.sort((a, b) => b.held.length - a.held.length);
    for (const { i, held } of masks) for (const at of held) owners[at] = i;
    this.ownersFresh = true;
    this.fresh = false;
  }

  /** @param {MouseEvent} event @returns {import("./state.js").Pixel} */
  pixelAt(event) {
    const area = this.plane.getBoundingClientRect();
    const [height, width] = this.scene.letterbox.image_hw;
    const at = (/** @type {number} */ share, /** @type {number} */ length) =>
      Math.min(Math.max(Math.floor(share * length), 0), length - 1);
    return {
      x: at((event.clientX - area.left) / area.width, width),
      y: at((event.clientY - area.top) / area.height, height),
    };
  }

  /** @param {PointerEvent | null} event */
  hover(event) {
    if (event && this.zoom.pointers.size) return; // the image is being moved
    this.hovered = event ? this.pixelAt(event) : null;
    this.state.tell({ kind: "pixel" });
    this.nameAt(event);
  }

  /** The instance under the pointer, or at a pixel: the chosen one first. @param {import("./state.js").Pixel} pixel */
  ownerAt(pixel) {
    const { x, y } = pixelInFrame(this.scene.letterbox, this.frame.size, pixel);
    return this.mask.holds(y, x) ? this.state.selected : this.owners[y * this.frame.width + x];
  }

  /** Says what lies under the pointer. @param {PointerEvent | null} event */
  nameAt(event) {
    const owner = this.hovered && event ? this.ownerAt(this.hovered) : -1;
    this.name.hidden = owner < 0;
    if (owner < 0 || !event) return;
    const { name, score } = this.scene.instances[owner];
    this.name.textContent = `${name} ${score.toFixed(2)}`;
    const [x, y] = this.zoom.place(event.clientX, event.clientY);
    style(this.name, {
      left: `${100 * Math.min(x, 0.8)}%`,
      top: `${100 * Math.min(y, 0.9)}%`,
      "--colour": `#${this.colours[owner]}`,
    });
  }

  /** A click on another instance chooses it; any other click keeps the pixel. @param {MouseEvent} event */
  click(event) {
    if (this.zoom.dragged) return;
    const pixel = this.pixelAt(event);
    const owner = this.ownerAt(pixel);
    if (owner >= 0) this.state.select(owner);
    this.state.point(pixel);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const zooms = {
      "+": () => this.zoom.in(),
      "=": () => this.zoom.in(),
      "-": () => this.zoom.out(),
      0: () => this.zoom.whole(),
      f: () => this.fitInstance(),
    };
    const zoom = zooms[/** @type {keyof typeof zooms} */ (event.key.toLowerCase())];
    if (zoom) {
      zoom();
      event.preventDefault();
      return;
    }
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [
      0, 0,
    ];
    if (!(dx || dy)) return;
    event.preventDefault();
    if (event.shiftKey) {
      const [height, width] = this.scene.letterbox.image_hw;
      const stride = Math.max(1, Math.round(Math.max(height, width) / 160));
      const { x, y } = this.state.pixel ?? this.certain;
      const to = {
        x: Math.min(Math.max(x + dx * stride, 0), width - 1),
        y: Math.min(Math.max(y + dy * stride, 0), height - 1),
      };
      this.state.point(to);
      this.zoom.follow([to.x / width, to.y / height]);
    } else {
      const count = this.scene.instances.length;
      if (count) this.state.select((this.state.selected + dx + dy + count) % count);
    }
  }

  /** The pixel that is looked at: under the pointer, chosen, or the most certain one of the mask. */
  get looked() {
    return this.hovered ?? this.state.pixel ?? this.certain;
  }

  /**
   * The middle of the cell of the grid with the largest logit inside the box, in image pixels.
   * @returns {import("./state.js").Pixel}
   */
  strongest() {
    const { letterbox, instances, prototypes } = this.scene;
    const [height, width] = letterbox.image_hw;
    const { selected } = this.state;
    if (selected < 0) return { x: width >> 1, y: height >> 1 };
    const box = instances[selected].box;
    const logits = new Float32Array(prototypes.cells);
    mix(this.scene.weights(selected, this.state.original[selected]), prototypes, logits);
    let best = { x: Math.floor((box[0] + box[2]) / 2), y: Math.floor((box[1] + box[3]) / 2), logit: -Infinity };
    for (let i = 0; i < logits.length; i++) {
      if (logits[i] <= best.logit) continue;
      const { x, y } = cellInImage(letterbox, i);
      if (x >= box[0] && x < box[2] && y >= box[1] && y < box[3]) best = { x, y, logit: logits[i] };
    }
    return { x: Math.min(Math.max(best.x, 0), width - 1), y: Math.min(Math.max(best.y, 0), height - 1) };
  }

  /** The cross at the pixel. */
  mark() {
    const { x, y } = this.looked;
    const [height, width] = this.scene.letterbox.image_hw;
    const arm = Math.max(height, width) / 60;
    const [cx, cy] = [x + 0.5, y + 0.5];
    const path = `M${cx - arm} ${cy}H${cx - arm / 3}M${cx + arm / 3} ${cy}H${cx + arm}M${cx} ${cy - arm}V${cy - arm / 3}M${cx} ${cy + arm / 3}V${cy + arm}`;
    for (const one of this.cross.children) one.setAttribute("d", path);
  }

  /** Shows a prototype large over the image, or hides it. @param {number | null} k */
  showPrototype(k) {
    this.prototype.hidden = k === null;
    if (k === null)
      return this.describe(this.state.view === "mask" ? null : HEAT[this.state.view], this.limit, "contribution");
    const { cells, values } = this.scene.prototypes;
    const shown = values.subarray(k * cells, (k + 1) * cells);
    const pixels = new ImageData(this.prototype.width, this.prototype.height);
    paint(shown, limitOf(shown), "prototype", new Uint32Array(pixels.data.buffer));
    this.prototype.getContext("2d")?.putImageData(pixels, 0, 0);
    return this.describe(`prototype ${k}`, limitOf(shown), "prototype");
  }

  /**
   * Says what is shown over the image, with its scale; null for the mask.
   * @param {string | null} text
   * @param {number} limit
   * @param {import("./palette.js").MapName} map
   */
  describe(text, limit, map) {
    this.caption.hidden = text === null;
    if (text === null) return;
    this.captionText.textContent = text;
    this.scale.dataset.low = signed(-limit, 1);
    this.scale.dataset.high = signed(limit, 1);
    style(this.scale, {
      "--colours": ANCHORS[map]
        .split(" ")
        .map((colour) => `#${colour}`)
        .join(", "),
    });
  }

  /** The image with its masks as a PNG of the shown size. @returns {Promise<Blob>} */
  async png() {
    this.repaint();
    const { width, height } = this.image;
    const canvas = h("canvas", { width, height });
    const context = canvas.getContext("2d");
    if (!context) throw new Error("this browser cannot draw on a canvas");
    context.drawImage(this.image, 0, 0);
    context.globalAlpha = Number(this.grey.style.opacity);
    context.drawImage(this.grey, 0, 0);
    const { letterbox } = this.scene;
    const whole = this.frame.size === "image";
    const [sy, sx] = whole ? [1, 1] : [0, 1].map((i) => sizeOf(letterbox, this.frame.size)[i] / letterbox.canvas_hw[i]);
    const [top, left] = whole ? [0, 0] : [letterbox.offset_yx[0] * sy, letterbox.offset_yx[1] * sx];
    const [rows, columns] = whole
      ? [this.frame.height, this.frame.width]
      : [letterbox.content_hw[0] * sy, letterbox.content_hw[1] * sx];
    for (const layer of [this.others, this.mask.canvas]) {
      context.globalAlpha = Number(layer.style.opacity || 1);
      context.drawImage(layer, left, top, columns, rows, 0, 0, width, height);
    }
    return new Promise((resolve, reject) =>
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture could not be made"))), "image/png"),
    );
  }

  /** Ends all that is still to come. */
  close() {
    this.draw.cancel();
    clearTimeout(this.truthTimer);
  }
}

/** @param {ImageBitmap} bitmap @param {number} width @param {number} height */
function pixelsOf(bitmap, width, height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser cannot draw on a canvas");
  context.drawImage(bitmap, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

/**
 * Lays a picture of a frame over the image; what is padding lies outside of it.
 * @param {HTMLElement} layer
 * @param {Scene} scene
 * @param {import("./geometry.js").Size} size
 */
function place(layer, { letterbox: { canvas_hw, content_hw, offset_yx } }, size) {
  const [top, left, height, width] =
    size === "image"
      ? [0, 0, 1, 1]
      : [
          -offset_yx[0] / content_hw[0],
          -offset_yx[1] / content_hw[1],
          canvas_hw[0] / content_hw[0],
          canvas_hw[1] / content_hw[1],
        ];
  style(layer, { top: `${100 * top}%`, left: `${100 * left}%`, width: `${100 * width}%`, height: `${100 * height}%` });
}
