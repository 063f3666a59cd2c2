// Candidates: results that are shown in their place on the canvas until one is accepted or all are discarded.

export class Staging {
  current = null; // {kind, box, candidates: [{key, seed, score, notes, blob}], chosen, entry, isRunning}
  compares = false;
  onChange = () => {};
  #urls = new Map(); // of previews, by their blob

  constructor(files) {
    this.files = files;
    this.element = document.getElementById("staging");
    this.thumbs = document.getElementById("thumbs");
    this.text = document.getElementById("candidate-text");
    this.thumbs.addEventListener("click", (event) => {
      const thumb = event.target.closest("button");
      if (thumb) this.choose([...this.thumbs.children].indexOf(thumb));
    });
  }

  /** Stage `count` candidates that are not there yet, or those given. */
  begin(staged) {
    this.current = { chosen: 0, ...staged };
    this.compares = false;
    this.show();
  }

  end() {
    this.current = null;
    this.compares = false;
    for (const url of this.#urls.values()) URL.revokeObjectURL(url);
    this.#urls.clear();
    this.show();
  }

  get chosen() {
    return this.current?.candidates[this.current.chosen] ?? null;
  }

  choose(index) {
    const count = this.current?.candidates.length ?? 0;
    if (count === 0) return;
    this.current.chosen = (index + count) % count;
    this.compares = false;
    this.show();
  }

  step(change) {
    this.choose(this.current.chosen + change);
  }

  compare(isOn = !this.compares) {
    this.compares = isOn;
    this.show();
  }

  /** A preview of a candidate. */
  async preview(index, blob) {
    const candidate = this.current?.candidates[index];
    if (!candidate || candidate.key) return;
    candidate.bitmap = await createImageBitmap(blob);
    this.#forget(candidate.blob);
    candidate.blob = blob;
    this.show();
  }

  /** A finished candidate. */
  finish(index, found) {
    const candidate = this.current?.candidates[index];
    if (!candidate) return;
    this.#forget(candidate.blob);
    Object.assign(candidate, found, { blob: null, bitmap: null });
    this.show();
  }

  /** The candidate in words, for the bar and for screen readers. */
  describe() {
    const { candidates, chosen, kind } = this.current;
    if (kind === "image") return "Opened image · move the frame to place it";
    const { key, seed, score } = candidates[chosen];
    const number = candidates.length > 1 ? `${chosen + 1} of ${candidates.length}` : "Result";
    if (!key) return `${number} · in progress`;
    return [number, `seed ${seed}`, ...(score == null ? [] : [`score ${score.toFixed(2)}`])].join(" · ");
  }

  /** What to paint for it: {bitmap, box}, or null. */
  async layer() {
    const { chosen } = this;
    if (chosen === null || this.compares) return null;
    const bitmap = chosen.key ? await this.files.bitmap(chosen.key) : chosen.bitmap;
    return bitmap ? { bitmap, box: this.current.box } : null;
  }

  show() {
    const { current } = this;
    this.element.hidden = current === null;
    if (current !== null) {
      const [number, ...rest] = this.describe().split(" · ");
      this.text.replaceChildren(Object.assign(document.createElement("b"), { textContent: number }), rest.join(" · "));
      this.#showThumbs(current);
      const isOne = current.candidates.length === 1;
      for (const id of ["previous", "next"]) document.getElementById(id).hidden = isOne;
      this.thumbs.hidden = isOne;
      document.getElementById("accept").disabled = !this.chosen.key;
      document.getElementById("compare").setAttribute("aria-pressed", String(this.compares));
    }
    this.onChange();
  }

  #showThumbs({ candidates, chosen }) {
    while (this.thumbs.children.length > candidates.length) this.thumbs.lastChild.remove();
    candidates.forEach((candidate, index) => {
      const thumb = this.thumbs.children[index] ?? this.thumbs.appendChild(newThumb());
      const state = candidate.key ? `seed ${candidate.seed}` : "in progress";
      thumb.setAttribute("aria-label", `Candidate ${index + 1}, ${state}`);
      thumb.setAttribute("aria-pressed", String(index === chosen));
      thumb.classList.toggle("waits", !candidate.key);
      this.#showThumb(thumb.firstChild, candidate);
    });
  }

  async #showThumb(image, { key, blob }) {
    if (blob && !this.#urls.has(blob)) this.#urls.set(blob, URL.createObjectURL(blob));
    const url = key ? await this.files.url(key) : blob ? this.#urls.get(blob) : null;
    image.hidden = url === null;
    if (url !== null && image.src !== url) image.src = url;
  }

  #forget(blob) {
    if (!this.#urls.has(blob)) return;
    URL.revokeObjectURL(this.#urls.get(blob));
    this.#urls.delete(blob);
  }
}

function newThumb() {
  const thumb = document.createElement("button");
  thumb.type = "button";
  thumb.className = "thumb";
  thumb.append(Object.assign(document.createElement("img"), { alt: "", hidden: true }));
  return thumb;
}
