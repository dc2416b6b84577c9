// Edits of all images of the gallery while the page shows one: with their history in memory, and as text across a
// reload.

/** @typedef {import("../state.js").State} State */
/** @typedef {{ text: string, of: string }} Stored */

const KEY = "maskprism-edits";

/** The states of the images that were opened, by name. Lives as long as the tab of the browser. */
export class Kept {
  /** @param {Storage | null} storage @param {() => void} tell Called when an image got edits, or lost its last one. */
  constructor(storage, tell) {
    this.storage = storage;
    this.tell = tell;
    /** @type {Map<string, State>} */
    this.states = new Map();
    /** @type {Map<string, Stored>} */
    this.stored = new Map(read(storage));
  }

  /** The names of the images with edits. */
  get names() {
    return [...this.stored.keys()];
  }

  /**
   * What the viewer asks of whoever keeps its states; for the image of one name.
   * @param {string} name
   * @returns {import("../app.js").Keeper}
   */
  of(name) {
    return {
      recall: (fresh, saved) => this.recall(name, fresh, saved),
      changed: (state) => this.keep(name, state),
      forget: () => this.forget(name),
      edited: () => this.stored.size,
      resetAll: () => this.resetAll(),
    };
  }

  /**
   * The state that was left, with the instance that the address asks for; edits in an address go before those of a
   * closed page.
   * @param {string} name
   * @param {State} fresh
   * @param {URLSearchParams} saved
   */
  recall(name, fresh, saved) {
    const [held, stored] = [this.states.get(name), this.stored.get(name)];
    if (held && fingerprint(held) === fingerprint(fresh)) {
      if (saved.has("i")) held.selected = fresh.selected;
      return held;
    }
    if (stored?.of === fingerprint(fresh) && !fresh.edits.size) {
      const chosen = fresh.selected;
      fresh.restore(new URLSearchParams(stored.text));
      if (saved.has("i")) fresh.selected = chosen;
    }
    this.states.set(name, fresh);
    this.keep(name, fresh);
    return fresh;
  }

  /** @param {string} name */
  forget(name) {
    this.states.delete(name);
    if (this.stored.delete(name)) this.tell();
    this.write();
  }

  /** @param {string} name @param {State} state */
  keep(name, state) {
    const before = this.stored.get(name);
    const text = state.edits.size ? state.save().toString() : "";
    if (text === (before?.text ?? "")) return;
    if (text) this.stored.set(name, { text, of: fingerprint(state) });
    else this.stored.delete(name);
    this.write();
    if (!before !== !text) this.tell();
  }

  /** Takes all edits back; those of images that were opened can be brought back by undoing there. */
  resetAll() {
    for (const state of this.states.values()) state.resetAll();
    this.stored.clear();
    this.write();
    this.tell();
  }

  write() {
    try {
      this.storage?.setItem(KEY, JSON.stringify([...this.stored]));
    } catch {
      // a storage that is full or closed: the edits are kept as long as the page is
    }
  }
}

/** @param {Storage | null} storage @returns {[string, Stored][]} */
function read(storage) {
  try {
    const found = JSON.parse(storage?.getItem(KEY) ?? "[]");
    return found.filter(
      (/** @type {any} */ one) =>
        typeof one?.[0] === "string" && typeof one[1]?.text === "string" && typeof one[1].of === "string",
    );
  } catch {
    return [];
  }
}

/**
 * Tells the coefficients of one model's instances from others, such as those of another model on the same address.
 * @param {State} state
 */
function fingerprint(state) {
  let hash = 0x811c9dc5;
  for (const row of state.original) {
    for (const byte of new Uint8Array(row.buffer, row.byteOffset, row.byteLength))
      hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  }
  return `${state.original.length}-${hash.toString(16)}`;
}
