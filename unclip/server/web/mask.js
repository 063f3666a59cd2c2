// The mask: strokes in pixels of the canvas. They are kept as lines, not as pixels, so that undo, zoom and storage are
// exact and cheap, and become pixels when a call is made.

/** Paint strokes onto a context whose transform maps the canvas to it. Painted is opaque white. */
export function paintStrokes(context, strokes) {
  context.fillStyle = context.strokeStyle = "#fff";
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
    if (stroke.kind === "invert") context.globalCompositeOperation = "xor";
    if (stroke.kind === "invert" || stroke.kind === "box") {
      context.fillRect(stroke.box.left, stroke.box.top, stroke.box.width, stroke.box.height);
    } else if (stroke.kind === "lasso") {
      trace(context, stroke.points);
      context.fill();
    } else {
      context.lineWidth = stroke.size;
      trace(context, stroke.points);
      context.stroke();
    }
  }
  context.globalCompositeOperation = "source-over";
}

function trace(context, points) {
  context.beginPath();
  context.moveTo(points[0], points[1]);
  // A line of no length is drawn as a dot, with round caps.
  for (let index = points.length > 2 ? 2 : 0; index < points.length; index += 2) {
    context.lineTo(points[index], points[index + 1]);
  }
}

/** The mask in a frame as a data url of a PNG, white where it is painted; null if nothing is.
 *
 * It is black or white only: a grey edge would blend kept pixels instead of keeping them. */
export function maskOf(strokes, frame) {
  if (strokes.length === 0) return null;
  const canvas = new OffscreenCanvas(frame.width, frame.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.setTransform(1, 0, 0, 1, -frame.left, -frame.top);
  paintStrokes(context, strokes);
  const image = context.getImageData(0, 0, frame.width, frame.height);
  let painted = false;
  for (let index = 0; index < image.data.length; index += 4) {
    const white = image.data[index + 3] >= 128;
    painted ||= white;
    image.data.fill(white ? 255 : 0, index, index + 3);
    image.data[index + 3] = 255;
  }
  if (!painted) return null;
  context.putImageData(image, 0, 0);
  return canvas.convertToBlob({ type: "image/png" }).then(dataUrl);
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** Whether a frame of an image shows pixels that are not opaque, which are generated. */
export function hasTransparency(bitmap, image, frame) {
  const context = new OffscreenCanvas(frame.width, frame.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, image.left - frame.left, image.top - frame.top);
  const { data } = context.getImageData(0, 0, frame.width, frame.height);
  for (let index = 3; index < data.length; index += 4) if (data[index] < 255) return true;
  return false;
}
