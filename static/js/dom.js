/** Small helpers around the DOM. Text always enters as text nodes. */

/** The first match, or null. */
export const find = (selector, root = document) => root.querySelector(selector);

/** All matches, as an array. */
export const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];

/**
 * Make an element. `props` are properties (className, textContent, href…), except for `data` (an object of
 * data attributes) and names with a dash, which become attributes. Children are nodes or texts; null is left out.
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "data") Object.assign(node.dataset, value);
    else if (name.includes("-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** One icon of the sprite in the page. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/**
 * Say something to the other modules, on `document`:
 * images:shown    the first cards stand, or it is known that there are none (images.js)
 * images:drawn    the list of cards is what the server lists (images.js)
 * images:changed  images or captions are others than before, by whomever (whoever changed them)
 * captions:changed, captions:marked  a card's caption was saved; its mark says something else (card.js)
 * captions:stale  what the server says of a caption has to be read again (card.js)
 * looks:changed   the inspector has seen more (main.js, from the stream)
 * job:told        {job, over} the state of a job was heard of; over: it came to its end since the last time (jobs.js)
 * checked         {warnings} of the settings as they stand (start.js)
 * outputs:changed a LoRA file was deleted, brought back or marked as the best: {project} and what became of it (outputs.js, lightbox.js)
 */
export const announce = (type, detail = {}) => document.dispatchEvent(new CustomEvent(type, { detail }));

const styles = new Map(); // name -> promise

/** Load a style sheet of what is used on demand, once; resolves when it applies. */
export function needStyle(name) {
  if (!styles.has(name)) styles.set(name, loadStyle(name));
  return styles.get(name);
}

function loadStyle(name) {
  const link = el("link", { rel: "stylesheet", href: `/static/css/${name}` });
  document.head.append(link);
  return new Promise((done, failed) => {
    link.addEventListener("load", done);
    link.addEventListener("error", () => {
      link.remove();
      styles.delete(name); // the next use tries again
      failed(new Error("A part of the page could not be loaded. Is MusubiTLX still started?"));
    });
  });
}

/** Set a text only when it differs, so that nothing is laid out or read aloud for nothing. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Call `action` once `wait_ms` have gone by without another call. `.flush()` calls at once what is waiting. */
export function debounced(action, wait_ms) {
  let timer = null;
  const run = () => {
    timer = null;
    action();
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(run, wait_ms);
  };
  later.flush = () => {
    if (timer === null) return;
    clearTimeout(timer);
    run();
  };
  later.cancel = () => {
    clearTimeout(timer);
    timer = null;
  };
  return later;
}

/** Put text on the clipboard, over plain HTTP too, where the browser's own way is closed. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const area = el("textarea", { value: text, className: "visually-hidden", readOnly: true });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return done;
}

/** A text of the browser's storage, "" where it is switched off or holds none by that name. */
export function stored(name) {
  try {
    return localStorage.getItem(name) ?? "";
  } catch {
    return "";
  }
}
