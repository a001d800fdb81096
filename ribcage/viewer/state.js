/** State of the page: models, studies, which of them are on the stage, and how they are shown. */

import { at } from "./dom.js";

export const state = {
  models: [],
  intendedUse: "Research use only; not a medical device.",
  model: null, // the chosen entry of /v1/models
  studies: [],
  shown: [null, null],
  active: 0,
  two: false,
  link: true,
  tool: "window",
  finding: null, // whose saliency map is shown
  current: null, // whose details are shown
  saliency: true,
  boxes: true,
  order: "probability",
  rule: "",
  gone: false,
};

/** The one or two studies on the stage. */
export const onStage = () => (state.two ? state.shown : state.shown.slice(0, 1)).filter(Boolean);

/** Whether the chosen model has saliency maps. */
export const explains = () => state.model?.kind === "classifier";

/** How a pane shows its study. */
export const display = (number = 0) => ({
  model: state.model?.id,
  finding: state.finding,
  rule: state.rule,
  opacity: state.saliency ? Number(at("opacity").value) / 100 : 0,
  boxes: state.boxes,
  tool: state.tool,
  two: state.two,
  active: state.active === number,
  explains: explains(),
});

let render = () => {};
let planned = false;

/** The state has changed: render it with the next frame. */
export function changed() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    render();
  });
}

/** What `changed` calls. */
export function onChange(does) {
  render = does;
}
