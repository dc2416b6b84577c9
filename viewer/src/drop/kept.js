// The model and the image of this page, kept in this browser over a reload.

const [DATABASE, STORE] = ["maskprism-drop", "files"];

/** @typedef {"model" | "image"} Kind */

/** @returns {Promise<IDBDatabase>} */
function opened() {
  return new Promise((resolve, reject) => {
    const asked = indexedDB.open(DATABASE, 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore(STORE);
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

/**
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T>} act
 * @returns {Promise<T>}
 */
async function inStore(mode, act) {
  const database = await opened();
  return new Promise((resolve, reject) => {
    const asked = act(database.transaction(STORE, mode).objectStore(STORE));
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  }).finally(() => database.close());
}

/**
 * Its bytes, not the file: Firefox gives back files that are tied to their place in the database, and cannot read them
 * once that is written anew. A browser that keeps nothing for a page loses nothing but this comfort.
 * @param {Kind} kind
 * @param {File} file
 */
export async function keep(kind, file) {
  const { name, type } = file;
  const bytes = await file.arrayBuffer();
  await inStore("readwrite", (store) => store.put({ name, type, bytes }, kind)).catch(() => undefined);
}

export const forget = () => inStore("readwrite", (store) => store.clear()).catch(() => undefined);

/** @returns {Promise<File[]>} What was kept. */
export async function kept() {
  const found = await Promise.all(
    ["model", "image"].map((kind) => inStore("readonly", (store) => store.get(kind)).catch(() => undefined)),
  );
  return found.flatMap((one) => (one?.bytes ? [new File([one.bytes], one.name, { type: one.type })] : []));
}
