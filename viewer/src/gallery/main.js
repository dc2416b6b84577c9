// The server's page: a gallery of images with filters, and the viewer for one of them. The address holds it all.

import { element, h, messageOf } from "../dom.js";
import { askProgress, keyOf, listImages, titleOf, upload } from "./api.js";
import { FilterControls, readFilters, writeFilters } from "./filters.js";
import { ImageView } from "./image.js";
import { CompareView } from "./compare.js";
import { Kept } from "./kept.js";
import { Tiles } from "./tiles.js";

/** @typedef {import("./api.js").GalleryImage} GalleryImage */
/** @typedef {import("./api.js").Page} Page */

const PAGE = 60;
const MOST_AT_ONCE = 480;
const POLL_MS = 1200;
const TYPING_MS = 250;
const MOST_FAILURES = 3;
const MOST_COMPARED = 4;

class GalleryPage {
  constructor() {
    this.gallery = element(document, "#gallery");
    this.count = element(document, "#count");
    this.more = element(document, "#more");
    this.found = element(document, "#found");
    this.toast = element(document, "#toast");
    this.filters = readFilters(location.search);
    this.matches = 0;
    this.request = 0;
    this.scrolled = 0;
    this.uploadBytes = Infinity;
    /** Which entry was opened, where an image has several. @type {string | null} */
    this.opened = null;
    /** The instances that are chosen to be compared, by key. @type {string[]} */
    this.chosen = [];
    /** @type {string | null} */
    this.shown = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.pending = undefined;
    /** The progress that all shown tiles are of; null until the list is there. @type {string | null} */
    this.listed = null;
    /** @type {import("../verdict.js").Matching} */
    this.matching = null;
    this.controls = new FilterControls(element(document, "#filters", HTMLFormElement), this.filters, (filters) =>
      this.filter(filters),
    );
    this.tiles = new Tiles(element(document, "#tiles"), {
      href: (image) => this.address(image.name) + instanceOf(image, this.filters.show),
      open: (image) => {
        this.opened = keyOf(image);
        this.visit(this.address(image.name) + instanceOf(image, this.filters.show));
      },
      choose: (key, chosen) => this.choose(key, chosen),
      isChosen: (key) => this.chosen.includes(key),
      sort: () => this.filters.sort,
      matching: () => this.matching,
    });
    this.comparison = new CompareView(element(document, "#comparison"), () => this.visit(this.address()));
    this.compare = element(document, "#compare");
    this.compare.addEventListener("click", () =>
      this.visit(
        `${this.address()}${this.address().includes("?") ? "&" : "?"}${new URLSearchParams(this.chosen.map((key) => ["compare", key]))}`,
      ),
    );
    this.view = new ImageView(element(document, "#image"), {
      go: (step) => this.step(step),
      close: () => this.visit(this.address()),
      keeper: (name) => this.kept.of(name),
    });
    this.kept = new Kept(session(), () => this.showEdited());
    this.resetEdits = element(document, "#reset-edits");
    this.resetEdits.addEventListener("click", () => {
      this.kept.resetAll();
      this.say("All edits are taken back; undo in an image that was opened brings its own back.");
    });
    this.showEdited();
    this.more.addEventListener("click", () => this.loadMore());
    this.near = new IntersectionObserver(([entry]) => entry.isIntersecting && this.loadMore(), { rootMargin: "600px" });
    this.found.addEventListener("click", () => this.load());
    addEventListener("popstate", () => this.route());
    this.wireMasks();
    wireTheme();
    wireUploads((files) => this.upload(files));
    history.scrollRestoration = "manual";
    this.route();
    this.load();
    this.poll();
  }

  /** The address of the gallery under the filters, or of an image in it. @param {string} [name] */
  address(name) {
    const query = writeFilters(this.filters);
    if (name !== undefined) query.set("image", name);
    return `/${query.size ? `?${query}` : ""}`;
  }

  /** @param {string} address */
  visit(address) {
    if (!this.gallery.hidden) this.scrolled = scrollY;
    this.view.settle();
    history.pushState(null, "", address);
    this.route();
  }

  /** Shows what the address says. */
  route() {
    const asked = new URLSearchParams(location.search);
    const name = asked.get("image");
    const compared = asked.getAll("compare");
    const filters = readFilters(location.search);
    if (String(writeFilters(filters)) !== String(writeFilters(this.filters))) {
      this.filters = this.controls.filters = filters;
      this.controls.render();
      this.load();
    }
    this.carry();
    if (this.comparison.show(name === null ? compared : [])) {
      this.gallery.hidden = true;
      this.view.root.hidden = true;
      this.view.clear();
      this.shown = null;
      document.title = "Compared · maskprism";
      scrollTo(0, 0);
      return;
    }
    if (name === this.shown && this.gallery.hidden === (name !== null)) return;
    const left = this.shown;
    this.shown = name;
    this.gallery.hidden = name !== null;
    this.view.root.hidden = name === null;
    if (name === null) {
      this.view.clear();
      document.title = this.titled;
      scrollTo(0, this.scrolled);
      if (left !== null) this.tiles.focus(left, this.opened);
      return;
    }
    const title = [...this.tiles.tiles.values()][this.tiles.place(name, this.opened)]?.image?.title ?? titleOf(name);
    document.title = `${title} · maskprism`;
    scrollTo(0, 0);
    this.place();
    this.view.open(name, title);
  }

  /** The other pages are opened under the same filter. */
  carry() {
    const query = String(writeFilters(this.filters));
    for (const link of /** @type {NodeListOf<HTMLAnchorElement>} */ (document.querySelectorAll(".site a, a.map")))
      link.search = query;
  }

  /** Marks the tiles of images with edits. */
  showEdited() {
    const { names } = this.kept;
    this.tiles.markEdited(new Set(names));
    this.resetEdits.hidden = !names.length;
    this.resetEdits.textContent = `Reset all edits (${images(names.length)})`;
  }

  get titled() {
    return this.folder ? `${this.folder} · maskprism` : "maskprism";
  }

  place() {
    if (this.shown !== null) this.view.placed(this.tiles.place(this.shown, this.opened) + 1, this.matches);
  }

  /** To a neighbour; Back still leads to the gallery. @param {number} step */
  async step(step) {
    const { shown } = this;
    const at = this.tiles.place(shown ?? "", this.opened) + step;
    if (at >= this.tiles.names.length) await this.loadMore();
    if (this.shown !== shown) return; // the user went on meanwhile
    const image = [...this.tiles.tiles.values()][at]?.image;
    if (!image) return;
    this.view.settle();
    this.opened = keyOf(image);
    const same = image.name === this.shown;
    history.replaceState(null, "", this.address(image.name) + instanceOf(image, this.filters.show));
    if (same) this.view.choose(image.stands_for?.index ?? 0);
    this.route();
    this.place();
  }

  /** @param {string} key @param {boolean} chosen */
  choose(key, chosen) {
    this.chosen = [...this.chosen.filter((one) => one !== key), ...(chosen ? [key] : [])];
    if (this.chosen.length > MOST_COMPARED) {
      this.chosen = this.chosen.slice(-MOST_COMPARED);
      this.tiles.paint(this.tiles.masks);
      this.say(`At most ${MOST_COMPARED} instances are compared at a time; the first one was let go.`);
    }
    this.compare.hidden = this.chosen.length < 2;
    this.compare.textContent = `Compare ${this.chosen.length} instances`;
  }

  /** @param {import("./filters.js").Filters} filters */
  filter(filters) {
    this.filters = filters;
    history.replaceState(null, "", this.address());
    this.carry();
    clearTimeout(this.pending);
    this.pending = setTimeout(() => this.load(), TYPING_MS);
  }

  /** The first page of the list, anew. */
  async load() {
    clearTimeout(this.pending);
    this.listed = null;
    this.wait(true);
    const page = await this.ask(0, PAGE, (message) => this.unanswered(message));
    if (!page) return;
    this.wait(false);
    this.matching = page.matching;
    this.tiles.show(page.images);
    this.listed = progressOf(page);
    this.know(page);
  }

  /** Images under an earlier filter are pale until those under the chosen one come. @param {boolean} waiting */
  wait(waiting) {
    this.tiles.list.classList.toggle("waiting", waiting);
    this.tiles.list.setAttribute("aria-busy", String(waiting));
  }

  /** No images at all rather than those of another filter. @param {string} message */
  unanswered(message) {
    this.wait(false);
    this.tiles.show([]);
    this.more.hidden = this.found.hidden = true;
    this.count.textContent = "";
    const empty = element(document, "#empty");
    empty.hidden = false;
    empty.replaceChildren(
      `The list of images did not come: ${message} `,
      h("button", { type: "button", onclick: () => this.load() }, "Try again"),
    );
  }

  async loadMore() {
    if (this.loading || this.tiles.names.length >= this.matches) return;
    const page = await this.ask(this.tiles.names.length, PAGE);
    if (!page) return;
    this.tiles.append(page.images);
    this.know(page);
  }

  /** Brings counts and tiles up to date, and moves nothing: images that fit meanwhile are only offered. */
  async update() {
    if (this.loading) return;
    const shown = this.tiles.names.length;
    /** @type {GalleryImage[]} */
    const images = [];
    /** @type {Page | null} */
    let page = null;
    let listed = "";
    do {
      page = await this.ask(images.length, Math.min(Math.max(shown, PAGE) - images.length, MOST_AT_ONCE));
      if (!page) return;
      listed ||= progressOf(page); // of the first part: those after it may be newer
      images.push(...page.images);
    } while (page.images.length && images.length < shown);
    const fresh = images.some((image) => !this.tiles.tiles.has(keyOf(image)));
    if (shown) this.tiles.update(images);
    else this.tiles.show(images);
    this.listed = listed;
    this.know(page, fresh && shown > 0);
  }

  /**
   * @param {number} offset
   * @param {number} limit
   * @param {(message: string) => void} fail
   * @returns {Promise<Page | null>}
   */
  async ask(offset, limit, fail = (message) => this.say(message, "failed")) {
    const request = ++this.request;
    const query = writeFilters(this.filters);
    query.set("offset", String(offset));
    query.set("limit", String(limit));
    this.loading = true;
    try {
      const page = await listImages(query);
      return request === this.request ? page : null; // another request was made meanwhile
    } catch (error) {
      if (request === this.request) fail(messageOf(error));
      return null;
    } finally {
      if (request === this.request) this.loading = false;
    }
  }

  /** @param {Page} page @param {boolean} fresh Whether there are matches that are not shown. */
  know(page, fresh = false) {
    if (!fresh) this.matches = page.matches;
    const news = fresh ? page.matches - this.tiles.names.length : 0;
    this.found.hidden = !fresh;
    this.found.textContent = news > 0 ? `Show ${news} more` : "Show the new order";
    this.folder = page.folder;
    this.uploadBytes = page.upload_bytes;
    element(document, "#folder").textContent = page.folder;
    element(document, "#model").textContent = page.model;
    if (this.shown === null) document.title = this.titled;
    this.controls.know(page);
    this.more.hidden = fresh || this.tiles.names.length >= this.matches;
    this.near.disconnect(); // observing anew tells at once whether the end of the list is near
    this.near.observe(this.more);
    const filtered = writeFilters(this.filters);
    filtered.delete("sort");
    filtered.delete("view");
    const instances = this.filters.view === "instances";
    this.count.textContent = instances
      ? `${page.matches} instance${page.matches === 1 ? "" : "s"}`
      : filtered.size
        ? `${page.matches} of ${images(page.total)}`
        : images(page.total);
    const empty = element(document, "#empty");
    empty.hidden = page.matches > 0;
    const nothing = instances ? "No instance" : "No image";
    empty.textContent = !page.total
      ? "This folder has no images yet. Drop one here to look at it."
      : page.states.waiting
        ? "Nothing fits the filter among the images with inference so far."
        : `${nothing} fits the filter.`;
    this.place();
  }

  /** Asks how far the model is, and shows it while it is not done. */
  async poll() {
    if (!document.hidden) {
      try {
        const progress = await askProgress();
        this.showProgress(progress);
        if (this.listed !== null && this.listed !== `${progress.examined}/${progress.total}`) await this.update();
      } catch {
        this.showProgress(null);
      }
    }
    setTimeout(() => this.poll(), POLL_MS);
  }

  /** @param {import("./api.js").Progress | null} progress */
  showProgress(progress) {
    const bar = element(document, "#progress", HTMLProgressElement);
    const text = element(document, "#progress-text");
    const done = !progress || progress.examined >= progress.total;
    bar.classList.toggle("done", done);
    if (!progress) text.textContent = "the server does not answer";
    else {
      bar.max = Math.max(progress.total, 1);
      bar.value = progress.examined;
      const broken = progress.failed ? `${progress.failed} unreadable` : "";
      text.textContent = done
        ? broken
        : [`inference ${progress.examined}/${progress.total}`, broken].filter(Boolean).join(", ");
    }
  }

  /** One file after the other; a single one is opened, several are left in the gallery. @param {File[]} files */
  async upload(files) {
    /** @type {string[]} */
    const taken = [];
    /** @type {string[]} */
    const failures = [];
    for (const [index, file] of files.entries()) {
      this.say(`Uploading ${file.name}${files.length > 1 ? ` (${index + 1} of ${files.length})` : ""} …`);
      try {
        if (file.size > this.uploadBytes)
          throw new Error(
            `${file.name} has ${megabytes(file.size, 1)} MB; the limit is ${megabytes(this.uploadBytes)} MB.`,
          );
        taken.push((await upload(file)).name);
      } catch (error) {
        const message = messageOf(error);
        failures.push(message.startsWith(file.name) ? message : `${file.name}: ${message}`);
      }
    }
    const more = failures.length - MOST_FAILURES;
    this.say(
      [...failures.slice(0, MOST_FAILURES), ...(more > 0 ? [`and ${more} more`] : [])].join("\n"),
      failures.length ? "failed" : "",
    );
    if (!taken.length) return;
    if (files.length === 1) this.visit(this.address(taken[0]));
    else if (this.shown !== null) this.visit(this.address());
    this.load();
  }

  /** @param {string} text @param {string} kind */
  say(text, kind = "") {
    clearTimeout(this.saying);
    this.toast.className = kind;
    this.toast.textContent = text;
    this.toast.hidden = !text;
    if (kind) this.saying = setTimeout(() => (this.toast.hidden = true), 12_000);
  }

  wireMasks() {
    const box = element(document, "#masks", HTMLInputElement);
    box.checked = recall("maskprism-masks") !== "off";
    this.tiles.paint(box.checked);
    box.addEventListener("change", () => {
      remember("maskprism-masks", box.checked ? "on" : "off");
      this.tiles.paint(box.checked);
    });
  }
}

/**
 * The part of an address that chooses the instance that the image stands for in the list, or what was missed where that
 * is asked for.
 * @param {GalleryImage} image
 */
const instanceOf = ({ stands_for, missed }, show = "all") =>
  stands_for ? `#i=${stands_for.index}` : show === "missed" && missed ? "#missed=0" : "";

/** The progress that a list is of. @param {Page} page */
const progressOf = ({ total, states }) => `${total - states.waiting}/${total}`;

/** @param {number} count */
const images = (count) => `${count} image${count === 1 ? "" : "s"}`;

/** @param {number} bytes @param {number} [digits] */
const megabytes = (bytes, digits = 0) => (bytes / 2 ** 20).toFixed(digits);

function wireTheme() {
  const button = element(document, "#theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const now = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
  const show = () => button.setAttribute("aria-label", `Switch to ${now() === "dark" ? "light" : "dark"} colours`);
  const kept = recall("maskprism-theme");
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = now() === "dark" ? "light" : "dark";
    remember("maskprism-theme", now());
    show();
  });
  dark.addEventListener("change", show);
  show();
}

/** A button, and dropping files anywhere. @param {(files: File[]) => void} take */
function wireUploads(take) {
  const chooser = h("input", { type: "file", accept: "image/*", multiple: true, hidden: true });
  chooser.addEventListener("change", () => {
    if (chooser.files?.length) take([...chooser.files]);
    chooser.value = "";
  });
  document.body.append(chooser);
  element(document, "#upload").addEventListener("click", () => chooser.click());
  const hasFile = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
  const target = element(document, "#drop");
  let depth = 0;
  addEventListener("dragenter", (event) => {
    if (hasFile(event)) target.hidden = !++depth;
  });
  addEventListener("dragleave", (event) => {
    if (hasFile(event)) target.hidden = !(depth = Math.max(depth - 1, 0));
  });
  addEventListener("dragover", (event) => hasFile(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    target.hidden = !(depth = 0);
    if (!hasFile(event)) return;
    event.preventDefault();
    if (event.dataTransfer?.files.length) take([...event.dataTransfer.files]);
  });
}

/** @param {string} key @param {string} value */
function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // a browser without storage forgets
  }
}

/** What lasts as long as the tab. */
function session() {
  try {
    return sessionStorage;
  } catch {
    return null;
  }
}

/** @param {string} key */
function recall(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

new GalleryPage();
