// Whole images on the canvas: put on top of it, opened from outside, downloaded.

import { contains, union } from "./boxes.js";

/** The image of the canvas with another one on top. The server puts them together: this page encodes no pixels.
 *
 * replaces: transparent pixels of the upper image, too, replace those below. */
export async function placeOnTop(app, top, { width, height }, replaces) {
  const below = app.image;
  const isWhole = top.width === width && top.height === height;
  if (isWhole && (below === null || (replaces && contains(top, below)))) return top;
  const [first, all] = below === null ? [top, top] : [below, union(below, top)];
  const keys = below === null ? [top.key] : [below.key, top.key];
  const found = await app.files.withIds(keys, async (ids) => {
    const { width, height } = top;
    const place = { left: top.left - first.left, top: top.top - first.top, width, height, replaces };
    const layers = [...(below === null ? [] : [{ file_id: ids[0] }]), { file_id: ids.at(-1), ...place }];
    return app.api.json("/v1/canvas", { layers });
  });
  const key = await app.files.add(await app.api.blob(found.path), found);
  return { key, left: all.left, top: all.top, width: found.width, height: found.height };
}

/** Open an image: it becomes the canvas, or is staged to be placed on the one that is there. */
export async function openImage(app, blob) {
  if (app.running || !blob) return;
  app.page.dismiss();
  app.page.say("Opening the image.");
  try {
    const stored = await app.api.upload(blob, "image");
    const { width, height } = stored;
    const key = await app.files.add(blob, stored);
    const name = blob.name ?? "image";
    const candidates = [{ key, width, height, seed: null, score: null }];
    const { image, strokes } = app;
    app.staging.end();
    const box = { left: app.frame.box.left, top: app.frame.box.top, width, height };
    setFrameFor(app, box);
    const entry = { mode: "image", name, values: app.form.values, frame: app.frame.box, box, image, strokes, candidates };
    const id = app.history.add({ ...entry, chosen: 0, after: null });
    app.staging.begin({ kind: "image", box, candidates, entry: id, isRunning: false });
    if (image === null) await app.choosing.accept();
    else app.page.say("Move the frame to place the image. Enter accepts, Escape discards.");
    app.showAll();
    app.fit();
    app.save();
  } catch (error) {
    app.fail(error);
  }
}

/** A frame for an image that was opened: all of it, if the model sees enough of it at once. */
function setFrameFor(app, box) {
  const [width, height] = app.modelSize();
  const isSmall = box.width <= 3 * width && box.height <= 3 * height;
  app.frame.set(isSmall ? box : { ...box, width: Math.min(box.width, width), height: Math.min(box.height, height) });
}

/** Save the file of the canvas as the server made it. */
export async function download(app) {
  if (!app.image) return;
  const { blob } = await app.files.get(app.image.key);
  const url = await app.files.url(app.image.key);
  const format = { "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif" }[blob.type] ?? "png";
  const link = Object.assign(document.createElement("a"), { href: url, download: `unclip-canvas.${format}` });
  link.click();
  app.page.say("Downloaded.");
}
