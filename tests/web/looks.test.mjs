// The page's looks and its use by everyone: small screens, themes, languages, keyboards, screen readers; before the
// real program. Not here: what it does (watching.test.mjs).
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import test, { after } from 'node:test';
import { close, context, open, until } from './support/browser.mjs';
import { CLIP, program } from './support/program.mjs';
import { STRINGS } from '../../static/page/strings.js';

after(close);
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

async function faults(page) {
  // By the debugger, past the page's policy, which lets no foreign script in.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return violations.filter((v) => ['serious', 'critical'].includes(v.impact)).map((v) => `${v.id}: ${v.nodes.map((n) => n.target).join(' | ')}`);
}
const ready = (page) => until(page, () => document.querySelector('.entry.utterance .thumb img[src]') !== null);

test('axe finds no serious fault, in both themes and views, with and without trouble', async (t) => {
  const vidette = await program(t, { model: 'random', args: [CLIP, '--max-tokens', '20'] });
  for (const theme of ['dark', 'light']) {
    const page = await open(t, vidette.url, { theme, expected: [/40[034]/] });
    await ready(page);
    assert.deepEqual(await faults(page), [], theme);
    await page.locator('.thumb').last().focus();
    await page.locator('#source').fill('gopher://old');
    await page.locator('#source').press('Enter');
    await until(page, () => document.querySelector('#said.bad') !== null);
    assert.deepEqual(await faults(page), [], `${theme}, refused`);
    await page.goto(`${vidette.url}/#all`);
    await until(page, () => document.querySelector('.card img[src]') !== null);
    assert.deepEqual(await faults(page), [], `${theme}, all streams`);
  }
});

test('nothing scrolls sideways on a phone, in either language', async (t) => {
  const vidette = await program(t, { model: 'random', args: [CLIP, '--max-tokens', '20'] });
  for (const language of ['en-GB', 'de-DE']) {
    const page = await open(t, vidette.url, { width: 360, height: 740, language, touch: true });
    await ready(page);
    const over = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.equal(await over(), 0, language);
    // Everything can be reached by a finger: no control lies outside.
    const outside = await page.evaluate(() => [...document.querySelectorAll('button, select, input, textarea, a')]
      .filter((e) => e.checkVisibility() && !e.closest('.skip'))
      .filter((e) => { const r = e.getBoundingClientRect(); return r.left < 0 || r.right > innerWidth || r.height < 20; })
      .map((e) => e.id || e.className));
    assert.deepEqual(outside, [], language);
    await page.locator('.thumb').last().tap();
    await page.locator('#look').waitFor({ state: 'visible' });
    assert.equal(await over(), 0, `${language}, with a picture open`);
    await page.keyboard.press('Escape');
    await page.locator('#view-all').click();
    await until(page, () => document.querySelector('.card') !== null);
    assert.equal(await over(), 0, `${language}, all streams`);
  }
});

test('German: every string, the lang attribute, numbers; and the switch is remembered', async (t) => {
  const vidette = await program(t, { args: [CLIP] });
  const page = await open(t, vidette.url, { language: 'de-AT', expected: [/40[034]/] });
  await until(page, () => document.querySelector('#source-word').textContent === 'live' && !document.querySelector('#model-notice').hidden);
  assert.equal(await page.evaluate(() => document.documentElement.lang), 'de');
  await page.locator('#source').fill('gopher://old');
  await page.locator('#source').press('Enter');
  await until(page, (text) => document.querySelector('#said').textContent === text, STRINGS.de['error.source_not_allowed']);
  await page.locator('#source').fill('rtsp://127.0.0.1:9/s');
  await page.locator('#source').press('Enter');
  await until(page, () => document.querySelector('#source-notice').textContent.includes('Adresse und Netz prüfen'));
  // No string of the English table that is another in German is left, but what is marked as English or is content.
  const english = Object.entries(STRINGS.en).filter(([key, text]) => text !== STRINGS.de[key] && !text.includes('{')).map(([, text]) => text);
  const left = await page.evaluate((all) => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
      const { parentElement: e, data } = walker.currentNode;
      if (!e.closest('[lang=en], noscript') && all.includes(data.trim())) found.push(data);
    }
    for (const e of document.querySelectorAll('[title], [aria-label], [placeholder]')) {
      for (const a of ['title', 'aria-label', 'placeholder']) if (all.includes(e.getAttribute(a))) found.push(e.getAttribute(a));
    }
    return found;
  }, english);
  assert.deepEqual(left, []);
  await page.locator('#language').selectOption('en');
  await until(page, () => document.documentElement.lang === 'en' && document.querySelector('#view-one').textContent === 'Watch');
  await until(page, () => document.querySelector('#source-notice').textContent.includes('check address and network'));
  await page.reload();
  await until(page, () => document.documentElement.lang === 'en' && document.querySelector('#talk-title').textContent === 'Commentary');
});

test('the theme follows the system until it is chosen, and the choice is remembered', async (t) => {
  const vidette = await program(t, { model: 'random' });
  const page = await open(t, vidette.url, { theme: 'light' });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.emulateMedia({ colorScheme: 'dark' });
  const dark = await ground();
  assert.notEqual(light, dark);
  await page.locator('#theme').selectOption('light');
  assert.equal(await ground(), light);
  await page.reload();
  assert.equal(await ground(), light);
  await page.locator('#theme').selectOption('auto');
  assert.equal(await ground(), dark);
});

test('everything works with the keyboard alone', async (t) => {
  const vidette = await program(t, { model: 'random', args: [CLIP, '--max-tokens', '20'] });
  const page = await open(t, vidette.url);
  await ready(page);
  // Every control that can be seen is reached by Tab, and shows that it is.
  const controls = await page.evaluate(() => [...document.querySelectorAll('#one button, #one select, #one input, #one textarea, .top a, .top select')]
    .filter((e) => e.checkVisibility() && !e.disabled && !e.matches('.thumb')).map((e) => e.id || e.textContent.trim()));
  const reached = new Set();
  for (let i = 0; i < 300 && controls.some((name) => !reached.has(name)); i += 1) {
    await page.keyboard.press('Tab');
    const [name, ring] = await page.evaluate(() => {
      const e = document.activeElement;
      return [e.matches('.thumb') ? null : e.id || e.textContent.trim(), getComputedStyle(e).outlineStyle];
    });
    if (name === null || name === '') continue;
    if (reached.has(name)) break;
    assert.equal(ring, 'solid', `${name} does not show its focus`);
    reached.add(name);
  }
  assert.deepEqual(controls.filter((name) => !reached.has(name)), []);
  // A picture that took the focus may have brought the reader further up.
  if (await page.locator('#jump').isVisible()) {
    await page.locator('#jump').focus();
    await page.keyboard.press('Enter');
  }
  await page.locator('#pause').focus();
  await page.keyboard.press('Space');
  assert.equal(await page.locator('#pause').getAttribute('aria-pressed'), 'true');
  await page.locator('#jump').focus();
  await page.keyboard.press('Enter');
  assert.equal(await page.locator('#pause').getAttribute('aria-pressed'), 'false');
});

test('a screen reader hears whole sentences, politely, and nothing of before', async (t) => {
  const vidette = await program(t, { model: 'random', args: [CLIP, '--max-tokens', '12'] });
  const page = await (await context(t)).newPage();
  await page.addInitScript(() => {
    window.heard = [];
    addEventListener('DOMContentLoaded', () => new MutationObserver((changes) => {
      for (const { addedNodes, type } of changes) {
        if (type !== 'childList') window.heard.push(null);
        for (const node of addedNodes) window.heard.push(node.textContent);
      }
    }).observe(document.querySelector('#announce'), { subtree: true, childList: true, characterData: true }));
  });
  await page.goto(vidette.url);
  assert.equal(await page.locator('#announce').getAttribute('aria-live'), 'polite');
  assert.equal(await page.locator('#log').getAttribute('aria-live'), null);
  await until(page, () => window.heard.length >= 2);
  const { heard, shown } = await page.evaluate(() => ({ heard: window.heard, shown: [...document.querySelectorAll('.entry.utterance .text')].map((e) => e.textContent) }));
  for (const sentence of heard) {
    assert.ok(sentence !== null, 'a sentence was changed after it was said');
    assert.ok(shown.some((text) => text.includes(sentence.slice(0, 200))), `${sentence} was never shown`);
  }
});
