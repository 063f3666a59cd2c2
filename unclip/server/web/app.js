// The canvas: the state that all parts of the page share, what is shown of it, and how it changes.

import { Api } from "./api.js";
import { boxText, contains, intersection, union } from "./boxes.js";
import { Choosing } from "./choosing.js";
import { connectControls } from "./controls.js";
import { Files } from "./files.js";
import { FieldError, Form } from "./form.js";
import { Frame } from "./frame.js";
import { possibleModes, whyNot } from "./generate.js";
import { Generating } from "./generating.js";
import { History } from "./history.js";
import { Page } from "./page.js";
import { Session } from "./session.js";
import { Staging } from "./staging.js";
import { Storage } from "./store.js";
import { Timeline } from "./timeline.js";
import { Tools } from "./tools.js";
import { View } from "./view.js";

const EMPTY = { image: null, strokes: [], frame: null, label: "" };
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
  choosing = new Choosing(this);
  session = new Session(this);

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
    const session = await this.session.open();
    await this.#loadModels(session?.values.model);
    if (session) await this.session.restore(session);
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
    return this.model ? this.model.default_size.split("x").map(Number) : [256, 256];
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
    this.form.allow(modes, whyNot(image, this.frame.box, this.model));
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

  // ---- the whole page

  save() {
    this.session.save();
  }

  fail(error) {
    this.page.alert(error.message);
    const field = error instanceof FieldError ? error.field : { theta: "strength" }[error.param] ?? error.param;
    if (field) this.form.point(field);
    if (!(error instanceof FieldError) && error.status === undefined) console.error(error);
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
