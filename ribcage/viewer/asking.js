/** Requests to the server for images, predictions and saliency maps, and the handling of failed requests. */

import { Film, small, warm } from "./film.js";
import { notice, quiet, say } from "./notice.js";
import * as server from "./server.js";
import { summaryText } from "./showing.js";
import { changed, explains, onStage, state } from "./state.js";
import { placed } from "./view.js";
import { plain } from "./words.js";

const SIDE = 1024; // of the image that is requested first
const MAP_SIDE = 512; // of a saliency map, which has no details
const FULL = 4096; // of the image that is requested when the user zooms in
const AT_ONCE = 2; // concurrent requests

server.meanwhile.busy = (sentence, seconds) => notice(`${sentence} Retrying in ${Math.ceil(seconds)} s.`, "busy");
server.meanwhile.calm = () => quiet("busy");

let asking = 0;

/** Send requests for waiting studies, at most AT_ONCE at a time. */
export function work() {
  while (asking < AT_ONCE && !state.gone && state.model) {
    const study = state.studies.find((one) => one.state === "waiting");
    if (!study) return;
    asking += 1;
    study.state = "asking";
    request(study).finally(() => {
      asking -= 1;
      changed();
      work();
    });
  }
}

/** Request the image of a study, then its predictions. */
async function request(study) {
  const model = state.model.id;
  try {
    if (!study.film) {
      study.film = new Film(await server.image(study.file, SIDE));
      study.thumbnail = small(study.film);
      changed();
    }
    if (!study.predictions.has(model)) study.predictions.set(model, await server.predict(model, study.file));
    study.state = state.model.id === model || study.predictions.has(state.model.id) ? "done" : "waiting";
    say(summaryText(study));
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

/** Called when the server can be reached again and its models have not been loaded yet. */
export const back = { begin: async () => {} };

/** Show that the server cannot be reached, and try again until it can. */
export async function gone() {
  if (state.gone) return;
  state.gone = true;
  notice("The server cannot be reached. Is “ribcage serve” still running? Results so far are kept.", "gone");
  while (!(await server.alive())) await new Promise((done) => setTimeout(done, 2000));
  state.gone = false;
  quiet("gone");
  if (!state.models.length) await back.begin();
  work();
  if (state.finding) explain();
}

/** Request the saliency map of the selected finding for each displayed study. */
export async function explain() {
  const { finding, model } = state;
  if (!finding || !explains()) return;
  const unknown = onStage().filter((study) => study.film && !study.map(model.id, finding)?.canvas);
  await Promise.all(unknown.map((study) => requestMap(study, model.id, finding)));
}

const under = new Set(); // maps that are being computed

async function requestMap(study, model, finding) {
  const name = `${study.id} ${model} ${finding}`;
  if (under.has(name)) return;
  under.add(name);
  changed();
  try {
    const found = await server.explain(model, finding, study.file, MAP_SIDE);
    study.keepMap(model, finding, { ...(await warm(found.blob)), boxes: found.boxes, warning: found.warning });
    say(`Saliency map for ${plain(finding)} in ${study.name}. ${found.warning}`);
  } catch (error) {
    if (error instanceof server.Gone) gone();
    else study.keepMap(model, finding, { error: error.message });
  } finally {
    under.delete(name);
    changed();
  }
}

/** Request the image at a higher resolution if the zoom requires it. */
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
