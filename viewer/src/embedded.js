// Instances of a report in the viewer: a button in a row of its tables opens the instance it is about, in a dialog over
// the page.

import { h } from "./dom.js";

/** @typedef {typeof import("./index.js").mount} Mount */

/**
 * Buttons with the number of a scene (data-scene) and of an instance (data-instance) open it; scenes are base64 text in
 * elements
 * of their own, as in the page.
 * @param {HTMLElement} index Holds the titles of the scenes as JSON.
 * @param {Mount} mount
 * @param {(id: string) => Promise<ArrayBuffer>} read
 */
export function openEmbedded(index, mount, read) {
  /** @type {string[]} */
  const titles = JSON.parse(index.textContent ?? "[]");
  for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("button[data-scene]"))) {
    button.addEventListener("click", () => show(Number(button.dataset.scene), Number(button.dataset.instance)));
  }

  /** @param {number} scene @param {number} instance */
  function show(scene, instance) {
    const place = h("div", { className: "place" });
    const close = h(
      "button",
      { type: "button", className: "close", onclick: () => dialog.close() },
      "Back to the report",
    );
    const dialog = h("dialog", { className: "viewer", "aria-label": titles[scene] ?? "Instance" }, close, place);
    document.body.append(dialog);
    const mounted = mount(place, [{ title: titles[scene] ?? "", open: () => read(`maskprism-scene-${scene}`) }], {
      hash: false,
      instance,
      truth: true,
    });
    dialog.addEventListener("close", () => {
      mounted.destroy();
      dialog.remove();
    });
    dialog.showModal();
  }
}
