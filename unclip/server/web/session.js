// The session that the browser keeps: the states of the canvas, the history, the form, and candidates that wait.

import { claimSession } from "./store.js";
import { Timeline } from "./timeline.js";

const KEY = "current";

export class Session {
  #app;
  #mayStore = false;
  #saving = 0;

  constructor(app) {
    this.#app = app;
  }

  /** Open the store; returns the session that it holds, if any. Only one tab may write it. */
  async open() {
    const { page, storage } = this.#app;
    storage.onFull = () => page.alert("The browser has no room to keep this: download it before you leave.");
    const isPersistent = await storage.open();
    this.#mayStore = await claimSession();
    if (!this.#mayStore) page.alert("The canvas is open in another tab. What you do here is gone when you close it.");
    else if (!isPersistent) page.alert("The browser keeps nothing here: download what you want to keep.");
    return storage.get("session", KEY);
  }

  async restore(session) {
    const app = this.#app;
    app.form.values = session.values;
    app.timeline = new Timeline(session.states, session.index);
    app.history.entries = session.entries;
    app.history.show();
    app.frame.set(session.frame);
    if (session.staged) app.staging.begin(session.staged);
    if (this.#mayStore) await app.files.keepOnly(this.#keys());
  }

  #keys() {
    const { history, staging, timeline } = this.#app;
    const images = timeline.states.map(({ image }) => image?.key).filter(Boolean);
    const staged = staging.current?.candidates.map(({ key }) => key) ?? [];
    return new Set([...images, ...staged, ...history.keys()]);
  }

  /** Keep the session a moment later, so that many small changes are written once. */
  save(delay = 120) {
    clearTimeout(this.#saving);
    this.#saving = setTimeout(() => this.write(), delay);
  }

  async write() {
    if (!this.#mayStore) return;
    const { form, frame, history, staging, storage, timeline } = this.#app;
    const staged = staging.current;
    const finished = staged?.candidates.filter(({ key }) => key) ?? [];
    const chosen = Math.max(0, finished.indexOf(staging.chosen));
    await storage.put("session", KEY, {
      values: form.values,
      states: timeline.states,
      index: timeline.index,
      entries: history.entries,
      frame: frame.box,
      staged: finished.length ? { ...staged, candidates: finished, chosen, isRunning: false } : null,
    });
  }
}
