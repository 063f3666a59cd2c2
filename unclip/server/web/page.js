// The page around the canvas: messages, progress, dialogs, colours, drop and paste.

const THEMES = { "": "as the system", light: "light", dark: "dark" };
const THEME = "unclip-theme";
const NOTE_TIME = 9000; // milliseconds
const byId = (id) => document.getElementById(id);

export class Page {
  #timer = 0;

  constructor() {
    this.#setTheme(localStorage.getItem(THEME) ?? "");
    for (const dialog of document.querySelectorAll("dialog")) {
      dialog.addEventListener("click", (event) => {
        if (event.target === dialog || event.target.closest("[data-close]")) dialog.close("");
      });
    }
  }

  /** Tell what happened: shown below the canvas, and spoken by screen readers. */
  say(text) {
    byId("status").textContent = text;
  }

  /** Show an error until it is dismissed. */
  alert(text) {
    this.#message(text, "error");
  }

  /** Show what the user should know; it goes by itself. */
  note(text) {
    this.#message(text, "note");
    this.#timer = setTimeout(() => this.dismiss(), NOTE_TIME);
  }

  dismiss() {
    clearTimeout(this.#timer);
    byId("alert").replaceChildren();
  }

  #message(text, kind) {
    this.dismiss();
    text = text.charAt(0).toUpperCase() + text.slice(1);
    const words = Object.assign(document.createElement("p"), { textContent: text });
    const close = byId("help-dialog").querySelector("[data-close]").cloneNode(true);
    close.addEventListener("click", () => this.dismiss());
    byId("alert").className = kind;
    byId("alert").append(words, close);
  }

  /** fraction: 0 .. 1, or null when nothing runs. */
  progress(fraction, text = "") {
    const bar = byId("progress");
    bar.hidden = fraction === null;
    bar.value = fraction ?? 0;
    byId("generate").textContent = fraction === null ? "Generate" : "Stop";
    byId("generate").classList.toggle("stops", fraction !== null);
    // Each step would flood a screen reader: it hears that generating began, and later that it is done.
    byId("status").setAttribute("aria-live", fraction > 0 ? "off" : "polite");
    if (fraction !== null) this.say(fraction > 0 ? `Generating: ${text}` : `Generating. ${text}.`);
  }

  enable(states) {
    for (const [id, isEnabled] of Object.entries(states)) {
      const button = byId(id);
      // A disabled button loses the focus to the page, so the one that has it only says that it does nothing.
      if (button === document.activeElement && !isEnabled) button.setAttribute("aria-disabled", "true");
      else {
        button.removeAttribute("aria-disabled");
        button.disabled = !isEnabled;
      }
    }
  }

  showTool({ current, brushSize }) {
    for (const button of document.querySelectorAll("[data-tool].tool")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === current));
    }
    const size = byId("brush-size");
    size.hidden = !["brush", "eraser"].includes(current);
    size.querySelector("input").value = brushSize;
    size.querySelector(".value").textContent = `${brushSize} px`;
  }

  showZoom(scale) {
    byId("zoom-level").textContent = `${Math.round(scale * 100)}%`;
    byId("zoom-level").setAttribute("aria-label", `Zoom ${Math.round(scale * 100)} percent; show at 100 percent`);
  }

  /** Ask for a key; null if the user has none. */
  askKey(message) {
    const dialog = byId("key-dialog");
    const { key, remember } = dialog.querySelector("form").elements;
    if (dialog.open) return new Promise((resolve) => dialog.addEventListener("close", () => resolve(answer()), { once: true }));
    byId("key-message").textContent = message;
    dialog.returnValue = key.value = "";
    dialog.showModal();
    const answer = () => (dialog.returnValue === "ok" ? { key: key.value.trim(), remember: remember.checked } : null);
    return new Promise((resolve) => dialog.addEventListener("close", () => resolve(answer()), { once: true }));
  }

  /** on: tool(name), brushSize(pixels), open(file), theme(), leave(). */
  listen(on) {
    for (const button of document.querySelectorAll("[data-tool].tool")) {
      button.addEventListener("click", () => on.tool(button.dataset.tool));
    }
    byId("brush-size").addEventListener("input", (event) => on.brushSize(Number(event.target.value)));
    byId("file").addEventListener("change", (event) => {
      on.open(event.target.files[0]);
      event.target.value = ""; // so that the same file can be opened again
    });
    byId("theme").addEventListener("click", () => {
      const names = Object.keys(THEMES);
      const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "") + 1) % names.length];
      this.#setTheme(next);
      this.say(`Colours: ${THEMES[next]}.`);
      on.theme();
    });
    byId("history-toggle").addEventListener("click", () => this.#showHistory(byId("history").hidden));
    // Where there is no room beside the canvas, the history covers it, and only while it is asked for.
    const hasRoom = matchMedia("(min-width: 1100px)");
    this.#showHistory(hasRoom.matches);
    hasRoom.addEventListener("change", () => this.#showHistory(hasRoom.matches));
    byId("entries").addEventListener("click", () => hasRoom.matches || this.#showHistory(false));
    this.#listenForFiles(on.open);
    document.addEventListener("visibilitychange", () => document.hidden && on.leave());
    window.addEventListener("pagehide", on.leave);
  }

  #showHistory(isShown) {
    byId("history").hidden = !isShown;
    byId("history-toggle").setAttribute("aria-expanded", String(isShown));
  }

  #listenForFiles(open) {
    const holdsFile = (event) => event.dataTransfer?.types.includes("Files");
    window.addEventListener("dragover", (event) => {
      if (!holdsFile(event)) return;
      event.preventDefault();
      byId("drop").hidden = false;
    });
    window.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) byId("drop").hidden = true;
    });
    window.addEventListener("drop", (event) => {
      byId("drop").hidden = true;
      if (!holdsFile(event)) return;
      event.preventDefault();
      open(event.dataTransfer.files[0]);
    });
    window.addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
      if (!file) return;
      event.preventDefault();
      open(file);
    });
  }

  #setTheme(theme) {
    if (theme) {
      document.documentElement.dataset.theme = theme;
      localStorage.setItem(THEME, theme);
    } else {
      delete document.documentElement.dataset.theme;
      localStorage.removeItem(THEME);
    }
    const name = `Colours: ${THEMES[theme]}`;
    byId("theme").setAttribute("aria-label", name);
    byId("theme").title = name;
  }
}
