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

/** The same, unless `key` is unchanged: elements in use are not replaced without need. */
export function settle(element, key, build) {
  const words = JSON.stringify(key);
  if (settled.get(element) === words) return;
  settled.set(element, words);
  fill(element, ...build());
}

/** Show a button as pressed or not, also to screen readers. */
export const press = (id, on) => at(id).setAttribute("aria-pressed", String(on));

/** Download a file that was made here. */
export function save(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
