/** Messages: a line across the page, and a sentence for screen readers. */

import { at } from "./dom.js";

/** A line across the page, until `quiet` of the same reason. */
export function notice(text, reason) {
  at("notice").textContent = text;
  at("notice").dataset.reason = reason;
  at("notice").hidden = false;
  clearTimeout(notice.later);
  if (reason === "few") notice.later = setTimeout(() => quiet(reason), 6000);
}

/** Hide the line, if it is shown for this reason. */
export function quiet(reason) {
  if (at("notice").dataset.reason === reason) at("notice").hidden = true;
}

/** At the foot of the page, and to screen readers. */
export function say(text) {
  at("status").textContent = text;
}
