// The form: what to generate, and how. An empty field leaves its value to the model.

const HINTS = {
  create: "A new image from the prompt, placed in the frame.",
  fill: "New pixels where you paint or the frame is empty. All others stay as they are.",
  vary: "Other versions of the part in the frame, with the same content.",
  change: "Changes the part in the frame from one description towards another.",
};
const PLACEHOLDERS = {
  create: "a penguin on a pink background",
  fill: "what the frame shows afterwards (optional)",
  vary: "",
  change: "a fox",
};
const EXAMPLES = ["a penguin on a pink background", "a strawberry to the left of a mushroom", "three apples on a blue background"];
const NUMBERS = {
  seed: { name: "Seed", whole: true, low: 0, high: Number.MAX_SAFE_INTEGER },
  steps: { name: "Steps", whole: true, low: 1, high: 1000 },
  guidance: { name: "Guidance", low: 0, high: 1000 },
  strength: { name: "Strength", low: 0, high: 1 },
};
const KEPT = ["mode", "n", "prompt", "from_prompt", "negative_prompt", "seed", "steps", "guidance", "strength", "model"];

/** A value that the user has to change. field: its name in the form. */
export class FieldError extends Error {
  constructor(message, field) {
    super(message);
    this.field = field;
  }
}

export class Form {
  onChange = () => {};
  onFrame = () => {}; // (box)
  #advice = "";

  constructor(element) {
    this.element = element;
    this.fields = element.elements;
    element.addEventListener("input", (event) => {
      event.target.removeAttribute("aria-invalid");
      if (!event.target.name.startsWith("frame-")) this.#changed();
    });
    element.addEventListener("change", (event) => {
      if (event.target.name.startsWith("frame-")) this.onFrame(this.#frame());
    });
    this.#addExamples(element.querySelector("#examples"));
    this.#show();
  }

  get mode() {
    return this.fields.mode.value;
  }

  set mode(mode) {
    if (mode === this.mode) return;
    this.fields.mode.value = mode;
    this.#changed();
  }

  /** All values as text, to be kept and restored. */
  get values() {
    return Object.fromEntries(KEPT.map((name) => [name, this.fields[name].value]));
  }

  set values(values) {
    for (const name of KEPT) if (values[name] !== undefined) this.fields[name].value = values[name];
    if (this.fields.model.selectedIndex < 0) this.fields.model.selectedIndex = 0; // one that is no longer served
    this.#show();
  }

  /** The fields of a call in a mode. Throws FieldError. */
  request(mode) {
    const { fields } = this;
    const found = { n: Number(fields.n.value), model: fields.model.value || undefined };
    for (const [name, limits] of Object.entries(NUMBERS)) {
      const value = number(fields[name].value, limits, name);
      if (name === "strength" ? mode === "vary" : true) found[name] = value;
      else if (mode === "change") found.theta = value;
    }
    if (mode !== "vary") {
      found.prompt = fields.prompt.value.trim() || undefined;
      found.negative_prompt = fields.negative_prompt.value.trim() || undefined;
    }
    if (mode === "change") found.from_prompt = fields.from_prompt.value.trim() || undefined;
    if (found.prompt === undefined && (mode === "create" || mode === "change")) {
      throw new FieldError("Write a prompt first: what should the image show?", "prompt");
    }
    return found;
  }

  /** Mark a field as wrong and go there. */
  point(field) {
    const element = this.fields[field];
    if (!(element instanceof HTMLElement) || element.closest("[hidden]")) return;
    element.setAttribute("aria-invalid", "true");
    element.focus();
  }

  setModels(models, chosen) {
    const options = models.map((model) => new Option(model.id, model.id));
    this.fields.model.replaceChildren(...options);
    this.fields.model.value = models.some((model) => model.id === chosen) ? chosen : models[0].id;
    document.getElementById("model-field").hidden = models.length < 2;
  }

  setFrame(box) {
    for (const [name, value] of Object.entries(box)) {
      const field = this.fields[`frame-${name}`];
      if (field !== document.activeElement || field.value === "") field.value = value;
    }
  }

  /** Offer only the modes that make sense. reason: why others are not offered; advice: what to do about it. */
  allow(modes, { reason, advice }) {
    for (const radio of this.fields.mode) {
      radio.disabled = !modes.has(radio.value);
      radio.closest("label").title = radio.disabled ? reason : "";
    }
    this.#advice = advice;
    if (!modes.has(this.mode)) this.mode = "create";
    else this.#show();
  }

  showExamples(isShown) {
    this.element.querySelector("#examples").hidden = !isShown || this.mode !== "create";
  }

  #frame() {
    const value = (name) => this.fields[`frame-${name}`].valueAsNumber || 0;
    return { left: value("left"), top: value("top"), width: value("width"), height: value("height") };
  }

  #changed() {
    this.#show();
    this.onChange();
  }

  #show() {
    const { mode } = this;
    for (const field of this.element.querySelectorAll("[data-modes]")) {
      field.hidden = !field.dataset.modes.split(" ").includes(mode);
    }
    document.getElementById("mode-hint").textContent = `${HINTS[mode]} ${this.#advice}`.trim();
    document.getElementById("prompt-label").textContent = mode === "change" ? "What it should show" : "Prompt";
    document.getElementById("strength-label").textContent = mode === "change" ? "Amount of change" : "Strength";
    this.fields.prompt.placeholder = PLACEHOLDERS[mode];
  }

  #addExamples(group) {
    for (const text of EXAMPLES) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: text, className: "chip" });
      button.addEventListener("click", () => {
        this.fields.prompt.value = text;
        this.#changed();
        this.fields.prompt.focus();
      });
      group.append(button);
    }
  }
}

function number(text, { name, whole, low, high }, field) {
  const given = text.trim().replace(",", ".");
  if (given === "") return undefined;
  const value = Number(given);
  const isValid = Number.isFinite(value) && value >= low && value <= high && (!whole || Number.isInteger(value));
  if (isValid) return value;
  const kind = whole ? "a whole number" : "a number";
  const range = high > 1e6 ? `of at least ${low}` : `from ${low} to ${high}`;
  throw new FieldError(`${name} must be ${kind} ${range}, or empty.`, field);
}
