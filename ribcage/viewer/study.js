/** A file on the page: its image, its predictions and its view. */

import { START } from "./view.js";

let made = 0;

/** One file. `state` is "waiting", "asking", "done" or "failed". */
export class Study {
  constructor(file) {
    made += 1;
    Object.assign(this, { id: `study-${made}`, file, name: file.name || "pasted image", state: "waiting", error: "" });
    Object.assign(this, { film: null, sharp: null, thumbnail: null, view: START });
    this.element = null; // its place in the strip
    this.predictions = new Map(); // model → response
    this.maps = new Map(); // model and finding → {canvas, boxes}, or {error}
  }

  /** The size of the image in the file. */
  get size() {
    return this.film?.original ?? [1, 1];
  }

  /** The prediction of a model for a finding; null where there is none. */
  prediction(model, finding) {
    return this.predictions.get(model)?.findings?.find((one) => one.name === finding) ?? null;
  }

  /** The saliency map of a model for a finding; null where there is none. */
  map(model, finding) {
    return this.maps.get(`${model}\n${finding}`) ?? null;
  }

  /** Store a saliency map. */
  keepMap(model, finding, map) {
    this.maps.set(`${model}\n${finding}`, map);
  }

  /** Boxes to draw: those of a detector, and those around high saliency where a map is shown. */
  boxes(model, finding, warm) {
    const found = (this.predictions.get(model)?.boxes ?? []).filter((one) => !finding || one.finding === finding);
    const around = warm && finding ? (this.map(model, finding)?.boxes ?? []) : [];
    return [...found.map((one) => ({ ...one, around: false })), ...around.map((one) => ({ ...one, finding, around: true }))];
  }

  /** Free what can be recomputed, for a study that is not displayed. */
  rest() {
    this.sharp = null;
    this.film?.release();
  }

  /** The findings above the threshold of this rule. */
  aboveThreshold(model, rule) {
    return (this.predictions.get(model)?.findings ?? []).filter((one) => one.above_threshold?.[rule]);
  }
}
