/** The list of findings: a bar per probability, its threshold, its reliability, and details. */

import { at, make, settle } from "./dom.js";
import { LETTERS, auroc, count, reliability, percent, plain, ruled } from "./words.js";

/** The findings of one or two studies in this order: {name, facts, predictions: [study A, study B]}. */
export function rows(model, studies, order) {
  const predictions = (name) => studies.map((study) => study.prediction(model.id, name));
  const found = model.findings.map((facts) => ({ name: facts.name, facts, predictions: predictions(facts.name) }));
  const likely = (row) => Math.max(-1, ...row.predictions.map((one) => one?.probability ?? -1));
  return order === "model" ? found : found.sort((one, other) => likely(other) - likely(one));
}

/** The findings of a detector with their boxes, sorted by the highest score. */
export function boxed(model, studies) {
  const of = (name) => studies.map((study) => (study.predictions.get(model.id)?.boxes ?? []).filter((one) => one.finding === name));
  const found = model.findings.map((facts) => ({ name: facts.name, facts, boxes: of(facts.name) }));
  const best = (row) => Math.max(-1, ...row.boxes.flat().map((one) => one.score));
  return found.sort((one, other) => best(other) - best(one));
}

/** Show rows; `shown`: the current finding, the finding with a saliency map, and the rule of the thresholds. Rows with the same `of`
 * (model and studies) in the same order are the same. */
export function show(list, made, shown, of) {
  const key = [shown, of, made.map((row) => [row.name, row.predictions?.map(Boolean)])];
  settle(list, key, () => made.map((row, number) => option(row, number, shown)));
  const here = made.findIndex((row) => row.name === shown.current);
  if (here < 0) list.removeAttribute("aria-activedescendant");
  else list.setAttribute("aria-activedescendant", `finding-${here}`);
}

function option(row, number, shown) {
  const here = row.name === shown.current;
  const names = ["finding", here && "current", row.name === shown.saliency && "shown", isAbove(row, shown.rule) && "above"];
  const seen = String(row.name === shown.saliency);
  const facts = { id: `finding-${number}`, class: names.filter(Boolean).join(" "), role: "option", "aria-selected": seen };
  const name = make("span", { class: "name" }, plain(row.name));
  const values = row.boxes ? [make("span", { class: "value soft" }, row.boxes.map(counted).join("  |  "))] : measured(row, shown.rule);
  return make("div", { ...facts, "data-name": row.name }, name, ...values, here ? details(row, shown) : null);
}

const isAbove = (row, rule) => row.predictions?.some((one) => one?.above_threshold?.[rule]);

const counted = (boxes) => (boxes.length ? `${count(boxes.length, "box", "boxes")}, highest score ${percent(Math.max(...boxes.map((one) => one.score)))}` : "no boxes");

/** A bar and a number for one study, or for each of two studies with its letter. */
function measured(row, rule) {
  const threshold = row.facts.thresholds?.[rule];
  if (row.predictions.length === 1) return [value(row.predictions[0], rule), bar(row.predictions[0], rule, threshold)];
  return row.predictions.flatMap((one, at) => [make("span", { class: "which" }, LETTERS[at]), bar(one, rule, threshold), value(one, rule)]);
}

/** A probability; if it is above its threshold, it is marked, bold, and described for screen readers. */
function value(one, rule) {
  const above = one?.above_threshold?.[rule];
  const mark = above ? make("span", { class: "mark", title: "above threshold" }, "▲ ") : null;
  const words = above ? make("span", { class: "unseen" }, ", above threshold") : null;
  return make("span", { class: above ? "value above" : "value" }, mark, one ? percent(one.probability) : "–", words);
}

function bar(one, rule, threshold) {
  const track = make("span", { class: one?.above_threshold?.[rule] ? "track above" : "track", "aria-hidden": "true" });
  if (one) track.append(lying("filled", 0, one.probability));
  if (one?.reliability) track.append(lying("whisker", one.reliability.low, one.reliability.high), lying("dot", one.reliability.frequency));
  if (Number.isFinite(threshold)) track.append(lying("tick", threshold));
  return track;
}

/** A segment of a bar between two fractions. */
function lying(name, from, to = from) {
  const made = make("span", { class: name });
  made.style.left = `${100 * from}%`;
  if (to !== from) made.style.width = `${100 * (to - from)}%`;
  return made;
}

/** The details of a finding. */
function details(row, shown) {
  const lines = row.boxes ? [] : row.predictions.map((one, number) => reliable(one, number, row.predictions.length));
  lines.push(chosen(row, shown.rule), row.boxes ? null : auroc(row.facts.auroc));
  const hint = row.name === shown.saliency ? "Press Enter or click to hide" : "Press Enter or click to show";
  const what = row.boxes ? "only its boxes." : "the saliency map.";
  const texts = lines.filter(Boolean).map((line) => make("span", {}, line));
  return make("span", { class: "details" }, ...texts, make("span", { class: "soft" }, row.boxes && row.name === shown.saliency ? "Press Enter or click to show all boxes." : `${hint} ${what}`));
}

function reliable(one, number, of) {
  if (!one) return null;
  const who = of > 1 ? `${LETTERS[number]}: ` : "";
  return who + (reliability(one.reliability) ?? "The reliability of this probability is unknown.");
}

function chosen(row, rule) {
  if (!rule) return "The model has no thresholds.";
  const threshold = row.facts.thresholds?.[rule];
  if (!Number.isFinite(threshold)) return `No threshold could be chosen on validation images (${ruled(rule)}).`;
  return row.boxes ? `The score threshold is ${percent(threshold)} (${ruled(rule)}).` : `The threshold is ${percent(threshold)} (${ruled(rule)}).`;
}

/** Keyboard navigation of a list: `go(step)` for arrows, Home and End; `enter()` for Enter and Space. */
export function walk(id, go, enter) {
  at(id).addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (step) go(step);
    else if (event.key === "Enter" || event.key === " ") enter();
    else return;
    event.preventDefault();
  });
}
