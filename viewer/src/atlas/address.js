// What the address says of the map: layout, colour, classes, text and a few selected instances, each by its name.

/**
 * @typedef {{ layout: number, colour: string, classes: string[], text: string, selected: string[] }} Shown `selected`
 * are names such as bus.jpg#3.
 */

/** @param {string} hash @returns {Shown} */
export function readAddress(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  return {
    layout: Number(given.get("layout") ?? 0),
    colour: given.get("colour") ?? "class",
    classes: given.getAll("class"),
    text: given.get("text") ?? "",
    selected: given.getAll("select"),
  };
}

/** The shortest address that says the same; empty where all is as at first. @param {Shown} shown */
export function writeAddress({ layout, colour, classes, text, selected }) {
  const query = new URLSearchParams();
  if (layout) query.set("layout", String(layout));
  if (colour !== "class") query.set("colour", colour);
  for (const name of classes) query.append("class", name);
  if (text) query.set("text", text);
  for (const key of selected) query.append("select", key);
  return query.size ? `#${query}` : "";
}

/**
 * The points of these names; names of none are left out.
 * @param {string[]} keys
 * @param {string[]} names Of images.
 * @param {Uint32Array} images The image of each point.
 * @param {Uint32Array} instances
 * @returns {number[]}
 */
export function instancesOf(keys, names, images, instances) {
  const asked = new Set(keys);
  const near = new Set(names.flatMap((name, i) => (keys.some((key) => key.startsWith(`${name}#`)) ? [i] : [])));
  /** @type {number[]} */
  const points = [];
  images.forEach((image, point) => {
    if (near.has(image) && asked.has(`${names[image]}#${instances[point]}`)) points.push(point);
  });
  return points;
}
