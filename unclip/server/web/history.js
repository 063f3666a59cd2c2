// The history: everything that was generated or opened, with its seeds and settings; nothing in it is lost by undo.

const MAX_ENTRIES = 60;
const MODES = { create: "New", fill: "Fill", vary: "Variation", change: "Text diff", image: "Opened" };

export class History {
  /** {id, mode, values, frame, box, image, strokes, candidates, chosen, after}: image is what it began with, after
   * what it became when a candidate was accepted, or null. */
  entries = [];
  onRestore = () => {}; // (entry)
  onStage = () => {}; // (entry)

  constructor(files) {
    this.files = files;
    this.list = document.getElementById("entries");
    this.list.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      const entry = this.entries.find(({ id }) => id === button?.closest("li").dataset.id);
      if (entry) (button.classList.contains("candidates") ? this.onStage : this.onRestore)(entry);
    });
  }

  add(entry) {
    const id = `${Date.now()}-${Math.random().toString(36).slice(2)}`;
    this.entries = [{ id, ...entry }, ...this.entries].slice(0, MAX_ENTRIES);
    this.show();
    return id;
  }

  update(id, changes) {
    this.entries = this.entries.map((entry) => (entry.id === id ? { ...entry, ...changes } : entry));
    this.show();
  }

  /** The keys of all its images. */
  keys() {
    return this.entries.flatMap((entry) => [
      ...entry.candidates.map(({ key }) => key),
      ...[entry.image?.key, entry.after?.key].filter(Boolean),
    ]);
  }

  show() {
    document.getElementById("history-empty").hidden = this.entries.length > 0;
    const rows = new Map([...this.list.children].map((row) => [row.dataset.id, row]));
    this.list.replaceChildren(...this.entries.map((entry) => this.#row(entry, rows.get(entry.id))));
  }

  #row(entry, row = newRow(entry.id)) {
    const chosen = entry.candidates[entry.chosen] ?? entry.candidates[0];
    const [restore, stage] = row.querySelectorAll("button");
    const title = entry.mode === "image" ? entry.name : entry.values.prompt.trim();
    const seed = chosen.seed == null ? "" : `seed ${chosen.seed}`;
    const isPrompted = entry.mode !== "vary" && title;
    row.querySelector(".title").textContent = isPrompted ? title : MODES[entry.mode];
    row.querySelector(".what").textContent = [MODES[entry.mode], seed].filter(Boolean).join(" · ");
    row.classList.toggle("unused", entry.after === null);
    restore.title = entry.after === null ? "Show these candidates again" : "Go back to this image";
    stage.hidden = entry.candidates.length < 2;
    stage.textContent = `${entry.candidates.length} candidates`;
    stage.setAttribute("aria-label", `Choose again from ${entry.candidates.length} candidates`);
    this.files.url(chosen.key).then((url) => {
      const image = row.querySelector("img");
      if (image.src !== url) image.src = url;
    }, () => {});
    return row;
  }
}

function newRow(id) {
  const row = document.createElement("li");
  row.dataset.id = id;
  const make = (tag, className, ...children) => {
    const element = Object.assign(document.createElement(tag), { className });
    element.append(...children);
    return element;
  };
  const words = make("span", "words", make("span", "title"), make("span", "what"));
  const restore = make("button", "restore", Object.assign(make("img", ""), { alt: "" }), words);
  const stage = make("button", "candidates");
  restore.type = stage.type = "button";
  row.append(restore, stage);
  return row;
}
