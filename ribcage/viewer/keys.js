/** Keys of the whole page: one table, which `?` shows. */

import { at, fill, make } from "./dom.js";

const KEYS = [
  ["O", "open files (Ctrl V: paste an image)", "open"],
  ["[", "the study before", "before", "PageUp"],
  ["]", "the next study", "after", "PageDown"],
  ["X", "close the study", "close", "Delete"],
  ["C", "two studies side by side", "compare"],
  ["L", "link their windows and zoom", "link"],
  ["W", "dragging sets window and level", "window"],
  ["M", "dragging moves the image", "move"],
  ["+", "zoom in", "larger", "="],
  ["−", "zoom out", "smaller", "-"],
  ["0", "the whole image", "fit"],
  ["A", "a window from the image's own grays", "auto"],
  ["I", "swap black and white", "invert"],
  ["R", "window and zoom as they were", "reset"],
  ["H", "hide or show the heat-map", "heat"],
  [",", "heat-map fainter", "fainter"],
  [".", "heat-map stronger", "stronger"],
  ["B", "hide or show boxes", "boxes"],
  ["J", "save the answers (JSON)", "answers"],
  ["P", "save what is seen (PNG)", "image"],
  ["?", "this table", "help"],
];
const ELSEWHERE = [
  ["Tab", "from part to part"],
  ["Arrows", "through findings and studies; on the image: window and level, with Shift: move"],
  ["Enter", "on a finding: where the model looks for it"],
];

const typing = (target) => target.closest?.("input:not([type=range]), select, textarea, dialog");

/** Call `does[name]()` for the keys of the table. */
export function listen(does) {
  fill(at("keys").querySelector("tbody"), ...[...ELSEWHERE, ...KEYS].map(([key, words]) => line(key, words)));
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || typing(event.target)) return;
    const pressed = event.key.length === 1 ? event.key.toUpperCase() : event.key;
    const found = KEYS.find(([key, , , other]) => key === pressed || other === pressed);
    if (!found) return;
    event.preventDefault();
    does[found[2]]();
  });
}

const line = (key, words) => make("tr", {}, make("th", { scope: "row" }, make("kbd", {}, key)), make("td", {}, words));
