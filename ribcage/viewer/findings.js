/** The list of findings: a bar for each probability, a tick where its threshold is, how sure that is, and the details. */

import { at, make, settle } from "./dom.js";
import { LETTERS, auroc, reliability, percent, plain, ruled } from "./words.js";

/** The findings of one study or two, in the order asked for: {name, facts, said: [of A, of B]}. */
export function rows(model, studies, order) {
  const said = (name) => studies.map((study) => study.said(model.id, name));
  const found = model.findings.map((facts) => ({ name: facts.name, facts, said: said(facts.name) }));
  const likely = (row) => Math.max(-1, ...row.said.map((one) => one?.probability ?? -1));
  return order === "model" ? found : found.sort((one, other) => likely(other) - likely(one));
}

/** Of a detector: the findings it has boxes of, by their best. */
export function boxed(model, studies) {
  const of = (name) => studies.map((study) => (study.answers.get(model.id)?.boxes ?? []).filter((one) => one.finding === name));
  const found = model.findings.map((facts) => ({ name: facts.name, facts, boxes: of(facts.name) }));
  const best = (row) => Math.max(-1, ...row.boxes.flat().map((one) => one.score));
  return found.sort((one, other) => best(other) - best(one));
}

/** Show rows; `shown` says which finding is current, which one's heat is seen, and the rule of the thresholds. Rows of the same `of` (model and
 * studies) in the same order say the same. */
export function show(list, made, shown, of) {
  const said = [shown, of, made.map((row) => [row.name, row.said?.map(Boolean)])];
  settle(list, said, () => made.map((row, number) => option(row, number, shown)));
  const here = made.findIndex((row) => row.name === shown.current);
  if (here < 0) list.removeAttribute("aria-activedescendant");
  else list.setAttribute("aria-activedescendant", `finding-${here}`);
}

function option(row, number, shown) {
  const here = row.name === shown.current;
  const names = ["finding", here && "current", row.name === shown.heat && "seen", crosses(row, shown.rule) && "crossed"];
  const seen = String(row.name === shown.heat);
  const facts = { id: `finding-${number}`, class: names.filter(Boolean).join(" "), role: "option", "aria-selected": seen };
  const name = make("span", { class: "name" }, plain(row.name));
  const told = row.boxes ? [make("span", { class: "value soft" }, row.boxes.map(counted).join("  |  "))] : measured(row, shown.rule);
  return make("div", { ...facts, "data-name": row.name }, name, ...told, here ? details(row, shown) : null);
}

const crosses = (row, rule) => row.said?.some((one) => one?.crossed?.[rule]);

const counted = (boxes) => (boxes.length ? `${boxes.length} × up to ${percent(Math.max(...boxes.map((one) => one.score)))}` : "no box");

/** A bar and a number for one study, or for each of two with its letter. */
function measured(row, rule) {
  const cut = row.facts.thresholds?.[rule];
  if (row.said.length === 1) return [value(row.said[0], rule), bar(row.said[0], rule, cut)];
  return row.said.flatMap((one, at) => [make("span", { class: "which" }, LETTERS[at]), bar(one, rule, cut), value(one, rule)]);
}

/** A probability, and whether it is above its threshold: by a mark, by its weight, and in words for those who listen. */
function value(one, rule) {
  const above = one?.crossed?.[rule];
  const mark = above ? make("span", { class: "mark", title: "above its threshold" }, "▲ ") : null;
  const words = above ? make("span", { class: "unseen" }, ", above its threshold") : null;
  return make("span", { class: above ? "value above" : "value" }, mark, one ? percent(one.probability) : "–", words);
}

function bar(one, rule, cut) {
  const track = make("span", { class: one?.crossed?.[rule] ? "track above" : "track", "aria-hidden": "true" });
  if (one) track.append(lying("filled", 0, one.probability));
  if (one?.reliability) track.append(lying("whisker", one.reliability.low, one.reliability.high), lying("dot", one.reliability.share));
  if (Number.isFinite(cut)) track.append(lying("tick", cut));
  return track;
}

/** A part of a bar, from one share to another. */
function lying(name, from, to = from) {
  const made = make("span", { class: name });
  made.style.left = `${100 * from}%`;
  if (to !== from) made.style.width = `${100 * (to - from)}%`;
  return made;
}

/** What is to be read about a finding. */
function details(row, shown) {
  const lines = row.boxes ? [] : row.said.map((one, number) => fared(one, number, row.said.length));
  lines.push(chosen(row, shown.rule), row.boxes ? null : auroc(row.facts.auroc));
  const hint = row.name === shown.heat ? "Enter or a click hides" : "Enter or a click shows";
  const what = row.boxes ? "its boxes alone." : "the heat-map.";
  const told = lines.filter(Boolean).map((line) => make("span", {}, line));
  return make("span", { class: "details" }, ...told, make("span", { class: "soft" }, row.boxes && row.name === shown.heat ? "Enter or a click shows all boxes." : `${hint} ${what}`));
}

function fared(one, number, of) {
  if (!one) return null;
  const who = of > 1 ? `${LETTERS[number]}: ` : "";
  return who + (reliability(one.reliability) ?? "How many images answered like this had it is not known.");
}

function chosen(row, rule) {
  if (!rule) return "No threshold was chosen.";
  const cut = row.facts.thresholds?.[rule];
  if (!Number.isFinite(cut)) return `Validation could choose no threshold (${ruled(rule)}).`;
  return row.boxes ? `Boxes are shown from a score of ${percent(cut)} (${ruled(rule)}).` : `Threshold ${percent(cut)} (${ruled(rule)}).`;
}

/** A list that arrows move through: `go(step)` for arrows, Home and End, `enter()` for Enter and Space. */
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
