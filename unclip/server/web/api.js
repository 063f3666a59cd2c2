// Calls to the server that served this page, and its errors in words.

export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
  }
}

const KEY = "unclip-key";

export class Api {
  /** askKey: (message) => Promise of {key, remember}, or null if the user has none. */
  constructor(askKey) {
    this.askKey = askKey;
    this.key = sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
  }

  async json(path, body, signal) {
    const json = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
    return (await this.#fetch(path, { ...(body === undefined ? {} : json), signal })).json();
  }

  /** Keep an image on the server; returns {id, width, height, path, ...}. */
  async upload(blob, name) {
    const body = new FormData();
    body.append("file", blob, name);
    return (await this.#fetch("/v1/files", { method: "POST", body })).json();
  }

  async blob(path) {
    return (await this.#fetch(path, {})).blob();
  }

  /** The server-sent events of a call, as [type, data]. Throws ApiError for an error event, or if the stream breaks. */
  async *events(path, body, signal) {
    const headers = { "content-type": "application/json", accept: "text/event-stream" };
    const response = await this.#fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        if (signal?.aborted) throw error;
        throw new ApiError("The connection to the server broke. Finished images are kept; generate again.");
      });
      if (done) return;
      text += decoder.decode(value, { stream: true });
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
        const event = parseEvent(text.slice(0, end));
        if (event === null) continue; // a comment that keeps the connection alive
        if (event[0] === "error") throw fromBody(event[1], response); // the last one of a stream
        yield event;
      }
    }
  }

  async #fetch(path, options) {
    for (;;) {
      const headers = { ...options.headers, ...(this.key ? { authorization: `Bearer ${this.key}` } : {}) };
      let response;
      try {
        response = await fetch(path, { ...options, headers });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new ApiError("The server cannot be reached. Check that `unclip serve` is still running.");
      }
      if (response.ok) return response;
      const error = fromBody(await response.json().catch(() => null), response);
      if (response.status !== 401) throw error;
      const given = await this.askKey(this.key ? "The server does not accept this key." : "This server needs a key.");
      if (given === null) throw error;
      this.key = given.key;
      (given.remember ? localStorage : sessionStorage).setItem(KEY, given.key);
    }
  }
}

function parseEvent(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  return fields.data === undefined ? null : [fields.event, JSON.parse(fields.data)];
}

function fromBody(body, response) {
  const { message, code, param } = body?.error ?? {};
  const wait = response.headers.get("retry-after");
  const hint = response.status === 429 && wait ? ` Try again in ${wait} seconds.` : "";
  const words = sentence(message ?? `The server answered with status ${response.status}.`);
  return new ApiError(words + hint, { status: response.status, code, param });
}

/** A message with a capital letter and a full stop, as the page shows it. */
function sentence(message) {
  const text = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
