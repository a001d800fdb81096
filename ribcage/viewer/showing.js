/** What is read beside the images: the strip of studies, the findings, a summary, the model's facts. */

import { at, fill, make, settle } from "./dom.js";
import * as findings from "./findings.js";
import { explains, onStage, state } from "./state.js";
import { LETTERS, count, reliability, percent, plain } from "./words.js";

/** The findings as they are listed now. */
export function listed() {
  const seen = onStage().filter((study) => study.answers.has(state.model?.id));
  if (!seen.length) return [];
  return explains() ? findings.rows(state.model, onStage(), state.order) : findings.boxed(state.model, onStage());
}

/** The strip of studies. */
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
  const above = study.crossed(state.model?.id, state.rule).length;
  const remarks = study.answers.get(state.model?.id)?.remarks?.length ?? 0;
  const words = {
    waiting: "waiting",
    asking: "asking …",
    failed: "cannot be read",
    done: explains() ? (above ? `▲ ${above} above` : "none above") : standing(study),
  };
  study.element ??= make("div", { id: study.id, role: "option", title: study.name });
  study.element.className = names;
  study.element.setAttribute("aria-selected", String(place >= 0));
  const said = remarks && study.state === "done" ? `${words.done} · !` : words[study.state];
  settle(study.element, [letter?.textContent, said, !study.thumbnail], () => [
    letter,
    make("span", { class: "thumbnail" }, study.thumbnail),
    make("span", { class: "name" }, study.name),
    make("span", { class: study.state === "failed" ? "said wrong" : "said" }, said),
  ]);
}

/** The findings of what is on the stage. */
export function answers() {
  const made = listed();
  const any = made.length > 0;
  at("findings").hidden = !any;
  at("orders").hidden = !any || !explains();
  at("scale").hidden = !any || !explains();
  at("findings").classList.toggle("two", state.two);
  const shown = { current: state.current, heat: state.finding, rule: state.rule };
  findings.show(at("findings"), made, shown, [state.model?.id, onStage().map((study) => study.id)]);
  fill(at("summary"), ...onStage().map(summary));
}

function summary(study) {
  const letter = state.two ? make("b", { class: "letter" }, LETTERS[onStage().indexOf(study)]) : null;
  return make("p", {}, letter, make("span", { class: "name" }, study.name), make("span", { class: "soft" }, standing(study)));
}

function standing(study) {
  if (study.state === "failed") return "cannot be read";
  if (!study.answers.has(state.model?.id)) return state.gone ? "waits for the server" : "is being read …";
  if (!explains()) return count(study.boxes(state.model.id).length, "box", "boxes").replace(/^0 .*/, "no box");
  const above = study.crossed(state.model.id, state.rule).length;
  return `${above} of ${state.model.findings.length} above ${state.two ? "" : "their "}threshold`;
}

/** An answer as a sentence, for those who listen. */
export function inWords(study) {
  const said = study.answers.get(state.model.id);
  if (!said) return "";
  const remarks = (said.remarks ?? []).join(" ");
  if (!explains()) return `${study.name}: ${standing(study)}. ${remarks}`;
  const best = [...(said.findings ?? [])].sort((one, other) => other.probability - one.probability)[0];
  const likely = best ? ` Likeliest: ${plain(best.name)}, ${percent(best.probability)}. ${reliability(best.reliability) ?? ""}` : "";
  return `${study.name}: ${standing(study)}.${likely} ${remarks}`;
}

export function facts(model) {
  const data = (model.data ?? []).map((one) => `${one.name} (${one.source}; ${one.licence})`).join("; ");
  const lines = [
    ["Architecture", model.architecture],
    ["Kind", model.kind],
    ["Sees", model.input ? `${[model.input.side].flat().join(" × ")} pixels, ${model.input.fit}` : null],
    ["Learnt from", data || "not known"],
    ["Warning", model.warning || null],
    ["OOD check", model.ood_weakness || "images unlike its training images are noticed"],
  ];
  const shown = lines.filter(([, value]) => value);
  fill(at("facts").querySelector("div"), make("dl", {}, ...shown.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
}
