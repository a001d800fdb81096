/** What is asked of the server for the studies: images, answers, heat-maps; and what happens when it cannot answer. */

import { Film, small, warm } from "./film.js";
import { notice, quiet, say } from "./notice.js";
import * as server from "./server.js";
import { inWords } from "./showing.js";
import { changed, explains, onStage, state } from "./state.js";
import { placed } from "./view.js";
import { plain } from "./words.js";

const SIDE = 1024; // of the image that is asked for first
const WARM = 512; // of a heat-map, which has no details
const FULL = 4096; // of the image that follows when somebody zooms in
const AT_ONCE = 2; // files on their way

server.meanwhile.busy = (sentence, seconds) => notice(`${sentence} Asked again in ${Math.ceil(seconds)} s.`, "busy");
server.meanwhile.calm = () => quiet("busy");

let asking = 0;

/** Take waiting studies up, a few at a time. */
export function work() {
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

/** A study's image, then what the model says of it. */
async function answer(study) {
  const model = state.model.id;
  try {
    if (!study.film) {
      study.film = new Film(await server.image(study.file, SIDE));
      study.thumbnail = small(study.film);
      changed();
    }
    if (!study.answers.has(model)) study.answers.set(model, await server.predict(model, study.file));
    study.state = state.model.id === model || study.answers.has(state.model.id) ? "done" : "waiting";
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

/** What is done when the server is back and its models were never known. */
export const back = { begin: async () => {} };

/** The server is gone: say so, and look until it is back. */
export async function gone() {
  if (state.gone) return;
  state.gone = true;
  notice("The server does not answer. Is “ribcage serve” still running? What was answered stays here.", "gone");
  while (!(await server.alive())) await new Promise((done) => setTimeout(done, 2000));
  state.gone = false;
  quiet("gone");
  if (!state.models.length) await back.begin();
  work();
  if (state.finding) explain();
}

/** Where the model looks for the chosen finding, in each study on the stage. */
export async function explain() {
  const { finding, model } = state;
  if (!finding || !explains()) return;
  const unknown = onStage().filter((study) => study.film && !study.heat(model.id, finding)?.canvas);
  await Promise.all(unknown.map((study) => heat(study, model.id, finding)));
}

const under = new Set(); // explanations on their way

async function heat(study, model, finding) {
  const name = `${study.id} ${model} ${finding}`;
  if (under.has(name)) return;
  under.add(name);
  changed();
  try {
    const found = await server.explain(model, finding, study.file, WARM);
    study.look(model, finding, { ...(await warm(found.blob)), boxes: found.boxes, remark: found.remark });
    say(`Heat-map of ${plain(finding)} in ${study.name}. ${found.remark}`);
  } catch (error) {
    if (error instanceof server.Gone) gone();
    else study.look(model, finding, { error: error.message });
  } finally {
    under.delete(name);
    changed();
  }
}

/** The image with more pixels, when it is looked at so closely that they would be seen. */
export async function sharpen(pane) {
  const { study } = pane;
  if (!study?.film || study.sharp || study.sharpening) return;
  const { width, original } = study.film;
  const shown = placed(study.view, study.size, pane.pixels).scale * original[0];
  if (Math.max(...original) <= SIDE || shown < 1.2 * width) return;
  study.sharpening = true;
  try {
    const found = new Film(await server.image(study.file, FULL));
    if (state.shown.includes(study)) study.sharp = found;
    pane.paint();
  } catch {
    // the image stays as sharp as it is
  } finally {
    study.sharpening = false;
  }
}
