// A tour of four steps over what is on the page. It is offered once; whoever says no, or has seen it, is not asked
// again.

import { h, style } from "./dom.js";

/** @typedef {{ target: () => Element | null | undefined, text: string }} Step */

const SEEN = "maskprism-tour";
const GAP = 12;

export class Tour {
  /** @param {Step[]} steps Its box is laid over the element that it is put into. */
  constructor(steps) {
    this.steps = steps;
    this.at = 0;
    this.count = h("span", { className: "quiet" });
    this.text = h("p", {});
    this.back = h("button", { type: "button", onclick: () => this.go(this.at - 1) }, "Back");
    this.next = h("button", { type: "button", className: "strong", onclick: () => this.go(this.at + 1) }, "Next");
    const skip = h("button", { type: "button", className: "quiet-button", onclick: () => this.end() }, "Skip");
    this.box = h(
      "div",
      {
        className: "tour",
        role: "dialog",
        "aria-label": "Tour",
        hidden: true,
        onkeydown: (/** @type {KeyboardEvent} */ event) =>
          event.key === "Escape" && (event.stopPropagation(), this.end()),
      },
      this.text,
      h("div", { className: "group" }, this.count, skip, this.back, this.next),
    );
    this.invitation = h(
      "p",
      { className: "invitation", hidden: recall() !== null },
      "New here? ",
      h("button", { type: "button", onclick: () => this.start() }, "Take the tour"),
      " ",
      h("button", { type: "button", className: "quiet-button", onclick: () => this.decline() }, "No, thanks"),
    );
    this.button = h("button", { type: "button", onclick: () => this.start() }, "Tour");
    /** @type {Element | null} */
    this.shown = null;
    this.onResize = () => this.place();
  }

  decline() {
    remember();
    this.invitation.hidden = true;
    this.button.focus();
  }

  start() {
    this.decline();
    this.box.hidden = false;
    addEventListener("resize", this.onResize);
    this.go(0);
  }

  /** @param {number} index */
  go(index) {
    if (index >= this.steps.length) return this.end();
    this.at = Math.max(index, 0);
    const { target, text } = this.steps[this.at];
    this.mark(target() ?? null);
    this.text.textContent = text;
    this.count.textContent = `${this.at + 1} of ${this.steps.length}`;
    this.back.hidden = this.at === 0;
    this.next.textContent = this.at === this.steps.length - 1 ? "Done" : "Next";
    this.shown?.scrollIntoView({ block: "nearest" });
    this.place();
    this.next.focus({ preventScroll: true });
    return undefined;
  }

  /** @param {Element | null} element */
  mark(element) {
    this.shown?.classList.remove("toured");
    this.shown = element;
    element?.classList.add("toured");
  }

  /** Beside what it is about: below it, or above where there is no room. */
  place() {
    if (!this.shown || this.box.hidden) return;
    const [around, target, own] = [this.box.parentElement ?? this.box, this.shown, this.box].map((one) =>
      one.getBoundingClientRect(),
    );
    const below = target.bottom + GAP + own.height < innerHeight;
    const above = target.top - GAP - own.height > 0;
    const top = below ? target.bottom + GAP : above ? target.top - GAP - own.height : innerHeight - own.height - GAP;
    const left = Math.min(
      Math.max(target.left + target.width / 2 - own.width / 2, around.left + GAP),
      around.right - own.width - GAP,
    );
    style(this.box, { top: `${top - around.top}px`, left: `${left - around.left}px` });
  }

  end() {
    this.mark(null);
    this.box.hidden = true;
    removeEventListener("resize", this.onResize);
    this.button.focus();
  }

  close() {
    removeEventListener("resize", this.onResize);
  }
}

function recall() {
  try {
    return localStorage.getItem(SEEN);
  } catch {
    return "closed"; // where nothing is remembered, the user is not asked each time
  }
}

function remember() {
  try {
    localStorage.setItem(SEEN, "seen");
  } catch {
    // see recall
  }
}
