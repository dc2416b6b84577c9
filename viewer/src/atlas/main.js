// The map: every instance a point. Hover shows it, the lasso selects, a press opens it in the viewer.

import createScatterplot from "regl-scatterplot";
import { download, element, fileNameOf, grouped, h, messageOf, oncePerFrame, style } from "../dom.js";
import { byClass, byCluster, byValue, CLASS_COLOURS, classColours, OTHER, SEQUENCE } from "./colours.js";
import { embedded, served, UNKNOWN } from "./data.js";
import { drawn, Overlay } from "./overlay.js";
import { instancesOf, readAddress, writeAddress } from "./address.js";
import { asCsv, meanOf, nearestOf, signatureOf, unpackedValue } from "./selection.js";

/** @typedef {import("./data.js").Info} Info */
/** @typedef {import("./data.js").Source} Source */

const LISTED = 60;
const SIGNATURE = 10;
const COMPARED = 4;
const NEIGHBOURS = 5;
/** Up to this number of selected points are named in the address. */
const MOST_NAMED = 20;
const MANY = 100_000;

export class AtlasMap {
  /** @param {HTMLElement} root @param {Source} source @param {Info} info */
  constructor(root, source, info) {
    this.root = root;
    this.source = source;
    this.info = info;
    /** @type {Map<string, Promise<any>>} */
    this.columns = new Map();
    this.layout = 0;
    this.colour = "class";
    /** @type {Set<number>} Classes that are shown; all where it is empty. */
    this.classes = new Set();
    this.places = classColours(this.classes);
    /** @type {number[]} */
    this.selected = [];
    this.listed = LISTED;
    this.hovered = -1;
    /** The number of the last filter that was asked for; an earlier one is not applied. */
    this.filters = 0;
    /** @type {Promise<void>} */
    this.drawing = Promise.resolve();
    this.build();
  }

  build() {
    const { info } = this;
    this.canvas = h("canvas", { "aria-label": `Map of ${info.count} instances`, role: "img" });
    this.layouts = h(
      "select",
      { onchange: () => this.show({ layout: Number(this.layouts?.value) }) },
      ...info.layouts.map((layout, i) => h("option", { value: String(i) }, layout.title)),
    );
    const colours = [
      ["class", "class"],
      ...(info.clusters ? [["cluster", "kind within the class"]] : []),
      ...info.qualities.map(({ name, title }) => [`quality-${name}`, title]),
    ];
    this.colours = h(
      "select",
      { onchange: () => this.show({ colour: this.colours?.value }) },
      ...colours.map(([value, title]) => h("option", { value }, title)),
    );
    this.text = h("input", {
      type: "search",
      placeholder: "Name of an image",
      "aria-label": "Only images whose name contains",
      spellcheck: false,
      oninput: oncePerFrame(() => (this.filter(), this.record(false))),
    });
    this.lasso = h(
      "button",
      {
        type: "button",
        "aria-pressed": "false",
        onclick: () => this.useLasso(this.lasso?.getAttribute("aria-pressed") !== "true"),
      },
      "Lasso",
    );
    this.count = h("p", { className: "quiet", role: "status" });
    this.note = h("p", { className: "quiet note" });
    this.card = h("div", { className: "card", hidden: true });
    this.legend = h("div", { className: "legend" });
    this.panel = h("section", { className: "selection", "aria-label": "Selection", hidden: true });
    /** @type {import("./colours.js").Colouring | null} */
    this.drawnColours = null;
    this.overlay = new Overlay({
      picture: (point) => this.pictureOf(point),
      colourOf: (point) => this.drawnColours?.palette[this.drawnColours.indices[point]] ?? "",
      inView: () => this.inView(),
      positionOf: (/** @type {number} */ point) => this.plot?.getScreenPosition(point),
      groupOf: (point) => this.groupOf(point),
    });
    this.stage = h("div", { className: "stage" }, this.canvas, this.overlay.element, this.card);
    this.wireTouch();
    this.root.replaceChildren(
      h(
        "div",
        { className: "controls" },
        info.layouts.length > 1 ? h("label", {}, "Map ", this.layouts) : null,
        h("label", {}, "Colour ", this.colours),
        this.text,
        this.lasso,
        h("button", { type: "button", onclick: () => this.whole(true) }, "Reset view"),
        h(
          "button",
          {
            type: "button",
            title: "The points in view that pass the filters",
            onclick: () => this.choose(this.inView().filter((point) => this.isOnScreen(point))),
          },
          "Select visible",
        ),
        ...this.overlayControls(),
        this.count,
      ),
      h("div", { className: "places" }, this.stage, h("aside", {}, this.legend, this.panel)),
      this.note,
    );
  }

  /**
   * A column by its name, read once.
   * @template T
   * @param {string} name
   * @param {new (buffer: ArrayBuffer) => T} type
   * @returns {Promise<T>}
   */
  read(name, type) {
    const found =
      this.columns.get(name) ?? this.source.column(name).then((buffer) => new type(buffer ?? new ArrayBuffer(0)));
    this.columns.set(name, found);
    return found;
  }

  async open() {
    const { canvas, info } = this;
    if (!canvas) return;
    if (!document.createElement("canvas").getContext("webgl"))
      throw new Error(
        "this browser has no WebGL, which draws the points; try another one, or allow hardware acceleration",
      );
    this.plot = createScatterplot({
      canvas,
      width: "auto",
      height: "auto",
      ...looksOf(info.count),
      backgroundColor: background(this.root),
      colorBy: "valueA",
      pointColorActive: "#ffffff",
      pointColorHover: "#ffffff",
      lassoInitiator: false,
      lassoColor: "#0072b2",
      reticleColor: [0.5, 0.5, 0.5, 0.5],
      deselectOnDblClick: true,
      spatialIndexUseWorker: false,
    });
    this.plot.subscribe("pointOver", (/** @type {number} */ point) => this.hover(point));
    this.plot.subscribe("pointOut", () => this.hover(-1));
    this.plot.subscribe("select", (/** @type {{ points: number[] }} */ { points }) => this.take(points));
    this.plot.subscribe("deselect", () => this.take([]));
    for (const event of /** @type {const} */ (["view", "transitionEnd"]))
      this.plot.subscribe(event, () => this.overlay?.moved());
    new ResizeObserver(() => this.overlay?.moved()).observe(canvas);
    const recolour = () => this.plot?.set({ backgroundColor: background(this.root) });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
    new MutationObserver(recolour).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    addEventListener("popstate", () => this.restore());
    await this.restore();
    await this.whole(false);
    this.root.dataset.ready = "true";
  }

  /** Shows all points, also where the map is higher than wide. @param {boolean} transition */
  async whole(transition) {
    const { canvas, plot } = this;
    if (!canvas || !plot) return;
    if (canvas.clientWidth < canvas.clientHeight)
      await plot.zoomToArea({ x: -1, y: -1, width: 2, height: 2 }, { transition });
    else await plot.zoomToOrigin({ transition });
  }

  /** The points that pass the filters, near the screen or on it. @returns {number[]} */
  inView() {
    /** @type {number[]} */
    const all = this.plot?.get("pointsInView") ?? [];
    const filtered = this.shown && new Set(this.shown);
    return filtered ? all.filter((point) => filtered.has(point)) : all;
  }

  /** @param {number} point */
  isOnScreen(point) {
    const { canvas, plot } = this;
    const [x, y] = plot?.getScreenPosition(point) ?? [-1, -1];
    return x >= 0 && y >= 0 && x < (canvas?.clientWidth ?? 0) && y < (canvas?.clientHeight ?? 0);
  }

  /** @param {{ layout?: number, colour?: string }} asked */
  async show({ layout = this.layout, colour = this.colour }) {
    const moving = layout !== this.layout;
    Object.assign(this, { layout, colour });
    this.record();
    await this.draw(moving);
  }

  /** Writes colours, filters and selection into the address; with `act`, Back leads to those before. */
  async record(act = true) {
    const { info, layout, colour, text, classes, selected } = this;
    const keys = selected.length <= MOST_NAMED ? await this.keysOf(selected) : [];
    if (selected !== this.selected) return;
    const names = [...classes].map((id) => info.classes[id].name);
    const address = writeAddress({ layout, colour, classes: names, text: text?.value.trim() ?? "", selected: keys });
    if (address === location.hash) return;
    if (act) history.pushState(null, "", address || location.pathname + location.search);
    else history.replaceState(null, "", address || location.pathname + location.search);
  }

  /** Shows what the address says; what this map does not have is left out. */
  async restore() {
    const { info, layouts, colours, text } = this;
    const { hash } = location;
    const asked = readAddress(hash);
    this.layout = info.layouts[asked.layout] ? asked.layout : 0;
    this.colour = [...(colours?.options ?? [])].some(({ value }) => value === asked.colour) ? asked.colour : "class";
    const ids = asked.classes.map((name) => info.classes.findIndex((one) => one.name === name));
    this.classes = new Set(ids.filter((id) => id >= 0));
    this.places = classColours(this.classes, this.places);
    if (layouts) layouts.value = String(this.layout);
    if (colours) colours.value = this.colour;
    if (text) text.value = asked.text;
    const points = asked.selected.length
      ? instancesOf(
          asked.selected,
          await this.names(),
          await this.read("image", Uint32Array),
          await this.read("instance", Uint32Array),
        )
      : [];
    if (location.hash !== hash) return;
    this.selected = points;
    await this.draw();
    await this.filter();
    this.plot?.select(this.selected, { preventEvent: true });
    await this.select(this.selected);
  }

  /** Draws once the drawing under way has ended: before that, the plot ignores every other one. */
  draw(moving = false) {
    const draw = () => this.drawNow(moving);
    this.drawing = this.drawing.then(draw, draw);
    return this.drawing;
  }

  async drawNow(moving = false) {
    const { info, plot, layout } = this;
    if (!plot) return;
    const [x, y, colouring] = await Promise.all([
      this.placed(`x-${layout}`, 1),
      this.placed(`y-${layout}`, -1),
      this.colouring(),
    ]);
    if (layout !== this.layout) return;
    const stays = this.drawn === layout && !moving;
    plot.set({ pointColor: colouring.palette });
    this.drawnColours = colouring;
    await plot.draw(
      { x, y, valueA: colouring.indices },
      {
        zDataType: "categorical",
        preventFilterReset: true,
        ...(stays ? { spatialIndex: plot.get("spatialIndex") } : {}),
        transition: moving && info.count <= MANY,
        transitionDuration: 600,
      },
    );
    this.drawn = layout;
    this.overlay?.moved();
    if (this.selected.length) plot.select(this.selected, { preventEvent: true });
    if (this.note) this.note.textContent = info.layouts[layout].note;
    this.showLegend();
  }

  /** Places between -1 and 1. @param {string} name @param {number} sign @returns {Promise<Float32Array>} */
  placed(name, sign) {
    const key = `placed-${name}`;
    const found =
      this.columns.get(key) ??
      this.read(name, Uint16Array).then((packed) =>
        Float32Array.from(packed, (value) => sign * ((value / (UNKNOWN - 1)) * 1.9 - 0.95)),
      );
    this.columns.set(key, found);
    return found;
  }

  async colouring() {
    if (this.colour.startsWith("quality-")) return byValue(await this.read(this.colour, Uint16Array));
    if (this.colour === "cluster") return byCluster(await this.read("cluster", Uint8Array));
    return byClass(await this.read("class", Uint32Array), this.places);
  }

  showLegend() {
    const { info, legend } = this;
    if (!legend) return;
    const quality = info.qualities.find(({ name }) => this.colour === `quality-${name}`);
    const ramp = quality
      ? h(
          "div",
          { className: "ramp" },
          h("span", {}, shown(unpackedValue(quality, 0))),
          strip(),
          h("span", {}, shown(unpackedValue(quality, UNKNOWN - 1))),
          h("span", { className: "quiet" }, quality.log ? "logarithmic; grey: not known" : "grey: not known"),
        )
      : null;
    legend.querySelector(".ramp")?.remove();
    if (ramp) legend.prepend(ramp);
    // Buttons are kept: the map is drawn after a click, and new buttons would lose the next click.
    if (!legend.querySelector("ul"))
      legend.append(h("h2", {}, "Classes"), h("ul", {}, ...info.classes.map((_, id) => this.classRow(id))));
    legend.querySelectorAll("li").forEach((row, id) => {
      const place = this.places.get(id) ?? CLASS_COLOURS.length;
      const colour = this.colour === "class" ? (CLASS_COLOURS[place] ?? OTHER) : "transparent";
      style(element(row, ".dot"), { background: colour });
      element(row, "button").setAttribute("aria-pressed", String(this.classes.has(id)));
    });
  }

  /** @param {number} id */
  classRow(id) {
    const { name, count } = this.info.classes[id];
    const press = () => {
      if (!this.classes.delete(id)) this.classes.add(id);
      this.places = classColours(this.classes, this.places);
      this.filter();
      this.record();
      if (this.colour === "class") this.draw();
      else this.showLegend();
    };
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", onclick: press },
        h("span", { className: "dot" }),
        h("span", { className: "name" }, name),
        h("span", { className: "quiet" }, grouped(count)),
      ),
    );
  }

  /** Shows the classes and images that are asked for. */
  async filter() {
    const text = this.text?.value.trim().toLowerCase() ?? "";
    const { plot, info, classes } = this;
    const filters = ++this.filters;
    if (!plot) return;
    if (!classes.size && !text) {
      this.shown = null;
      await plot.unfilter({ preventEvent: true });
    } else {
      const [ids, images, names] = await Promise.all([
        this.read("class", Uint32Array),
        this.read("image", Uint32Array),
        this.names(),
      ]);
      if (filters !== this.filters) return;
      const wanted = names.map((/** @type {string} */ name) => name.toLowerCase().includes(text));
      /** @type {number[]} */
      const found = [];
      for (let i = 0; i < info.count; i++)
        if ((!classes.size || classes.has(ids[i])) && wanted[images[i]]) found.push(i);
      this.shown = found;
      await plot.filter(found, { preventEvent: true });
      const passed = new Set(found);
      const left = this.selected.filter((point) => passed.has(point));
      if (left.length < this.selected.length) {
        await this.select(left);
        await this.record(false);
      }
    }
    this.overlay?.moved();
    const many = this.shown?.length ?? info.count;
    if (this.count)
      this.count.textContent =
        many === info.count ? `${grouped(many)} instances` : `${grouped(many)} of ${grouped(info.count)} instances`;
  }

  /** @returns {Promise<string[]>} */
  names() {
    const found =
      this.columns.get("names") ??
      this.source
        .column("names")
        .then((buffer) => JSON.parse(new TextDecoder().decode(buffer ?? new ArrayBuffer(0)) || "[]"));
    this.columns.set("names", found);
    return found;
  }

  /** What lies over the points. */
  overlayControls() {
    const { overlay } = this;
    return /** @type {const} */ ([
      ["pictures", "Thumbnails"],
      ["names", "Class names"],
      ["density", "Density"],
    ]).map(([name, text]) => {
      const box = h("input", {
        type: "checkbox",
        checked: overlay?.shows[name],
        onchange: () => {
          if (!overlay) return;
          overlay.shows[name] = box.checked;
          overlay.moved();
        },
      });
      return h("label", { className: "check" }, box, text);
    });
  }

  /** One finger moves the map, two zoom it: the library takes mouse and wheel alone. */
  wireTouch() {
    const { canvas } = this;
    /** @type {Map<number, [number, number]>} */
    const fingers = new Map();
    const spread = () => {
      const [a, b] = [...fingers.values()];
      return Math.hypot(a[0] - b[0], a[1] - b[1]);
    };
    canvas?.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "touch" || this.lasso?.getAttribute("aria-pressed") === "true") return;
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas?.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      const camera = this.plot?.get("camera");
      if (!before || !camera) return;
      const apart = fingers.size === 2 ? spread() : 0;
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      const unit = 2 / canvas.clientHeight;
      if (fingers.size === 1) camera.pan([(event.clientX - before[0]) * unit, (before[1] - event.clientY) * unit]);
      else if (fingers.size === 2 && apart) camera.scale(spread() / apart, [0, 0]);
      this.overlay?.moved();
    });
    for (const end of ["pointerup", "pointercancel"])
      canvas?.addEventListener(end, (event) => event instanceof PointerEvent && fingers.delete(event.pointerId));
  }

  /** @param {number} point */
  async pictureOf(point) {
    const [images, instances, names] = await Promise.all([
      this.read("image", Uint32Array),
      this.read("instance", Uint32Array),
      this.names(),
    ]);
    return this.source.picture(names[images[point]] ?? "", instances[point], point);
  }

  /** The class of a point, and which kind of it where kinds are known. @param {number} point */
  async groupOf(point) {
    const { info } = this;
    const id = (await this.read("class", Uint32Array))[point];
    const kind = info.clusters ? (await this.read("cluster", Uint8Array))[point] : 0;
    return `${info.classes[id]?.name ?? ""}${kind ? ` ${kind + 1}` : ""}`;
  }

  /** The instances with the most similar coefficients. @param {number} point */
  async neighbours(point) {
    const { info } = this;
    if (!info.scales || info.count < 2) return [];
    const nearest = nearestOf(await this.read("weights", Int8Array), info.scales, point, NEIGHBOURS);
    const rows = await Promise.all(nearest.map((other) => this.row(other)));
    return [
      h("h3", {}, `${nearest.length} nearest neighbours, by coefficients`),
      h("ol", { className: "nearest" }, ...rows),
    ];
  }

  /** An instance in a list: its picture and name; a press opens it. @param {number} point */
  async row(point) {
    const [classes, images, instances, names] = await Promise.all([
      this.read("class", Uint32Array),
      this.read("image", Uint32Array),
      this.read("instance", Uint32Array),
      this.names(),
    ]);
    const name = names[images[point]] ?? "";
    const picture = await this.pictureOf(point);
    const text = h(
      "span",
      { className: "about" },
      h("span", {}, this.info.classes[classes[point]]?.name ?? ""),
      h("span", { className: "quiet name", title: name }, `${fileNameOf(name)} #${instances[point]}`),
    );
    const button = h(
      "button",
      {
        type: "button",
        title: "Open in the viewer",
        onclick: () => this.view([point]),
        onfocus: () => this.hover(point),
      },
      picture && drawn(picture),
      text,
    );
    button.dataset.point = String(point);
    return h("li", {}, button);
  }

  /** @param {boolean} on */
  useLasso(on) {
    this.lasso?.setAttribute("aria-pressed", String(on));
    this.plot?.set({ mouseMode: on ? "lasso" : "panZoom" });
  }

  /** @param {number} point */
  async hover(point) {
    this.hovered = point;
    const { card } = this;
    if (!card) return;
    if (point < 0) {
      card.hidden = true;
      return;
    }
    const about = await this.about(point);
    if (this.hovered !== point) return;
    card.replaceChildren(...about);
    card.hidden = false;
  }

  /** What is known of an instance: its picture, name and numbers. @param {number} point */
  async about(point) {
    const { info } = this;
    const [classes, images, instances, names] = await Promise.all([
      this.read("class", Uint32Array),
      this.read("image", Uint32Array),
      this.read("instance", Uint32Array),
      this.names(),
    ]);
    const name = names[images[point]] ?? "";
    const picture = await this.source.picture(name, instances[point], point);
    const numbers = await Promise.all(
      info.qualities.map(async (quality) => [
        quality.title,
        unpackedValue(quality, (await this.read(`quality-${quality.name}`, Uint16Array))[point]),
      ]),
    );
    return [
      picture && drawn(picture),
      h(
        "div",
        { className: "about" },
        h("p", { className: "class" }, info.classes[classes[point]]?.name ?? ""),
        h("p", { className: "quiet name", title: name }, `${fileNameOf(name)} #${instances[point]}`),
        h(
          "dl",
          {},
          ...numbers
            .filter(([, value]) => !Number.isNaN(value))
            .slice(0, 6)
            .flatMap(([title, value]) => [h("dt", {}, String(title)), h("dd", {}, shown(Number(value)))]),
        ),
      ),
    ].filter((one) => one !== null);
  }

  /** Selects points, as the lasso does. @param {number[]} points */
  async choose(points) {
    this.plot?.select(points, { preventEvent: true });
    await this.select(points);
    await this.record();
  }

  /** What the plot has selected; one point that was pressed opens. @param {number[]} points */
  async take(points) {
    const pressed = points.length === 1 && this.lasso?.getAttribute("aria-pressed") !== "true";
    await this.select(points);
    await this.record();
    if (pressed) await this.view(points);
  }

  /** @param {number[]} points */
  async select(points) {
    this.selected = points;
    this.listed = LISTED;
    await this.showSelection();
  }

  async showSelection() {
    const { panel, selected } = this;
    if (!panel) return;
    panel.hidden = !selected.length;
    if (!selected.length) return panel.replaceChildren();
    const classes = await this.read("class", Uint32Array);
    if (this.selected !== selected) return undefined;
    const rows = await Promise.all(selected.slice(0, this.listed).map((point) => this.row(point)));
    const left = selected.length - rows.length;
    const more =
      left > 0
        ? h(
            "button",
            { type: "button", onclick: () => ((this.listed += LISTED), this.showSelection()) },
            `${grouped(left)} more`,
          )
        : null;
    const about = await this.compared(selected, classes);
    const near = selected.length === 1 ? await this.neighbours(selected[0]) : [];
    if (this.selected !== selected) return undefined;
    return panel.replaceChildren(
      h("h2", {}, `${grouped(selected.length)} selected`),
      h(
        "div",
        { className: "controls" },
        h("button", { type: "button", onclick: () => this.writeCsv() }, "Export CSV"),
        h(
          "button",
          { type: "button", onclick: () => this.plot?.zoomToPoints(selected, { padding: 0.3, transition: true }) },
          "Zoom to it",
        ),
        h(
          "button",
          {
            type: "button",
            disabled: selected.length < 2 || selected.length > COMPARED,
            title: `Two to ${COMPARED} instances side by side`,
            onclick: () => this.view(selected),
          },
          "Side by side",
        ),
        h("button", { type: "button", onclick: () => this.plot?.deselect() }, "Clear"),
      ),
      ...near,
      ...about,
      h("h3", {}, "Instances"),
      h("ol", {}, ...rows),
      ...(more ? [more] : []),
    );
  }

  /** What the selection has in common, against all others. @param {number[]} selected @param {Uint32Array} classes */
  async compared(selected, classes) {
    const { info } = this;
    const counts = new Map();
    for (const point of selected) counts.set(classes[point], (counts.get(classes[point]) ?? 0) + 1);
    const most = [...counts]
      .sort((a, b) => b[1] - a[1])
      .slice(0, 5)
      .map(([id, count]) => `${info.classes[id]?.name} ${grouped(count)}`);
    const means = await Promise.all(
      info.qualities.map(async (quality) => {
        const values = await this.read(`quality-${quality.name}`, Uint16Array);
        return h(
          "tr",
          {},
          h("th", { scope: "row" }, quality.title),
          h("td", {}, shown(meanOf(quality, values, selected))),
          h("td", { className: "quiet" }, shown(await this.meanOfAll(quality))),
        );
      }),
    );
    const found = [
      h("p", { className: "quiet" }, most.join(", ") + (counts.size > 5 ? ` and ${counts.size - 5} more classes` : "")),
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", {}),
            h("th", { scope: "col" }, "mean"),
            h("th", { scope: "col", className: "quiet" }, "of all"),
          ),
        ),
        h("tbody", {}, ...means),
      ),
    ];
    if (!info.scales || selected.length < 2 || selected.length === info.count) return found;
    const k = info.labels.length;
    const signature = signatureOf(await this.read("weights", Int8Array), k, selected);
    const order = [...signature.keys()]
      .sort((a, b) => Math.abs(signature[b]) - Math.abs(signature[a]))
      .slice(0, SIGNATURE);
    const limit = Math.max(...order.map((j) => Math.abs(signature[j])), 0.5);
    const bars = order.map((j) => {
      const bar = h("span", { className: signature[j] < 0 ? "bar negative" : "bar positive" });
      bar.style.width = `${(50 * Math.abs(signature[j])) / limit}%`;
      return h(
        "tr",
        {},
        h("th", { scope: "row" }, info.labels[j]),
        h("td", { className: "bars" }, bar),
        h("td", {}, shown(signature[j], true)),
      );
    });
    return [
      ...found,
      h("h3", {}, "Coefficients unlike those of all others"),
      h("p", { className: "quiet" }, "In standard deviations, the most different first."),
      h("table", {}, h("tbody", {}, ...bars)),
    ];
  }

  /**
   * The mean over all points, which does not change.
   * @param {import("./data.js").Quality} quality
   * @returns {Promise<number>}
   */
  meanOfAll(quality) {
    const key = `mean-${quality.name}`;
    const found =
      this.columns.get(key) ??
      this.read(`quality-${quality.name}`, Uint16Array).then((values) => meanOf(quality, values, [...values.keys()]));
    this.columns.set(key, found);
    return found;
  }

  async writeCsv() {
    const { info, selected } = this;
    const [classes, images, instances, names] = await Promise.all([
      this.read("class", Uint32Array),
      this.read("image", Uint32Array),
      this.read("instance", Uint32Array),
      this.names(),
    ]);
    const values = await Promise.all(
      info.qualities.map((quality) => this.read(`quality-${quality.name}`, Uint16Array)),
    );
    const rows = selected.map((point) => [
      names[images[point]] ?? "",
      instances[point],
      info.classes[classes[point]]?.name ?? "",
      ...info.qualities.map((quality, i) => unpackedValue(quality, values[i][point])),
    ]);
    download(
      new Blob([asCsv([["image", "instance", "class_name", ...info.qualities.map(({ name }) => name)], ...rows])], {
        type: "text/csv",
      }),
      "maskprism-selection.csv",
    );
  }

  /** The names of points: IMAGE#INSTANCE. @param {number[]} points */
  async keysOf(points) {
    const [images, instances, names] = await Promise.all([
      this.read("image", Uint32Array),
      this.read("instance", Uint32Array),
      this.names(),
    ]);
    return points.map((point) => `${names[images[point]]}#${instances[point]}`);
  }

  /** Opens instances in the viewer. @param {number[]} points */
  async view(points) {
    const keys = await this.keysOf(points);
    const { viewer } = this.info;
    const address = /\.html?$/i.test(viewer)
      ? `${viewer}#${new URLSearchParams({ open: keys[0] })}`
      : `${viewer}?${new URLSearchParams(keys.map((key) => ["compare", key]))}`;
    window.open(address, "maskprism-viewer");
  }
}

/**
 * How points of which there are so many look. Beyond a hundred thousand they are squares without transparency, which
 * are drawn faster.
 * @param {number} count
 */
function looksOf(count) {
  const size = count > 200_000 ? 1 : count > 20_000 ? 2.5 : count > 2_000 ? 4 : 6;
  const many = count > MANY;
  return {
    pointSize: size,
    pointSizeSelected: 2,
    pointOutlineWidth: 1,
    opacity: many ? 1 : count > 20_000 ? 0.55 : 0.85,
    opacityInactiveMax: 1,
    opacityInactiveScale: many ? 1 : 0.4,
    performanceMode: many,
  };
}

/** @param {HTMLElement} root */
const background = (root) => getComputedStyle(root).getPropertyValue("--surface").trim();

/** @param {number} value */
function shown(value, sign = false) {
  if (Number.isNaN(value)) return "–";
  const text = Math.abs(value) >= 100 ? Math.abs(value).toFixed(0) : Math.abs(value).toFixed(2);
  return `${Number(text) === 0 ? "" : value < 0 ? "−" : sign ? "+" : ""}${text}`;
}

function strip() {
  const found = h("span", { className: "strip" });
  found.style.background = `linear-gradient(to right, ${SEQUENCE.filter((_, i) => i % 25 === 0).join(",")})`;
  return found;
}

async function start() {
  const root = document.getElementById("maskprism-atlas");
  if (!root) return;
  const source = document.getElementById("maskprism-map") ? embedded() : served();
  try {
    await new AtlasMap(root, source, await source.info()).open();
  } catch (error) {
    root.replaceChildren(
      h("p", { className: "notice", role: "alert" }, `The map cannot be shown: ${messageOf(error)}`),
    );
  }
}

start();
