/** DOM elements created from plain text; text from outside is never parsed as HTML. */

/** The element with this id. */
export const at = (id) => document.getElementById(id);

/** A new element; string children become text nodes, and null children are omitted. */
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

/** Replace the children of an element. */
export const fill = (element, ...children) => element.replaceChildren(...children.filter((child) => child !== null));

const settled = new WeakMap();

/** As `fill`, but only if `key` has changed, so that elements in use are not replaced unnecessarily. */
export function settle(element, key, build) {
  const words = JSON.stringify(key);
  if (settled.get(element) === words) return;
  settled.set(element, words);
  fill(element, ...build());
}

/** Mark a button as pressed or not pressed, also for screen readers. */
export const press = (id, on) => at(id).setAttribute("aria-pressed", String(on));

/** Download a file created on this page. */
export function save(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
