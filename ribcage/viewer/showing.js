/** Text next to the images: the list of studies, the findings, a summary, and facts about the model. */

import { at, fill, make, settle } from "./dom.js";
import * as findings from "./findings.js";
import { explains, onStage, state } from "./state.js";
import { LETTERS, count, reliability, percent, plain } from "./words.js";

/** The findings in their displayed order. */
export function listed() {
  const seen = onStage().filter((study) => study.predictions.has(state.model?.id));
  if (!seen.length) return [];
  return explains() ? findings.rows(state.model, onStage(), state.order) : findings.boxed(state.model, onStage());
}

/** Render the list of studies. */
export function strip() {
  const list = at("strip");
  list.hidden = !state.studies.length;
  for (const study of state.studies) item(study);
  settle(list, state.studies.map((study) => study.id), () => state.studies.map((study) => study.element));
  const active = state.shown[state.active];
  if (active) list.setAttribute("aria-activedescendant", active.id);
  list.querySelector(".current")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function item(study) {
  const place = onStage().indexOf(study);
  const names = ["study", study.state, study === state.shown[state.active] && "current"].filter(Boolean).join(" ");
  const letter = state.two && place >= 0 ? make("b", { class: "letter" }, LETTERS[place]) : null;
  const above = study.aboveThreshold(state.model?.id, state.rule).length;
  const warnings = study.predictions.get(state.model?.id)?.image_warnings?.length ?? 0;
  const words = {
    waiting: "waiting",
    asking: "loading …",
    failed: "unreadable",
    done: explains() ? (above ? `▲ ${above} positive` : "none positive") : standing(study),
  };
  study.element ??= make("div", { id: study.id, role: "option", title: study.name });
  study.element.className = names;
  study.element.setAttribute("aria-selected", String(place >= 0));
  const status = warnings && study.state === "done" ? `${words.done} · !` : words[study.state];
  settle(study.element, [letter?.textContent, status, !study.thumbnail], () => [
    letter,
    make("span", { class: "thumbnail" }, study.thumbnail),
    make("span", { class: "name" }, study.name),
    make("span", { class: study.state === "failed" ? "status wrong" : "status" }, status),
  ]);
}

/** Render the findings of the displayed studies. */
export function predictions() {
  const made = listed();
  const any = made.length > 0;
  at("findings").hidden = !any;
  at("orders").hidden = !any || !explains();
  at("scale").hidden = !any || !explains();
  at("findings").classList.toggle("two", state.two);
  const shown = { current: state.current, saliency: state.finding, rule: state.rule };
  findings.show(at("findings"), made, shown, [state.model?.id, onStage().map((study) => study.id)]);
  fill(at("summary"), ...onStage().map(summary));
}

function summary(study) {
  const letter = state.two ? make("b", { class: "letter" }, LETTERS[onStage().indexOf(study)]) : null;
  return make("p", {}, letter, make("span", { class: "name" }, study.name), make("span", { class: "soft" }, standing(study)));
}

function standing(study) {
  if (study.state === "failed") return "unreadable";
  if (!study.predictions.has(state.model?.id)) return state.gone ? "waiting for the server" : "loading …";
  if (!explains()) return count(study.boxes(state.model.id).length, "box", "boxes").replace(/^0 .*/, "no boxes");
  const above = study.aboveThreshold(state.model.id, state.rule).length;
  return `${above} of ${state.model.findings.length} above threshold`;
}

/** The predictions as a sentence, for screen readers. */
export function summaryText(study) {
  const found = study.predictions.get(state.model.id);
  if (!found) return "";
  const warnings = (found.image_warnings ?? []).join(" ");
  if (!explains()) return `${study.name}: ${standing(study)}. ${warnings}`;
  const best = [...(found.findings ?? [])].sort((one, other) => other.probability - one.probability)[0];
  const highest = best ? ` Highest: ${plain(best.name)}, ${percent(best.probability)}. ${reliability(best.reliability) ?? ""}` : "";
  return `${study.name}: ${standing(study)}.${highest} ${warnings}`;
}

export function facts(model) {
  const data = (model.data ?? []).map((one) => `${one.name} (${one.source}; ${one.licence})`).join("; ");
  const lines = [
    ["Architecture", model.architecture],
    ["Type", model.kind],
    ["Input", model.input ? `${[model.input.side].flat().join(" × ")} pixels, ${model.input.fit}` : null],
    ["Training data", data || "unknown"],
    ["Warning", model.warning || null],
    ["OOD check", model.ood_weakness || "The model warns about images unlike the training images."],
  ];
  const shown = lines.filter(([, value]) => value);
  fill(at("facts").querySelector("div"), make("dl", {}, ...shown.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
}
