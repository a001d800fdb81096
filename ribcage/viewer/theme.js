/** Dark or light theme, chosen by the user or else by the system. */

import { at } from "./dom.js";

const KEPT = "ribcage-theme";
const light = window.matchMedia("(prefers-color-scheme: light)");

function stored() {
  try {
    return localStorage.getItem(KEPT) ?? "";
  } catch {
    return ""; // storage is disabled
  }
}

function apply() {
  const chosen = at("theme").value;
  document.documentElement.dataset.theme = chosen || (light.matches ? "light" : "dark");
}

/** Apply the theme, and update it when the switch or the system setting changes. */
export function listen() {
  at("theme").value = stored();
  at("theme").addEventListener("change", () => {
    try {
      localStorage.setItem(KEPT, at("theme").value);
    } catch {
      // applied all the same
    }
    apply();
  });
  light.addEventListener("change", apply);
  apply();
}
