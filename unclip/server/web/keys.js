// Shortcuts. Those of a single key work outside of text fields, and can be switched off.

const SHORTCUTS = [
  ["Generate", "Enter in the prompt, or Ctrl+Enter"],
  ["Stop generating", "Escape"],
  ["Go to the prompt", "P"],
  ["Frame, brush, eraser, lasso, hand", "V, B, E, L, H"],
  ["Smaller or larger brush", "[ and ]"],
  ["Unpaint with the brush or the lasso", "Alt while you draw"],
  ["Move the view", "Space and drag, or arrow keys on the canvas"],
  ["Zoom, show everything, 100%", "+ and -, 0, 1; or the wheel"],
  ["Mask the frame, invert, clear", "M, I, Delete"],
  ["Move the frame; change its size", "Arrow keys on the frame; with Alt"],
  ["Browse candidates", "Left and right arrow"],
  ["Accept or discard candidates", "Enter, Escape"],
  ["Compare with the image before", "C"],
  ["Undo, redo", "Ctrl+Z, Ctrl+Shift+Z"],
  ["Download, open, paste an image", "Ctrl+S, Ctrl+O, Ctrl+V"],
  ["This help", "?"],
];
const SWITCH = "unclip-single-keys";

export function listShortcuts(list, checkbox) {
  for (const [what, keys] of SHORTCUTS) {
    list.append(
      Object.assign(document.createElement("dt"), { textContent: what }),
      Object.assign(document.createElement("dd"), { textContent: keys }),
    );
  }
  checkbox.checked = localStorage.getItem(SWITCH) !== "off";
  checkbox.addEventListener("change", () => localStorage.setItem(SWITCH, checkbox.checked ? "on" : "off"));
}

const isText = (element) =>
  element instanceof HTMLElement &&
  (element.matches("textarea, select") || (element.matches("input") && !["radio", "checkbox", "range"].includes(element.type)));
const isPressable = (element) => element instanceof HTMLElement && element.matches("button, summary, a, input, select");

/** Listen for shortcuts. actions: by name, see below. state: () => {isStaged, hasSeveral, isPainting}:
 * whether a candidate is on the canvas, whether several are, and whether a painting tool is moved by the keyboard. */
export function listenForKeys(actions, state) {
  window.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || event.isComposing) return;
    const action = find(event, state());
    if (action === null) return;
    event.preventDefault();
    event.stopPropagation();
    actions[action]();
  }, true);
  window.addEventListener("keyup", (event) => {
    if (event.key === " ") actions.releaseSpace();
  });
}

function find(event, { isStaged, hasSeveral, isPainting }) {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey) {
    if (key === "Enter") return "generate";
    if (key.toLowerCase() === "z" && !isText(target)) return event.shiftKey ? "redo" : "undo";
    if (key.toLowerCase() === "y" && !isText(target)) return "redo";
    return { s: "download", o: "open" }[key.toLowerCase()] ?? null;
  }
  if (key === "Escape") return isStaged && !isText(target) ? "discard" : "escape";
  if (event.altKey || isText(target)) return null;
  if (isStaged) {
    const inOwnKeys = target instanceof HTMLElement && target.matches("input[type=radio], input[type=range]");
    if (key === "ArrowLeft" && hasSeveral && !inOwnKeys) return "previous";
    if (key === "ArrowRight" && hasSeveral && !inOwnKeys) return "next";
    if (key === "Enter" && (!isPressable(target) || target.matches(".thumb"))) return "accept";
  }
  if (localStorage.getItem(SWITCH) === "off") return null;
  // With a painting tool that the arrow keys have moved, the space bar paints; otherwise, while held, it is the hand.
  if (key === " ") return isPressable(target) || isPainting ? null : "holdSpace";
  return SINGLE[key.length === 1 ? key.toLowerCase() : key] ?? null;
}

const SINGLE = {
  v: "frame", b: "brush", e: "eraser", l: "lasso", h: "hand", p: "prompt", c: "compare", m: "maskAll", i: "maskInvert",
  Delete: "maskClear", Backspace: "maskClear", "[": "smaller", "]": "larger", "+": "zoomIn", "=": "zoomIn",
  "-": "zoomOut", 0: "fit", 1: "actualSize", "?": "help",
};
