// One pixel: what each prototype adds there, step by step up to its logit, and what it would take to flip it.

import { h, signed, style } from "./dom.js";
import { pixelInFrame } from "./geometry.js";
import { contributions, descending, smallestFlip, valueAt } from "./masks.js";

/** @typedef {import("./stage.js").Stage} Stage */

const STEPS = 9;
/** The number of prototypes that count as those that do most at a pixel. */
const TOP = 3;

export class Waterfall {
  /**
   * @param {Stage} stage
   * @param {(order: number[], terms: ArrayLike<number>, inside: boolean) => void} report What is known of the pixel
   * whenever it is another.
   */
  constructor(stage, report) {
    this.stage = stage;
    this.report = report;
    const { k } = stage.scene;
    this.steps = Math.min(STEPS, k);
    this.rows = Array.from({ length: this.steps + (k > this.steps ? 2 : 1) }, () => {
      const [label, bar, value] = [
        h("span", { className: "name" }),
        h("span", { className: "run" }, h("i")),
        h("span", { className: "value" }),
      ];
      const element = h(
        "li",
        { onpointerenter: () => this.point(element), onpointerleave: () => this.point(null) },
        label,
        bar,
        value,
      );
      return { element, label, bar, value };
    });
    this.rows.at(-1)?.element.classList.add("total");
    this.where = h("span", { className: "where" });
    this.verdict = h("p", { className: "verdict" });
    this.element = h(
      "section",
      { className: "pixel", "aria-label": "Examined pixel" },
      h("h2", {}, "Pixel ", this.where),
      this.verdict,
      h("ol", { className: "waterfall" }, ...this.rows.map((row) => row.element)),
    );
    stage.state.listen((change) => (change.kind === "highlight" ? this.highlight() : this.update()));
    this.update();
  }

  /** A row stands for a prototype wherever that is shown. @param {HTMLElement | null} row */
  point(row) {
    this.stage.state.highlight(row?.dataset.k ? Number(row.dataset.k) : null);
  }

  highlight() {
    const { highlighted } = this.stage.state;
    for (const { element } of this.rows)
      element.classList.toggle("highlighted", highlighted !== null && element.dataset.k === String(highlighted));
  }

  update() {
    const { scene, state, frame, looked } = this.stage;
    this.where.textContent = `x ${looked.x}, y ${looked.y}`;
    this.element.classList.toggle("empty", state.selected < 0);
    if (state.selected < 0) {
      this.verdict.textContent = "There is no instance in this image.";
      return;
    }
    const { x, y } = pixelInFrame(scene.letterbox, frame.size, looked);
    const deciding = frame.deciding(y, x, scene.instances[state.selected].canvas_box, this.stage.cropOf());
    const reads = deciding.length ? deciding : frame.reads(y, x);
    const weights = scene.weights(state.selected, state.shown());
    const terms = contributions(weights, scene.prototypes, reads);
    const order = descending(terms.map(Math.abs));
    const shown = order.slice(0, this.steps).map((k) => ({ name: `${k}`, term: terms[k] }));
    const others = order.slice(this.steps);
    if (others.length)
      shown.push({ name: `${others.length} others`, term: others.reduce((sum, k) => sum + terms[k], 0) });
    this.draw(shown);
    this.highlight();
    const inside =
      deciding.length > 0 && valueAt(weights, scene.prototypes, deciding, scene.rule.squash) > scene.rule.threshold;
    this.report(order.slice(0, TOP), terms, inside);
    this.verdict.replaceChildren(...this.judge(weights, deciding));
  }

  /** @param {{ name: string, term: number }[]} shown */
  draw(shown) {
    let [sum, low, high] = [0, 0, 0];
    const bars = shown.map(({ name, term }) => {
      const from = sum;
      sum += term;
      [low, high] = [Math.min(low, sum), Math.max(high, sum)];
      return { name, from, to: sum, text: signed(term) };
    });
    bars.push({ name: "logit", from: 0, to: sum, text: signed(sum) });
    const span = high - low || 1;
    bars.forEach(({ name, from, to, text }, i) => {
      const row = this.rows[i];
      row.label.textContent = name;
      row.value.textContent = text;
      row.element.dataset.k = /^\d+$/.test(name) ? name : "";
      row.element.classList.toggle("negative", to < from);
      style(row.bar, {
        "--from": String((Math.min(from, to) - low) / span),
        "--to": String((Math.max(from, to) - low) / span),
        "--zero": String(-low / span),
      });
    });
  }

  /**
   * Whether the pixel is in the mask, and how far it is from the other side.
   * @param {Float32Array} weights
   * @param {import("./masks.js").Reads} deciding
   */
  judge(weights, deciding) {
    const { scene, state } = this.stage;
    const { squash, threshold } = scene.rule;
    if (!deciding.length)
      return [h("b", { className: "out" }, "Not in the mask"), ": outside the box, whatever its logit."];
    const inside = valueAt(weights, scene.prototypes, deciding, squash) > threshold;
    const verdict = h("b", { className: inside ? "in" : "out" }, inside ? "In the mask" : "Not in the mask");
    const flip = smallestFlip(weights, scene.prototypes, deciding, scene.rule);
    if (!flip) return [verdict, ": no single coefficient can flip it."];
    const change = flip.change / (scene.factor(state.selected) || 1);
    const now = state.shown()[flip.k];
    return [
      verdict,
      ". Smallest single change that flips this pixel: ",
      h("b", {}, `w${flip.k}`),
      ` ${signed(now)} → ${signed(now + change)}`,
      h("span", { className: "quiet" }, ` (Δ ${signed(change)})`),
      ".",
    ];
  }
}
