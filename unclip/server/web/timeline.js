// Undo and redo: states of the canvas {image, strokes, frame, label}, which are never changed.

const MAX_STATES = 80;

export class Timeline {
  constructor(states, index = states.length - 1) {
    this.states = states;
    this.index = index;
  }

  get current() {
    return this.states[this.index];
  }

  get canUndo() {
    return this.index > 0;
  }

  get canRedo() {
    return this.index < this.states.length - 1;
  }

  /** Add a state after the current one; those that were undone are dropped. */
  push(changes) {
    const kept = this.states.slice(0, this.index + 1);
    this.states = [...kept, { ...this.current, ...changes }].slice(-MAX_STATES);
    this.index = this.states.length - 1;
  }

  /** Go back; returns the label of what is undone. */
  undo() {
    const { label } = this.current;
    this.index -= 1;
    return label;
  }

  /** Go forward; returns the label of what is done again. */
  redo() {
    this.index += 1;
    return this.current.label;
  }
}
