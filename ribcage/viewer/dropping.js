/** Files dropped on the page or pasted into it, including the files in dropped folders. */

import { at } from "./dom.js";

export const MOST = 200; // files of one drop

/** Accept dropped and pasted files anywhere on the page. */
export function listen(add, refuse) {
  document.addEventListener("paste", (event) => add(event.clipboardData.files));
  let depth = 0;
  const hide = () => {
    depth = 0;
    at("drop").hidden = true;
  };
  document.addEventListener("dragenter", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    depth += 1;
    at("drop").hidden = false;
  });
  document.addEventListener("dragleave", () => {
    depth -= 1;
    if (depth <= 0) hide();
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    hide();
    try {
      add(await dropped(event.dataTransfer));
    } catch {
      refuse("The dropped files cannot be read.");
    }
  });
}


/** All dropped files, including those in folders. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((one) => one.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((one) => one.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.map(inside))).flat();
}

async function inside(entry) {
  if (entry.isFile) return [await new Promise((done, broken) => entry.file(done, broken))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, broken) => reader.readEntries(done, broken));
    if (!some.length || found.length > MOST) break;
    found.push(...some.filter((one) => !one.name.startsWith(".")));
  }
  found.sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }));
  return (await Promise.all(found.map(inside))).flat();
}
