/** What the page says of itself: a line across it, and a sentence for those who listen. */

import { at } from "./dom.js";

/** A line across the page, until `quiet` of the same reason. */
export function notice(text, reason) {
  at("notice").textContent = text;
  at("notice").dataset.reason = reason;
  at("notice").hidden = false;
  clearTimeout(notice.later);
  if (reason === "few") notice.later = setTimeout(() => quiet(reason), 6000);
}

/** The line goes, if it is there for this reason. */
export function quiet(reason) {
  if (at("notice").dataset.reason === reason) at("notice").hidden = true;
}

/** At the foot of the page, read out. */
export function say(text) {
  at("said").textContent = text;
}
