// One image in the interactive viewer, with the way back and to its neighbours.

import { h } from "../dom.js";
import { fetchScene } from "./api.js";
import { element } from "./filters.js";

/** @typedef {{ destroy(): void, ready: Promise<unknown> }} Mounted */

/** The second view of the page. */
export class ImageView {
  /** @param {HTMLElement} root @param {{ go: (step: number) => void, close: () => void }} host */
  constructor(root, host) {
    this.root = root;
    this.stage = element(root, "#stage");
    this.place = element(root, ".place");
    this.previous = /** @type {HTMLButtonElement} */ (element(root, ".previous"));
    this.next = /** @type {HTMLButtonElement} */ (element(root, ".next"));
    /** @type {Mounted | null} */
    this.mounted = null;
    this.turn = 0;
    this.back = element(root, ".back");
    this.back.addEventListener("click", (event) => (event.preventDefault(), host.close()));
    this.previous.addEventListener("click", () => host.go(-1));
    this.next.addEventListener("click", () => host.go(1));
  }

  /** @param {string} name @param {string} title */
  async open(name, title) {
    this.clear();
    const turn = ++this.turn;
    const { activeElement } = document;
    if (activeElement !== document.body && !this.root.contains(activeElement)) this.back.focus({ preventScroll: true });
    this.stage.replaceChildren(h("p", { className: "notice", role: "status" }, `The network is looking at ${title} …`));
    this.stage.setAttribute("aria-busy", "true");
    try {
      const [{ mount }, scene] = await Promise.all([loadViewer(), fetchScene(name)]);
      if (turn !== this.turn) return; // somebody went on meanwhile
      const box = h("div");
      this.stage.replaceChildren(box);
      this.mounted = mount(box, [{ title, open: async () => scene }], { hash: true });
      await this.mounted.ready;
      followTheme(box);
    } catch (error) {
      if (turn !== this.turn) return;
      const text = error instanceof Error ? error.message : String(error);
      this.stage.replaceChildren(h("p", { className: "notice failed", role: "alert" }, text));
    } finally {
      if (turn === this.turn) this.stage.removeAttribute("aria-busy");
    }
  }

  /** Where the image stands in the list; 0 of 0 if it is not listed. @param {number} place @param {number} count */
  placed(place, count) {
    this.place.textContent = place ? `${place} of ${count}` : "";
    this.previous.disabled = place <= 1;
    this.next.disabled = !place || place >= count;
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

/** The bundle that all hosts share. @returns {Promise<typeof import("../index.js")>} */
async function loadViewer() {
  const url = new URL("viewer.js", import.meta.url).href;
  return import(url);
}
