// The view: which part of the endless canvas is on the screen, and how it is painted.

import { paintStrokes } from "./mask.js";

const MIN_SCALE = 1 / 32;
const MAX_SCALE = 32;
const SHARP = 3; // from this scale on, pixels are shown as squares

export class View {
  scale = 1;
  x = 0; // place on the screen of the canvas's origin, in CSS pixels
  y = 0;
  onChange = () => {};
  #queued = false;
  #scratch = new OffscreenCanvas(1, 1);

  /** scene: () => what to paint, see `#paint`. */
  constructor(element, scene) {
    this.element = element;
    this.scene = scene;
    this.context = element.getContext("2d");
    new ResizeObserver(() => this.redraw()).observe(element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  get size() {
    return { width: this.element.clientWidth, height: this.element.clientHeight };
  }

  /** A place on the canvas, from one in CSS pixels of the element. */
  toCanvas(x, y) {
    return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale };
  }

  toScreen(x, y) {
    return { x: x * this.scale + this.x, y: y * this.scale + this.y };
  }

  pan(x, y) {
    this.x += x;
    this.y += y;
    this.redraw();
  }

  /** Zoom about a place on the screen, by default the middle. */
  zoom(factor, x = this.size.width / 2, y = this.size.height / 2) {
    const scale = Math.min(MAX_SCALE, Math.max(MIN_SCALE, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.redraw();
  }

  /** Show a box as large as the screen allows, beside the tools that cover its edges. */
  fit(box, maxScale = 4) {
    const { width, height } = this.size;
    const isStacked = matchMedia("(max-width: 760px)").matches; // as in the style sheet
    const [side, top, bottom] = isStacked ? [20, 78, width > 680 ? 80 : 122] : [72, 64, width > 680 ? 140 : 190];
    const room = { width: width - 2 * side, height: Math.max(80, height - top - bottom) };
    const scale = Math.min(maxScale, room.width / box.width, room.height / box.height);
    this.scale = Math.min(MAX_SCALE, Math.max(MIN_SCALE, scale));
    this.x = width / 2 - (box.left + box.width / 2) * this.scale;
    this.y = top + room.height / 2 - (box.top + box.height / 2) * this.scale;
    this.redraw();
  }

  /** Paint again with the next frame of the screen. */
  redraw() {
    if (this.#queued) return;
    this.#queued = true;
    requestAnimationFrame(() => {
      this.#queued = false;
      this.#paint(this.scene());
      this.onChange();
    });
  }

  #resize() {
    const ratio = devicePixelRatio;
    const { width, height } = this.size;
    const [wide, high] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
    for (const canvas of [this.element, this.#scratch]) {
      if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
    }
  }

  #toCanvasSpace(context) {
    const ratio = devicePixelRatio;
    context.setTransform(this.scale * ratio, 0, 0, this.scale * ratio, this.x * ratio, this.y * ratio);
  }

  /** Paint {layers: [{bitmap, box}], strokes, pointer: {x, y, size} | null}. */
  #paint({ layers, strokes, pointer }) {
    this.#resize();
    const { context } = this;
    const isDark = matchesDark();
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, this.size.width, this.size.height);
    this.#paintGrid(isDark);
    this.#toCanvasSpace(context);
    context.imageSmoothingEnabled = this.scale < SHARP;
    context.imageSmoothingQuality = "high";
    for (const { bitmap, box } of layers) {
      context.drawImage(bitmap, box.left, box.top, box.width, box.height);
    }
    if (strokes.length) this.#paintMask(strokes);
    if (pointer) this.#paintPointer(pointer);
  }

  /** Dots that show where the canvas has no image, and how far it was moved. */
  #paintGrid(isDark) {
    const { context } = this;
    const step = 32 * this.scale * 2 ** Math.max(0, Math.ceil(Math.log2(24 / (32 * this.scale))));
    const { width, height } = this.size;
    context.fillStyle = isDark ? "#3c3c46" : "#c6c6c0";
    const start = (offset) => ((offset % step) + step) % step;
    for (let y = start(this.y); y < height; y += step) {
      for (let x = start(this.x); x < width; x += step) context.fillRect(x - 0.75, y - 0.75, 1.5, 1.5);
    }
  }

  /** The mask as a striped veil, which is seen on images of any colour. */
  #paintMask(strokes) {
    const scratch = this.#scratch.getContext("2d");
    scratch.setTransform(1, 0, 0, 1, 0, 0);
    scratch.clearRect(0, 0, this.#scratch.width, this.#scratch.height);
    this.#toCanvasSpace(scratch);
    paintStrokes(scratch, strokes);
    scratch.setTransform(1, 0, 0, 1, 0, 0);
    scratch.globalCompositeOperation = "source-in";
    scratch.fillStyle = stripes(scratch);
    scratch.fillRect(0, 0, this.#scratch.width, this.#scratch.height);
    scratch.globalCompositeOperation = "source-over";
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.globalAlpha = 0.62;
    this.context.drawImage(this.#scratch, 0, 0);
    this.context.globalAlpha = 1;
  }

  #paintPointer({ x, y, size, points, isDown }) {
    const { context } = this;
    this.#toCanvasSpace(context);
    for (const [width, colour] of [[3, "#0008"], [1.5, isDown ? "#ffb86b" : "#fff"]]) {
      context.lineWidth = width / this.scale;
      context.strokeStyle = colour;
      context.beginPath();
      if (points) for (let index = 0; index < points.length; index += 2) context.lineTo(points[index], points[index + 1]);
      context.stroke();
      context.beginPath();
      context.arc(x, y, Math.max(size / 2, 3 / this.scale), 0, 2 * Math.PI);
      context.stroke();
    }
  }
}

/** Whether the page is dark: as its switch says, or else the system. */
export function matchesDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

let pattern = null;

function stripes(context) {
  if (pattern === null) {
    const tile = new OffscreenCanvas(12, 12);
    const paint = tile.getContext("2d");
    paint.fillStyle = "#6d5dfc";
    paint.fillRect(0, 0, 12, 12);
    paint.strokeStyle = "#c9c3ff";
    paint.lineWidth = 2.5;
    paint.beginPath();
    for (const shift of [-12, 0, 12]) {
      paint.moveTo(shift - 3, 15);
      paint.lineTo(shift + 15, -3);
    }
    paint.stroke();
    pattern = context.createPattern(tile, "repeat");
  }
  return pattern;
}
