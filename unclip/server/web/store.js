// What the page remembers. IndexedDB holds the session and the bytes of its images, so that a reload loses nothing,
// even if the server has forgotten them.

const NAME = "unclip-canvas";
const STORES = ["files", "session"];

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => STORES.forEach((store) => request.result.createObjectStore(store));
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("blocked"));
  });
}

/** Values by key in the two stores. Without IndexedDB (some private windows) they live as long as the page. */
export class Storage {
  onFull = () => {}; // called when something cannot be kept on disk
  #database = null;
  #memory = { files: new Map(), session: new Map() };

  /** Open the database; true if what is put will survive a reload. */
  async open() {
    try {
      this.#database = await opened();
    } catch {
      this.#database = null;
    }
    return this.#database !== null;
  }

  #run(store, mode, action) {
    return new Promise((resolve, reject) => {
      const transaction = this.#database.transaction(store, mode);
      const request = action(transaction.objectStore(store));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error ?? request.error);
    });
  }

  async get(store, key) {
    const found = this.#memory[store].get(key);
    if (found !== undefined || !this.#database) return found;
    return this.#run(store, "readonly", (objects) => objects.get(key));
  }

  /** Keep a value; if there is no room for it on disk, until the page is closed. */
  async put(store, key, value) {
    if (this.#database) {
      try {
        await this.#run(store, "readwrite", (objects) => objects.put(value, key));
        this.#memory[store].delete(key);
        return;
      } catch {
        this.onFull(); // the quota is used up, or the browser closed the database
      }
    }
    this.#memory[store].set(key, value);
  }

  async keys(store) {
    const stored = this.#database ? await this.#run(store, "readonly", (objects) => objects.getAllKeys()) : [];
    return [...new Set([...stored, ...this.#memory[store].keys()])];
  }

  async remove(store, key) {
    this.#memory[store].delete(key);
    if (this.#database) await this.#run(store, "readwrite", (objects) => objects.delete(key));
  }
}

/** True if this tab may write the session. Another tab that has it open would be overwritten. */
export async function claimSession() {
  if (!navigator.locks) return true; // a page that is not on this machine and has no TLS
  for (let attempt = 0; attempt < 5; attempt += 1) {
    const claimed = await new Promise((resolve) => {
      navigator.locks.request(NAME, { ifAvailable: true }, (lock) => {
        resolve(lock !== null);
        return lock === null ? undefined : new Promise(() => {}); // held until the page goes
      });
    });
    if (claimed) return true;
    await new Promise((resolve) => setTimeout(resolve, 150)); // a reload releases it a moment later
  }
  return false;
}
