// The few things that every module does with the document and the browser's store. Text goes in by textContent only:
// the model's words can be steered by whoever holds a sign to the camera. Not here: anything about Vidette.
export const $ = (id) => document.getElementById(id);

export function part(parent, tag, className, text = '') {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  parent?.append(element);
  return element;
}

// A browser may refuse its store, as in a private window; then nothing is remembered.
export const store = {
  get(key) {
    try { return localStorage.getItem(`vidette.${key}`); } catch { return null; }
  },
  set(key, value) {
    try {
      if (value === null) localStorage.removeItem(`vidette.${key}`);
      else localStorage.setItem(`vidette.${key}`, value);
    } catch { /* Nothing to be done about it. */ }
  },
};
