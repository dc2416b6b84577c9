// One pixel: what each prototype adds there, step by step up to its logit, and what it would take to flip it.

import { h, signed, style } from "./dom.js";
import { pixelInFrame } from "./geometry.js";
import { contributions, descending, smallestFlip, valueAt } from "./masks.js";

/** @typedef {import("./stage.js").Stage} Stage */

const STEPS = 9;

export class Waterfall {
  /** @param {Stage} stage */
  constructor(stage) {
    this.stage = stage;
    const { k } = stage.scene;
    this.steps = Math.min(STEPS, k);
    this.rows = Array.from({ length: this.steps + (k > this.steps ? 2 : 1) }, () => {
      const [label, bar, value] = [h("span", { className: "name" }), h("span", { className: "run" }, h("i")), h("span", { className: "value" })];
      return { element: h("li", {}, label, bar, value), label, bar, value };
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
    stage.state.listen(() => this.update());
    this.update();
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
    if (others.length) shown.push({ name: `${others.length} others`, term: others.reduce((sum, k) => sum + terms[k], 0) });
    this.draw(shown);
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
      row.element.classList.toggle("negative", to < from);
      style(row.bar, { "--from": String((Math.min(from, to) - low) / span), "--to": String((Math.max(from, to) - low) / span), "--zero": String(-low / span) });
    });
  }

  /** Whether the pixel is in the mask, and how far it is from the other side. @param {Float32Array} weights @param {import("./masks.js").Reads} deciding */
  judge(weights, deciding) {
    const { scene, state } = this.stage;
    const { squash, threshold } = scene.rule;
    if (!deciding.length) return [h("b", { className: "out" }, "Not in the mask"), ": the crop cuts it away, whatever its logit."];
    const inside = valueAt(weights, scene.prototypes, deciding, squash) > threshold;
    const verdict = h("b", { className: inside ? "in" : "out" }, inside ? "In the mask" : "Not in the mask");
    const flip = smallestFlip(weights, scene.prototypes, deciding, squash);
    if (!flip) return [verdict, ": no single coefficient can flip it."];
    const change = flip.change / (scene.factor(state.selected) || 1);
    const now = state.shown()[flip.k];
    return [verdict, ". Flips when coefficient ", h("b", {}, String(flip.k)), ` goes from ${signed(now)} to ${signed(now + change)}`, h("span", { className: "quiet" }, ` (margin ${signed(change)}, the smallest of all)`), "."];
  }
}
