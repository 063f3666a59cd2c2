// Generating: a call is made as the form and the canvas say, and its results are staged as candidates.

import { makeCall, planCall } from "./generate.js";

const byId = (id) => document.getElementById(id);

export class Generating {
  controller = null; // of the call that is being made
  #isPlanning = false;

  constructor(app) {
    this.app = app;
  }

  /** Stop; what is finished is kept. */
  stop() {
    this.controller?.abort();
  }

  /** Generate candidates as the form says; while that goes on, stop. */
  async start() {
    if (this.controller) {
      this.stop();
      return;
    }
    const { app } = this;
    const started = document.activeElement;
    const { image, strokes, model, files } = app;
    const [mode, frame] = [app.form.mode, app.frame.box];
    if (this.#isPlanning) return; // a second press of the key
    this.#isPlanning = true;
    let call;
    try {
      call = await planCall({ mode, fields: app.form.request(mode), image, strokes, frame, model, files });
    } catch (error) {
      app.fail(error);
      return;
    } finally {
      this.#isPlanning = false;
    }
    const entry = { mode, values: app.form.values, frame, box: call.box, image, strokes, chosen: 0, after: null };
    await this.#run(call, entry);
    // Arrow keys, Enter and Escape are for the candidates now, unless the user is somewhere else.
    if (app.staging.current && [started, document.body].includes(document.activeElement)) byId("staging").focus();
  }

  async #run(call, entry) {
    const { app } = this;
    const count = Number(entry.values.n);
    const candidates = Array.from({ length: count }, () => ({ key: null }));
    this.controller = new AbortController();
    app.page.dismiss();
    app.staging.begin({ kind: "generated", box: call.box, candidates, entry: null, isRunning: true });
    app.page.progress(0, "Waiting for the model");
    app.showAll();
    const notes = new Set();
    let failure = null;
    try {
      await makeCall(app.api, app.files, call, this.controller.signal, {
        progress: (fraction, text) => app.page.progress(fraction, text),
        preview: (index, blob) => app.staging.preview(index, blob),
        done: async (index, blob, event) => {
          event.notes.forEach((note) => notes.add(note));
          const { seed, score, width, height } = event;
          const key = await app.files.add(blob, { id: event.file_id, width, height });
          app.staging.finish(index, { key, seed, score, width, height });
          this.#remember(entry);
        },
      });
    } catch (error) {
      failure = error;
    }
    this.controller = null;
    app.page.progress(null);
    this.#settle(failure, notes);
  }

  /** Keep finished candidates in the history at once, so that nothing that happens later loses them. */
  #remember(entry) {
    const { app } = this;
    const staged = app.staging.current;
    const candidates = staged.candidates.filter(({ key }) => key).map(({ blob, bitmap, ...kept }) => kept);
    if (staged.entry === null) staged.entry = app.history.add({ ...entry, candidates });
    else app.history.update(staged.entry, { candidates });
    app.save();
  }

  #settle(failure, notes) {
    const { app } = this;
    const staged = app.staging.current;
    const candidates = staged.candidates.filter(({ key }) => key);
    if (candidates.length) {
      const chosen = Math.max(0, candidates.indexOf(app.staging.chosen));
      app.staging.begin({ ...staged, candidates, chosen, isRunning: false });
    } else app.staging.end();
    app.showAll();
    app.save();
    if (failure?.name === "AbortError") app.page.say("Stopped.");
    else if (failure) app.fail(failure);
    if (candidates.length && !failure) {
      const [ready, browse] = candidates.length > 1 ? [`${candidates.length} images are`, "← → browse, "] : ["The image is", ""];
      app.page.say(`${ready} ready: ${browse}Enter accepts, Escape discards.`);
    }
    if (notes.size) app.page.note([...notes].join(" "));
  }
}
