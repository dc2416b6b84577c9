// The whole of one scene on the page: image, controls, prototypes, pixel.

import { download, grouped, h, icon, rest, style } from "./dom.js";
import { descending, effects } from "./masks.js";
import { Equation } from "./equation.js";
import { ANCHORS } from "./palette.js";
import { Stage } from "./stage.js";
import { shortest } from "./state.js";
import { Strip } from "./strip.js";
import { Tour } from "./tour.js";
import { verdict, verdictMark, verdictTitle } from "./verdict.js";
import { Waterfall } from "./waterfall.js";

/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").View} View */

/** @type {[View, string, string][]} */
const VIEWS = [
  ["mask", "Mask", "Where the sum is above the threshold"],
  ["logits", "Logits", "The weighted sum itself: red is positive, blue is negative"],
  ["positive", "For", "Positive evidence: the sum of the positive contributions"],
  ["negative", "Against", "Negative evidence: the sum of the negative contributions"],
];

const SPEAK_MS = 500;
const KEPT = 5;
let ids = 0;

/** One scene with its controls. */
export class Viewer {
  /** @param {Scene} scene @param {State} state @param {import("./strip.js").Kinds | null} kinds */
  constructor(scene, state, kinds = null) {
    this.scene = scene;
    this.state = state;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.silence = undefined;
    /** Which of what was missed is looked at. */
    this.missed = -1;
    this.id = `maskprism-${(ids += 1)}`;
    /** The one region that is read aloud when it changes. Words to the reader are seen, too, for a while. */
    this.status = h("p", { className: "status unseen", role: "status" });
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.speaking = undefined;
    /** @type {(() => void)[]} */
    this.updates = [];
    this.stage = new Stage(scene, this.state, (measures) => this.showMeasures(measures));
    this.strip = new Strip(scene, this.state, (k) => this.stage.showPrototype(k), kinds);
    this.equation = new Equation(this.stage);
    this.waterfall = new Waterfall(this.stage, (order, terms, inside) => {
      this.equation.at(terms, inside);
      this.strip.markTop(this.stage.hovered || state.pixel ? order : [], terms);
    });
    this.measures = this.measureFields();
    this.overlay = h("div", { className: "iou", "aria-hidden": "true", hidden: true });
    this.tour = new Tour(this.steps());
    const frame = h("div", { className: "holder" }, this.stage.element, this.overlay, this.zoomButtons());
    style(frame, { "--aspect": String(this.stage.zoom.aspect) });
    this.element = h(
      "div",
      { className: "body" },
      h(
        "div",
        { className: "left" },
        h(
          "section",
          { className: "look", "aria-label": "Image" },
          h("div", { className: "frame" }, frame),
          this.lookControls(),
          this.instancePicker(),
        ),
        this.waterfall.element,
      ),
      this.story(),
      h(
        "section",
        { className: "mix", "aria-label": "Prototypes and coefficients" },
        this.measures.element,
        this.tools(),
        this.strip.element,
        this.strip.more,
      ),
      this.legend(),
    );
    this.element.append(this.tour.box);
    this.state.listen((change) => {
      if (change.kind !== "pixel") this.refresh();
      if (change.kind === "coefficients") this.tellEdit();
    });
    this.refresh();
  }

  /** The image is there: colours are known. */
  async open() {
    await this.stage.open();
    requestAnimationFrame(() => {
      const chosen = this.element.querySelector('.instances [aria-checked="true"]');
      const box = chosen?.parentElement;
      // the page stays where it is
      if (box && chosen instanceof HTMLElement) box.scrollTop = chosen.offsetTop - box.offsetTop - 6;
    });
    this.equation.open();
    this.refresh();
  }

  zoomButtons() {
    const { zoom } = this.stage;
    const button = (/** @type {string} */ text, /** @type {string} */ label, /** @type {() => void} */ act) =>
      h("button", { type: "button", title: label, "aria-label": label, onclick: act }, text);
    const fit = button("⊡", "Fit the instance (F)", () => this.stage.fitInstance());
    this.onRefresh(() => (fit.disabled = this.state.selected < 0));
    return h(
      "div",
      { className: "zoom", role: "group", "aria-label": "Zoom" },
      button("+", "Closer (+)", () => zoom.in()),
      button("−", "Further away (−)", () => zoom.out()),
      fit,
      button("▭", "The whole image (0)", () => zoom.whole()),
    );
  }

  /** How the mask comes about, in a picture and a sentence, with three things to try. */
  story() {
    const { state, scene } = this;
    const says = h("p", { className: "says" });
    const strongest = h("button", { type: "button", onclick: () => this.dropStrongest() }, "Drop the strongest");
    const keep = h(
      "button",
      { type: "button", onclick: () => state.only(this.byEffect().slice(0, KEPT)) },
      `Keep ${KEPT}`,
    );
    const swap = h("button", { type: "button", onclick: () => this.swapWith(this.neighbour()) });
    let telling = 0;
    const tell = () => {
      cancelAnimationFrame(telling);
      // once the mask is measured
      telling = requestAnimationFrame(() => says.replaceChildren(...this.equation.sentence()));
    };
    state.listen((change) => (change.kind === "selected" || change.kind === "coefficients") && tell());
    tell();
    this.onRefresh(() => {
      const other = this.neighbour();
      for (const one of [strongest, keep, swap]) one.disabled = state.selected < 0;
      swap.hidden = other < 0;
      swap.textContent = other < 0 ? "" : `Swap with ${scene.instances[other].name} ${other}`;
    });
    const tries = h("div", { className: "group tries" }, strongest, keep, swap);
    return h(
      "section",
      { className: "story", "aria-label": "How the mask comes about" },
      h("div", { className: "telling" }, this.heading(), says, tries, this.tour.invitation),
      h("div", { className: "shown" }, this.equation.element, this.lead()),
    );
  }

  /** Drops the prototype with the largest effect of those that are left. */
  dropStrongest() {
    const now = this.state.coefficients();
    const k = this.byEffect().find((one) => now[one] !== 0);
    if (k !== undefined) this.state.set(k, 0);
  }

  /** The instance whose middle is nearest to that of the chosen one; -1 where there is no other. */
  neighbour() {
    const { scene, state } = this;
    const middle = (/** @type {number} */ i) =>
      [0, 1].map((axis) => (scene.instances[i].box[axis] + scene.instances[i].box[axis + 2]) / 2);
    if (state.selected < 0) return -1;
    const [x, y] = middle(state.selected);
    const far = scene.instances.map((_, i) =>
      i === state.selected ? Infinity : Math.hypot(middle(i)[0] - x, middle(i)[1] - y),
    );
    const nearest = far.indexOf(Math.min(...far));
    return Number.isFinite(far[nearest]) ? nearest : -1;
  }

  /** Both colour scales, always in view. */
  legend() {
    const bar = (/** @type {import("./palette.js").MapName} */ map) => {
      const scale = h("i", { className: "ramp diverging" });
      style(scale, {
        "--colours": ANCHORS[map]
          .split(" ")
          .map((colour) => `#${colour}`)
          .join(", "),
      });
      return scale;
    };
    return h(
      "div",
      { className: "legend", role: "note", "aria-label": "Colours" },
      h("span", {}, h("b", {}, "Contribution"), " against ", bar("contribution"), " for the mask"),
      h(
        "span",
        {},
        h("b", {}, "Prototype"),
        " negative ",
        bar("prototype"),
        " positive",
        h("span", { className: "aside" }, ", each on its own scale"),
      ),
    );
  }

  /** What the tour shows. @returns {import("./tour.js").Step[]} */
  steps() {
    return [
      {
        target: () => this.equation.element,
        text: "A mask is a sum. Positive and negative evidence add up to the logits; the mask is where they are above zero.",
      },
      {
        target: () => this.element.querySelector(".tries"),
        text: "Take a part of the sum away and see whether the mask needs it. Undo is above at the right, Ctrl+Z.",
      },
      {
        target: () => this.strip.cards[this.strip.order[0]]?.element,
        text: "Each card is a prototype: a map that the model draws of the whole image. Its slider is the coefficient that this instance multiplies it by. Move it.",
      },
      {
        target: () => this.stage.element,
        text: "Point at any pixel: the bars beside say what each prototype adds there. Click another instance to take that one apart.",
      },
    ];
  }

  /** @param {() => void} update */
  onRefresh(update) {
    this.updates.push(update);
  }

  refresh() {
    for (const update of this.updates) update();
  }

  /** @param {string} text */
  say(text) {
    clearTimeout(this.speaking);
    this.status.textContent = text;
    this.status.classList.remove("unseen");
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.status.classList.add("unseen"), 4000);
  }

  /** Says what an edit did once it is painted, and once for a row of quick ones. */
  tellEdit() {
    clearTimeout(this.speaking);
    this.speaking = setTimeout(() => {
      if (!this.status.classList.contains("unseen")) return; // a message is shown
      const { original, area } = this.measures;
      this.status.textContent = `IoU with original ${original.value.textContent}, area ${area.value.textContent} pixels`;
    }, SPEAK_MS);
  }

  lookControls() {
    const { state, id } = this;
    const crops = this.stage.frame.crop !== "none";
    const views = VIEWS.map(([view, text, about]) => {
      const title = view === "mask" && crops ? `${about}, inside the box` : about;
      const input = h("input", {
        type: "radio",
        name: `${id}-view`,
        value: view,
        onchange: () => state.look({ view }),
      });
      this.onRefresh(() => (input.checked = state.view === view));
      return h("label", { title }, input, h("span", {}, text));
    });
    const cropTitle = crops
      ? "Cut the mask at the box, as the rule of the model does"
      : "The mask rule of this model cuts nothing away";
    const crop = h("input", { type: "checkbox", disabled: !crops, onchange: () => state.look({ crop: crop.checked }) });
    const opacity = h("input", {
      type: "range",
      className: "plain",
      min: "0",
      max: "1",
      step: "0.05",
      "aria-label": "Opacity",
      oninput: () => state.look({ opacity: opacity.valueAsNumber }),
    });
    const act = (/** @type {"edits" | "tuning"} */ moment) => {
      if (state.before === moment) state.look({ before: "" });
      else if (moment === "tuning" || state.edits.has(state.selected)) state.look({ before: moment });
    };
    const toggle = (
      /** @type {"edits" | "tuning"} */ moment,
      /** @type {string} */ text,
      /** @type {string} */ title,
    ) => h("button", { type: "button", className: "quiet-button", title, onclick: () => act(moment) }, text);
    const before = toggle("edits", "Before", "Show the mask as it was before all edits (B)");
    const untuned = state.untuned.some(Boolean)
      ? toggle("tuning", "Untuned", "Show the mask as the model draws it without its correction (U)")
      : null;
    this.onRefresh(() => {
      crop.checked = crops && state.crop;
      opacity.valueAsNumber = state.opacity;
      before.setAttribute("aria-pressed", String(state.before === "edits"));
      rest(before, !state.edits.has(state.selected) && state.before !== "edits");
      untuned?.setAttribute("aria-pressed", String(state.before === "tuning"));
    });
    return h(
      "div",
      { className: "controls" },
      h("fieldset", { className: "segments" }, h("legend", {}, "View"), ...views),
      before,
      untuned,
      this.truthControls(),
      h("label", { className: "check", title: cropTitle }, crop, "Crop to box"),
      h("label", { className: "check" }, "Opacity", opacity),
    );
  }

  /** Outlines of the ground truth, and the way to what was missed; nothing where there is no ground truth. */
  truthControls() {
    const { state, scene, stage } = this;
    if (!stage.truthLayer.exists) return null;
    const box = h("input", { type: "checkbox", onchange: () => state.look({ truth: box.checked }) });
    this.onRefresh(() => (box.checked = state.truth));
    const many = scene.missed.length;
    const rule = scene.header.matching?.rule ?? "";
    const missed = many
      ? h(
          "button",
          {
            type: "button",
            className: "missed",
            title: `Show the next labelled instance that no prediction found. ${rule}`,
            onclick: () => this.showMissed(this.missed + 1),
          },
          `${many} missed`,
        )
      : null;
    return h(
      "span",
      { className: "truth-controls" },
      h(
        "label",
        {
          className: "check",
          title: `Outlines of the labels: white where an instance found them, pink where none did. ${rule}`,
        },
        box,
        "Ground truth",
      ),
      missed,
    );
  }

  /** Looks closer at a labelled instance that no prediction found; counts go round. @param {number} index */
  showMissed(index) {
    const { scene, state, stage } = this;
    if (!scene.missed.length) return;
    this.missed = index % scene.missed.length;
    const one = scene.missed[this.missed];
    if (!state.truth) state.look({ truth: true });
    stage.fitBox(one.box);
    this.say(`Missed: ${one.name} (${this.missed + 1} of ${scene.missed.length})`);
  }

  /** One button per instance; arrow keys move among them. */
  instancePicker() {
    const { state, scene } = this;
    const buttons = scene.instances.map((instance, i) => {
      const swatch = h("i", { className: "swatch" });
      this.onRefresh(() => style(swatch, { "--colour": `#${this.stage.colours[i]}` }));
      return h(
        "button",
        { type: "button", role: "radio", onclick: () => state.select(i) },
        swatch,
        h("span", { className: "name" }, instance.name),
        h("span", { className: "score" }, instance.score.toFixed(2)),
        verdictMark(instance, scene.header.matching),
      );
    });
    const move = (/** @type {KeyboardEvent} */ event) => {
      const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (!step || !buttons.length) return;
      event.preventDefault();
      state.select((state.selected + step + buttons.length) % buttons.length);
      buttons[state.selected].focus();
    };
    this.onRefresh(() => {
      buttons.forEach((button, i) => {
        button.setAttribute("aria-checked", String(i === state.selected));
        button.tabIndex = i === state.selected ? 0 : -1;
        button.classList.toggle("edited", state.edits.has(i));
        button.setAttribute("aria-description", state.edits.has(i) ? "edited" : "");
      });
    });
    state.listen(
      (change) =>
        change.kind === "selected" && buttons[state.selected]?.scrollIntoView({ block: "nearest", inline: "nearest" }),
    );
    return h(
      "div",
      { className: "instances", role: "radiogroup", "aria-label": "Instances", onkeydown: move },
      ...(buttons.length ? buttons : [h("p", { className: "quiet" }, "The model found no instance here.")]),
    );
  }

  heading() {
    const { state, scene } = this;
    const swatch = h("i", { className: "swatch" });
    const name = h("span", { className: "name" });
    const detail = h("span", { className: "quiet" });
    this.onRefresh(() => {
      const instance = scene.instances[state.selected];
      swatch.hidden = !instance;
      style(swatch, { "--colour": `#${this.stage.colours[Math.max(state.selected, 0)] ?? ""}` });
      name.textContent = instance ? instance.name : "Prototypes";
      detail.textContent = instance
        ? [`instance ${state.selected}, score ${instance.score.toFixed(2)}`, verdict(instance)]
            .filter(Boolean)
            .join(", ")
        : "no instance";
      detail.title = instance ? verdictTitle(instance, scene.header.matching) : "";
    });
    return h("div", { className: "heading" }, h("h2", {}, swatch, name, detail));
  }

  /** The rule in a sentence. */
  lead() {
    const where = this.stage.frame.crop === "none" ? "above 0" : "above 0, inside the box";
    const lead = this.scene.instances.length
      ? `Logits are the sum of all coefficients times prototypes; the mask is where they are ${where}.`
      : "Without an instance there are no coefficients. Point at a prototype to see it large.";
    return h("p", { className: "lead quiet" }, lead);
  }

  measureFields() {
    const field = (/** @type {string} */ text, /** @type {string} */ title) => {
      const value = h("dd", {}, "–");
      return { value, element: h("div", { title }, h("dt", {}, text), value) };
    };
    const original = field("IoU with original", "Overlap of this mask with the mask before all edits");
    const truth = field("IoU with ground truth", "Overlap of this mask with the ground truth, at the image's size");
    const area = field(`Area, ${this.stage.frame.size} px`, "Pixels of the mask in the frame the rule decides them in");
    const change = field("Gained, lost", "Pixels that the edit added and took away");
    const shown = this.scene.instances.some((instance) => instance.truth)
      ? [original, truth, area, change]
      : [original, area, change];
    return {
      original,
      truth,
      area,
      change,
      element: h("dl", { className: "measures" }, ...shown.map((one) => one.element)),
    };
  }

  /** @param {import("./stage.js").Measures} measures */
  showMeasures({ area, gained, lost, iou, truthIou }) {
    const { measures } = this;
    measures.original.value.textContent = iou.toFixed(3);
    measures.truth.value.textContent = truthIou === null ? "–" : truthIou.toFixed(3);
    measures.area.value.textContent = grouped(area);
    measures.change.value.textContent = `+${grouped(gained)} −${grouped(lost)}`;
    const edited = this.state.edits.has(this.state.selected);
    const said = [
      edited && `IoU ${iou.toFixed(3)}`,
      truthIou !== null && `${edited ? "" : "IoU "}with ground truth ${truthIou.toFixed(3)}`,
    ].filter(Boolean);
    this.overlay.hidden = !said.length;
    this.overlay.textContent = said.join(" · ");
  }

  tools() {
    const { state, scene } = this;
    const original = () => state.original[state.selected] ?? [];
    const indices = () => Array.from(original(), (_, k) => k);
    const count = h("input", {
      type: "number",
      className: "count",
      min: "0",
      max: String(scene.k),
      value: String(Math.min(5, scene.k)),
      "aria-label": "How many prototypes to keep",
      onchange: () => keepTop(),
    });
    let kept = Math.min(5, scene.k);
    const keepTop = () => {
      const n = Math.min(Math.max(Math.round(count.valueAsNumber), 0), scene.k);
      if (Number.isNaN(n)) {
        count.value = String(kept);
        return this.say(`Keep how many prototypes? Expected a number from 0 to ${scene.k}.`);
      }
      kept = n;
      count.value = String(n);
      return state.only(this.byEffect().slice(0, n));
    };
    const button = (/** @type {string} */ text, /** @type {string} */ title, /** @type {() => void} */ act) =>
      h("button", { type: "button", title, onclick: act }, text);
    const swap = h("select", {
      className: "swap",
      "aria-label": "Take the coefficients of another instance",
      onchange: () => this.swap(swap),
    });
    const reset = button("Reset", "Take back all edits of this instance", () => state.setAll(original()));
    reset.className = "reset";
    const order = this.choice(
      "Order",
      { effect: "Sorted by effect", index: "Sorted by index" },
      (value) => state.look({ order: value }),
      () => state.order,
    );
    const thumbnails = this.choice(
      "Show",
      { prototype: "Prototypes", term: "Weight × prototype" },
      (value) => state.look({ thumbnails: value }),
      () => state.thumbnails,
    );
    const only = (/** @type {string} */ sign, /** @type {string} */ other) =>
      `Keep the prototypes with ${sign} coefficients. Where such a prototype is negative itself, it still speaks ${other} the mask: the views For and Against go by the contributions`;
    const buttons = [
      button(
        "Keep top",
        `Keep the prototypes with the largest effect ${scene.header.boxes === false ? "around the mask" : "inside the box"}; zero the others`,
        keepTop,
      ),
      button("Only positive", only("positive", "against"), () =>
        state.only(indices().filter((k) => original()[k] > 0)),
      ),
      button("Only negative", only("negative", "for"), () => state.only(indices().filter((k) => original()[k] < 0))),
    ];
    const donors = scene.instances.map((instance, i) => h("option", { value: String(i) }, `${i} ${instance.name}`));
    swap.append(h("option", { value: "" }, "Swap in…"), ...donors);
    this.onRefresh(() => {
      swap.value = "";
      donors.forEach((donor, i) => (donor.disabled = i === state.selected));
      for (const one of [...buttons, count]) one.disabled = state.selected < 0;
      swap.disabled = scene.instances.length < 2;
      rest(reset, !state.edits.has(state.selected));
    });
    return h(
      "div",
      { className: "tools" },
      h(
        "div",
        { className: "group" },
        h("span", { className: "joined" }, buttons[0], count),
        buttons[1],
        buttons[2],
        swap,
      ),
      h("div", { className: "group" }, order, thumbnails, reset),
    );
  }

  /**
   * @template {string} T
   * @param {string} text @param {Record<T, string>} options @param {(value: T) => void} choose @param {() => T} now
   */
  choice(text, options, choose, now) {
    const entries = /** @type {[T, string][]} */ (Object.entries(options));
    const select = h(
      "select",
      { "aria-label": text, onchange: () => choose(/** @type {T} */ (select.value)) },
      ...entries.map(([value, label]) => h("option", { value }, label)),
    );
    this.onRefresh(() => (select.value = now()));
    return select;
  }

  /** Prototype indices of the chosen instance, largest effect of the original first. */
  byEffect() {
    const { scene, state } = this;
    const weights = scene.weights(state.selected, state.original[state.selected]);
    return descending(effects(weights, scene.prototypes, scene.letterbox, scene.instances[state.selected].canvas_box));
  }

  /** @param {HTMLSelectElement} select */
  swap(select) {
    const from = Number(select.value);
    if (select.value === "") return;
    this.swapWith(from);
  }

  /** @param {number} from */
  swapWith(from) {
    if (!this.state.original[from]) return;
    this.state.setAll(this.state.original[from]);
    this.say(`The coefficients are now those of instance ${from}, ${this.scene.instances[from].name}.`);
  }

  /** Undo and redo, for the bar above. */
  historyButtons() {
    const { state } = this;
    const undo = h(
      "button",
      {
        type: "button",
        className: "icon-button",
        title: "Undo (Ctrl+Z)",
        "aria-label": "Undo",
        onclick: () => state.undo(),
      },
      icon("undo"),
    );
    const redo = h(
      "button",
      {
        type: "button",
        className: "icon-button",
        title: "Redo (Ctrl+Shift+Z)",
        "aria-label": "Redo",
        onclick: () => state.redo(),
      },
      icon("redo"),
    );
    this.onRefresh(() => {
      rest(undo, !state.done.length);
      rest(redo, !state.undone.length);
    });
    this.refresh();
    return [undo, redo];
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const key = event.key.toLowerCase();
    const typing = event.target instanceof Element && event.target.matches("input[type=number], select");
    if ((event.ctrlKey || event.metaKey) && !event.altKey && (key === "z" || key === "y") && !typing) {
      if (key === "y" || event.shiftKey) this.state.redo();
      else this.state.undo();
      event.preventDefault();
    } else if (
      key === "b" &&
      !event.ctrlKey &&
      !event.metaKey &&
      !event.altKey &&
      !typing &&
      this.state.edits.has(this.state.selected)
    ) {
      this.state.look({ before: this.state.before === "edits" ? "" : "edits" });
      event.preventDefault();
    } else if (
      key === "u" &&
      !event.ctrlKey &&
      !event.metaKey &&
      !event.altKey &&
      !typing &&
      this.state.untuned[this.state.selected]
    ) {
      this.state.look({ before: this.state.before === "tuning" ? "" : "tuning" });
      event.preventDefault();
    }
  }

  /** The edited coefficients; `set` is what maskprism.Edit takes under that name. */
  exported() {
    const { scene, state } = this;
    const plain = (/** @type {Float32Array} */ row) => Array.from(row, (value) => Number(shortest(value)));
    const chosen = state.edits.size
      ? [...state.edits.keys()].sort((a, b) => a - b)
      : state.selected < 0
        ? []
        : [state.selected];
    return {
      source: scene.header.source,
      rule: scene.rule.name,
      instances: chosen.map((i) => {
        const [now, original] = [plain(state.coefficients(i)), plain(state.original[i])];
        const set = Object.fromEntries(now.map((value, k) => [k, value]).filter(([k, value]) => value !== original[k]));
        return {
          instance: i,
          class: scene.instances[i].class,
          name: scene.instances[i].name,
          coefficients: now,
          original,
          set,
        };
      }),
    };
  }

  exportCoefficients() {
    download(
      new Blob([JSON.stringify(this.exported(), null, 1)], { type: "application/json" }),
      `${this.stem()}-coefficients.json`,
    );
  }

  async exportPng() {
    download(await this.stage.png(), `${this.stem()}-mask.png`);
  }

  /** A file name without folders and suffix. */
  stem() {
    return (
      this.scene.header.source
        .replace(/^.*[\\/]/, "")
        .replace(/\.[^.]*$/, "")
        .replace(/[^\p{L}\p{N}._-]+/gu, "_") || "image"
    );
  }

  /** How exact the shown numbers are. */
  note() {
    const { scene, state } = this;
    const { bits } = scene.header.prototypes;
    const instance = scene.instances[state.selected];
    const error =
      instance && bits < 32
        ? `: logits of this instance are within ±${instance.logit_error.toPrecision(2)} of the model's`
        : "";
    const exact = bits < 32 ? `in ${bits} bits${error}` : "exactly as the model gave them";
    return `Prototypes are kept ${exact}. Mask rule ${scene.rule.name}.`;
  }

  close() {
    this.stage.close();
    this.equation.close();
    this.tour.close();
    clearTimeout(this.strip.naming);
    this.state.listeners = [];
    clearTimeout(this.silence);
    clearTimeout(this.speaking);
  }
}
