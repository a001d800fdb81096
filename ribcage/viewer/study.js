/** A file on the page: its image, what models said of it, and how it is looked at. */

import { START } from "./view.js";

let made = 0;

/** One file. `state` is "waiting", "asking", "done" or "failed". */
export class Study {
  constructor(file) {
    made += 1;
    Object.assign(this, { id: `study-${made}`, file, name: file.name || "pasted image", state: "waiting", error: "" });
    Object.assign(this, { film: null, sharp: null, thumbnail: null, view: START });
    this.element = null; // its place in the strip
    this.answers = new Map(); // model → what it said
    this.heats = new Map(); // model and finding → {canvas, boxes}, or {error}
  }

  /** The size of the image in the file. */
  get size() {
    return this.film?.original ?? [1, 1];
  }

  /** What a model said of this finding; null when it said nothing. */
  said(model, finding) {
    return this.answers.get(model)?.findings?.find((one) => one.name === finding) ?? null;
  }

  /** Where a model looked. */
  heat(model, finding) {
    return this.heats.get(`${model}\n${finding}`) ?? null;
  }

  /** Keep where a model looked. */
  look(model, finding, heat) {
    this.heats.set(`${model}\n${finding}`, heat);
  }

  /** Boxes to draw, with what each is: those a detector found, and those around the heat that is shown. */
  boxes(model, finding, warm) {
    const found = (this.answers.get(model)?.boxes ?? []).filter((one) => !finding || one.finding === finding);
    const around = warm && finding ? (this.heat(model, finding)?.boxes ?? []) : [];
    return [...found.map((one) => ({ ...one, around: false })), ...around.map((one) => ({ ...one, finding, around: true }))];
  }

  /** Nobody looks at it: what can be made again is let go. */
  rest() {
    this.sharp = null;
    this.film?.release();
  }

  /** The findings that cross their threshold of this rule. */
  crossed(model, rule) {
    return (this.answers.get(model)?.findings ?? []).filter((one) => one.crossed?.[rule]);
  }
}
