// Which images are wanted, in which order: as the address says it, and as the controls show it.

import { element, h, roving, svg } from "../dom.js";

/** @typedef {[number, number]} Bounds */
/** @typedef {{ button: HTMLButtonElement, label: HTMLElement, count: HTMLElement }} Chip */
/**
 * @typedef {object} Filters
 * @property {number[]} classes
 * @property {Bounds} score
 * @property {Bounds} iou
 * @property {string} show
 * @property {string} text
 * @property {string} sort
 * @property {string} view
 */

const SHOWS = ["all", "ok", "empty", "failed", "missed", "false-positives", "localisation", "suspicious"];
/** Orders that need labels: the IoU, and the loss of each part. */
const LABELLED = ["iou", "coefficients", "prototypes", "box", "resolution"];
const SORTS = [
  "name",
  "score",
  "iou",
  "size",
  "instances",
  "suspicion",
  "coefficients",
  "prototypes",
  "box",
  "resolution",
];
const VIEWS = ["images", "instances"];

/** @param {string} search The query part of an address. @returns {Filters} */
export function readFilters(search) {
  const given = new URLSearchParams(search);
  const classes = given.getAll("class").map(Number).filter(Number.isInteger);
  return {
    classes: [...new Set(classes)],
    score: bounds(given.get("score")),
    iou: bounds(given.get("iou")),
    show: oneOf(given.get("show"), SHOWS),
    text: given.get("text") ?? "",
    sort: oneOf(given.get("sort"), SORTS),
    view: oneOf(given.get("view"), VIEWS),
  };
}

/** The shortest query that says the same. @param {Filters} filters */
export function writeFilters({ classes, score, iou, show, text, sort, view }) {
  const query = new URLSearchParams();
  for (const id of classes) query.append("class", String(id));
  if (!isAll(score)) query.set("score", score.join("-"));
  if (!isAll(iou)) query.set("iou", iou.join("-"));
  if (show !== "all") query.set("show", show);
  if (text) query.set("text", text);
  if (sort !== "name") query.set("sort", sort);
  if (view !== "images") query.set("view", view);
  return query;
}

/** @param {Bounds} range */
const isAll = ([low, high]) => low === 0 && high === 1;

/** @param {string | null} text @returns {Bounds} */
function bounds(text) {
  const [low, high] = (text ?? "").split("-").map(Number);
  return text && low >= 0 && low <= high && high <= 1 ? [low, high] : [0, 1];
}

/** @param {string | null} value @param {string[]} known */
const oneOf = (value, known) => (value && known.includes(value) ? value : known[0]);

/** The controls of the page for the filters; `change` is called with every new filter. */
export class FilterControls {
  /** @param {HTMLFormElement} form @param {Filters} filters @param {(filters: Filters) => void} change */
  constructor(form, filters, change) {
    this.form = form;
    this.change = change;
    this.filters = filters;
    /** @type {import("./api.js").Page["classes"]} */
    this.seen = [];
    /** The buttons of classes, kept when their numbers change: new ones would lose a click. @type {Map<number, Chip>} */
    this.buttons = new Map();
    this.score = new RangeControl(element(form, ".score"), "score", (score) => this.set({ score }));
    this.iou = new RangeControl(element(form, ".iou"), "IoU", (iou) => this.set({ iou }));
    this.chips = element(form, ".chips");
    this.rove = roving(this.chips, ".chip");
    this.more = element(form, ".more");
    this.more.addEventListener("click", () => {
      this.more.setAttribute("aria-expanded", String(this.more.getAttribute("aria-expanded") !== "true"));
      this.fit();
    });
    new ResizeObserver(() => this.fit()).observe(this.chips);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener(
      "reset",
      (event) => (event.preventDefault(), this.set({ ...readFilters(""), view: this.filters.view })),
    );
    for (const input of this.views) input.addEventListener("change", () => this.set({ view: input.value }));
    this.text.addEventListener("input", () => this.set({ text: this.text.value }));
    for (const select of [this.show, this.sort]) {
      select.addEventListener("change", () => this.set({ show: this.show.value, sort: this.sort.value }));
    }
    this.render();
  }

  get views() {
    return /** @type {HTMLInputElement[]} */ ([...this.form.querySelectorAll("input[name=view]")]);
  }

  get text() {
    return element(this.form, "input[type=search]", HTMLInputElement);
  }

  get show() {
    return element(this.form, "select[name=show]", HTMLSelectElement);
  }

  get sort() {
    return element(this.form, "select[name=sort]", HTMLSelectElement);
  }

  /** @param {Partial<Filters>} changed */
  set(changed) {
    this.filters = { ...this.filters, ...changed };
    this.render();
    this.change(this.filters);
  }

  /** Shows what is known of the images so far. @param {import("./api.js").Page} page */
  know(page) {
    // Classes that were shown keep their places, so that nothing moves under the pointer.
    const counts = new Map(page.classes.map((one) => [one.id, one]));
    const kept = this.seen.flatMap(({ id }) => counts.get(id) ?? []);
    this.seen = [...kept, ...page.classes.filter(({ id }) => !kept.some((one) => one.id === id))];
    this.score.draw(page.scores);
    this.iou.draw(page.ious);
    for (const option of this.form.querySelectorAll(
      `option[value=missed], option[value=false-positives], option[value=localisation], ${LABELLED.map((sort) => `option[value=${sort}]`)}`,
    )) {
      /** @type {HTMLOptionElement} */ (option).hidden = !page.labels;
    }
    const suspicious = "option[value=suspicious], option[value=suspicion]";
    const options = /** @type {NodeListOf<HTMLOptionElement>} */ (this.form.querySelectorAll(suspicious));
    for (const option of options) option.hidden = !page.judged;
    this.show.title = page.matching?.rule ?? "";
    this.render();
  }

  render() {
    const { classes, score, iou, show, text, sort, view } = this.filters;
    for (const input of this.views) input.checked = input.value === view;
    if (this.text.value !== text) this.text.value = text;
    this.show.value = show;
    this.sort.value = sort;
    this.score.take(score);
    this.iou.take(iou);
    element(this.form, "button[type=reset]").toggleAttribute(
      "disabled",
      !writeFilters({ ...this.filters, view: VIEWS[0] }).size,
    );
    this.renderClasses(new Set(classes));
  }

  /** @param {Set<number>} chosen */
  renderClasses(chosen) {
    const names = new Map(this.seen.map((one) => [one.id, one]));
    const unknown = [...chosen]
      .filter((id) => !names.has(id))
      .map((id) => ({ id, name: `class ${id}`, instances: 0, images: 0 }));
    const buttons = [...this.seen, ...unknown].map(({ id, name, instances, images }) => {
      const { button, label, count } = this.buttons.get(id) ?? this.chip(id);
      button.setAttribute("aria-pressed", String(chosen.has(id)));
      button.title = `${name}: ${instances} instances in ${images} images`;
      label.textContent = name;
      count.textContent = String(instances);
      return button;
    });
    for (const [id, { button }] of this.buttons)
      if (!buttons.includes(button)) {
        button.remove();
        this.buttons.delete(id);
      }
    buttons.forEach((button, i) => {
      const there = this.chips.children[i];
      if (there !== button) this.chips.insertBefore(button, there ?? null);
    });
    this.rove();
    this.fit();
  }

  /** @param {number} id */
  chip(id) {
    const label = h("span", { className: "chip-name" });
    const count = h("span", { className: "chip-count" });
    const press = () => {
      const { classes } = this.filters;
      this.set({ classes: classes.includes(id) ? classes.filter((one) => one !== id) : [...classes, id] });
    };
    const button = h("button", { type: "button", className: "chip", "data-id": id, onclick: press }, label, count);
    const made = { button, label, count };
    this.buttons.set(id, made);
    return made;
  }

  /** Classes take one row, and more only when asked to: the page below must not move when they come. */
  fit() {
    const { chips, more } = this;
    const open = more.getAttribute("aria-expanded") === "true";
    more.hidden = !open && chips.scrollWidth <= chips.clientWidth + 1;
    more.textContent = open ? "one row" : "all classes";
  }
}

/** Two thumbs on one track, over the histogram of what they choose from. */
class RangeControl {
  /** @param {HTMLElement} box @param {string} noun @param {(bounds: Bounds) => void} change */
  constructor(box, noun, change) {
    const input = (/** @type {string} */ label) =>
      h("input", {
        type: "range",
        min: "0",
        max: "1",
        step: "0.05",
        "aria-label": label,
        oninput: () => this.move(),
        onchange: () => change(this.bounds),
      });
    this.low = input(`Lowest ${noun}`);
    this.high = input(`Highest ${noun}`);
    this.bars = svg("svg", { class: "bars", viewBox: "0 0 20 10", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.text = h("output", {}, "");
    this.bounds = /** @type {Bounds} */ ([0, 1]);
    /** Those of the filter. @type {Bounds | null} */
    this.taken = null;
    /** @type {number[]} */
    this.counts = [];
    box.append(
      h("span", { className: "range-label" }, noun === "score" ? "Score" : noun, " ", this.text),
      h(
        "span",
        { className: "range" },
        /** @type {any} */ (this.bars),
        h("span", { className: "track" }),
        this.low,
        this.high,
      ),
    );
  }

  move() {
    const [low, high] = [Number(this.low.value), Number(this.high.value)];
    if (low > high)
      (document.activeElement === this.low ? this.high : this.low).value = String(
        document.activeElement === this.low ? low : high,
      );
    this.show([Number(this.low.value), Number(this.high.value)]);
  }

  /** Shows the bounds of a filter; unchanged bounds move no thumb, since one may be held. @param {Bounds} bounds */
  take(bounds) {
    if (bounds === this.taken) return;
    this.taken = bounds;
    this.show(bounds);
  }

  /** @param {Bounds} bounds */
  show(bounds) {
    this.bounds = bounds;
    const [low, high] = bounds;
    this.low.value = String(low);
    this.high.value = String(high);
    this.low.classList.toggle("above", low > 0.5); // of two thumbs in one place, the one that can move is on top
    this.text.textContent = low === 0 && high === 1 ? "any" : `${low.toFixed(2)} – ${high.toFixed(2)}`;
    this.colour();
  }

  /** @param {number[]} counts */
  draw(counts) {
    this.counts = counts;
    const most = Math.max(1, ...counts);
    this.bars.replaceChildren(
      ...counts.map((count, i) => {
        const height = count ? Math.max((count / most) * 10, 0.6) : 0;
        return svg("rect", { x: i + 0.1, y: 10 - height, width: 0.8, height });
      }),
    );
    this.colour();
  }

  colour() {
    const [low, high] = this.bounds;
    [...this.bars.children].forEach((bar, i) =>
      bar.classList.toggle("in", (i + 0.5) / 20 > low && (i + 0.5) / 20 < high),
    );
  }
}
