// The tables of strings: every language has every string, and the page asks for none that is not there.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import test from 'node:test';
import { ROOT } from './support/program.mjs';
import { STRINGS } from '../../static/page/strings.js';

const read = (name) => readFileSync(`${ROOT}static/${name}`, 'utf8');
const scripts = ['app.js', ...readdirSync(`${ROOT}static/page`).filter((n) => n !== 'strings.js').map((n) => `page/${n}`)].map(read);
const html = read('index.html');
const keys = Object.keys(STRINGS.en);
const blanks = (text) => [...text.matchAll(/\{(\w+)\}/g)].map((m) => m[1]).sort().join(' ');

test('every language has the same keys and blanks', () => {
  for (const [language, table] of Object.entries(STRINGS)) {
    assert.deepEqual(Object.keys(table).sort(), [...keys].sort(), language);
    for (const key of keys) {
      assert.ok(table[key].trim(), `${language}: ${key} is empty`);
      assert.equal(blanks(table[key]), blanks(STRINGS.en[key]), `${language}: ${key}`);
    }
  }
});

test('what the page asks for is there, and what is there is asked for', () => {
  const asked = new Set();
  for (const [, key] of html.matchAll(/data-i18n="([^"]+)"/g)) asked.add(key);
  for (const [, pairs] of html.matchAll(/data-i18n-attr="([^"]+)"/g)) for (const pair of pairs.split(';')) asked.add(pair.split(':')[1]);
  const families = new Set();
  for (const script of scripts) {
    for (const [, key] of script.matchAll(/'([a-z]+(?:\.[a-z_]+)+)'/g)) asked.add(key);
    for (const [, family] of script.matchAll(/`([a-z]+)\.\$\{/g)) families.add(family);
  }
  families.add('source').add('engine').add('voice').add('livekit').add('doing'); // known(kind, state)
  const exists = (key) => key in STRINGS.en || `${key}.one` in STRINGS.en;
  // Names of files and of stored things look like keys.
  const missing = [...asked].filter((key) => !exists(key) && !/^vidette\.|\.(js|css|local|org)$/.test(key) && key.split('.')[0] in
    Object.fromEntries(keys.map((k) => [k.split('.')[0], true])));
  assert.deepEqual(missing, []);
  const unused = keys.filter((key) => !asked.has(key) && !asked.has(key.replace(/\.(one|other)$/, '')) && !families.has(key.split('.')[0]));
  assert.deepEqual(unused, []);
});

test('the document has no words of its own', () => {
  const body = html.slice(html.indexOf('<body>')).replace(/<noscript>[\s\S]*?<\/noscript>/, '').replace(/<[^>]*>/g, ' ');
  assert.deepEqual(body.split(/\s+/).filter(Boolean), ['Vidette']);
  for (const [attribute] of html.matchAll(/ (placeholder|title|aria-label)="[^"]*"/g)) assert.fail(`${attribute} is not translated`);
});
