// What the buttons, the keys and the parts of the page do: they call the app.

import { download, openImage } from "./images.js";
import { listenForKeys, listShortcuts } from "./keys.js";

const ZOOM = 1.25;
const byId = (id) => document.getElementById(id);

/** Connect all controls to the app. */
export function connectControls(app) {
  const { form, frame, history, staging, tools, view } = app;
  form.onChange = () => (app.showAll(), app.save());
  form.onFrame = (box) => frame.set(box);
  form.element.addEventListener("submit", (event) => (event.preventDefault(), app.generating.start()));
  form.fields.prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.ctrlKey) return;
    event.preventDefault();
    if (!app.running) app.generating.start();
  });
  frame.onChange = (isFinal) => app.frameMoved(isFinal);
  frame.edges = () => (app.image ? [app.image] : []);
  frame.isLocked = () => app.running || (staging.current !== null && staging.current.kind !== "image");
  history.onRestore = (entry) => app.choosing.restore(entry);
  history.onStage = (entry) => (staging.end(), app.choosing.stage(entry));
  staging.onChange = () => app.loadLayers();
  tools.onStroke = (stroke) => app.addStroke(stroke, stroke.erase ? "erase the mask" : "paint the mask");
  tools.onChange = () => app.page.showTool(tools);
  tools.onHint = (text) => app.page.say(text);
  view.onChange = () => (frame.place(), app.page.showZoom(view.scale));
  const actions = {
    generate: () => app.generating.start(),
    escape: () => (app.running ? app.generating.stop() : document.activeElement.blur()),
    undo: () => app.travel("undo"),
    redo: () => app.travel("redo"),
    download: () => download(app),
    open: () => byId("file").click(),
    new: () => app.clear(),
    previous: () => app.choosing.browse(-1),
    next: () => app.choosing.browse(1),
    accept: () => app.choosing.accept(),
    discard: () => app.choosing.discard(),
    compare: () => staging.current && staging.compare(),
    maskAll: () => app.coverFrame("box"),
    maskInvert: () => app.coverFrame("invert"),
    maskClear: () => app.clearMask(),
    smaller: () => tools.setBrushSize(tools.brushSize / 1.25),
    larger: () => tools.setBrushSize(tools.brushSize * 1.25),
    zoomIn: () => view.zoom(ZOOM),
    zoomOut: () => view.zoom(1 / ZOOM),
    fit: () => app.fit(),
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
  app.page.listen({
    tool: (name) => tools.choose(name),
    brushSize: (size) => tools.setBrushSize(size),
    open: (file) => openImage(app, file),
    theme: () => view.redraw(),
    leave: () => app.session.write(),
  });
  listShortcuts(byId("shortcuts"), byId("single-keys"));
  listenForKeys(actions, () => ({
    isStaged: staging.current !== null,
    hasSeveral: staging.current?.candidates.length > 1,
    isPainting: tools.hasCursor,
  }));
  tools.choose("frame");
}
