/** Dark or light theme: that of the system, or chosen. */

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

/** Begin, and follow the switch and the system. */
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
