// From the canvas and the form to a call of the API, and from its events to candidates.

import { bottom, contains, intersection, middle, right } from "./boxes.js";
import { fromBase64 } from "./files.js";
import { FieldError } from "./form.js";
import { hasTransparency, maskOf } from "./mask.js";

const PREVIEWS = 6; // of each candidate
/** The part of all time that a stage takes, roughly, and what went before it. */
const STAGES = [
  ["prior", 0, 0.15],
  ["decoder", 0.15, 0.65],
  ["upsampler", 0.8, 0.2],
];

/** The modes that the canvas allows: without an image in the frame there is nothing to edit. */
export function possibleModes(image, frame, model) {
  if (image === null || intersection(image, frame) === null) return new Set(["create"]);
  return new Set(["create", "fill", ...(model?.image_encoder === false ? [] : ["vary", "change"])]);
}

/** Why modes are not allowed, for the user: {reason, advice}; the advice is shown without being asked for. */
export function whyNot(image, frame, model) {
  if (image === null) return { reason: "There is no image yet: generate one, or open one.", advice: "" };
  if (intersection(image, frame) === null) {
    const advice = "To edit the image or to extend it, move the frame over a part of it.";
    return { reason: advice, advice };
  }
  return { reason: model?.image_encoder === false ? "This model has no image encoder." : "", advice: "" };
}

/** A call {path, keys, box, body(ids)}: keys of its images, and the box in which its results belong.
 *
 * Throws FieldError for what the user has to do first. */
export async function planCall({ mode, fields, image, strokes, frame, model, files }) {
  const common = { ...fields, stream: true, progress: true, partial_images: PREVIEWS };
  const sizes = (model?.sizes ?? []).map((text) => text.split("x").map(Number));
  if (mode === "create") {
    const box = sizes.length ? middle(frame, sizes.at(-1)) : frame;
    const size = sizes.find(([width]) => width >= box.width) ?? sizes.at(-1);
    const body = () => ({ ...common, size: size?.join("x") });
    return { path: "/v1/images/generations", keys: [], box, body };
  }
  if (mode === "fill") {
    const mask = await maskOf(strokes, frame);
    const bitmap = await files.bitmap(image.key);
    if (mask === null && contains(image, frame) && !hasTransparency(bitmap, image, frame)) {
      throw new FieldError("Paint over what should change, or move the frame over the edge of the image.", null);
    }
    const sides = mask === null ? sidePrompts(fields.prompt, bitmap, image, frame) : {};
    const body = ([id]) => ({ ...common, ...sides, image: id, mask: mask ?? undefined, frame: relative(frame, image) });
    return { path: "/v1/images/edits", keys: [image.key], box: frame, body };
  }
  // The model sees a square (or what it was made for) in the middle of the part that has an image.
  const part = intersection(image, frame);
  const box = sizes.length ? middle(part, sizes.at(-1)) : part;
  const place = relative(box, image);
  const body = ([id]) => ({ ...common, image: id, frame: place, ...(mode === "change" ? { mode: "edit" } : {}) });
  return { path: `/v1/images/${mode === "vary" ? "variations" : "edits"}`, keys: [image.key], box, body };
}

/** The prompt for each side over which the frame extends the image: someone who writes one wants to see it there.
 *
 * As the prompt of the whole frame alone, it may count as shown already, and nothing would be added. An image with gaps
 * is inpainted, which has no sides. */
function sidePrompts(prompt, bitmap, image, frame) {
  if (!prompt || hasTransparency(bitmap, image, intersection(image, frame))) return {};
  const isOver = {
    left: frame.left < image.left,
    right: right(frame) > right(image),
    top: frame.top < image.top,
    bottom: bottom(frame) > bottom(image),
  };
  const sides = Object.keys(isOver).filter((side) => isOver[side]);
  return Object.fromEntries(sides.map((side) => [`${side}_prompt`, prompt]));
}

const relative = (box, image) => [box.left - image.left, box.top - image.top, box.width, box.height];

/** Make a call; its news go to `on`: progress(fraction, text), preview(index, blob), done(index, blob, event). */
export async function makeCall(api, files, call, signal, on) {
  await files.withIds(call.keys, async (ids) => {
    let furthest = 0;
    for await (const [type, event] of api.events(call.path, call.body(ids), signal)) {
      if (type === "unclip.step") {
        furthest = Math.max(furthest, fractionOf(event));
        on.progress(furthest, `${event.stage}, step ${event.done} of ${event.total}`);
      } else if (type.endsWith(".partial_image")) {
        await on.preview(event.index, fromBase64(event.b64_json));
      } else if (type.endsWith(".completed")) {
        await on.done(event.index, fromBase64(event.b64_json), event);
      }
    }
  });
}

/** How far a call is, 0 .. 1. An edit has parts, such as "window 2 of 5, decoder". */
function fractionOf({ stage, done, total }) {
  const [, before, size] = STAGES.find(([name]) => stage.includes(name)) ?? [null, 0, 1];
  let fraction = total ? done / total : 0;
  for (const [, number, count] of [...stage.matchAll(/(\d+) of (\d+)/g)].reverse()) {
    fraction = (Number(number) - 1 + fraction) / Number(count);
  }
  return before + size * fraction;
}
