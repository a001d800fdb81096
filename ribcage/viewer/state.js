/** State of the page: models, studies, the displayed studies, and display settings. */

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

/** The one or two displayed studies. */
export const onStage = () => (state.two ? state.shown : state.shown.slice(0, 1)).filter(Boolean);

/** Whether the selected model has saliency maps. */
export const explains = () => state.model?.kind === "classifier";

/** Display settings of a pane. */
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

/** Render the changed state in the next frame. */
export function changed() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    render();
  });
}

/** Set the function that `changed` calls. */
export function onChange(does) {
  render = does;
}
