/** What the page knows: models, studies, which of them are on the stage, and how they are looked at. */

import { at } from "./dom.js";

export const state = {
  models: [],
  use: "Research use only; not a medical device.",
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

/** The one or two studies on the stage. */
export const onStage = () => (state.two ? state.shown : state.shown.slice(0, 1)).filter(Boolean);

/** Whether the chosen model can say where it looks. */
export const explains = () => state.model?.kind === "classifier";

/** How a pane shows its study. */
export const looks = (number = 0) => ({
  model: state.model?.id,
  finding: state.finding,
  rule: state.rule,
  opacity: state.heat ? Number(at("opacity").value) / 100 : 0,
  boxes: state.boxes,
  tool: state.tool,
  two: state.two,
  active: state.active === number,
  explains: explains(),
});

let render = () => {};
let planned = false;

/** Something is different: show it with the next image of the screen. */
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
