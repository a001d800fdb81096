/** Dark or light: as the system is, or as the person says. */

import { at } from "./dom.js";

const KEPT = "ribcage-theme";
const light = window.matchMedia("(prefers-color-scheme: light)");

function stored() {
  try {
    return localStorage.getItem(KEPT) ?? "";
  } catch {
    return ""; // a browser that keeps nothing
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
      // shown all the same
    }
    apply();
  });
  light.addEventListener("change", apply);
  apply();
}
