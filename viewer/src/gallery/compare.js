// Several instances side by side, each in a viewer of its own; two of them linked.

import { element, h } from "../dom.js";
import { askKinds, fetchScene, titleOf } from "./api.js";
import { failed, loadViewer } from "./image.js";

/** @typedef {{ destroy: () => void }} Mounted */

/** The third view of the page. */
export class CompareView {
  /** @param {HTMLElement} root @param {() => void} close */
  constructor(root, close) {
    this.root = root;
    this.places = element(root, ".places");
    /** @type {string[]} */
    this.keys = [];
    /** @type {Mounted[]} */
    this.mounted = [];
    this.turn = 0;
    element(root, ".back").addEventListener("click", (event) => (event.preventDefault(), close()));
  }

  /** Shows the instances of these keys, NAME#INDEX; gives whether there are any. @param {string[]} keys */
  show(keys) {
    this.root.hidden = !keys.length;
    if (keys.join("\n") === this.keys.join("\n")) return keys.length > 0;
    this.keys = keys;
    for (const one of this.mounted) one.destroy();
    this.mounted = [];
    this.turn += 1;
    if (keys.length === 2) this.pair(keys, this.turn);
    else
      this.places.replaceChildren(
        ...keys.map((key) => {
          const place = h("section", { className: "compared" });
          this.fill(place, key, this.turn);
          return place;
        }),
      );
    if (keys.length) element(this.root, ".back").focus({ preventScroll: true });
    return keys.length > 0;
  }

  /** @param {string[]} keys @param {number} turn */
  async pair(keys, turn) {
    this.places.replaceChildren(h("p", { className: "notice", role: "status" }, "Opening …"));
    try {
      const [{ mountPair }, kinds] = await Promise.all([loadViewer(), askKinds()]);
      const sides = await Promise.all(
        keys.map(async (key) => {
          const [, name, index] = /^(.*)#(\d+)$/s.exec(key) ?? [key, key, "0"];
          const scene = await fetchScene(name);
          return { name: `${titleOf(name)} #${index}`, instance: Number(index), open: async () => scene };
        }),
      );
      if (turn !== this.turn) return;
      const place = h("div", { className: "paired" });
      this.places.replaceChildren(place);
      this.mounted.push(mountPair(place, sides, { kinds }));
    } catch (error) {
      if (turn !== this.turn) return;
      this.places.replaceChildren(failed(error, () => this.pair(keys, turn)));
    }
  }

  /** @param {HTMLElement} place @param {string} key @param {number} turn */
  async fill(place, key, turn) {
    const [, name, index] = /^(.*)#(\d+)$/s.exec(key) ?? [key, key, "0"];
    place.replaceChildren(h("p", { className: "notice", role: "status" }, "Opening …"));
    try {
      const [{ mount }, scene, kinds] = await Promise.all([loadViewer(), fetchScene(name), askKinds()]);
      if (turn !== this.turn) return;
      place.replaceChildren();
      this.mounted.push(
        mount(place, [{ title: titleOf(name), open: async () => scene }], {
          hash: false,
          kinds,
          instance: Number(index),
        }),
      );
    } catch (error) {
      if (turn !== this.turn) return;
      place.replaceChildren(failed(error, () => this.fill(place, key, turn)));
    }
  }
}
