// The frame: what the model sees and returns. It is an element above the canvas, so that it has a focus and a name.

import { boxText } from "./boxes.js";

const GRID = 8;
const MIN_SIDE = 16;
const MAX_SIDE = 8192; // of the server
const SNAP = 8; // CSS pixels within which the frame's edges stick to the image's
const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];

export class Frame {
  box = { left: 0, top: 0, width: 256, height: 256 };
  onChange = () => {}; // (is final): false while it is dragged
  isLocked = () => false;
  edges = () => []; // boxes to whose edges it sticks
  #drag = null;

  constructor(element, view) {
    this.element = element;
    this.view = view;
    for (const side of HANDLES) {
      const handle = document.createElement("span");
      handle.className = `handle ${side}`;
      handle.dataset.side = side;
      element.append(handle);
    }
    element.addEventListener("pointerdown", (event) => this.#start(event));
    element.addEventListener("pointermove", (event) => this.#move(event));
    element.addEventListener("pointerup", (event) => this.#end(event));
    element.addEventListener("pointercancel", (event) => this.#end(event));
    element.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Put it somewhere, in whole pixels and within its limits. */
  set(box, isFinal = true) {
    const side = (value) => Math.min(MAX_SIDE, Math.max(MIN_SIDE, Math.round(value)));
    this.box = {
      left: Math.round(box.left),
      top: Math.round(box.top),
      width: side(box.width),
      height: side(box.height),
    };
    this.place();
    this.onChange(isFinal);
  }

  /** Put the element where the frame is in the view. */
  place() {
    const { left, top, width, height } = this.box;
    const at = this.view.toScreen(left, top);
    const { style } = this.element;
    style.transform = `translate(${at.x}px, ${at.y}px)`;
    style.width = `${width * this.view.scale}px`;
    style.height = `${height * this.view.scale}px`;
    this.element.querySelector(".size").textContent = `${width} × ${height}`;
    this.element.setAttribute("aria-label", `Frame, ${boxText(this.box)}`);
  }

  #start(event) {
    if (event.button !== 0 || !event.isPrimary || this.isLocked()) return;
    const side = event.target.dataset.side ?? "";
    this.#drag = { x: event.clientX, y: event.clientY, box: this.box, side };
    this.element.setPointerCapture(event.pointerId);
    event.stopPropagation();
  }

  #move(event) {
    if (this.#drag === null) return;
    const { box, side, x, y } = this.#drag;
    const [across, down] = [(event.clientX - x) / this.view.scale, (event.clientY - y) / this.view.scale];
    this.set(this.#dragged(box, side, across, down, !event.altKey), false);
  }

  #end() {
    if (this.#drag === null) return;
    const moved = this.#drag.box !== this.box;
    this.#drag = null;
    if (moved) this.onChange(true);
  }

  #dragged(box, side, across, down, snaps) {
    let { left, top } = box;
    let [end, bottom] = [left + box.width, top + box.height];
    const near = (value, axis) => (snaps ? this.#snap(value, axis) : value);
    if (side === "") {
      const to = { left: near(left + across, "x"), top: near(top + down, "y") };
      // The far edge sticks to the image's if the near one does not.
      const far = { x: near(left + across + box.width, "x"), y: near(top + down + box.height, "y") };
      if (snaps && this.#isEdge(far.x, "x") && !this.#isEdge(to.left, "x")) to.left = far.x - box.width;
      if (snaps && this.#isEdge(far.y, "y") && !this.#isEdge(to.top, "y")) to.top = far.y - box.height;
      return { ...box, ...to };
    }
    if (side.includes("w")) left = Math.min(near(left + across, "x"), end - MIN_SIDE);
    if (side.includes("e")) end = Math.max(near(end + across, "x"), left + MIN_SIDE);
    if (side.includes("n")) top = Math.min(near(top + down, "y"), bottom - MIN_SIDE);
    if (side.includes("s")) bottom = Math.max(near(bottom + down, "y"), top + MIN_SIDE);
    return { left, top, width: end - left, height: bottom - top };
  }

  #lines(axis) {
    return this.edges().flatMap((box) =>
      axis === "x" ? [box.left, box.left + box.width] : [box.top, box.top + box.height],
    );
  }

  #isEdge(value, axis) {
    return this.#lines(axis).includes(value);
  }

  #snap(value, axis) {
    const close = this.#lines(axis).find((edge) => Math.abs(edge - value) * this.view.scale <= SNAP);
    return close ?? Math.round(value / GRID) * GRID;
  }

  #key(event) {
    const step = event.shiftKey ? 8 * GRID : GRID;
    const change = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (!change || event.ctrlKey || event.metaKey || this.isLocked()) return;
    event.preventDefault();
    event.stopPropagation();
    const { left, top, width, height } = this.box;
    if (event.altKey) this.set({ left, top, width: width + change[0], height: height + change[1] });
    else this.set({ left: left + change[0], top: top + change[1], width, height });
  }
}
