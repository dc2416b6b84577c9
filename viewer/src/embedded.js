// Instances of a report in the viewer: a link in its tables and strips opens the instance it is about, in a dialog over
// the page. The address says what is open, so that Back closes it, and a link opens it anew.

import { h } from "./dom.js";

/** @typedef {typeof import("./index.js").mount} Mount */

/**
 * Addresses such as #view=bus.jpg,3 and #view=bus.jpg,missed0 open instance 3, or the first that was missed; scenes are
 * base64 text in elements of their own, as in the page.
 * @param {HTMLElement} index Holds the titles of the scenes as JSON.
 * @param {Mount} mount
 * @param {(id: string) => Promise<ArrayBuffer>} read
 */
export function openEmbedded(index, mount, read) {
  /** @type {string[]} */
  const titles = JSON.parse(index.textContent ?? "[]");
  /** @type {HTMLDialogElement | null} */
  let open = null;
  let followed = false; // a link of this page led here, so Back leads to the page without a dialog
  addEventListener("click", (event) => {
    if (event.target instanceof Element && event.target.closest('a[href^="#view="]') && !event.ctrlKey) followed = true;
  });
  addEventListener("hashchange", route);
  route();

  function route() {
    const before = open;
    open = null;
    before?.close();
    const [, name, missed, number] = /^#view=(.+),(missed)?(\d+)$/.exec(location.hash) ?? [];
    const scene = titles.indexOf(name === undefined ? "" : decoded(name));
    if (scene >= 0) show(scene, Number(number), Boolean(missed));
  }

  /** @param {number} scene @param {number} number @param {boolean} missed */
  function show(scene, number, missed) {
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
      instance: missed ? 0 : number,
      truth: true,
    });
    if (missed) mounted.ready.then(() => mounted.app.viewer?.showMissed(number));
    dialog.addEventListener("close", () => {
      mounted.destroy();
      dialog.remove();
      if (open !== dialog) return; // another address has closed it: that of Back, maybe
      open = null;
      if (followed) history.back();
      else history.replaceState(null, "", location.pathname + location.search);
      followed = false;
    });
    dialog.showModal();
    open = dialog;
  }
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // an address that somebody wrote by hand
  }
}
