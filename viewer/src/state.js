// What the reader has done: chosen, edited, undone. No pixels here, and nothing of the page.

/** @typedef {"mask" | "logits" | "positive" | "negative"} View */
/** @typedef {"effect" | "index"} Order */
/** @typedef {{ x: number, y: number }} Pixel */
/** @typedef {{ instance: number, before: Float32Array, after: Float32Array }} Edited */
/** @typedef {{ edited: Edited[], key: string, at: number }} Step */
/** What changed: one coefficient, all of them, the choice, the pixel, or how it is shown. */
/**
 * @typedef {{ kind: "coefficient", k: number, from: number, to: number } | { kind: "coefficients" | "selected" | "pixel" | "look"
 * | "highlight" }} Change
 */

export const VIEWS = /** @type {const} */ (["mask", "logits", "positive", "negative"]);
const MERGE_MS = 800;
const OPACITY = 0.5;

/** The state of one scene, given the original coefficients of its instances, and which of these is looked at first. */
export class State {
  /**
   * @param {ArrayLike<number>[]} coefficients
   * @param {(ArrayLike<number> | null | undefined)[]} untuned
   * @param {number} opening
   */
  constructor(coefficients, untuned = [], opening = 0) {
    this.original = coefficients.map((row) => Float32Array.from(row));
    /** As they were before the correction of the model, where it has one. */
    this.untuned = coefficients.map((_, i) => (untuned[i] ? Float32Array.from(untuned[i]) : null));
    /** @type {Map<number, Float32Array>} */
    this.edits = new Map();
    this.opening = coefficients.length ? opening : -1;
    this.selected = this.opening;
    /** The prototype that is pointed at, anywhere. @type {number | null} */
    this.highlighted = null;
    /** @type {Pixel | null} */
    this.pixel = null;
    /** @type {View} */
    this.view = "mask";
    this.crop = true;
    /**
     * What is shown in place of the edited mask: that before all edits, or before the model was tuned.
     * @type {"" | "edits" | "tuning"}
     */
    this.before = "";
    this.opacity = OPACITY;
    /** Whether the outlines of the ground truth are drawn. */
    this.truth = false;
    /** @type {Order} */
    this.order = "effect";
    /** @type {"prototype" | "term"} */
    this.thumbnails = "prototype";
    /** Whether thumbnails show the whole image, in place of what surrounds the box. */
    this.whole = false;
    /** Whether the prototypes that contribute little are shown, too. */
    this.all = false;
    /** @type {Step[]} */
    this.done = [];
    /** @type {Step[]} */
    this.undone = [];
    /** @type {((change: Change) => void)[]} */
    this.listeners = [];
    /** @type {Float32Array | null} */
    this.start = null;
  }

  /**
   * The coefficients that are looked at: earlier ones while the mask from before all edits, or before tuning, is shown.
   */
  shown() {
    const earlier = { edits: this.original, tuning: this.untuned, "": null }[this.before];
    return earlier?.[this.selected] ?? this.coefficients();
  }

  /** @param {(change: Change) => void} listener */
  listen(listener) {
    this.listeners.push(listener);
  }

  /** @param {Change} change */
  tell(change) {
    for (const listener of this.listeners) listener(change);
  }

  /** The current coefficients of an instance. */
  coefficients(instance = this.selected) {
    return this.edits.get(instance) ?? this.original[instance] ?? new Float32Array(0);
  }

  /** Moves a coefficient of the chosen instance; `commit` ends the move. @param {number} k @param {number} value */
  move(k, value) {
    const { selected } = this;
    if (selected < 0) return;
    if (this.before) this.look({ before: "" }); // an edit shows its effect
    const now = this.coefficients();
    this.start ??= now.slice();
    const moved = now.slice();
    moved[k] = value;
    this.keep(selected, moved);
    this.tell({ kind: "coefficient", k, from: now[k], to: moved[k] });
  }

  /** Ends a change; changes of the same key in quick succession are undone together. @param {string} key */
  commit(key = "") {
    const before = this.start;
    this.start = null;
    if (!before || same(before, this.coefficients())) return;
    const at = Date.now();
    const last = this.done.at(-1);
    const after = this.coefficients().slice();
    const merged =
      key && last?.key === key && last.edited[0].instance === this.selected && at - last.at < MERGE_MS ? last : null;
    if (!merged) this.done.push({ edited: [{ instance: this.selected, before, after }], key, at });
    else if (same(merged.edited[0].before, after))
      this.done.pop(); // there and back again is no step
    else Object.assign(merged, { edited: [{ ...merged.edited[0], after }], at });
    this.undone = [];
    this.tell({ kind: "coefficients" });
  }

  /** @param {number} k @param {number} value @param {string} key */
  set(k, value, key = "") {
    this.move(k, value);
    this.commit(key);
  }

  /** @param {ArrayLike<number>} coefficients */
  setAll(coefficients) {
    if (this.selected < 0) return;
    if (this.before) this.look({ before: "" });
    this.start ??= this.coefficients().slice();
    this.keep(this.selected, Float32Array.from(coefficients));
    this.commit();
  }

  /** Keeps these prototypes of the original and zeroes the others. @param {Iterable<number>} kept */
  only(kept) {
    const chosen = new Set(kept);
    this.setAll(this.original[this.selected]?.map((value, k) => (chosen.has(k) ? value : 0)) ?? []);
  }

  /** @param {number} instance @param {Float32Array} coefficients */
  keep(instance, coefficients) {
    if (same(coefficients, this.original[instance])) this.edits.delete(instance);
    else this.edits.set(instance, coefficients);
  }

  /** Takes back the edits of all instances, as one step. */
  resetAll() {
    this.commit();
    if (!this.edits.size) return;
    const edited = [...this.edits].map(([instance, before]) => ({
      instance,
      before,
      after: this.original[instance].slice(),
    }));
    this.edits.clear();
    this.done.push({ edited, key: "", at: Date.now() });
    this.undone = [];
    this.tell({ kind: "coefficients" });
  }

  undo() {
    this.step(this.done, this.undone, "before");
  }

  redo() {
    this.step(this.undone, this.done, "after");
  }

  /** @param {Step[]} from @param {Step[]} to @param {"before" | "after"} which */
  step(from, to, which) {
    const step = from.pop();
    if (!step) return;
    to.push(step);
    for (const edited of step.edited) this.keep(edited.instance, edited[which].slice());
    if (!step.edited.some(({ instance }) => instance === this.selected)) this.select(step.edited[0].instance);
    this.tell({ kind: "coefficients" });
  }

  /** @param {number} instance */
  select(instance) {
    if (instance === this.selected || !this.original[instance]) return;
    this.commit();
    this.selected = instance;
    this.tell({ kind: "selected" });
  }

  /** @param {Pixel | null} pixel */
  point(pixel) {
    this.pixel = pixel;
    this.tell({ kind: "pixel" });
  }

  /** @param {number | null} k */
  highlight(k) {
    if (k === this.highlighted) return;
    this.highlighted = k;
    this.tell({ kind: "highlight" });
  }

  /**
   * @param {Partial<Pick<State, "view" | "crop" | "before" | "opacity" | "order" | "thumbnails" | "whole" | "all" |
   * "truth">>} settings
   */
  look(settings) {
    Object.assign(this, settings);
    this.tell({ kind: "look" });
  }

  /**
   * Takes edits from elsewhere: instance to all of its coefficients.
   * @param {Record<string, ArrayLike<number>>} edits
   */
  replace(edits) {
    this.edits.clear();
    for (const [key, row] of Object.entries(edits)) {
      const instance = Number(key);
      const values = Float32Array.from(row);
      if (this.original[instance]?.length === values.length && values.every(Number.isFinite))
        this.keep(instance, values);
    }
    this.tell({ kind: "coefficients" });
  }

  /**
   * Everything that a link or file must hold, as short text: "i=2&view=logits&e2=7:0,9:-1.25".
   * @returns {URLSearchParams}
   */
  save() {
    const saved = new URLSearchParams();
    if (this.selected !== this.opening) saved.set("i", String(this.selected));
    if (this.view !== "mask") saved.set("view", this.view);
    if (!this.crop) saved.set("crop", "off");
    if (this.opacity !== OPACITY) saved.set("opacity", String(this.opacity));
    if (this.truth) saved.set("truth", "on");
    if (this.order !== "effect") saved.set("order", this.order);
    if (this.thumbnails !== "prototype") saved.set("show", this.thumbnails);
    if (this.whole) saved.set("whole", "on");
    if (this.all) saved.set("all", "on");
    if (this.pixel) saved.set("pixel", `${this.pixel.x},${this.pixel.y}`);
    for (const [instance, row] of this.edits) {
      const changed = Array.from(row, (value, k) =>
        value === this.original[instance][k] ? "" : `${k}:${shortest(value)}`,
      );
      saved.set(`e${instance}`, changed.filter(Boolean).join(","));
    }
    return saved;
  }

  /** What `save` gave; whatever does not fit this scene is left out. @param {URLSearchParams} saved */
  restore(saved) {
    this.edits.clear();
    for (const [name, text] of saved) {
      const instance = /^e\d+$/.test(name) ? Number(name.slice(1)) : -1;
      if (!this.original[instance]) continue;
      const row = this.original[instance].slice();
      for (const part of text.split(",")) {
        const [k, value] = part.split(":").map(Number);
        if (k in row && Number.isFinite(Math.fround(value))) row[k] = value;
      }
      this.keep(instance, row);
    }
    const selected = Number(saved.get("i") ?? this.opening);
    if (this.original[selected]) this.selected = selected;
    this.view = VIEWS.find((view) => view === saved.get("view")) ?? "mask";
    this.crop = saved.get("crop") !== "off";
    const opacity = Number.parseFloat(saved.get("opacity") ?? "");
    this.opacity = opacity >= 0 && opacity <= 1 ? opacity : OPACITY;
    this.truth = saved.has("truth") ? saved.get("truth") === "on" : this.truth;
    this.order = saved.get("order") === "index" ? "index" : "effect";
    this.thumbnails = saved.get("show") === "term" ? "term" : "prototype";
    this.whole = saved.get("whole") === "on";
    this.all = saved.get("all") === "on";
    const [x, y] = (saved.get("pixel") ?? "").split(",").map(Number);
    if (Number.isInteger(x) && Number.isInteger(y)) this.pixel = { x, y };
  }
}

/** The shortest decimal that is the same 32-bit number. @param {number} value */
export function shortest(value) {
  for (let digits = 1; digits < 9; digits++) {
    const text = Number(value.toPrecision(digits));
    if (Math.fround(text) === value) return String(text);
  }
  return String(Number(value.toPrecision(9)));
}

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
function same(a, b) {
  return a.length === b.length && Array.prototype.every.call(a, (value, i) => value === b[i]);
}
