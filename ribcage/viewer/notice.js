/** Messages: a banner on the page, and sentences for screen readers. */

import { at } from "./dom.js";

/** Show a banner until `quiet` is called with the same reason. */
export function notice(text, reason) {
  at("notice").textContent = text;
  at("notice").dataset.reason = reason;
  at("notice").hidden = false;
  clearTimeout(notice.later);
  if (reason === "few") notice.later = setTimeout(() => quiet(reason), 6000);
}

/** Hide the banner if it is shown for this reason. */
export function quiet(reason) {
  if (at("notice").dataset.reason === reason) at("notice").hidden = true;
}

/** Show a sentence at the bottom of the page and announce it to screen readers. */
export function say(text) {
  at("status").textContent = text;
}
