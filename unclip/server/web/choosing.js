// What is done with candidates: accepted, discarded, browsed; and taken back from the history.

import { placeOnTop } from "./images.js";

const byId = (id) => document.getElementById(id);

export class Choosing {
  #app;
  #isAccepting = false;

  constructor(app) {
    this.#app = app;
  }

  async accept() {
    const app = this.#app;
    const staged = app.staging.current;
    const { chosen } = app.staging;
    if (!chosen?.key || this.#isAccepting) return;
    app.generating.stop();
    this.#isAccepting = true;
    try {
      const image = await placeOnTop(app, { key: chosen.key, ...staged.box }, chosen, staged.kind === "generated");
      app.staging.end();
      app.change({ image, strokes: [], label: staged.kind === "image" ? "open an image" : "accept a candidate" });
      const index = staged.candidates.indexOf(chosen);
      if (staged.entry) app.history.update(staged.entry, { chosen: index, after: image });
      app.page.say("Accepted.");
      byId("frame").focus({ preventScroll: true });
    } catch (error) {
      app.fail(error);
    } finally {
      this.#isAccepting = false;
    }
  }

  discard() {
    const app = this.#app;
    if (app.running) {
      app.generating.stop();
      return;
    }
    app.staging.end();
    app.showAll();
    app.save();
    app.page.say("Discarded. The candidates stay in the history.");
    byId("frame").focus({ preventScroll: true });
  }

  browse(change) {
    const app = this.#app;
    app.staging.step(change);
    app.page.say(app.staging.describe());
  }

  restore(entry) {
    const app = this.#app;
    if (app.running) return;
    app.staging.end();
    this.#use(entry);
    if (entry.after === null) {
      this.stage(entry);
      return;
    }
    app.change({ image: entry.after, strokes: [], label: "go back in the history" });
    app.fit();
    app.page.say("Back at this image, with its prompt and settings.");
  }

  /** Show the candidates of an entry again, on the image that they were made for. */
  stage(entry) {
    const app = this.#app;
    if (app.running) return;
    this.#use(entry);
    const { image, strokes, box, candidates, chosen, id } = entry;
    if (app.image !== image || app.strokes !== strokes) app.change({ image, strokes, label: "go back in the history" });
    const kind = entry.mode === "image" ? "image" : "generated";
    app.staging.begin({ kind, box, candidates: candidates.map((each) => ({ ...each })), chosen, entry: id });
    app.showAll();
    app.fit();
    app.save();
    byId("staging").focus();
  }

  #use(entry) {
    const app = this.#app;
    const seed = entry.candidates[entry.chosen]?.seed;
    if (entry.mode !== "image") app.form.values = { ...entry.values, seed: seed == null ? "" : String(seed) };
    app.frame.set(entry.frame);
  }
}
