// What the server answers, and how it is asked (docs/server.md).

/** @typedef {"waiting" | "ok" | "empty" | "failed"} ImageState */
/** @typedef {{ id: number, name: string, instances: number }} ClassCount */
/**
 * @typedef {object} GalleryImage One image as the list has it; or one of its instances, where `instance` is its number.
 * @property {number} [instance]
 * @property {string} name
 * @property {string} title
 * @property {string} stamp
 * @property {boolean} uploaded
 * @property {ImageState} state
 * @property {string} message
 * @property {number} instances
 * @property {ClassCount[]} classes
 * @property {number[]} fitting The instances that the filter asks for.
 * @property {[number, number] | null} scores
 * @property {[number, number] | null} ious
 * @property {number} missed
 * @property {number} false_positives
 * @property {number} localisation_errors
 * @property {string[]} suspicious What is suspicious about its labels, the worst first.
 * @property {{ index: number, name: string, score: number, iou: number | null, outcome: string | null, error: string |
 * null, losses: Record<string, number> | null } | null} stands_for The instance that put the image where it is in the
 * list.
 */
/**
 * @typedef {object} Page
 * @property {string} model
 * @property {string} folder
 * @property {number} total
 * @property {Record<ImageState, number>} states
 * @property {number} missed
 * @property {(ClassCount & { images: number })[]} classes
 * @property {number[]} scores How many instances have scores in each twentieth of 0..1.
 * @property {number[]} ious
 * @property {boolean} labels
 * @property {boolean} judged Whether suspicious labels are known.
 * @property {import("../verdict.js").Matching} matching The text of the matching rule: TP, FP, FN.
 * @property {number} upload_bytes How large an uploaded file may be.
 * @property {number} matches
 * @property {number} offset
 * @property {GalleryImage[]} images
 */
/** @typedef {{ total: number, examined: number, failed: number }} Progress */

/** A name as a part of a URL: slashes stay. @param {string} name */
export const inUrl = (name) => name.split("/").map(encodeURIComponent).join("/");

/** What people call an image; uploads have a key before it. @param {string} name */
export const titleOf = (name) => name.replace(/^upload:[0-9a-f]+\//, "");

/** What tells entries of the list apart. @param {GalleryImage} image */
export const keyOf = ({ name, instance }) => (instance === undefined ? name : `${name}#${instance}`);

/** @param {GalleryImage} image @param {boolean} masks */
export const thumbnailUrl = ({ name, stamp, instance }, masks) =>
  instance === undefined
    ? `/api/thumbnails/${inUrl(name)}?v=${encodeURIComponent(stamp)}${masks ? "&masks=1" : ""}`
    : `/api/crops/${inUrl(name)}?index=${instance}&v=${encodeURIComponent(stamp)}`;

/** @param {URLSearchParams} query @returns {Promise<Page>} */
export const listImages = async (query) => (await ask(`/api/images?${query}`)).json();

/** @returns {Promise<Progress>} */
export const askProgress = async () => (await ask("/api/progress")).json();

/** @returns {Promise<import("../strip.js").Kinds | null>} What is known of the prototypes over the images so far. */
export const askKinds = async () => (await (await ask("/api/prototypes")).json()).kinds;

/** @param {string} name @returns {Promise<ArrayBuffer>} */
export const fetchScene = async (name) => (await ask(`/api/scenes/${inUrl(name)}`)).arrayBuffer();

/** @param {File} file @returns {Promise<{ name: string, title: string }>} */
export const upload = async (file) =>
  (await ask(`/api/uploads?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file })).json();

/**
 * Fetches, and turns what the server has to say about a failure into an error.
 * @param {string} url
 * @param {RequestInit} [options]
 */
async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new Error("The server does not answer. Is maskprism serve still running?");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: "" }));
  throw new Error(error || `The server answers ${response.status} ${response.statusText}`);
}
