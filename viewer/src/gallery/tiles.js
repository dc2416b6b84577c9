// The images as a grid of links. A tile has its size before anything is known of its image.

import { ends, h, roving, signed } from "../dom.js";
import { verdict } from "../verdict.js";
import { keyOf, thumbnailUrl } from "./api.js";

/** @typedef {import("./api.js").GalleryImage} GalleryImage */

/**
 * @typedef {{ href: (image: GalleryImage) => string, open: (image: GalleryImage) => void, choose: (key: string, chosen:
 * boolean) => void, isChosen: (key: string) => boolean, sort: () => string, matching: () =>
 * import("../verdict.js").Matching }} Host
 */

/** The grid: shows, appends and updates images; opens one. */
export class Tiles {
  /** @param {HTMLElement} list @param {Host} host */
  constructor(list, host) {
    this.list = list;
    this.host = host;
    this.masks = true;
    /** @type {Map<string, Tile>} */
    this.tiles = new Map();
    /** @type {Set<string>} */
    this.edited = new Set();
    this.rove = roving(list, ".tile", false);
    list.addEventListener("keydown", (event) => this.walk(event));
  }

  get names() {
    return [...this.tiles.keys()];
  }

  /** @param {GalleryImage[]} images */
  show(images) {
    const before = this.tiles;
    this.tiles = new Map();
    for (const image of images) {
      const tile = before.get(keyOf(image)) ?? new Tile(this.host);
      tile.show(image, this.masks);
      this.tiles.set(keyOf(image), tile);
    }
    this.list.replaceChildren(...[...this.tiles.values()].map((tile) => tile.element));
    this.markEdited();
    this.rove();
  }

  /** @param {GalleryImage[]} images */
  append(images) {
    for (const image of images) {
      if (this.tiles.has(keyOf(image))) continue;
      const tile = new Tile(this.host);
      tile.show(image, this.masks);
      this.tiles.set(keyOf(image), tile);
      this.list.append(tile.element);
    }
    this.markEdited();
    this.rove();
  }

  /** Brings tiles up to date where they are. @param {GalleryImage[]} images */
  update(images) {
    for (const image of images) this.tiles.get(keyOf(image))?.show(image, this.masks);
  }

  /** Marks the images of these names. */
  markEdited(names = this.edited) {
    this.edited = names;
    for (const tile of this.tiles.values()) tile.mark(names.has(tile.image?.name ?? ""));
  }

  /** @param {boolean} masks */
  paint(masks) {
    this.masks = masks;
    for (const tile of this.tiles.values()) if (tile.image) tile.show(tile.image, masks);
  }

  /**
   * Where an entry stands; by its image alone where the entry is not known.
   * @param {string} name
   * @param {string | null} key
   */
  place(name, key) {
    const tiles = [...this.tiles];
    const at = tiles.findIndex(([one]) => one === key);
    return at >= 0 ? at : tiles.findIndex(([, tile]) => tile.image?.name === name);
  }

  /** @param {string} name @param {string | null} key */
  focus(name, key) {
    const link = [...this.tiles.values()][this.place(name, key)]?.link;
    link?.focus({ preventScroll: true });
    link?.scrollIntoView({ block: "nearest" });
  }

  /** Arrow keys go from tile to tile, up and down by rows. @param {KeyboardEvent} event */
  walk(event) {
    const links = [...this.tiles.values()].map((tile) => tile.link);
    const at = links.indexOf(/** @type {HTMLAnchorElement} */ (document.activeElement));
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const columns = Math.max(
      1,
      links.findIndex((link) => link.offsetTop > links[0].offsetTop),
    );
    const step = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -columns,
      ArrowDown: columns,
      Home: -at,
      End: links.length - 1 - at,
    }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    links[Math.min(Math.max(at + step, 0), links.length - 1)].focus();
  }
}

class Tile {
  /** @param {Host} host */
  constructor(host) {
    this.host = host;
    /** @type {GalleryImage | null} */
    this.image = null;
    /** The address of the picture that is shown, or will be. */
    this.wanted = "";
    this.thumbnail = h("img", { alt: "", loading: "lazy", decoding: "async", draggable: false });
    this.thumbnail.addEventListener("load", () => this.thumbnail.classList.add("loaded"));
    this.edited = false;
    this.note = h("span", { className: "note" });
    this.name = h("span", { className: "name ends", dir: "auto" });
    this.facts = h("span", { className: "facts" });
    this.badges = h("span", { className: "badges" });
    this.link = h(
      "a",
      { className: "tile", href: "", onclick: (/** @type {MouseEvent} */ event) => this.click(event) },
      h("span", { className: "picture" }, this.thumbnail, this.note, this.badges),
      h("span", { className: "caption" }, this.name, this.facts),
    );
    this.chosen = h("input", {
      type: "checkbox",
      onchange: () => this.image && host.choose(keyOf(this.image), this.chosen.checked),
    });
    this.choice = h("label", { className: "choice", hidden: true }, this.chosen);
    this.element = h("li", {}, this.link, this.choice);
  }

  /** @param {MouseEvent} event */
  click(event) {
    if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return; // a new tab, as ever
    event.preventDefault();
    if (this.image) this.host.open(this.image);
  }

  /** @param {boolean} edited */
  mark(edited) {
    if (edited === this.edited) return;
    this.edited = edited;
    if (this.image) this.describe(this.image);
  }

  /** @param {GalleryImage} image */
  describe(image) {
    const badges = badgesOf(image, this.edited, this.host.matching());
    this.badges.replaceChildren(...badges);
    this.link.setAttribute(
      "aria-label",
      [
        image.uploaded ? "uploaded" : "",
        image.title,
        factsOf(image, this.host.sort()),
        ...badges.map((badge) => badge.textContent),
        image.message,
      ]
        .filter(Boolean)
        .join(", "),
    );
  }

  /** @param {GalleryImage} image @param {boolean} masks */
  show(image, masks) {
    this.image = image;
    const { title, state, message, instance } = image;
    this.choice.hidden = instance === undefined;
    this.chosen.checked = this.host.isChosen(keyOf(image));
    this.chosen.setAttribute("aria-label", `Compare instance ${instance} of ${title}`);
    this.link.classList.toggle("instance", instance !== undefined);
    this.link.href = this.host.href(image);
    this.link.dataset.state = state;
    this.link.title = message || title;
    this.name.replaceChildren(...ends(title));
    this.facts.textContent = factsOf(image, this.host.sort());
    this.note.textContent = state === "failed" ? messageOf(image) : "";
    this.describe(image);
    if (state === "failed") {
      this.thumbnail.removeAttribute("src");
      this.wanted = "";
    } else this.picture(thumbnailUrl(image, masks && state === "ok"));
  }

  /** Swaps the picture only when the new one is there. @param {string} url */
  picture(url) {
    if (this.wanted === url) return;
    this.wanted = url;
    if (!this.thumbnail.classList.contains("loaded")) {
      this.thumbnail.src = url;
      return;
    }
    const next = new Image();
    next.onload = () => {
      if (this.wanted === url) this.thumbnail.src = url;
    };
    next.onerror = () => {
      if (this.wanted === url) this.wanted = ""; // to be asked for again
    };
    next.src = url;
  }
}

/** What is wrong with an image, without its name before it. @param {GalleryImage} image */
const messageOf = ({ message, title }) =>
  message.startsWith(`${title}: `) ? message.slice(title.length + 2) : message;

/** @param {GalleryImage} image */
function factsOf({ state, classes, scores, stands_for }, sort = "") {
  if (state === "waiting") return "inference pending";
  if (state === "failed") return "unreadable file";
  if (state === "empty") return "no instances found";
  if (stands_for) return standing(stands_for, sort);
  const named = classes.map(({ name, instances }) => (instances > 1 ? `${instances} ${name}` : name)).join(", ");
  return scores ? `conf ${range(scores)} · ${named}` : named;
}

/** @param {string} kind @param {string} text @param {string} title */
const badge = (kind, text, title = "") => h("span", { className: `badge ${kind}`, title }, text);

/** What the labels say of all instances of an image. @param {GalleryImage} image @param {string} rule */
const summaries = ({ ious, missed, false_positives, localisation_errors }, rule) => [
  ...(ious
    ? [badge("iou", `IoU ${range(ious)}`, "masks against labels, on the model input: lowest to highest IoU")]
    : []),
  ...(false_positives ? [badge("false", `${false_positives} FP`, `False positives. ${rule}`)] : []),
  ...(localisation_errors
    ? [
        badge(
          "localisation",
          `${localisation_errors} localisation`,
          `Localisation errors, which may be true or false positives. ${rule}`,
        ),
      ]
    : []),
  ...(missed ? [badge("missed", `${missed} FN`, `Labelled instances that no prediction found. ${rule}`)] : []),
];

/**
 * The instance that a tile stands for.
 * @param {NonNullable<GalleryImage["stands_for"]>} instance
 * @param {string} sort
 */
function standing({ index, name, score, iou, losses, ...judged }, sort) {
  if (losses && sort in losses)
    return `${name} ${index} · ${signed(-losses[sort])} IoU: ${sort === "box" ? "box crop" : sort}`;
  return [`${name} ${index}`, iou === null ? "" : `IoU ${iou.toFixed(2)}`, verdict(judged), score.toFixed(2)]
    .filter(Boolean)
    .join(" · ");
}

/** @param {GalleryImage} image @param {boolean} edited @param {import("../verdict.js").Matching} matching */
function badgesOf(image, edited, matching) {
  const { uploaded, message, state, instance, suspicious } = image;
  return [
    ...(instance === undefined ? summaries(image, matching?.rule ?? "") : []),
    ...(instance === undefined && suspicious.length
      ? [
          badge(
            "missed",
            `${suspicious.length} suspicious ${suspicious.length > 1 ? "labels" : "label"}`,
            `Suspicious labels. ${suspicious.join("; ")}`,
          ),
        ]
      : []),
    ...(edited ? [badge("edited", "edited", "has edits of yours; they are kept as long as this tab is open")] : []),
    ...(uploaded ? [badge("uploaded", "uploaded", "in memory only, gone with the server")] : []),
    ...(message && state !== "failed" ? [badge("missed", "labels unusable", message)] : []),
  ];
}

/** @param {[number, number]} range */
const range = ([low, high]) =>
  low.toFixed(2) === high.toFixed(2) ? low.toFixed(2) : `${low.toFixed(2)}–${high.toFixed(2)}`;
