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

/** A browser that keeps nothing for a page loses nothing but this comfort. @param {Kind} kind @param {File} file */
export const keep = (kind, file) => inStore("readwrite", (store) => store.put(file, kind)).catch(() => undefined);

export const forget = () => inStore("readwrite", (store) => store.clear()).catch(() => undefined);

/** @returns {Promise<File[]>} What was kept. */
export async function kept() {
  const files = await Promise.all(
    ["model", "image"].map((kind) => inStore("readonly", (store) => store.get(kind)).catch(() => undefined)),
  );
  return files.filter((file) => file instanceof File);
}
