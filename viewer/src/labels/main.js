// The page of suspicious labels: filters, decisions by mouse and keyboard, kept in this browser and exported as a file.

import { download, element } from "../dom.js";
import { allows, exported, keptAt, restored } from "./decisions.js";

/** @typedef {import("./decisions.js").Verdict} Verdict */

/** @type {Record<string, Verdict | "skip" | "back">} */
const KEYS = { a: "accept", k: "keep", d: "delete", s: "skip", b: "back" };

class LabelsPage {
  constructor() {
    /** @type {import("./decisions.js").Page} */
    this.data = JSON.parse(element(document, "#maskprism-labels").textContent ?? "");
    this.list = element(document, "#cards");
    this.cards = /** @type {HTMLElement[]} */ ([...this.list.querySelectorAll(".label-card")]);
    this.filters = [...document.querySelectorAll("select")];
    this.count = element(document, "#count");
    this.save = element(document, "#export", HTMLButtonElement);
    /** @type {Map<number, Verdict>} */
    this.verdicts = new Map();
    /** When the verdicts were kept. */
    this.at = 0;
    this.reread();
    /** @type {HTMLElement | undefined} */
    this.current = this.cards[0];
    const asked = [...document.querySelectorAll("meta[name=maskprism-class]")].map((one) =>
      one.getAttribute("content"),
    );
    for (const { options } of this.filters.filter(({ name }) => name === "class" && asked.length === 1))
      for (const option of options) if (option.value === asked[0]) option.selected = true;
    for (const filter of this.filters) {
      filter.addEventListener("change", () => {
        if (filter.name === "class") share(filter);
        this.filter();
      });
    }
    for (const box of document.querySelectorAll(".legend input"))
      box.addEventListener("change", () => this.outline(/** @type {HTMLInputElement} */ (box)));
    this.save.addEventListener("click", () => this.export());
    this.list.addEventListener("click", (event) => this.press(event));
    this.list.addEventListener("focusin", (event) => this.choose(cardOf(event.target)));
    document.addEventListener("keydown", (event) => this.key(event));
    addEventListener("storage", (event) => {
      if (event.key !== this.data.key) return;
      this.reread();
      this.draw();
    });
    this.filter();
  }

  get shown() {
    return this.cards.filter((card) => !card.hidden);
  }

  /**
   * What was kept last, in the storage of this browser or in the history: of a page that was opened as a file,
   * Chromium can lose what it stored at a reload.
   */
  stored() {
    const inHistory = history.state?.[this.data.key] ?? null;
    try {
      const inStorage = localStorage.getItem(this.data.key);
      return keptAt(inHistory) > keptAt(inStorage) ? inHistory : inStorage;
    } catch {
      return inHistory;
    }
  }

  /** Takes over what was kept since: the page may be open in another tab, too. */
  reread() {
    const text = this.stored();
    if (keptAt(text) <= this.at && this.at) return;
    this.at = keptAt(text);
    this.verdicts = restored(text, this.data.cards);
  }

  store() {
    this.at = Date.now();
    const text = JSON.stringify({ ...Object.fromEntries(this.verdicts), at: this.at });
    try {
      history.replaceState({ ...history.state, [this.data.key]: text }, "");
    } catch {
      // too many in a moment, for some browsers: the next one holds them all
    }
    try {
      localStorage.setItem(this.data.key, text);
    } catch {
      element(document, "#not-saved").hidden = false;
    }
  }

  filter() {
    const wanted = this.filters.map((filter) => [filter.name, filter.value]);
    for (const card of this.cards) {
      const own = { ...card.dataset, state: this.verdicts.has(numberOf(card)) ? "decided" : "open" };
      card.hidden = wanted.some(([name, value]) => value !== "" && Reflect.get(own, name) !== value);
    }
    if (!this.current || this.current.hidden) this.current = this.shown[0];
    this.draw();
  }

  /** @param {HTMLInputElement} box */
  outline(box) {
    this.list.classList.toggle(`no-${box.value}`, !box.checked);
  }

  draw() {
    for (const card of this.cards) {
      const verdict = this.verdicts.get(numberOf(card));
      card.classList.toggle("current", card === this.current);
      card.dataset.verdict = verdict ?? "";
      for (const button of card.querySelectorAll("button"))
        if (button.ariaPressed !== null) button.ariaPressed = String(button.value === verdict);
    }
    const shown = this.shown.length;
    this.count.textContent = `${shown} of ${this.cards.length} shown, ${this.verdicts.size} decided`;
    element(document, "#none").hidden = shown > 0;
    this.save.disabled = this.verdicts.size === 0;
  }

  /** @param {HTMLElement | null} card */
  choose(card) {
    if (!card || card === this.current) return;
    this.current = card;
    this.draw();
  }

  /** @param {Event} event */
  press(event) {
    const card = cardOf(event.target);
    if (!card) return;
    this.current = card;
    const button = event.target instanceof Element ? event.target.closest("button") : null;
    if (button) this.act(/** @type {Verdict | "skip"} */ (button.value));
    else this.draw();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLSelectElement) return;
    const what = KEYS[event.key.toLowerCase()];
    if (!what) return;
    event.preventDefault();
    this.act(what);
  }

  /** @param {Verdict | "skip" | "back"} what */
  act(what) {
    const card = this.current;
    if (!card) return;
    if (what === "skip") return this.move(1);
    if (what === "back") return this.move(-1);
    const number = numberOf(card);
    if (!allows(this.data.cards[number], what)) return undefined;
    const again = this.verdicts.get(number) === what;
    this.reread();
    if (again) this.verdicts.delete(number);
    else this.verdicts.set(number, what);
    this.store();
    this.draw();
    return again ? undefined : this.move(1);
  }

  /** Goes to the next card that is shown, or the one before. @param {number} step */
  move(step) {
    const shown = this.shown;
    const next = shown[shown.indexOf(/** @type {HTMLElement} */ (this.current)) + step];
    if (!next) return;
    this.current = next;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
    this.draw();
  }

  export() {
    this.reread();
    const text = `${JSON.stringify(exported(this.data, this.verdicts), null, 1)}\n`;
    download(new Blob([text], { type: "application/json" }), "decisions.json");
  }
}

/**
 * Under a server with a gallery, all pages have one filter: the class goes into the address, and into those of the
 * other pages.
 * @param {HTMLSelectElement} classes
 */
function share(classes) {
  if (!document.querySelector("meta[name=maskprism-gallery]")) return;
  const id = classes.selectedOptions[0]?.dataset.id;
  const changed = (/** @type {string} */ address) => {
    const url = new URL(address);
    url.searchParams.delete("class");
    if (id !== undefined) url.searchParams.set("class", id);
    return url.href;
  };
  history.replaceState(history.state, "", changed(location.href));
  for (const link of /** @type {NodeListOf<HTMLAnchorElement>} */ (document.querySelectorAll(".site a")))
    link.href = changed(link.href);
}

/** @param {EventTarget | null} target @returns {HTMLElement | null} */
const cardOf = (target) => (target instanceof Element ? target.closest(".label-card") : null);

/** @param {HTMLElement} card */
const numberOf = (card) => Number(card.dataset.number);

new LabelsPage();
