// What lies over the points: small pictures, the density of points, names of classes; drawn anew when the view rests.

import { h, style } from "../dom.js";

/** @typedef {import("./data.js").Picture} Picture */
/** @typedef {{ point: number, x: number, y: number }} Placed */

/** At most this number of points in view is looked at: every n-th where there are more. */
const MOST_POINTS = 20_000;
/** Up to this number of points in view each has its picture, else one of each cell of the view. */
const FEW = 40;
const SIDE = { each: 64, cell: 44 };
const CELL_PX = 96;
const RESTS_MS = 150;
const BIN_PX = 10;
const NAME_PX = { width: 90, height: 20 };

export class Overlay {
  /**
   * @param {{ picture: (point: number) => Promise<Picture | null>, colourOf: (point: number) => string, inView: () => number[],
   * positionOf: (point: number) => [number, number] | undefined, groupOf: (point: number) => Promise<string> }} host
   */
  constructor(host) {
    this.host = host;
    this.density = h("canvas", { className: "density", "aria-hidden": "true", hidden: true });
    this.pictures = h("div", { className: "pictures" });
    this.names = h("div", { className: "names" });
    this.element = h("div", { className: "overlay", "aria-hidden": "true" }, this.density, this.pictures, this.names);
    this.shows = { pictures: true, density: false, names: true };
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.waiting = undefined;
    this.turn = 0;
  }

  /** The view moves: what lies over it comes back when it rests. */
  moved() {
    this.pictures.replaceChildren();
    this.names.replaceChildren();
    this.density.hidden = true;
    this.turn += 1;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.draw(), RESTS_MS);
  }

  async draw() {
    const turn = ++this.turn;
    const { clientWidth: width, clientHeight: height } = this.element;
    const all = this.host.inView();
    const step = Math.ceil(all.length / MOST_POINTS) || 1;
    /** @type {Placed[]} */
    const placed = [];
    for (let i = 0; i < all.length; i += step) {
      const at = this.host.positionOf(all[i]);
      if (at && at[0] >= 0 && at[0] < width && at[1] >= 0 && at[1] < height)
        placed.push({ point: all[i], x: at[0], y: at[1] });
    }
    this.drawDensity(placed, width, height);
    await this.drawNames(placed, turn);
    if (this.shows.pictures && turn === this.turn) await this.drawPictures(placed, turn);
  }

  /** @param {Placed[]} placed @param {number} turn */
  async drawPictures(placed, turn) {
    const few = placed.length <= FEW;
    const side = few ? SIDE.each : SIDE.cell;
    /** The point nearest to the middle of each cell. @type {Map<string, Placed & { far: number }>} */
    const cells = new Map();
    for (const one of placed) {
      const [column, row] = [Math.floor(one.x / CELL_PX), Math.floor(one.y / CELL_PX)];
      const key = few ? String(one.point) : `${column},${row}`;
      const far = Math.hypot(one.x - (column + 0.5) * CELL_PX, one.y - (row + 0.5) * CELL_PX);
      if (far < (cells.get(key)?.far ?? Infinity)) cells.set(key, { ...one, far });
    }
    const found = await Promise.all(
      [...cells.values()].map(async ({ point, x, y }) => {
        const picture = await this.host.picture(point);
        if (!picture) return null;
        const element = drawn(picture, side);
        element.dataset.point = String(point);
        style(element, { left: `${x}px`, top: `${y}px`, "border-color": this.host.colourOf(point) });
        if (element instanceof HTMLImageElement && !element.complete) {
          style(element, { visibility: "hidden" }); // no empty frames
          element.onload = () => style(element, { visibility: "visible" });
        }
        return element;
      }),
    );
    if (turn === this.turn) this.pictures.replaceChildren(...found.filter((one) => one !== null));
  }

  /** Names of classes, and of kinds within them, in the middle of their points. @param {Placed[]} placed @param {number} turn */
  async drawNames(placed, turn) {
    if (!this.shows.names) return this.names.replaceChildren();
    /** @type {Map<string, Placed[]>} */
    const groups = new Map();
    for (const one of placed) {
      const name = await this.host.groupOf(one.point);
      groups.set(name, [...(groups.get(name) ?? []), one]);
    }
    if (turn !== this.turn) return undefined;
    const middle = (/** @type {number[]} */ values) => values.sort((a, b) => a - b)[values.length >> 1];
    /** @type {{ x: number, y: number }[]} */
    const taken = [];
    const labels = [...groups]
      .filter(([, members]) => members.length >= Math.max(3, placed.length / 200))
      .sort(([, a], [, b]) => b.length - a.length)
      .flatMap(([name, members]) => {
        const at = { x: middle(members.map(({ x }) => x)), y: middle(members.map(({ y }) => y)) };
        const hit = taken.some(({ x, y }) => Math.abs(x - at.x) < NAME_PX.width && Math.abs(y - at.y) < NAME_PX.height);
        if (hit) return [];
        taken.push(at);
        const label = h("span", {}, name);
        style(label, { left: `${at.x}px`, top: `${at.y}px` });
        return [label];
      });
    return this.names.replaceChildren(...labels);
  }

  /** How many points lie where, darker where there are more. @param {Placed[]} placed @param {number} width @param {number} height */
  drawDensity(placed, width, height) {
    this.density.hidden = !this.shows.density;
    if (!this.shows.density || !width || !height) return;
    const [columns, rows] = [Math.ceil(width / BIN_PX), Math.ceil(height / BIN_PX)];
    let bins = new Float32Array(columns * rows);
    for (const { x, y } of placed) bins[Math.floor(y / BIN_PX) * columns + Math.floor(x / BIN_PX)] += 1;
    for (let n = 0; n < 2; n++) bins = blurred(bins, columns, rows);
    const most = bins.reduce((a, b) => Math.max(a, b), 1e-6);
    [this.density.width, this.density.height] = [columns, rows];
    const pixels = new ImageData(columns, rows);
    bins.forEach((value, i) => pixels.data.set([0, 114, 178, 190 * Math.sqrt(value / most)], 4 * i));
    this.density.getContext("2d")?.putImageData(pixels, 0, 0);
  }
}

/** Each value with its neighbours, 3 x 3. @param {Float32Array} values @param {number} columns @param {number} rows */
function blurred(values, columns, rows) {
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      for (let y = Math.max(r - 1, 0); y <= Math.min(r + 1, rows - 1); y++)
        for (let x = Math.max(c - 1, 0); x <= Math.min(c + 1, columns - 1); x++)
          out[r * columns + c] += values[y * columns + x];
    }
  }
  return out;
}

/** A picture, or its part of a sheet, with sides of at most so many pixels. @param {Picture} picture @param {number} side */
export function drawn({ url, x, y, sheet, own }, side = own) {
  if (!sheet) {
    const image = h("img", { className: "picture", src: url, alt: "", loading: "lazy" });
    if (side) style(image, { width: `${side}px`, height: `${side}px` });
    return image;
  }
  const zoom = side / own;
  const part = h("span", { className: "picture" });
  style(part, {
    width: `${side}px`,
    height: `${side}px`,
    background: `url("${url}") ${-x * zoom}px ${-y * zoom}px / ${sheet[0] * zoom}px ${sheet[1] * zoom}px`,
  });
  return part;
}
