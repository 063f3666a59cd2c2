// The canvas: what all parts of the page share, and what its buttons and keys do.

import { Api } from "./api.js";
import { boxText, contains, intersection, union } from "./boxes.js";
import { connectControls } from "./controls.js";
import { Files } from "./files.js";
import { FieldError, Form } from "./form.js";
import { Frame } from "./frame.js";
import { possibleModes } from "./generate.js";
import { Generating } from "./generating.js";
import { placeOnTop } from "./images.js";
import { History } from "./history.js";
import { Page } from "./page.js";
import { Staging } from "./staging.js";
import { claimSession, Storage } from "./store.js";
import { Timeline } from "./timeline.js";
import { Tools } from "./tools.js";
import { View } from "./view.js";

const EMPTY = { image: null, strokes: [], frame: null, label: "" };
const SESSION = "current";
const byId = (id) => document.getElementById(id);

class App {
  page = new Page();
  api = new Api((message) => this.page.askKey(message));
  storage = new Storage();
  files = new Files(this.api, this.storage);
  form = new Form(byId("form"));
  staging = new Staging(this.files);
  history = new History(this.files);
  view = new View(byId("view"), () => this.scene());
  frame = new Frame(byId("frame"), this.view);
  tools = new Tools(byId("stage"), this.view);
  timeline = new Timeline([EMPTY]);
  models = [];
  layers = { image: null, candidate: null };
  generating = new Generating(this);
  mayStore = false;
  #saving = 0;

  get image() {
    return this.timeline.current.image;
  }

  get running() {
    return this.generating.controller !== null;
  }

  get strokes() {
    return this.timeline.current.strokes;
  }

  get model() {
    return this.models.find(({ id }) => id === this.form.fields.model.value) ?? this.models[0];
  }

  async start() {
    connectControls(this);
    this.storage.onFull = () => this.page.alert("The browser has no room to keep this: download it before you leave.");
    const isPersistent = await this.storage.open();
    this.mayStore = await claimSession();
    if (!this.mayStore) this.page.alert("The canvas is open in another tab. What you do here is gone when you close it.");
    else if (!isPersistent) this.page.alert("The browser keeps nothing here: download what you want to keep.");
    const session = await this.storage.get("session", SESSION);
    await this.#loadModels(session?.values.model);
    if (session) await this.#restore(session);
    else {
      const [width, height] = this.modelSize();
      this.frame.set({ left: 0, top: 0, width, height });
    }
    this.showAll();
    this.fit();
    this.page.say("");
    document.body.dataset.ready = "";
  }

  async #loadModels(chosen) {
    try {
      this.models = (await this.api.json("/v1/models")).data;
      this.form.setModels(this.models, chosen);
    } catch (error) {
      this.page.alert(error.message);
    }
  }

  modelSize() {
    return this.model ? this.model.sizes.at(-1).split("x").map(Number) : [256, 256];
  }

  // ---- the session

  async #restore(session) {
    this.form.values = session.values;
    this.timeline = new Timeline(session.states, session.index);
    this.history.entries = session.entries;
    this.history.show();
    this.frame.set(session.frame);
    if (session.staged) this.staging.begin(session.staged);
    if (this.mayStore) await this.files.keepOnly(this.#keys());
  }

  #keys() {
    const images = this.timeline.states.map(({ image }) => image?.key).filter(Boolean);
    const staged = this.staging.current?.candidates.map(({ key }) => key) ?? [];
    return new Set([...images, ...staged, ...this.history.keys()]);
  }

  /** Keep the session a moment later, so that many small changes are written once. */
  save(delay = 120) {
    clearTimeout(this.#saving);
    this.#saving = setTimeout(() => this.write(), delay);
  }

  async write() {
    if (!this.mayStore) return;
    const staged = this.staging.current;
    const finished = staged?.candidates.filter(({ key }) => key) ?? [];
    const chosen = Math.max(0, finished.indexOf(this.staging.chosen));
    await this.storage.put("session", SESSION, {
      values: this.form.values,
      states: this.timeline.states,
      index: this.timeline.index,
      entries: this.history.entries,
      frame: this.frame.box,
      staged: finished.length ? { ...staged, candidates: finished, chosen, isRunning: false } : null,
    });
  }

  // ---- what is shown

  scene() {
    const { image, candidate } = this.layers;
    const strokes = this.tools.stroke ? [...this.strokes, this.tools.stroke] : this.strokes;
    const shown = this.staging.current ? [] : strokes; // a candidate is judged without the mask over it
    return { layers: [image, candidate].filter(Boolean), strokes: shown, pointer: this.tools.pointer };
  }

  /** Bring everything on the page up to date with the state. */
  showAll() {
    const { image, timeline } = this;
    const modes = possibleModes(image, this.frame.box, this.model);
    this.form.allow(modes);
    this.form.setFrame(this.frame.box);
    this.form.showExamples(image === null && this.history.entries.length === 0);
    this.page.enable({
      undo: timeline.canUndo && !this.running,
      redo: timeline.canRedo && !this.running,
      download: image !== null,
      new: image !== null || this.strokes.length > 0,
      "mask-all": image !== null,
      "mask-invert": image !== null,
      "mask-clear": this.strokes.length > 0,
    });
    byId("frame").classList.toggle("locked", this.frame.isLocked());
    byId("frame").classList.toggle("runs", this.running);
    byId("frame").querySelector(".empty").hidden = !(image === null && this.staging.current === null);
    this.loadLayers();
  }

  async loadLayers() {
    const { image } = this;
    const bitmap = image && (await this.files.bitmap(image.key).catch((error) => this.page.alert(error.message)));
    const candidate = await this.staging.layer().catch(() => null);
    if (image !== this.image) return; // changed in the meantime, and shown by a later call
    this.layers = { image: bitmap ? { bitmap, box: image } : null, candidate };
    this.view.redraw();
  }

  fit() {
    const { image } = this;
    this.view.fit(image ? union(image, this.frame.box) : this.frame.box);
  }

  // ---- states

  change(changes) {
    this.timeline.push({ frame: this.frame.box, ...changes });
    this.showAll();
    this.save();
  }

  travel(direction) {
    if (this.running || !(direction === "undo" ? this.timeline.canUndo : this.timeline.canRedo)) return;
    if (this.staging.current) this.staging.end();
    const before = this.timeline.current;
    const label = this.timeline[direction]();
    // The frame comes back with the image, to where it was when that was changed.
    const { frame } = direction === "undo" ? before : this.timeline.current;
    if (before.image !== this.image && frame) this.frame.set(frame);
    this.showAll();
    this.save();
    this.page.say(`${direction === "undo" ? "Undone" : "Done again"}: ${label}.`);
  }

  addStroke(stroke, label = "mask") {
    if (!this.image) {
      this.page.say("There is no image yet to paint a mask on.");
      return;
    }
    if (this.staging.current) return;
    this.change({ strokes: [...this.strokes, stroke], label });
    if (!stroke.erase) this.form.mode = "fill";
  }

  clearMask() {
    if (!this.strokes.length || this.staging.current) return;
    this.change({ strokes: [], label: "clear the mask" });
    this.page.say("Mask cleared.");
  }

  coverFrame(kind) {
    this.addStroke({ kind, box: this.frame.box }, kind === "box" ? "mask the frame" : "invert the mask");
    if (this.image) this.page.say(kind === "box" ? "The whole frame is masked." : "Mask inverted.");
  }

  /** After the frame has moved: past the edge there is something to fill. */
  frameMoved(isFinal) {
    const { image } = this;
    const { current } = this.staging;
    if (current?.kind === "image") {
      current.box = { ...current.box, left: this.frame.box.left, top: this.frame.box.top };
      this.loadLayers();
    }
    this.form.setFrame(this.frame.box);
    if (!isFinal) return;
    const isOver = image && intersection(image, this.frame.box);
    if (isOver && !contains(image, this.frame.box)) this.form.mode = "fill";
    this.showAll();
    this.save();
    this.page.say(`Frame ${boxText(this.frame.box)}.`);
  }

  // ---- candidates

  fail(error) {
    this.page.alert(error.message);
    const field = error instanceof FieldError ? error.field : { theta: "strength" }[error.param] ?? error.param;
    if (field) this.form.point(field);
    if (!(error instanceof FieldError) && error.status === undefined) console.error(error);
  }

  async accept() {
    const staged = this.staging.current;
    const { chosen } = this.staging;
    if (!chosen?.key || this.isAccepting) return;
    this.generating.stop();
    this.isAccepting = true;
    try {
      const image = await placeOnTop(this, { key: chosen.key, ...staged.box }, chosen, staged.kind === "generated");
      this.staging.end();
      this.change({ image, strokes: [], label: staged.kind === "image" ? "open an image" : "accept a candidate" });
      const index = staged.candidates.indexOf(chosen);
      if (staged.entry) this.history.update(staged.entry, { chosen: index, after: image });
      this.page.say("Accepted.");
      byId("frame").focus({ preventScroll: true });
    } catch (error) {
      this.fail(error);
    } finally {
      this.isAccepting = false;
    }
  }

  discard() {
    if (this.running) {
      this.generating.stop();
      return;
    }
    this.staging.end();
    this.showAll();
    this.save();
    this.page.say("Discarded. The candidates stay in the history.");
    byId("frame").focus({ preventScroll: true });
  }

  browse(change) {
    this.staging.step(change);
    this.page.say(this.staging.describe());
  }

  // ---- history

  restore(entry) {
    if (this.running) return;
    this.staging.end();
    this.#use(entry);
    if (entry.after === null) {
      this.stage(entry);
      return;
    }
    this.change({ image: entry.after, strokes: [], label: "go back in the history" });
    this.fit();
    this.page.say("Back at this image, with its prompt and settings.");
  }

  /** Show the candidates of an entry again, on the image that they were made for. */
  stage(entry) {
    if (this.running) return;
    this.#use(entry);
    const { image, strokes, box, candidates, chosen, id } = entry;
    if (this.image !== image || this.strokes !== strokes) this.change({ image, strokes, label: "go back in the history" });
    const kind = entry.mode === "image" ? "image" : "generated";
    this.staging.begin({ kind, box, candidates: candidates.map((each) => ({ ...each })), chosen, entry: id });
    this.showAll();
    this.fit();
    this.save();
    byId("staging").focus();
  }

  #use(entry) {
    const seed = entry.candidates[entry.chosen]?.seed;
    if (entry.mode !== "image") this.form.values = { ...entry.values, seed: seed == null ? "" : String(seed) };
    this.frame.set(entry.frame);
  }

  clear() {
    if (this.running) return;
    this.staging.end();
    const [width, height] = this.modelSize();
    this.frame.set({ left: 0, top: 0, width, height });
    this.change({ image: null, strokes: [], label: "new canvas" });
    this.fit();
    this.page.say("New canvas. Undo brings the old one back.");
  }
}

const app = new App();
app.start().catch((error) => {
  console.error(error);
  app.page.alert(`The canvas could not start: ${error.message}`);
});
