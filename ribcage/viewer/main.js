/** The page: a list of studies, one or two displayed studies, and their predictions. */

import * as asking from "./asking.js";
import { at, fill, make, press, save } from "./dom.js";
import * as dropping from "./dropping.js";
import * as findings from "./findings.js";
import * as keys from "./keys.js";
import { notice, quiet } from "./notice.js";
import { Pane } from "./pane.js";
import * as saving from "./saving.js";
import * as server from "./server.js";
import * as showing from "./showing.js";
import { changed, display, explains, onChange, onStage, state } from "./state.js";
import { Study } from "./study.js";
import * as theme from "./theme.js";
import { START } from "./view.js";
import { ruled } from "./words.js";

const panes = [0, 1].map((number) => new Pane(number, { look, take, close, again, rest }));
const stage = at("panes");
stage.append(...panes.map((pane) => pane.element));

// ---- actions --------------------------------------------------------------------------------------------------------

/** Open files as studies, which then wait for predictions. */
function add(files) {
  const taken = [...files].slice(0, dropping.MOST);
  if (files.length > taken.length) notice(`Only the first ${taken.length} of ${files.length} files were opened.`, "few");
  const added = taken.map((file) => new Study(file));
  state.studies.push(...added);
  if (!added.length) return;
  put(added[0]);
  asking.work();
}

/** Show a study in the active pane. */
function put(study) {
  const other = 1 - state.active;
  if (state.two && state.shown[other] === study) state.shown[other] = state.shown[state.active];
  state.shown[state.active] = study;
  if (state.finding) asking.explain();
  changed();
}

function step(by) {
  const here = state.studies.indexOf(state.shown[state.active]);
  const to = Math.min(state.studies.length - 1, Math.max(0, here + by));
  if (state.studies[to] && to !== here) put(state.studies[to]);
}

function close(pane) {
  const study = pane.study;
  if (!study) return;
  const here = state.studies.indexOf(study);
  state.studies.splice(here, 1);
  const free = state.studies.filter((one) => !state.shown.includes(one));
  const next = state.studies.slice(here).find((one) => free.includes(one)) ?? free.at(-1) ?? null;
  state.shown[pane.number] = next;
  if (!state.shown[0] && state.shown[1]) state.shown.reverse();
  if (!state.shown[1]) state.two = false;
  if (!state.two) state.active = 0;
  if (state.finding) asking.explain();
  changed();
}

function again(pane) {
  if (pane.study?.state !== "failed") return;
  pane.study.state = "waiting";
  pane.study.error = "";
  changed();
  asking.work();
}

function take(pane) {
  if (state.active === pane.number || !state.two) return;
  state.active = pane.number;
  changed();
}

/** Change the view of a study and of a linked study. */
function look(pane, view) {
  pane.study.view = view;
  pane.paint();
  const other = panes[1 - pane.number];
  if (state.two && state.link && other.study?.film && other.study !== pane.study) {
    other.study.view = view;
    other.quick = pane.quick;
    other.paint();
  }
  press("invert", panes[state.active].study?.view.invert ?? false);
  clearTimeout(look.later);
  look.later = setTimeout(() => panes.forEach((one) => asking.sharpen(one)), 250);
}

/** After a gesture, draw all images at full resolution. */
function rest() {
  for (const pane of panes) {
    pane.quick = false;
    pane.paint();
  }
}

function compare() {
  if (!state.two && state.studies.length < 2) {
    notice("Open a second study to compare.", "few");
    return;
  }
  quiet("few");
  state.two = !state.two;
  if (state.two) {
    const here = state.studies.indexOf(state.shown[0]);
    state.shown[1] = state.studies[here + 1] ?? state.studies[here - 1];
    if (state.finding) asking.explain();
  } else {
    state.shown = [state.shown[state.active], null];
    state.active = 0;
  }
  changed();
}

function choose(model) {
  if (state.model && state.model.kind !== model.kind) state.finding = null;
  state.model = model;
  at("model").value = model?.id ?? "";
  const rules = [...new Set(model.findings.flatMap((one) => Object.keys(one.thresholds ?? {})))];
  state.rule = rules.includes(state.rule) ? state.rule : (rules[0] ?? "");
  fill(at("rule"), ...rules.map((name) => make("option", { value: name }, `Threshold: ${ruled(name)}`)));
  at("rule").value = state.rule;
  const names = model.findings.map((one) => one.name);
  if (!names.includes(state.finding)) state.finding = null;
  if (!names.includes(state.current)) state.current = null;
  for (const study of state.studies) {
    if (study.state === "asking" || (study.state === "failed" && !study.film)) continue;
    study.state = study.predictions.has(model.id) ? "done" : "waiting";
  }
  showing.facts(model);
  changed();
  asking.work();
  asking.explain();
}

/** Show or hide the saliency map of a finding. */
function toggle(name) {
  state.current = name;
  state.finding = state.finding === name ? null : name;
  state.saliency = true;
  changed();
  asking.explain();
}

function walkFindings(by) {
  const names = showing.listed().map((row) => row.name);
  const here = names.indexOf(state.current);
  state.current = names[Math.min(names.length - 1, Math.max(0, here + by))] ?? null;
  changed();
}

function flip(name, id = name) {
  state[name] = !state[name];
  press(id, state[name]);
  changed();
}

function handle(tool) {
  state.tool = tool;
  press("tool-window", tool === "window");
  press("tool-move", tool === "move");
  changed();
}

/** Change the active study's view. */
function view(change) {
  const pane = panes[state.active];
  if (pane.study?.film) look(pane, { ...pane.study.view, ...change(pane.study) });
}

function opacity(by) {
  at("opacity").value = String(Number(at("opacity").value) + by);
  state.saliency = true;
  changed();
}

function savePredictions() {
  if (!state.studies.length) return;
  const text = JSON.stringify(saving.predictions(state.studies, state.models, state.intendedUse), null, 2);
  save("ribcage-predictions.json", new Blob([text], { type: "application/json" }));
}

async function saveImage() {
  const seen = panes.filter((pane) => pane.study?.film);
  if (seen.length) save("ribcage-image.png", await saving.image(seen, display(), state.intendedUse));
}

function askToken(wrong) {
  const dialog = at("token");
  dialog.querySelector(".wrong").textContent = wrong ? "Wrong token." : "";
  at("token-text").value = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.oncancel = (event) => event.preventDefault(); // nothing works without a token
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      dialog.close();
      done(at("token-text").value.trim());
    };
  });
}

// ---- the page --------------------------------------------------------------------------------------------------------

function render() {
  const any = state.studies.length > 0;
  at("empty").hidden = any;
  stage.hidden = !any;
  stage.classList.toggle("two", state.two);
  if (document.body.classList.contains("any") !== any) at("facts").open = !any;
  document.body.classList.toggle("any", any);
  panes[1].element.hidden = !state.two;
  panes.forEach((pane, number) => pane.show(state.two || number === 0 ? state.shown[number] : null, display(number)));
  for (const study of state.studies) if (!onStage().includes(study)) study.rest();
  showing.strip();
  showing.predictions();
  press("compare", state.two);
  at("link").hidden = !state.two;
  press("invert", panes[state.active].study?.view.invert ?? false);
  at("opacity").disabled = !state.finding;
  at("takes").hidden = !any;
  at("save-image").disabled = !onStage().some((study) => study.film);
}

async function begin() {
  try {
    const found = await server.models();
    state.models = found.models;
    state.intendedUse = found.intended_use ?? state.intendedUse;
    at("use").textContent = state.intendedUse;
    fill(at("model"), ...found.models.map(({ id }) => make("option", { value: id }, id)));
    if (found.models.length) choose(found.models[0]);
    else notice("The server has no models.", "refused");
  } catch (error) {
    if (error instanceof server.Gone) asking.gone();
    else notice(error.message, "refused");
  }
}

function listen() {
  const on = (id, name, does) => at(id).addEventListener(name, does);
  const clicks = {
    open: () => at("files").click(),
    choose: () => at("files").click(),
    "save-predictions": savePredictions,
    "save-image": saveImage,
    help: () => at("keys").showModal(),
    "keys-close": () => at("keys").close(),
    "tool-window": () => handle("window"),
    "tool-move": () => handle("move"),
    "zoom-in": () => panes[state.active].zoom(1.25),
    "zoom-out": () => panes[state.active].zoom(0.8),
    fit: () => panes[state.active].fit(),
    auto: () => view((study) => study.film.auto()),
    invert: () => view((study) => ({ invert: !study.view.invert })),
    reset: () => view(() => START),
    boxes: () => flip("boxes"),
    compare,
    link: () => flip("link"),
  };
  for (const [id, does] of Object.entries(clicks)) on(id, "click", does);
  on("files", "change", () => {
    add(at("files").files);
    at("files").value = "";
  });
  on("model", "change", () => choose(state.models.find((one) => one.id === at("model").value)));
  on("order", "change", () => flipTo("order"));
  on("rule", "change", () => flipTo("rule"));
  on("opacity", "input", () => opacity(0));
  on("strip", "click", (event) => {
    const study = state.studies.find((one) => one.id === event.target.closest("[role=option]")?.id);
    if (study) put(study);
  });
  on("findings", "click", (event) => {
    const name = event.target.closest("[role=option]")?.dataset.name;
    if (name) toggle(name);
  });
  findings.walk("strip", step, () => panes[state.active].canvas.focus());
  findings.walk("findings", walkFindings, () => state.current && toggle(state.current));
  keys.listen({
    open: clicks.open,
    before: () => step(-1),
    after: () => step(1),
    close: () => close(panes[state.active]),
    compare,
    link: clicks.link,
    window: clicks["tool-window"],
    move: clicks["tool-move"],
    larger: clicks["zoom-in"],
    smaller: clicks["zoom-out"],
    fit: clicks.fit,
    auto: clicks.auto,
    invert: clicks.invert,
    reset: clicks.reset,
    saliency: () => flipSaliency(),
    fainter: () => opacity(-10),
    stronger: () => opacity(10),
    boxes: clicks.boxes,
    predictions: savePredictions,
    image: saveImage,
    help: clicks.help,
  });
  dropping.listen(add, (sentence) => notice(sentence, "few"));
}

function flipTo(name) {
  state[name] = at(name).value;
  changed();
}

function flipSaliency() {
  state.saliency = !state.saliency;
  changed();
}

at("host").textContent = location.host;
server.meanwhile.token = askToken;
asking.back.begin = begin;
onChange(render);
theme.listen();
listen();
changed();
begin();
