/** The page: studies in a strip, one or two of them on the stage, what the model says of them beside it. */

import { at, fill, make, press, save } from "./dom.js";
import { Film, warm } from "./film.js";
import * as findings from "./findings.js";
import * as keys from "./keys.js";
import { Pane } from "./pane.js";
import * as saving from "./saving.js";
import * as server from "./server.js";
import { Study } from "./study.js";
import * as theme from "./theme.js";
import { START, placed } from "./view.js";
import { LETTERS, count, observed, percent, plain, ruled } from "./words.js";

const SIDE = 1024; // of the picture that is asked for first
const FULL = 4096; // of the one that follows when somebody zooms in
const AT_ONCE = 2; // files on their way
const MOST = 200; // files of one drop

const state = {
  models: [],
  use: at("use").textContent,
  model: null, // what /v1/models says of the chosen one
  studies: [],
  shown: [null, null],
  active: 0,
  two: false,
  link: true,
  tool: "window",
  finding: null, // whose heat-map is shown
  current: null, // which one's details are shown
  heat: true,
  boxes: true,
  order: "probability",
  rule: "",
  gone: false,
};

const panes = [0, 1].map((number) => new Pane(number, { look, take, close, again }));
const stage = at("panes");
stage.append(...panes.map((pane) => pane.element));

// ---- what is asked of the server -----------------------------------------------------------------------------------

server.meanwhile.busy = (seconds) => notice(`The server is busy: asked again in ${Math.ceil(seconds)} s.`, "busy");
server.meanwhile.token = askToken;

let asking = 0;

/** Take waiting studies up, a few at a time. */
function work() {
  while (asking < AT_ONCE && !state.gone && state.model) {
    const study = state.studies.find((one) => one.state === "waiting");
    if (!study) return;
    asking += 1;
    study.state = "asking";
    answer(study).finally(() => {
      asking -= 1;
      changed();
      work();
    });
  }
}

/** A study's picture, then what the model says of it. */
async function answer(study) {
  const model = state.model.id;
  try {
    if (!study.film) {
      study.film = new Film(await server.picture(study.file, SIDE));
      study.thumbnail = small(study.film);
      changed();
    }
    if (!study.answers.has(model)) study.answers.set(model, await server.predict(model, study.file));
    study.state = state.model.id === model || study.answers.has(state.model.id) ? "done" : "waiting";
    quiet("busy");
    say(inWords(study));
    if (state.finding && state.shown.includes(study)) explain();
  } catch (error) {
    failed(study, error);
  }
}

function failed(study, error) {
  if (error instanceof server.Gone) {
    study.state = "waiting";
    gone();
    return;
  }
  study.state = "failed";
  study.error = error.message;
  say(`${study.name}: ${error.message}`);
}

/** The server is gone: say so, and look until it is back. */
async function gone() {
  if (state.gone) return;
  state.gone = true;
  notice("The server does not answer. Is “ribcage serve” still running? What was answered stays here.", "gone");
  while (!(await server.alive())) await new Promise((done) => setTimeout(done, 2000));
  state.gone = false;
  quiet("gone");
  if (!state.models.length) await begin();
  work();
  if (state.finding) explain();
}

/** Where the model looks for the chosen finding, in each study on the stage. */
async function explain() {
  const { finding, model } = state;
  if (!finding || !explains()) return;
  const unknown = onStage().filter((study) => study.film && !study.heat(model.id, finding));
  await Promise.all(unknown.map((study) => heat(study, model.id, finding)));
}

const under = new Set(); // explanations on their way

async function heat(study, model, finding) {
  const name = `${study.id} ${model} ${finding}`;
  if (under.has(name)) return;
  under.add(name);
  changed();
  try {
    const found = await server.explain(model, finding, study.file, SIDE);
    study.look(model, finding, { ...(await warm(found.blob)), boxes: found.boxes });
    say(`Heat-map of ${plain(finding)} in ${study.name}.`);
  } catch (error) {
    if (error instanceof server.Gone) gone();
    else study.look(model, finding, { error: error.message });
  } finally {
    under.delete(name);
    changed();
  }
}

/** The picture with more pixels, when it is looked at so closely that they would be seen. */
async function sharpen(pane) {
  const { study } = pane;
  if (!study?.film || study.sharp || study.sharpening) return;
  const { width, original } = study.film;
  const shown = placed(study.view, study.size, pane.pixels).scale * original[0];
  if (Math.max(...original) <= SIDE || shown < 1.2 * width) return;
  study.sharpening = true;
  try {
    const found = new Film(await server.picture(study.file, FULL));
    if (state.shown.includes(study)) study.sharp = found;
    pane.paint();
  } catch {
    // the picture stays as sharp as it is
  } finally {
    study.sharpening = false;
  }
}

async function begin() {
  try {
    const said = await server.models();
    state.models = said.models;
    state.use = said.use ?? state.use;
    at("use").textContent = state.use;
    fill(at("model"), ...said.models.map(({ id }) => make("option", { value: id }, id)));
    if (said.models.length) choose(said.models[0]);
    else notice("This server has no model.", "refused");
  } catch (error) {
    if (error instanceof server.Gone) gone();
    else notice(error.message, "refused");
  }
}

// ---- what a person does --------------------------------------------------------------------------------------------

/** Files become studies, and wait for their answers. */
function add(files) {
  const taken = [...files].slice(0, MOST);
  if (files.length > MOST) notice(`Only the first ${MOST} of ${files.length} files were taken.`, "many");
  const added = taken.map((file) => new Study(file));
  state.studies.push(...added);
  if (!added.length) return;
  if (state.two && !state.shown[1] && state.shown[0]) state.shown[1] = added[0];
  else if (!state.shown[state.active]) put(added[0]);
  changed();
  work();
}

/** Show a study in the active pane. */
function put(study) {
  const other = 1 - state.active;
  if (state.two && state.shown[other] === study) state.shown[other] = state.shown[state.active];
  const before = state.shown[state.active];
  if (before) before.sharp = null;
  state.shown[state.active] = study;
  if (state.finding) explain();
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
  if (state.finding) explain();
  changed();
}

function again(pane) {
  if (pane.study?.state !== "failed") return;
  pane.study.state = "waiting";
  pane.study.error = "";
  changed();
  work();
}

function take(pane) {
  if (state.active === pane.number || !state.two) return;
  state.active = pane.number;
  changed();
}

/** A study is looked at in another way; a linked one follows. */
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
  look.later = setTimeout(() => panes.forEach((one) => sharpen(one)), 250);
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
    if (state.finding) explain();
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
    if (study.state !== "asking" && study.state !== "failed") study.state = study.answers.has(model.id) ? "done" : "waiting";
  }
  facts(model);
  changed();
  work();
  explain();
}

/** Show where the model looks for a finding, or no longer. */
function toggle(name) {
  state.current = name;
  state.finding = state.finding === name ? null : name;
  state.heat = true;
  changed();
  explain();
}

function walkFindings(by) {
  const names = listed().map((row) => row.name);
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
  state.heat = true;
  changed();
}

function saveAnswers() {
  if (!state.studies.length) return;
  const text = JSON.stringify(saving.answers(state.studies, state.models, state.use), null, 2);
  save("ribcage-answers.json", new Blob([text], { type: "application/json" }));
}

async function savePicture() {
  const seen = panes.filter((pane) => pane.study?.film);
  if (seen.length) save("ribcage-picture.png", await saving.picture(seen, looks(), state.use));
}

function askToken(wrong) {
  const dialog = at("token");
  dialog.querySelector(".wrong").textContent = wrong ? "The server did not take this token." : "";
  at("token-text").value = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.oncancel = (event) => event.preventDefault(); // without a token nothing can be done here
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      dialog.close();
      done(at("token-text").value.trim());
    };
  });
}

// ---- what is seen --------------------------------------------------------------------------------------------------

const onStage = () => (state.two ? state.shown : state.shown.slice(0, 1)).filter(Boolean);
const explains = () => state.model?.kind === "classifier";
const looks = (number = 0) => ({
  model: state.model?.id,
  finding: state.finding,
  rule: state.rule,
  opacity: state.heat ? Number(at("opacity").value) / 100 : 0,
  boxes: state.boxes,
  tool: state.tool,
  two: state.two,
  active: state.active === number,
  asking: explains(),
});

function listed() {
  const seen = onStage().filter((study) => study.answers.has(state.model?.id));
  if (!seen.length) return [];
  return explains() ? findings.rows(state.model, onStage(), state.order) : findings.boxed(state.model, onStage());
}

let planned = false;

/** Something is different: show it with the next picture of the screen. */
function changed() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    render();
  });
}

function render() {
  const any = state.studies.length > 0;
  at("empty").hidden = any;
  stage.hidden = !any;
  stage.classList.toggle("two", state.two);
  if (document.body.classList.contains("any") !== any) at("facts").open = !any;
  document.body.classList.toggle("any", any);
  panes[1].element.hidden = !state.two;
  panes.forEach((pane, number) => pane.show(state.two || number === 0 ? state.shown[number] : null, looks(number)));
  strip();
  answers();
  press("compare", state.two);
  at("link").hidden = !state.two;
  press("invert", panes[state.active].study?.view.invert ?? false);
  at("opacity").disabled = !state.finding;
  at("takes").hidden = !any;
  at("save-picture").disabled = !onStage().some((study) => study.film);
}

function strip() {
  const list = at("strip");
  list.hidden = !state.studies.length;
  fill(list, ...state.studies.map(item));
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
  const picture = make("span", { class: "thumbnail" });
  if (study.thumbnail) picture.append(study.thumbnail);
  return make(
    "div",
    { id: study.id, class: names, role: "option", "aria-selected": String(place >= 0), title: study.name },
    letter,
    picture,
    make("span", { class: "name" }, study.name),
    make("span", { class: study.state === "failed" ? "said wrong" : "said" }, remarks && study.state === "done" ? `${words.done} · !` : words[study.state]),
  );
}

/** A small picture of a study, for the strip. */
function small(film) {
  const side = 96;
  const scale = Math.min(side / film.width, side / film.height);
  const canvas = make("canvas", { width: String(Math.max(1, Math.round(film.width * scale))), height: String(Math.max(1, Math.round(film.height * scale))), "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(film.through(START), 0, 0, canvas.width, canvas.height);
  return canvas;
}

function answers() {
  const made = listed();
  const any = made.length > 0;
  at("findings").hidden = !any;
  at("orders").hidden = !any || !explains();
  at("scale").hidden = !any || !explains();
  at("findings").classList.toggle("two", state.two);
  findings.show(at("findings"), made, { current: state.current, heat: state.finding, rule: state.rule });
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
function inWords(study) {
  const said = study.answers.get(state.model.id);
  if (!said) return "";
  const remarks = (said.remarks ?? []).join(" ");
  if (!explains()) return `${study.name}: ${standing(study)}. ${remarks}`;
  const best = [...(said.findings ?? [])].sort((one, other) => other.probability - one.probability)[0];
  const likely = best ? ` Likeliest: ${plain(best.name)}, ${percent(best.probability)}. ${observed(best.observed) ?? ""}` : "";
  return `${study.name}: ${standing(study)}.${likely} ${remarks}`;
}

function facts(model) {
  const data = (model.data ?? []).map((one) => `${one.name} (${one.source}; ${one.licence})`).join("; ");
  const lines = [
    ["Architecture", model.architecture],
    ["Kind", model.kind],
    ["Sees", model.input ? `${[model.input.side].flat().join(" × ")} pixels, ${model.input.fit}` : null],
    ["Learnt from", data || "not known"],
    ["Says what is unusual", model.typical ? "yes: it knows its training pictures" : "no: it does not know its training pictures"],
  ];
  const shown = lines.filter(([, value]) => value);
  fill(at("facts").querySelector("div"), make("dl", {}, ...shown.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
}

/** A line across the page, until `quiet` of the same reason. */
function notice(text, reason) {
  at("notice").textContent = text;
  at("notice").dataset.reason = reason;
  at("notice").hidden = false;
  clearTimeout(notice.later);
  if (reason === "few" || reason === "many") notice.later = setTimeout(() => quiet(reason), 6000);
}

function quiet(reason) {
  if (at("notice").dataset.reason === reason) at("notice").hidden = true;
}

function say(text) {
  at("said").textContent = text;
}

// ---- where it comes from -------------------------------------------------------------------------------------------

/** All files of a drop, those in folders, too. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((one) => one.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((one) => one.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.map(inside))).flat();
}

async function inside(entry) {
  if (entry.isFile) return [await new Promise((done, broken) => entry.file(done, broken))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, broken) => reader.readEntries(done, broken));
    if (!some.length || found.length > MOST) break;
    found.push(...some.filter((one) => !one.name.startsWith(".")));
  }
  return (await Promise.all(found.map(inside))).flat();
}

function listen() {
  const on = (id, name, does) => at(id).addEventListener(name, does);
  const clicks = {
    open: () => at("files").click(),
    choose: () => at("files").click(),
    "save-answers": saveAnswers,
    "save-picture": savePicture,
    help: () => at("keys").showModal(),
    "keys-close": () => at("keys").close(),
    "tool-window": () => handle("window"),
    "tool-move": () => handle("move"),
    "zoom-in": () => panes[state.active].zoom(1.25),
    "zoom-out": () => panes[state.active].zoom(0.8),
    fit: () => panes[state.active].fit(),
    auto: () => view((study) => study.film.auto()),
    invert: () => view((study) => ({ invert: !study.view.invert })),
    reset: () => view((study) => study.start),
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
    heat: () => flipHeat(),
    fainter: () => opacity(-10),
    stronger: () => opacity(10),
    boxes: clicks.boxes,
    answers: saveAnswers,
    picture: savePicture,
    help: clicks.help,
  });
  document.addEventListener("paste", (event) => add(event.clipboardData.files));
  dragging();
}

function flipTo(name) {
  state[name] = at(name).value;
  changed();
}

function flipHeat() {
  state.heat = !state.heat;
  changed();
}

/** Files may be dropped anywhere on the page. */
function dragging() {
  let depth = 0;
  const hide = () => {
    depth = 0;
    at("drop").hidden = true;
  };
  document.addEventListener("dragenter", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    depth += 1;
    at("drop").hidden = false;
  });
  document.addEventListener("dragleave", () => {
    depth -= 1;
    if (depth <= 0) hide();
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    hide();
    add(await dropped(event.dataTransfer));
  });
}

at("host").textContent = location.host;
theme.listen();
listen();
changed();
begin();
