// Which language the page speaks, and how it says a key, a number or a time in it. Elements name their keys by
// data-i18n (text) and data-i18n-attr ("title:key;placeholder:key"). Not here: the sentences (strings.js).
import { $, part, store } from './dom.js';
import { STRINGS } from './strings.js';

const NAMES = { en: 'English', de: 'Deutsch' };
const listeners = [];

function preferred() {
  const chosen = store.get('language');
  if (chosen in STRINGS) return chosen;
  const wanted = navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase());
  return wanted.find((tag) => tag in STRINGS) ?? 'en';
}

let language = preferred();
export const spoken = () => language;

export function t(key, values = {}) {
  return (STRINGS[language][key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}
export const has = (key) => key in STRINGS[language];

export function count(key, n, values = {}) {
  const form = new Intl.PluralRules(language).select(n) === 'one' ? 'one' : 'other';
  return t(`${key}.${form}`, { n: number(n), ...values });
}

export const number = (x, digits = 0) =>
  x.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const clock = (ms) =>
  new Date(ms).toLocaleTimeString(language, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
export const minute = (ms) => clock(ms).slice(0, 5);
export const seconds = (ms) =>
  (ms >= 9950 ? `${number(ms / 1000)} s` : ms >= 100 ? `${number(ms / 1000, 1)} s` : `${number(ms)} ms`);

function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll('[data-i18n]')) element.textContent = t(element.dataset.i18n);
  for (const element of document.querySelectorAll('[data-i18n-attr]')) {
    for (const pair of element.dataset.i18nAttr.split(';')) {
      const [attribute, key] = pair.split(':');
      element.setAttribute(attribute, t(key));
    }
  }
}

// Called at once and after each change.
export function speaks(listener) {
  listeners.push(listener);
  listener();
}

for (const tag of Object.keys(STRINGS)) {
  const option = part($('language'), 'option', '', NAMES[tag]);
  option.value = tag;
  option.lang = tag;
}
$('language').value = language;
$('language').addEventListener('change', () => {
  language = $('language').value;
  store.set('language', language);
  translate();
  for (const listener of listeners) listener();
});
translate();
