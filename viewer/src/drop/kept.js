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
 * @returns {Promise<T>} What the last request gave, once all is written.
 */
async function inStore(mode, act) {
  const database = await opened();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(STORE, mode);
    const asked = act(transaction.objectStore(STORE));
    transaction.oncomplete = () => resolve(asked.result);
    transaction.onabort = () => reject(transaction.error);
  }).finally(() => database.close());
}

/**
 * Their bytes, not the files: Firefox gives back files that are tied to their place in the database, and cannot read
 * them once that is written anew. A browser that keeps nothing for a page loses nothing but this comfort.
 * @param {Partial<Record<Kind, File>>} files
 * @returns {Promise<boolean>} Whether they are kept.
 */
export async function keep(files) {
  try {
    const entries = await Promise.all(
      Object.entries(files).map(async ([kind, file]) => {
        const { name, type } = file;
        return { kind, value: { name, type, bytes: await file.arrayBuffer() } };
      }),
    );
    await inStore("readwrite", (store) => entries.map(({ kind, value }) => store.put(value, kind))[0]);
    return true;
  } catch {
    return false;
  }
}

/** @returns {Promise<boolean>} Whether nothing is kept any more. */
export const forget = () =>
  inStore("readwrite", (store) => store.clear()).then(
    () => true,
    () => false,
  );

/** @returns {Promise<File[]>} What was kept. */
export async function kept() {
  const found = await Promise.all(
    ["model", "image"].map((kind) => inStore("readonly", (store) => store.get(kind)).catch(() => undefined)),
  );
  return found.flatMap((one) => (one?.bytes ? [new File([one.bytes], one.name, { type: one.type })] : []));
}
