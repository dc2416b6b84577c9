// The few lines that other projects use a framework for. Text always becomes text nodes: nothing is parsed as HTML.

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * An element with properties, attributes (names with "-", "role", "for") and listeners ("onclick"), and its children.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, unknown>} [properties]
 * @param {Child[]} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, String(value));
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else Object.assign(element, { [name]: value });
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * An element that the page must have.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {ParentNode} parent
 * @param {string} selector
 * @param {new () => T} kind
 * @returns {T}
 */
export function element(parent, selector, kind = /** @type {any} */ (HTMLElement)) {
  const found = parent.querySelector(selector);
  if (!(found instanceof kind)) throw new Error(`the page has no ${selector}`);
  return found;
}

/**
 * The last part of a path: "/" separates, and "\\" in a path of Windows that has its drive or server; elsewhere it is
 * a letter of a name.
 * @param {string} path
 */
export const fileNameOf = (path) => path.replace(/^([A-Za-z]:[\\/]|\\\\)/.test(path) ? /^.*[\\/]/s : /^.*\//s, "");

const END = 10;

/**
 * A file name in two parts, for an element of class "ends": where it is too long, the first is cut, not the last letters.
 * @param {string} name
 */
export function ends(name) {
  const letters = [...name]; // not halves of them
  return [letters.slice(0, -END), letters.slice(-END)].map((part) => h("span", {}, part.join("")));
}

/** What an error says. @param {unknown} error */
export const messageOf = (error) => (error instanceof Error ? error.message : String(error));

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {Node[]} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** @type {Record<string, string>} */
const ICONS = {
  undo: "M6.5 3 3 6.5 6.5 10 M3 6.5 H9.5 a3.5 3.5 0 0 1 0 7 H7",
  redo: "M9.5 3 13 6.5 9.5 10 M13 6.5 H6.5 a3.5 3.5 0 0 0 0 7 H9",
  times: "M4 4 12 12 M12 4 4 12",
  theme: "M8 2 a6 6 0 1 0 0 12 a6 6 0 1 0 0 -12 M8 2 v12 M8 5 l4 -1.5 M8 8 h6 M8 11 l4 1.5",
};

/** @param {string} name */
export const icon = (name) =>
  svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true", class: `icon ${name}` }, svg("path", { d: ICONS[name] }));

/** A number with sign and a true minus; what is rounded to zero has none. @param {number} value @param {number} digits */
export const signed = (value, digits = 2) => {
  const size = Math.abs(value).toFixed(digits);
  return `${Number(size) === 0 ? "" : value < 0 ? "−" : value > 0 ? "+" : ""}${size}`;
};

/** @param {number} value */
export const grouped = (value) => value.toString().replace(/\B(?=(\d{3})+$)/g, " ");

/** @param {HTMLElement} element @param {Record<string, string>} variables */
export function style(element, variables) {
  for (const [name, value] of Object.entries(variables)) element.style.setProperty(name, value);
}

/** Calls `draw` once in the next frame, however often it is asked. @param {() => void} draw */
export function oncePerFrame(draw) {
  let asked = 0;
  const request = () => {
    if (!asked) asked = requestAnimationFrame(() => ((asked = 0), draw()));
  };
  return Object.assign(request, { cancel: () => (cancelAnimationFrame(asked), (asked = 0)) });
}

/** @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = h("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/**
 * Says that a button has nothing to do now, without taking it out of the reach of the keyboard: the focus stays.
 * @param {HTMLElement} button
 * @param {boolean} idle
 */
export const rest = (button, idle) => button.setAttribute("aria-disabled", String(idle));

/**
 * One tab stop for many elements; arrow keys, Home and End move among them.
 * Call what it returns when the elements are others; `walks` is false where other code moves the focus.
 * @param {HTMLElement} box @param {string} selector @param {boolean} walks @returns {() => void}
 */
export function roving(box, selector, walks = true) {
  const all = () => /** @type {HTMLElement[]} */ ([...box.querySelectorAll(selector)]);
  /** @param {HTMLElement[]} items @param {HTMLElement | undefined} stop */
  const stopAt = (items, stop) => items.forEach((item) => (item.tabIndex = item === stop ? 0 : -1));
  const refresh = () => {
    const items = all();
    stopAt(
      items,
      items.find((item) => item === document.activeElement) ??
        items.find((item) => item.getAttribute("aria-current") === "true") ??
        items.find((item) => item.tabIndex === 0) ??
        items[0],
    );
  };
  box.addEventListener("focusin", (event) => {
    const items = all();
    const inside = items.find((item) => event.target instanceof Node && item.contains(event.target));
    if (inside) stopAt(items, inside);
  });
  if (walks) {
    box.addEventListener("keydown", (event) => {
      const items = all();
      const at = items.indexOf(/** @type {HTMLElement} */ (event.target));
      /** @type {Record<string, number>} */
      const places = {
        ArrowLeft: at - 1,
        ArrowUp: at - 1,
        ArrowRight: at + 1,
        ArrowDown: at + 1,
        Home: 0,
        End: items.length - 1,
      };
      if (at < 0 || !(event.key in places) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      items[Math.min(Math.max(places[event.key], 0), items.length - 1)].focus();
    });
  }
  return refresh;
}
