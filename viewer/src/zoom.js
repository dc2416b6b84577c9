// Looking closer at the image: wheel, two fingers, dragging, keys, and the instance that is chosen. All in shares of
// the stage.

import { style } from "./dom.js";

const STEP = 1.25;
const AROUND = 0.72;
const DRAG_PX = 4;
/** The stage is no wider and no taller than this, however long an image is. */
const WIDEST = 2.4;
const TALLEST = 0.62;

/** The shape of a stage for an image of a shape. @param {number} aspect */
export const stageAspect = (aspect) => Math.min(Math.max(aspect, TALLEST), WIDEST);

export class Zoom {
  /**
   * @param {HTMLElement} stage
   * @param {HTMLElement} plane What is enlarged.
   * @param {[number, number]} size_hw Of the image.
   */
  constructor(stage, plane, size_hw) {
    this.stage = stage;
    this.plane = plane;
    const aspect = size_hw[1] / size_hw[0];
    this.aspect = stageAspect(aspect);
    /** The image at scale 1, as shares of the stage. */
    this.base = [Math.min(1, aspect / this.aspect), Math.min(1, this.aspect / aspect)];
    this.most = Math.max(8, Math.max(...size_hw) / 60);
    this.scale = 1;
    /** What of the image is in the middle. */
    this.centre = [0.5, 0.5];
    /** @type {Map<number, [number, number]>} */
    this.pointers = new Map();
    /** Whether the press that ends is one that moved the image, and no click. */
    this.dragged = false;
    style(stage, { "--aspect": String(this.aspect) });
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.press(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    // A pointer that leaves the stage no longer drags: its release outside is not reported to the stage.
    for (const end of /** @type {const} */ (["pointerup", "pointercancel", "pointerleave"]))
      stage.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    this.apply();
  }

  /** Whether a long image is too small to be seen as a whole. */
  get isThin() {
    return Math.min(...this.base) < 0.5;
  }

  apply() {
    const [left, top] = [0, 1].map((axis) => {
      const size = this.base[axis] * this.scale;
      const half = 0.5 / size;
      this.centre[axis] = size <= 1 ? 0.5 : Math.min(Math.max(this.centre[axis], half), 1 - half);
      return 0.5 - this.centre[axis] * size;
    });
    style(this.plane, {
      left: `${100 * left}%`,
      top: `${100 * top}%`,
      width: `${100 * this.base[0] * this.scale}%`,
      height: `${100 * this.base[1] * this.scale}%`,
    });
    this.stage.classList.toggle("zoomed", this.scale > 1.001);
    this.stage.classList.toggle("close", this.scale > 5);
  }

  /**
   * Enlarges, and keeps a place of the stage (shares of it) where it is.
   * @param {number} factor
   * @param {[number, number]} at
   */
  by(factor, at = [0.5, 0.5]) {
    const scale = Math.min(Math.max(this.scale * factor, 1), this.most);
    for (const axis of [0, 1]) {
      const off = (at[axis] - 0.5) / this.base[axis];
      this.centre[axis] += off / this.scale - off / scale;
    }
    this.scale = scale;
    this.apply();
  }

  in() {
    this.by(STEP * STEP);
  }

  out() {
    this.by(1 / (STEP * STEP));
  }

  whole() {
    this.scale = 1;
    this.centre = [0.5, 0.5];
    this.apply();
  }

  /**
   * Shows a part of the image, given as shares of it, with some room around.
   * @param {[number, number, number, number]} box x1 y1 x2 y2
   */
  fit([x1, y1, x2, y2]) {
    const room = [0, 1].map((axis) => AROUND / (this.base[axis] * Math.max(axis ? y2 - y1 : x2 - x1, 1e-6)));
    this.scale = Math.min(Math.max(Math.min(...room), 1), this.most);
    this.centre = [(x1 + x2) / 2, (y1 + y2) / 2];
    this.apply();
  }

  /** Moves the image so that a place of it (shares) is in view. @param {[number, number]} place */
  follow(place) {
    for (const axis of [0, 1]) {
      const half = 0.45 / (this.base[axis] * this.scale);
      this.centre[axis] = Math.min(Math.max(this.centre[axis], place[axis] - half), place[axis] + half);
    }
    this.apply();
  }

  /** Where on the stage a pointer is, as shares. @param {number} x @param {number} y @returns {[number, number]} */
  place(x, y) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return [(x - left) / width, (y - top) / height];
  }

  /**
   * The wheel scrolls the page, unless the stage has the focus or Ctrl is held, as pinching on a touchpad does.
   * @param {WheelEvent} event
   */
  wheel(event) {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== this.stage) return;
    if (event.deltaY > 0 && this.scale <= 1 && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    this.by(Math.exp(-Math.max(Math.min(event.deltaY, 60), -60) / 200), this.place(event.clientX, event.clientY));
  }

  /** @param {PointerEvent} event */
  press(event) {
    if (event.button) return;
    if (!this.pointers.size) this.dragged = false;
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    this.start = [event.clientX, event.clientY];
  }

  /** @param {PointerEvent} event */
  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = /** @type {[number, number]} */ ([event.clientX, event.clientY]);
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1] ?? now;
      const apart = (/** @type {number[]} */ a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
      this.by(apart(now) / Math.max(apart(before), 1), this.place((now[0] + other[0]) / 2, (now[1] + other[1]) / 2));
      this.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      this.dragged = true;
    } else if (this.pointers.size === 1) {
      this.dragged ||=
        this.scale > 1 &&
        Math.hypot(now[0] - (this.start?.[0] ?? now[0]), now[1] - (this.start?.[1] ?? now[1])) > DRAG_PX;
      if (this.dragged) {
        this.stage.setPointerCapture(event.pointerId);
        this.pan(now[0] - before[0], now[1] - before[1]);
      }
    }
    if (this.dragged || this.pointers.size === 2) this.pointers.set(event.pointerId, now);
  }

  /** @param {number} dx @param {number} dy In pixels of the screen. */
  pan(dx, dy) {
    const { width, height } = this.stage.getBoundingClientRect();
    this.centre[0] -= dx / width / (this.base[0] * this.scale);
    this.centre[1] -= dy / height / (this.base[1] * this.scale);
    this.apply();
  }
}
