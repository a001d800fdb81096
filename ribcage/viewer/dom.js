/** Elements made of plain text: nothing that comes from outside is ever read as HTML. */

/** The element of this id. */
export const at = (id) => document.getElementById(id);

/** A new element; strings among the children become text, and what is null is left out. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Put other children into an element. */
export const fill = (element, ...children) => element.replaceChildren(...children.filter((child) => child !== null));

const settled = new WeakMap();

/** The same, unless they would say what stands there already: nothing is exchanged under a hand for nothing. */
export function settle(element, said, build) {
  const words = JSON.stringify(said);
  if (settled.get(element) === words) return;
  settled.set(element, words);
  fill(element, ...build());
}

/** Whether a button is pressed, to eyes and to screen readers. */
export const press = (id, on) => at(id).setAttribute("aria-pressed", String(on));

/** Give a file made here to the person. */
export function save(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
