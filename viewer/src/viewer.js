// The whole of one scene on the page: image, controls, prototypes, pixel.

import { download, fileNameOf, grouped, h, icon, rest, style } from "./dom.js";
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
  ["positive", "Positive", "Positive evidence: the sum of the contributions above 0"],
  ["negative", "Negative", "Negative evidence: the sum of the contributions below 0"],
];

const SPEAK_MS = 500;
const KEPT = 5;
let ids = 0;
/** Whether the first slider has drawn attention to itself: once for a page. */
let nudged = false;

/** One scene with its controls. */
export class Viewer {
  /** @param {Scene} scene @param {State} state @param {import("./strip.js").Kinds | null} kinds */
  constructor(scene, state, kinds = null) {
    this.scene = scene;
    this.state = state;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.silence = undefined;
    /** What `byEffect` found last. */
    this.effects = { instance: -1, order: /** @type {number[]} */ ([]) };
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
      this.tools(),
      h(
        "section",
        { className: "mix", "aria-label": "Prototypes and coefficients" },
        this.measures.element,
        this.strip.element,
        this.strip.more,
      ),
    );
    this.element.append(this.tour.box);
    this.state.listen((change) => {
      if (change.kind !== "pixel") this.refresh();
      if (change.kind === "selected") this.showChosen();
      if (change.kind === "coefficients") this.tellEdit();
    });
    this.refresh();
  }

  /** The image is there: colours are known. */
  async open() {
    await this.stage.open();
    if (!nudged && this.state.selected >= 0) {
      nudged = true;
      const first = this.strip.cards[this.strip.order[0]]?.element;
      first?.classList.add("nudged");
      first?.addEventListener("animationend", () => first.classList.remove("nudged"), { once: true });
    }
    requestAnimationFrame(() => this.showChosen());
    this.equation.open();
    this.refresh();
  }

  /** Scrolls the list of instances to the chosen one; the page stays where it is. */
  showChosen() {
    const chosen = this.element.querySelector('.instances [aria-checked="true"]');
    const list = chosen?.parentElement;
    if (!list || !(chosen instanceof HTMLElement)) return;
    const top = chosen.offsetTop - list.offsetTop;
    const bottom = top + chosen.offsetHeight - list.clientHeight;
    list.scrollTop = Math.min(Math.max(list.scrollTop, bottom + 6), top - 6);
  }

  zoomButtons() {
    const { zoom } = this.stage;
    const button = (/** @type {string} */ text, /** @type {string} */ label, /** @type {() => void} */ act) =>
      h("button", { type: "button", title: label, "aria-label": label, onclick: act }, text);
    const fit = button("⊡", "Fit the instance (F)", () => this.stage.fitInstance());
    fit.hidden = !this.scene.instances.length;
    return h(
      "div",
      { className: "zoom", role: "group", "aria-label": "Zoom" },
      button("+", "Zoom in (+)", () => zoom.in()),
      button("−", "Zoom out (−)", () => zoom.out()),
      fit,
      button("▭", "The whole image (0)", () => zoom.whole()),
    );
  }

  /** How the mask comes about, in a picture and two sentences. */
  story() {
    const { state } = this;
    const says = h("p", { className: "says", hidden: state.selected < 0 });
    let telling = 0;
    const tell = () => {
      cancelAnimationFrame(telling);
      // once the mask is measured
      telling = requestAnimationFrame(() => says.replaceChildren(...this.equation.sentence()));
    };
    state.listen((change) => (change.kind === "selected" || change.kind === "coefficients") && tell());
    tell();
    return h(
      "section",
      { className: "story", "aria-label": "How the mask comes about" },
      h("div", { className: "telling" }, this.heading(), this.lead(), says, this.tour.invitation),
      this.equation.element,
    );
  }

  /** The prototype with the largest effect of those that are left. */
  strongest() {
    if (this.state.selected < 0) return undefined;
    const now = this.state.coefficients();
    return this.byEffect().find((k) => now[k] !== 0);
  }

  /** The scale of the thumbnails. */
  legend() {
    const { state } = this;
    const scale = h("i", { className: "ramp diverging" });
    const element = h("span", { className: "legend", role: "note" }, "−", scale, "+");
    this.onRefresh(() => {
      const terms = state.thumbnails === "term";
      const said = terms
        ? "Weight × prototype: blue is negative evidence, red is positive"
        : "Prototype: purple is negative, orange is positive, each on its own scale";
      element.title = said;
      element.setAttribute("aria-label", said);
      style(scale, {
        "--colours": ANCHORS[terms ? "contribution" : "prototype"]
          .split(" ")
          .map((colour) => `#${colour}`)
          .join(", "),
      });
    });
    return element;
  }

  /** What the tour shows. @returns {import("./tour.js").Step[]} */
  steps() {
    return [
      {
        target: () => this.equation.element,
        text: "A mask is a sum. Positive and negative evidence add up to the mask logits; mask = logit > 0.",
      },
      {
        target: () => this.element.querySelector(".tools"),
        text: "Ablate a part of the sum and see whether the mask needs it. Undo is above at the right, Ctrl+Z.",
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
      this.status.textContent = `IoU vs. unedited mask ${original.value.textContent}, area ${area.value.textContent} pixels`;
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
      ? toggle("tuning", "Before tuning", "Show the mask as the model draws it without its correction (U)")
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

  /** What a mask is, in a sentence. */
  lead() {
    const { k, instances } = this.scene;
    const sum =
      k === 1 ? "1 shared map × 1 weight. Drag the weight." : `${k} shared maps × ${k} weights. Drag one weight.`;
    const lead = instances.length
      ? `This mask = ${sum}`
      : "Without an instance there are no weights. Point at a prototype to see it large.";
    return h("p", { className: "lead" }, lead);
  }

  areaUnit() {
    const { size, width, height } = this.stage.frame;
    return {
      grid: `px at ${width}×${height} prototypes`,
      canvas: `px at ${width}×${height} input`,
      image: "px of the image",
    }[size];
  }

  measureFields() {
    const field = (/** @type {string} */ text, /** @type {string} */ title) => {
      const value = h("dd", {}, "–");
      return { value, element: h("div", { title }, h("dt", {}, text), value) };
    };
    const original = field("IoU vs. unedited mask", "Overlap of this mask with the mask before all edits");
    const truth = field("IoU with ground truth", "Overlap of this mask with the ground truth, at the image's size");
    const area = field(`Mask area (${this.areaUnit()})`, "Pixels of the mask in the frame the rule decides them in");
    const change = field("Pixels added / removed", "Pixels that the edit added and removed");
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

  /** One row for all that changes or sorts the prototypes. */
  tools() {
    const { state, scene } = this;
    const original = () => state.original[state.selected] ?? [];
    const indices = () => Array.from(original(), (_, k) => k);
    let kept = Math.min(KEPT, scene.k);
    const count = h("input", {
      type: "number",
      className: "count",
      min: "0",
      max: String(scene.k),
      value: String(kept),
      "aria-label": "How many prototypes to keep",
      onchange: () => keepTop(),
    });
    const keepTop = () => {
      const n = Math.min(Math.max(Math.round(count.valueAsNumber), 0), scene.k);
      if (Number.isNaN(n)) {
        count.value = String(kept);
        return this.say(`Keep how many prototypes? Expected a number from 0 to ${scene.k}.`);
      }
      kept = n;
      count.value = String(n);
      this.refresh();
      return state.only(this.byEffect().slice(0, n));
    };
    const button = (/** @type {string} */ text, /** @type {string} */ title, /** @type {() => void} */ act) =>
      h("button", { type: "button", title, onclick: act }, text);
    const only = (/** @type {string} */ sign) =>
      `Keep the prototypes with ${sign} coefficients. A prototype has values of both signs, so this is not the same as the view of ${sign} evidence`;
    const ablate = button("", "Set the coefficient with the largest effect to 0; again for the next one", () => {
      const k = this.strongest();
      if (k !== undefined) state.set(k, 0);
    });
    const keep = button(
      "",
      `Keep the prototypes with the largest effect ${scene.header.boxes === false ? "around the mask" : "inside the box"}; zero the others`,
      keepTop,
    );
    const signs = /** @type {const} */ (["positive", "negative"]).map((sign) =>
      button(`Only w ${sign === "positive" ? ">" : "<"} 0`, only(sign), () =>
        state.only(indices().filter((k) => (sign === "positive" ? original()[k] > 0 : original()[k] < 0))),
      ),
    );
    const swap = h("select", {
      className: "swap",
      "aria-label": "Use coefficients of another instance",
      onchange: () => this.swap(swap),
    });
    const donors = scene.instances.map((instance, i) => h("option", { value: String(i) }, `${instance.name} #${i}`));
    swap.append(h("option", { value: "" }, "Coefficients of …"), ...donors);
    const reset = button("Reset", "Undo all edits of this instance", () => state.setAll(original()));
    const order = this.choice(
      "Order",
      { effect: "By effect", index: "By index" },
      (value) => state.look({ order: value }),
      () => state.order,
    );
    const thumbnails = this.choice(
      "Show",
      { prototype: "Prototypes", term: "Weight × prototype" },
      (value) => state.look({ thumbnails: value }),
      () => state.thumbnails,
    );
    const whole = button("Whole image", "Thumbnails of the whole image, or of what surrounds the box", () =>
      state.look({ whole: !state.whole }),
    );
    this.onRefresh(() => {
      const k = this.strongest();
      ablate.textContent = k === undefined ? "Ablate strongest" : `Ablate strongest (#${k})`;
      keep.textContent = `Keep top-${kept} prototypes`;
      swap.value = "";
      donors.forEach((donor, i) => (donor.disabled = i === state.selected));
      for (const one of [ablate, keep, ...signs, count]) one.disabled = state.selected < 0;
      whole.disabled = !this.strip.hasWindow;
      swap.disabled = scene.instances.length < 2;
      whole.setAttribute("aria-pressed", String(state.whole));
      rest(reset, !state.edits.has(state.selected));
    });
    return h(
      "div",
      { className: "tools", role: "group", "aria-label": "Edit and sort prototypes" },
      ablate,
      h("span", { className: "joined" }, keep, count),
      ...signs,
      swap,
      reset,
      h("span", { className: "sorting" }, order, thumbnails, this.legend(), whole),
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
    if (this.effects.instance === state.selected) return this.effects.order;
    const weights = scene.weights(state.selected, state.original[state.selected]);
    const order = descending(
      effects(weights, scene.prototypes, scene.letterbox, scene.instances[state.selected].canvas_box),
    );
    this.effects = { instance: state.selected, order };
    return order;
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
    this.say(`The coefficients are now those of ${this.scene.instances[from].name} #${from}.`);
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
      fileNameOf(this.scene.header.source)
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
