// Rectangles {left, top, width, height} in pixels of the canvas, whose origin is where the first image was.

export const right = (box) => box.left + box.width;
export const bottom = (box) => box.top + box.height;

/** The common part of two boxes, or null. */
export function intersection(one, other) {
  const left = Math.max(one.left, other.left);
  const top = Math.max(one.top, other.top);
  const width = Math.min(right(one), right(other)) - left;
  const height = Math.min(bottom(one), bottom(other)) - top;
  return width > 0 && height > 0 ? { left, top, width, height } : null;
}

/** The smallest box around two. */
export function union(one, other) {
  const left = Math.min(one.left, other.left);
  const top = Math.min(one.top, other.top);
  return {
    left,
    top,
    width: Math.max(right(one), right(other)) - left,
    height: Math.max(bottom(one), bottom(other)) - top,
  };
}

export function contains(outer, inner) {
  const common = intersection(outer, inner);
  return common !== null && common.width === inner.width && common.height === inner.height;
}

/** The largest box of a size's proportions in the middle of another. */
export function middle(box, [width, height]) {
  const scale = Math.min(box.width / width, box.height / height);
  const size = { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
  return {
    left: box.left + Math.floor((box.width - size.width) / 2),
    top: box.top + Math.floor((box.height - size.height) / 2),
    ...size,
  };
}

export const sameBox = (one, other) =>
  ["left", "top", "width", "height"].every((name) => one[name] === other[name]);

/** A box for people: "256 by 256 at 0, 0". */
export const boxText = (box) => `${box.width} by ${box.height} at ${box.left}, ${box.top}`;
