// One image in the interactive viewer, with the way back and to its neighbours.

import { element, h, messageOf, rest } from "../dom.js";
import { askKinds, fetchScene } from "./api.js";

/** @typedef {ReturnType<typeof import("../index.js").mount>} Mounted */
/** @typedef {import("../app.js").Keeper} Keeper */

/** The second view of the page. */
export class ImageView {
  /**
   * @param {HTMLElement} root
   * @param {{ go: (step: number) => void, close: () => void, keeper: (name: string) => Keeper }} host
   */
  constructor(root, host) {
    this.host = host;
    this.root = root;
    this.stage = element(root, "#stage");
    this.place = element(root, ".place");
    this.previous = element(root, ".previous");
    this.next = element(root, ".next");
    /** @type {Mounted | null} */
    this.mounted = null;
    this.turn = 0;
    this.back = element(root, ".back");
    this.back.addEventListener("click", (event) => (event.preventDefault(), host.close()));
    for (const [button, step] of /** @type {const} */ ([
      [this.previous, -1],
      [this.next, 1],
    ])) {
      button.addEventListener("click", () => button.getAttribute("aria-disabled") !== "true" && host.go(step));
    }
  }

  /** @param {string} name @param {string} title */
  async open(name, title) {
    this.clear();
    const turn = ++this.turn;
    const { activeElement } = document;
    if (activeElement !== document.body && !this.root.contains(activeElement)) this.back.focus({ preventScroll: true });
    this.stage.replaceChildren(h("p", { className: "notice", role: "status" }, `The model is looking at ${title} …`));
    this.stage.setAttribute("aria-busy", "true");
    try {
      const [{ mount }, scene, kinds] = await Promise.all([loadViewer(), fetchScene(name), askKinds()]);
      if (turn !== this.turn) return; // the user went on meanwhile
      const box = h("div");
      this.stage.replaceChildren(box);
      this.mounted = mount(box, [{ title, open: async () => scene }], {
        hash: true,
        kinds,
        keeper: this.host.keeper(name),
      });
      followTheme(box);
      await this.mounted.ready;
    } catch (error) {
      if (turn !== this.turn) return;
      this.stage.replaceChildren(failed(error, () => this.open(name, title)));
    } finally {
      if (turn === this.turn) this.stage.removeAttribute("aria-busy");
    }
  }

  /** Where the image stands in the list; 0 of 0 if it is not listed. @param {number} place @param {number} count */
  placed(place, count) {
    this.place.textContent = place ? `${place} of ${count}` : "";
    rest(this.previous, place <= 1);
    rest(this.next, !place || place >= count);
  }

  /** Another instance of the image that is open, or opens. @param {number} index */
  async choose(index) {
    const { mounted } = this;
    await mounted?.ready;
    mounted?.app.viewer?.state.select(index);
  }

  /** Lets the address hold the last edit, before it is that of something else. */
  settle() {
    this.mounted?.app.writeHash();
  }

  clear() {
    this.turn++;
    this.mounted?.destroy();
    this.mounted = null;
    this.stage.replaceChildren();
  }
}

/** The viewer has a switch of its own; the page goes with it. @param {HTMLElement} box */
function followTheme(box) {
  const viewer = box.querySelector(".maskprism");
  if (!(viewer instanceof HTMLElement)) return;
  const follow = () => {
    if (viewer.dataset.theme) document.documentElement.dataset.theme = viewer.dataset.theme;
  };
  new MutationObserver(follow).observe(viewer, { attributeFilter: ["data-theme"] });
}

/** What went wrong, and another try. @param {unknown} error @param {() => void} again */
export const failed = (error, again) =>
  h(
    "div",
    { className: "notice failed" },
    h("p", { role: "alert" }, messageOf(error)),
    h("button", { type: "button", onclick: again }, "Try again"),
  );

let tries = 0;

/** The bundle that all hosts share. @returns {Promise<typeof import("../index.js")>} */
export async function loadViewer() {
  const url = new URL("viewer.js", import.meta.url);
  if (tries) url.searchParams.set("again", String(tries)); // what could not be loaded once is not asked for again
  try {
    return await import(url.href);
  } catch {
    tries += 1;
    throw new Error("The viewer cannot be loaded. Is maskprism serve still running?");
  }
}
