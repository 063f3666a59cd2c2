// The images of the session. Each has a key of this page's own, the bytes as the server sent them, and the id under
// which the server holds them, which changes when the server has forgotten them and gets them again.

const MAX_BITMAPS = 24;

export class Files {
  #urls = new Map();
  #bitmaps = new Map(); // the most recently used last

  constructor(api, storage) {
    this.api = api;
    this.storage = storage;
  }

  /** Keep the bytes of an image that the server holds under `id`; returns its key. */
  async add(blob, { id, width, height }) {
    const key = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0"));
    await this.storage.put("files", key.join(""), { blob, id, width, height });
    return key.join("");
  }

  async get(key) {
    const file = await this.storage.get("files", key);
    if (file === undefined) throw new Error("An image of this session is gone from the browser's storage.");
    return file;
  }

  /** A url of an image for <img>. */
  async url(key) {
    if (!this.#urls.has(key)) this.#urls.set(key, URL.createObjectURL((await this.get(key)).blob));
    return this.#urls.get(key);
  }

  /** The decoded image, for display only: its pixels are never sent anywhere. */
  async bitmap(key) {
    const found = this.#bitmaps.get(key) ?? createImageBitmap((await this.get(key)).blob);
    this.#bitmaps.delete(key);
    this.#bitmaps.set(key, found);
    for (const old of [...this.#bitmaps.keys()].slice(0, -MAX_BITMAPS)) this.#bitmaps.delete(old);
    return found;
  }

  /** The result of `call(ids)`; if the server has forgotten the images, they are uploaded again first. */
  async withIds(keys, call) {
    const files = await Promise.all(keys.map((key) => this.get(key)));
    try {
      return await call(files.map((file) => file.id));
    } catch (error) {
      if (error.code !== "file_not_found") throw error;
    }
    const ids = [];
    for (const [index, file] of files.entries()) {
      const { id } = await this.api.upload(file.blob, "image");
      await this.storage.put("files", keys[index], { ...file, id });
      ids.push(id);
    }
    return call(ids);
  }

  /** Forget all images but these. */
  async keepOnly(keys) {
    for (const key of await this.storage.keys("files")) {
      if (!keys.has(key)) await this.storage.remove("files", key);
    }
  }
}

/** A blob from base64. */
export function fromBase64(text, type = "image/png") {
  return new Blob([Uint8Array.from(atob(text), (character) => character.charCodeAt(0))], { type });
}
