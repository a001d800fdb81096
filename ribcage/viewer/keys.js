/** Keyboard shortcuts of the page, in one table that `?` displays. */

import { at, fill, make } from "./dom.js";

const KEYS = [
  ["O", "open files (press Ctrl V to paste an image)", "open"],
  ["[", "previous study", "before", "PageUp"],
  ["]", "next study", "after", "PageDown"],
  ["X", "close study", "close", "Delete"],
  ["C", "compare two studies side by side", "compare"],
  ["L", "link window and zoom of both studies", "link"],
  ["W", "drag to change window and level", "window"],
  ["M", "drag to pan", "move"],
  ["+", "zoom in", "larger", "="],
  ["−", "zoom out", "smaller", "-"],
  ["0", "fit the image", "fit"],
  ["A", "automatic window", "auto"],
  ["I", "invert", "invert"],
  ["R", "reset window and zoom", "reset"],
  ["H", "show or hide the saliency map", "saliency"],
  [",", "make the saliency map less opaque", "fainter"],
  [".", "make the saliency map more opaque", "stronger"],
  ["B", "show or hide boxes", "boxes"],
  ["J", "save predictions (JSON)", "predictions"],
  ["P", "save the displayed image (PNG)", "image"],
  ["?", "keyboard shortcuts", "help"],
];
const ELSEWHERE = [
  ["Tab", "next control"],
  ["Arrows", "next or previous finding or study; on the image, change window and level, or pan with Shift"],
  ["Enter", "on a finding: show or hide its saliency map"],
];

const typing = (target) => target.closest?.("input:not([type=range]), select, textarea, dialog");

/** Call `does[name]()` when a shortcut of the table is pressed. */
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
