// The tools: what the pointer and the arrow keys do on the canvas.

const PAINTING = new Set(["brush", "eraser", "lasso"]);
const PAN_STEP = 48; // CSS pixels

export class Tools {
  current = "frame";
  brushSize = 40; // pixels of the canvas
  stroke = null; // the one that is being painted
  onStroke = () => {};
  onChange = () => {};
  onHint = () => {};
  #pointer = null; // where a painting tool is, in pixels of the canvas
  #fingers = new Map();
  #pans = false;
  #space = false;
  #cursor = null; // of the keyboard

  constructor(stage, view) {
    this.view = view;
    this.stage = stage;
    const { element } = view;
    element.addEventListener("pointerdown", (event) => this.#down(event));
    element.addEventListener("pointermove", (event) => this.#move(event));
    element.addEventListener("pointerup", (event) => this.#up(event));
    element.addEventListener("pointercancel", (event) => this.#up(event));
    element.addEventListener("pointerleave", () => this.#leave());
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("blur", () => this.#finish());
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    window.addEventListener("blur", () => this.holdSpace(false));
  }

  choose(tool) {
    this.#finish();
    this.current = tool;
    this.stage.dataset.tool = tool;
    this.#pointer = this.#cursor = null;
    this.onChange();
    this.view.redraw();
  }

  setBrushSize(size) {
    this.brushSize = Math.round(Math.min(256, Math.max(2, size)));
    this.onChange();
    this.view.redraw();
  }

  /** While the space bar is held, every tool is the hand. */
  holdSpace(isHeld) {
    this.#space = isHeld;
    this.stage.classList.toggle("pans", isHeld);
  }

  /** The ring at the pointer, for the view. */
  get pointer() {
    if (!PAINTING.has(this.current) || this.#pointer === null || this.#space) return null;
    const size = this.current === "lasso" ? 0 : this.brushSize;
    const points = this.current === "lasso" ? this.stroke?.points : null;
    return { ...this.#pointer, size, points, isDown: this.stroke !== null };
  }

  /** Whether a painting tool is moved by the keyboard. */
  get hasCursor() {
    return this.#cursor !== null;
  }

  #at(event) {
    const bounds = this.view.element.getBoundingClientRect();
    return this.view.toCanvas(event.clientX - bounds.left, event.clientY - bounds.top);
  }

  #down(event) {
    this.view.element.setPointerCapture(event.pointerId);
    this.#fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.#fingers.size === 2) {
      this.stroke = null; // two fingers zoom; what the first one began was meant for that
      this.view.redraw();
      return;
    }
    this.#pans = this.#space || event.button === 1 || !PAINTING.has(this.current);
    if (this.#pans || event.button !== 0) return;
    this.#cursor = null;
    this.#pointer = this.#at(event);
    this.#begin(event.altKey);
  }

  #move(event) {
    const before = this.#fingers.get(event.pointerId);
    if (before && this.#fingers.size === 2) this.#pinch(event);
    else if (before && this.#pans) this.view.pan(event.clientX - before.x, event.clientY - before.y);
    if (before) this.#fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (!PAINTING.has(this.current) || this.#pans || this.#fingers.size > 1) return;
    if (this.#cursor !== null) this.#finish();
    this.#cursor = null;
    const events = this.stroke && event.getCoalescedEvents ? event.getCoalescedEvents() : [event];
    for (const each of events.length ? events : [event]) {
      this.#pointer = this.#at(each);
      this.#extend();
    }
    this.view.redraw();
  }

  #up(event) {
    this.#fingers.delete(event.pointerId);
    this.#pans = false;
    if (this.#cursor === null) this.#finish();
  }

  #leave() {
    if (this.#cursor !== null || this.stroke) return;
    this.#pointer = null;
    this.view.redraw();
  }

  #pinch(event) {
    const [other] = [...this.#fingers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    const before = this.#fingers.get(event.pointerId);
    const bounds = this.view.element.getBoundingClientRect();
    const distance = (place) => Math.hypot(place.x - other.x, place.y - other.y);
    const now = { x: event.clientX, y: event.clientY };
    this.view.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
    const [x, y] = [(now.x + other.x) / 2 - bounds.left, (now.y + other.y) / 2 - bounds.top];
    this.view.zoom(distance(now) / Math.max(1, distance(before)), x, y);
  }

  #wheel(event) {
    if (event.target.closest("#staging, .palette")) return;
    event.preventDefault();
    const bounds = this.view.element.getBoundingClientRect();
    if (event.shiftKey) {
      this.view.pan(-(event.deltaX || event.deltaY), 0);
      return;
    }
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 20 : 1;
    const speed = event.ctrlKey ? 0.01 : 0.0015; // a pinch on a touchpad comes as ctrl and small steps
    const factor = Math.exp(-event.deltaY * lines * speed);
    this.view.zoom(factor, event.clientX - bounds.left, event.clientY - bounds.top);
  }

  #begin(erases) {
    const { x, y } = this.#pointer;
    const kind = this.current === "lasso" ? "lasso" : "line";
    const erase = this.current === "eraser" || erases;
    this.stroke = { kind, erase, size: this.brushSize, points: [round(x), round(y)] };
    this.view.redraw();
  }

  #extend() {
    if (this.stroke === null) return;
    const { points } = this.stroke;
    const [x, y] = [round(this.#pointer.x), round(this.#pointer.y)];
    if (Math.hypot(x - points.at(-2), y - points.at(-1)) * this.view.scale < 1.5) return;
    this.stroke.points = [...points, x, y];
  }

  #finish() {
    const { stroke } = this;
    if (stroke === null) return;
    this.stroke = null;
    if (stroke.kind !== "lasso" || stroke.points.length >= 6) this.onStroke(stroke);
    this.view.redraw();
  }

  /** The keyboard: arrows move the view, or the pointer of a painting tool; the space bar begins and ends a stroke. */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 4 : 1;
    const change = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const paints = PAINTING.has(this.current);
    if (event.key === " " && paints) {
      if (this.#cursor === null) this.#placeCursor();
      if (this.stroke) this.#finish();
      else this.#begin(false);
      this.onHint(this.stroke ? "Stroke begun; arrow keys extend it, the space bar ends it." : "Stroke ended.");
    } else if (change && !event.defaultPrevented) {
      if (!paints) this.view.pan(-change[0] * step * PAN_STEP, -change[1] * step * PAN_STEP);
      else this.#moveCursor(change[0] * step * 8, change[1] * step * 8);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #placeCursor() {
    const { width, height } = this.view.size;
    this.#cursor = this.#pointer = this.view.toCanvas(width / 2, height / 2);
  }

  #moveCursor(across, down) {
    if (this.#cursor === null) this.#placeCursor();
    this.#cursor = this.#pointer = { x: this.#cursor.x + across, y: this.#cursor.y + down };
    this.#extend();
    this.onHint(`Pointer at ${Math.round(this.#cursor.x)}, ${Math.round(this.#cursor.y)}.`);
    this.view.redraw();
  }
}

const round = (value) => Math.round(value * 4) / 4; // a quarter of a pixel is fine enough, and short in storage
