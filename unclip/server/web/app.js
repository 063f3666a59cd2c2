// The canvas: what all parts of the page share, and what its buttons and keys do.

import { Api } from "./api.js";
import { boxText, contains, intersection, union } from "./boxes.js";
import { Files } from "./files.js";
import { FieldError, Form } from "./form.js";
import { Frame } from "./frame.js";
import { makeCall, planCall, possibleModes } from "./generate.js";
import { History } from "./history.js";
import { listenForKeys, listShortcuts } from "./keys.js";
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
  running = null; // the AbortController of the call that is being made
  mayStore = false;
  #saving = 0;

  get image() {
    return this.timeline.current.image;
  }

  get strokes() {
    return this.timeline.current.strokes;
  }

  get model() {
    return this.models.find(({ id }) => id === this.form.fields.model.value) ?? this.models[0];
  }

  async start() {
    this.#listen();
    this.storage.onFull = () => this.page.alert("The browser has no room to keep this: download it before you leave.");
    const isPersistent = await this.storage.open();
    this.mayStore = await claimSession();
    if (!this.mayStore) this.page.alert("The canvas is open in another tab. What you do here is gone when you close it.");
    else if (!isPersistent) this.page.alert("The browser keeps nothing here: download what you want to keep.");
    const session = await this.storage.get("session", SESSION);
    await this.#loadModels(session?.values.model);
    if (session) await this.#restore(session);
    else {
      const [width, height] = this.#modelSize();
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

  #modelSize() {
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
    this.#saving = setTimeout(() => this.#write(), delay);
  }

  async #write() {
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
    byId("frame").classList.toggle("runs", this.running !== null);
    byId("frame").querySelector(".empty").hidden = !(image === null && this.staging.current === null);
    this.#loadLayers();
  }

  async #loadLayers() {
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
      this.#loadLayers();
    }
    this.form.setFrame(this.frame.box);
    if (!isFinal) return;
    const isOver = image && intersection(image, this.frame.box);
    if (isOver && !contains(image, this.frame.box)) this.form.mode = "fill";
    this.showAll();
    this.save();
    this.page.say(`Frame ${boxText(this.frame.box)}.`);
  }

  // ---- generating

  async generate() {
    if (this.running) {
      this.running.abort();
      return;
    }
    const started = document.activeElement;
    const { image, strokes, model, files } = this;
    const [mode, frame] = [this.form.mode, this.frame.box];
    let call;
    try {
      call = await planCall({ mode, fields: this.form.request(mode), image, strokes, frame, model, files });
    } catch (error) {
      this.#fail(error);
      return;
    }
    const entry = { mode, values: this.form.values, frame, box: call.box, image, strokes, chosen: 0, after: null };
    await this.#run(call, entry);
    // Arrow keys, Enter and Escape are for the candidates now, unless the user is somewhere else.
    if (this.staging.current && [started, document.body].includes(document.activeElement)) byId("staging").focus();
  }

  async #run(call, entry) {
    const count = Number(entry.values.n);
    const candidates = Array.from({ length: count }, () => ({ key: null }));
    this.running = new AbortController();
    this.page.dismiss();
    this.staging.begin({ kind: "generated", box: call.box, candidates, entry: null, isRunning: true });
    this.page.progress(0, "Waiting for the model");
    this.showAll();
    const notes = new Set();
    let failure = null;
    try {
      await makeCall(this.api, this.files, call, this.running.signal, {
        progress: (fraction, text) => this.page.progress(fraction, text),
        preview: (index, blob) => this.staging.preview(index, blob),
        done: async (index, blob, event) => {
          event.notes.forEach((note) => notes.add(note));
          const { seed, score, width, height } = event;
          const key = await this.files.add(blob, { id: event.file_id, width, height });
          this.staging.finish(index, { key, seed, score, width, height });
          this.#remember(entry);
        },
      });
    } catch (error) {
      failure = error;
    }
    this.running = null;
    this.page.progress(null);
    this.#settle(failure, notes);
  }

  /** Keep finished candidates in the history at once, so that nothing that happens later loses them. */
  #remember(entry) {
    const staged = this.staging.current;
    const candidates = staged.candidates.filter(({ key }) => key).map(({ blob, bitmap, ...kept }) => kept);
    if (staged.entry === null) staged.entry = this.history.add({ ...entry, candidates });
    else this.history.update(staged.entry, { candidates });
    this.save();
  }

  #settle(failure, notes) {
    const staged = this.staging.current;
    const candidates = staged.candidates.filter(({ key }) => key);
    if (candidates.length) {
      const chosen = Math.max(0, candidates.indexOf(this.staging.chosen));
      this.staging.begin({ ...staged, candidates, chosen, isRunning: false });
    } else this.staging.end();
    this.showAll();
    this.save();
    if (failure?.name === "AbortError") this.page.say("Stopped.");
    else if (failure) this.#fail(failure);
    if (candidates.length && !failure) {
      const [ready, browse] = candidates.length > 1 ? [`${candidates.length} images are`, "← → browse, "] : ["The image is", ""];
      this.page.say(`${ready} ready: ${browse}Enter accepts, Escape discards.`);
    }
    if (notes.size) this.page.note([...notes].join(" "));
  }

  #fail(error) {
    this.page.alert(error.message);
    const field = error instanceof FieldError ? error.field : { theta: "strength" }[error.param] ?? error.param;
    if (field) this.form.point(field);
    if (!(error instanceof FieldError) && error.status === undefined) console.error(error);
  }

  // ---- candidates

  async accept() {
    const staged = this.staging.current;
    const { chosen } = this.staging;
    if (!chosen?.key || this.isAccepting) return;
    if (this.running) this.running.abort();
    this.isAccepting = true;
    try {
      const image = await this.#placed({ key: chosen.key, ...staged.box }, chosen, staged.kind === "generated");
      this.staging.end();
      this.change({ image, strokes: [], label: staged.kind === "image" ? "open an image" : "accept a candidate" });
      const index = staged.candidates.indexOf(chosen);
      if (staged.entry) this.history.update(staged.entry, { chosen: index, after: image });
      this.page.say("Accepted.");
      byId("frame").focus({ preventScroll: true });
    } catch (error) {
      this.#fail(error);
    } finally {
      this.isAccepting = false;
    }
  }

  /** The image of the canvas with another one on top, in place of what is below or over it. The server puts them together; this page encodes no pixels. */
  async #placed(top, { width, height }, replaces) {
    const below = this.image;
    const isWhole = top.width === width && top.height === height;
    if (isWhole && (below === null || contains(top, below))) return top;
    const [first, all] = below === null ? [top, top] : [below, union(below, top)];
    const keys = below === null ? [top.key] : [below.key, top.key];
    const found = await this.files.withIds(keys, async (ids) => {
      const place = { left: top.left - first.left, top: top.top - first.top, width: top.width, height: top.height, replaces };
      const layers = [...(below === null ? [] : [{ file_id: ids[0] }]), { file_id: ids.at(-1), ...place }];
      return this.api.json("/v1/canvas", { layers });
    });
    const key = await this.files.add(await this.api.blob(found.path), found);
    return { key, left: all.left, top: all.top, width: found.width, height: found.height };
  }

  discard() {
    if (this.running) {
      this.running.abort();
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

  // ---- images from outside

  async open(blob) {
    if (this.running || !blob) return;
    this.page.dismiss();
    this.page.say("Opening the image.");
    try {
      const stored = await this.api.upload(blob, "image");
      const { width, height } = stored;
      const key = await this.files.add(blob, stored);
      const name = blob.name ?? "image";
      const candidates = [{ key, width, height, seed: null, score: null }];
      const { image, strokes } = this;
      this.staging.end();
      const box = { left: this.frame.box.left, top: this.frame.box.top, width, height };
      this.#frameFor(box);
      const entry = { mode: "image", name, values: this.form.values, frame: this.frame.box, box, image, strokes, candidates };
      const id = this.history.add({ ...entry, chosen: 0, after: null });
      this.staging.begin({ kind: "image", box, candidates, entry: id, isRunning: false });
      if (image === null) await this.accept();
      else this.page.say("Move the frame to place the image. Enter accepts, Escape discards.");
      this.showAll();
      this.fit();
      this.save();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** A frame for an image that was opened: all of it, if the model sees enough of it at once. */
  #frameFor(box) {
    const [width, height] = this.#modelSize();
    const isSmall = box.width <= 3 * width && box.height <= 3 * height;
    this.frame.set(isSmall ? box : { ...box, width: Math.min(box.width, width), height: Math.min(box.height, height) });
  }

  async download() {
    if (!this.image) return;
    const { blob } = await this.files.get(this.image.key);
    const url = await this.files.url(this.image.key);
    const format = { "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif" }[blob.type] ?? "png";
    const link = Object.assign(document.createElement("a"), { href: url, download: `unclip-canvas.${format}` });
    link.click();
    this.page.say("Downloaded.");
  }

  clear() {
    if (this.running) return;
    this.staging.end();
    const [width, height] = this.#modelSize();
    this.frame.set({ left: 0, top: 0, width, height });
    this.change({ image: null, strokes: [], label: "new canvas" });
    this.fit();
    this.page.say("New canvas. Undo brings the old one back.");
  }

  // ---- buttons and keys

  #listen() {
    const { form, frame, history, staging, tools, view } = this;
    form.onChange = () => (this.showAll(), this.save());
    form.onFrame = (box) => frame.set(box);
    form.element.addEventListener("submit", (event) => (event.preventDefault(), this.generate()));
    form.fields.prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.ctrlKey) return;
      event.preventDefault();
      if (!this.running) this.generate();
    });
    frame.onChange = (isFinal) => this.frameMoved(isFinal);
    frame.edges = () => (this.image ? [this.image] : []);
    frame.isLocked = () => this.running !== null || (staging.current !== null && staging.current.kind !== "image");
    history.onRestore = (entry) => this.restore(entry);
    history.onStage = (entry) => (staging.end(), this.stage(entry));
    staging.onChange = () => this.#loadLayers();
    tools.onStroke = (stroke) => this.addStroke(stroke, stroke.erase ? "erase the mask" : "paint the mask");
    tools.onChange = () => this.page.showTool(tools);
    tools.onHint = (text) => this.page.say(text);
    view.onChange = () => (frame.place(), this.page.showZoom(view.scale));
    const zoom = 1.25;
    const actions = {
      generate: () => this.generate(),
      escape: () => (this.running ? this.running.abort() : document.activeElement.blur()),
      undo: () => this.travel("undo"),
      redo: () => this.travel("redo"),
      download: () => this.download(),
      open: () => byId("file").click(),
      new: () => this.clear(),
      previous: () => this.browse(-1),
      next: () => this.browse(1),
      accept: () => this.accept(),
      discard: () => this.discard(),
      compare: () => staging.current && staging.compare(),
      maskAll: () => this.coverFrame("box"),
      maskInvert: () => this.coverFrame("invert"),
      maskClear: () => this.clearMask(),
      smaller: () => tools.setBrushSize(tools.brushSize / 1.25),
      larger: () => tools.setBrushSize(tools.brushSize * 1.25),
      zoomIn: () => view.zoom(zoom),
      zoomOut: () => view.zoom(1 / zoom),
      fit: () => this.fit(),
      actualSize: () => view.zoom(1 / view.scale),
      prompt: () => form.fields.prompt.focus(),
      help: () => byId("help-dialog").showModal(),
      holdSpace: () => tools.holdSpace(true),
      releaseSpace: () => tools.holdSpace(false),
      ...Object.fromEntries(["frame", "brush", "eraser", "lasso", "hand"].map((name) => [name, () => tools.choose(name)])),
    };
    const buttons = {
      "mask-all": "maskAll", "mask-invert": "maskInvert", "mask-clear": "maskClear", "zoom-in": "zoomIn",
      "zoom-out": "zoomOut", "zoom-fit": "fit", "zoom-level": "actualSize",
    };
    const same = ["undo", "redo", "download", "open", "new", "previous", "next", "accept", "discard", "compare", "help"];
    for (const name of same) buttons[name] = name;
    for (const [id, action] of Object.entries(buttons)) byId(id).addEventListener("click", () => actions[action]());
    this.page.listen({
      tool: (name) => tools.choose(name),
      brushSize: (size) => tools.setBrushSize(size),
      open: (file) => this.open(file),
      theme: () => view.redraw(),
      leave: () => this.#write(),
    });
    listShortcuts(byId("shortcuts"), byId("single-keys"));
    listenForKeys(actions, () => ({
      isStaged: staging.current !== null,
      hasSeveral: staging.current?.candidates.length > 1,
      isPainting: tools.hasCursor,
    }));
    tools.choose("frame");
  }
}

const app = new App();
app.start().catch((error) => {
  console.error(error);
  app.page.alert(`The canvas could not start: ${error.message}`);
});
