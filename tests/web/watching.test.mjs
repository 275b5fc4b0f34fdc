// The page before the real program on a real clip: it shows, tells, obeys, and comes back. Not here: looks
// (looks.test.mjs), what the real model does not say on demand (faults.test.mjs).
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { close, context, open, until, words } from './support/browser.mjs';
import { CLIP, program } from './support/program.mjs';

after(close);

// What the video shows, small enough to compare.
const sight = (page) => page.evaluate(() => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [64, 36];
  canvas.getContext('2d').drawImage(document.querySelector('#video'), 0, 0, 64, 36);
  return canvas.toDataURL();
});
const moves = async (page) => {
  await until(page, () => !document.querySelector('#video').hidden && document.querySelector('#video').naturalWidth > 0);
  const first = await sight(page);
  for (const until = Date.now() + 60000; await sight(page) === first;) {
    assert.ok(Date.now() < until, 'the video does not move');
    await page.waitForTimeout(40);
  }
};
const live = (page) => until(page, () => document.querySelector('#source-word').textContent === 'live');

test('video advances, tokens appear one by one, and each utterance has time, picture and latencies', async (t) => {
  const vidette = await program(t, { args: [CLIP] });
  const page = await context(t).then((c) => c.newPage());
  // Every state of the sentence being written, from the first on.
  await page.addInitScript(() => {
    window.states = [];
    addEventListener('DOMContentLoaded', () => new MutationObserver(() => {
      const text = document.querySelector('.writing .text')?.textContent;
      if (text && text !== window.states.at(-1)) window.states.push(text);
    }).observe(document.querySelector('#log'), { subtree: true, childList: true, characterData: true }));
  });
  await page.goto(vidette.url);
  await live(page);
  await moves(page);
  await until(page, () => window.states.some((text, i) => i > 0 && text.length > window.states[i - 1].length && text.startsWith(window.states[i - 1])));
  await until(page, () => document.querySelector('.entry.utterance.stop') !== null);
  const entry = page.locator('.entry.utterance.stop').last();
  assert.match(await entry.locator('time').textContent(), /^\d\d:\d\d:\d\d$/);
  assert.match(await entry.locator('.meta').textContent(), /newest frame → first word [\d.]+ m?s, last word [\d.]+ m?s.*oldest frame → last word [\d.]+ m?s/);
  // The picture: the frame that was looked at, from the server, small; and on focus larger, with every step.
  await until(page, () => [...document.querySelectorAll('.entry.utterance.stop .thumb img')].some((i) => i.naturalWidth === 320));
  const thumb = page.locator('.entry.utterance.stop .thumb').last();
  await thumb.scrollIntoViewIfNeeded();
  for (const [show, hide] of [
    [() => thumb.hover(), () => page.mouse.move(5, 5)],
    [() => thumb.click(), () => page.keyboard.press('Escape')],
  ]) {
    await show();
    await page.locator('#look').waitFor({ state: 'visible' });
    assert.match(await page.locator('#look-figures').textContent(), /newest frame → frames encoded.*newest frame → prompt read.*newest frame → first word/);
    await until(page, () => document.querySelector('#look-picture').naturalWidth === 320);
    await hide();
    await page.locator('#look').waitFor({ state: 'hidden' });
  }
  // By keyboard alone.
  await page.locator('#log').focus();
  await page.keyboard.press('Tab');
  await page.locator('#look').waitFor({ state: 'visible' });
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-expanded')), 'true');
  await page.keyboard.press('Escape');
  await page.locator('#look').waitFor({ state: 'hidden' });
  // Figures come from two readings of the status.
  await until(page, () => /^\d+ % of \d+ cores?$/.test(document.querySelector('#figure-cpu').textContent));
  assert.match(await page.locator('#figure-memory').textContent(), /^\d+ MiB$/);
  await until(page, () => /tokens\/s$/.test(document.querySelector('#figure-speed').textContent));
  // Covered or hidden, nothing is encoded for it.
  const viewers = async (n) => {
    for (const end = Date.now() + 60000; (await vidette.status()).viewers !== n;) {
      assert.ok(Date.now() < end, `the viewers are not ${n}`);
      await page.waitForTimeout(50);
    }
  };
  const hide = (hidden) => page.evaluate((on) => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => on });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
  await hide(true);
  await viewers(0);
  await hide(false);
  await viewers(1);
  await page.locator('#stop').click();
  await viewers(0);
  await until(page, () => document.querySelector('#source-word').textContent === 'not started' && !document.querySelector('#no-video').hidden);
});

test('a new instruction cuts the answer off, and the history brings instructions back', async (t) => {
  // Random weights write on and on, so that there is an answer to cut off.
  const vidette = await program(t, { model: 'random', args: [CLIP, '--max-tokens', '3000', '--context-tokens', '8192', '--temperature', '2',
    '--inference-interval', '0', '--change-threshold', '0'] });
  const page = await open(t, vidette.url);
  await until(page, () => document.querySelector('#engine-notice').textContent.includes('RANDOM WEIGHTS'));
  const send = async (text) => {
    await page.locator('#instruction').fill(text);
    await page.locator('#instruction').press('Enter');
    await until(page, () => document.querySelector('#said').textContent.includes('obeys'));
  };
  // An answer may just have ended by itself when the instruction came; then again.
  const cut = () => page.waitForFunction(() => [...document.querySelectorAll('.entry.cancelled .mark')]
    .some((m) => m.textContent === 'cut off by the new instruction'), null, { timeout: 500, polling: 50 }).then(() => true, () => false);
  let tries = 0;
  do {
    assert.ok(++tries <= 100, 'no answer was ever cut off');
    await send('Count the red things.');
  } while (!await cut());
  assert.equal((await vidette.status()).commentary.instruction, 'Count the red things.');
  await send('Count the blue things.');
  const field = page.locator('#instruction');
  await field.fill('half a thou');
  const recalled = [];
  for (const key of ['ArrowUp', 'ArrowUp', 'ArrowUp', 'ArrowDown', 'ArrowDown']) {
    await field.press(key);
    recalled.push(await field.inputValue());
  }
  assert.deepEqual(recalled, ['Count the blue things.', 'Count the red things.', 'Count the red things.', 'Count the blue things.', 'half a thou']);
  // A profile brings its own instruction.
  await page.locator('#profile').selectOption('security');
  await until(page, () => document.querySelector('#instruction').value === 'Report anything that matters for safety.');
  // Bounded, and there after a reload.
  await page.evaluate(() => localStorage.setItem('vidette.instructions', JSON.stringify(Array.from({ length: 90 }, (_, i) => `Old ${i}`))));
  await page.reload();
  await until(page, () => document.querySelectorAll('#history option').length === 32);
  await page.locator('#history').selectOption({ label: 'Old 3' });
  assert.equal(await field.inputValue(), 'Old 3');
  await until(page, () => document.querySelectorAll('.entry.utterance').length > 0);
});

test('errors of a source are said in words, with what to do and when it is tried again', async (t) => {
  const vidette = await program(t, { model: 'random', args: ['--media-dir', tmpdir()] });
  const page = await open(t, vidette.url, { expected: [/40[034]/] });
  await until(page, () => document.querySelector('#link-word').textContent === 'connected');
  const start = async (source) => {
    await page.locator('#source').fill(source);
    await page.locator('#source').press('Enter');
  };
  await start('/no/such/file.mp4');
  await until(page, () => document.querySelector('#said.bad')?.textContent.includes('outside of the folder'));
  await start(join(tmpdir(), 'vidette-no-such-file.mp4'));
  await until(page, () => document.querySelector('#source-notice').textContent.includes('vidette-no-such-file.mp4 can\'t be found'));
  await start('gopher://old');
  await until(page, () => document.querySelector('#said.bad')?.textContent.includes('gopher: addresses are not allowed'));
  const noVideo = join(tmpdir(), `vidette-no-video-${process.pid}.mp4`);
  writeFileSync(noVideo, 'this is no video');
  await start(noVideo);
  await until(page, () => /no video|no picture/.test(document.querySelector('#source-notice').textContent));
  await start('rtsp://user:geheim77@127.0.0.1:9/s');
  await until(page, () => /can't be reached.*check address and network\..*Next try in \d+ s\.|Trying again/.test(document.querySelector('#source-notice').textContent));
  await until(page, () => /^lost, (next try in \d+ s|trying again…)$/.test(document.querySelector('#source-word').textContent));
  assert.equal(await page.locator('#kind').inputValue(), 'rtsp');
  assert.ok(!(await page.content()).includes('geheim77'), 'the password is on the page');
  await start('test:smpte');
  await live(page);
  assert.equal(await page.locator('#source-notice').isHidden(), true);
});

test('a reload and a second window show the same, and both hear an instruction', async (t) => {
  const vidette = await program(t, { model: 'random', args: [CLIP, '--max-tokens', '20'] });
  const own = await context(t);
  const [one, two] = [await own.newPage(), await own.newPage()];
  await one.goto(vidette.url);
  await until(one, () => document.querySelectorAll('.entry.utterance').length >= 2);
  const first = (await words(one, '.entry.utterance .text'))[0];
  await two.goto(vidette.url);
  await one.reload();
  for (const page of [one, two]) await until(page, (text) => [...document.querySelectorAll('.entry.utterance .text')].some((e) => e.textContent === text), first);
  await one.bringToFront();
  await one.locator('#instruction').fill('Is there a heart?');
  await one.locator('#instruction-form .main').click();
  await two.bringToFront();
  await until(two, () => document.querySelector('#instruction').value === 'Is there a heart?');
  await moves(two);
});

test('the server starts anew under the page, which recovers by itself', async (t) => {
  const first = await program(t, { model: 'random', args: [CLIP, '--max-tokens', '20'] });
  const page = await open(t, first.url, { expected: [/ERR_/] });
  await live(page);
  await moves(page);
  await until(page, () => document.querySelectorAll('.entry.utterance').length >= 1);
  await first.stop();
  await until(page, () => document.querySelector('#link-word').textContent === 'connection lost' && !document.querySelector('#link-notice').hidden);
  const second = await program(t, { model: 'random', port: first.port, args: [CLIP, '--max-tokens', '20'] });
  await until(page, () => document.querySelector('#link-word').textContent === 'connected' && document.querySelector('#link-notice').hidden);
  await until(page, () => document.querySelector('.entry.restarted ~ .entry.utterance') !== null);
  await moves(page);
  assert.ok((await second.status()).viewers >= 1);
});

test('streams are added, watched in the grid, chosen and removed', async (t) => {
  const vidette = await program(t, { args: ['test:smpte'] });
  const page = await open(t, vidette.url, { expected: [/40[034]|503/] });
  await live(page);
  await page.locator('#view-all').click();
  await until(page, () => document.querySelectorAll('.card').length === 1);
  await page.locator('#new-name').fill('no spaces please');
  await page.locator('#add-form .main').click();
  await until(page, () => document.querySelector('#all-said.bad')?.textContent.includes('1 to 64'));
  await page.locator('#new-name').fill('yard');
  await page.locator('#new-source').fill('test:ball');
  assert.equal(await page.locator('#new-kind').inputValue(), 'test');
  await page.locator('#add-form .main').click();
  await until(page, () => [...document.querySelectorAll('.card h3')].map((h) => h.textContent).join() === 'main,yard');
  // Stills of both, renewed.
  await until(page, () => [...document.querySelectorAll('.card img')].every((i) => i.naturalWidth > 0));
  const address = () => page.locator('.card img').last().getAttribute('src');
  const before = await address();
  await until(page, (old) => document.querySelectorAll('.card img')[1].getAttribute('src') !== old, before);
  await until(page, () => document.querySelectorAll('.card-state')[1]?.textContent === 'live');
  await page.locator('.card .button').last().click();
  await page.waitForURL(/\?stream=yard$/);
  await live(page);
  assert.equal(await page.locator('#streams').inputValue(), 'yard');
  assert.match(await page.locator('#caption-source').textContent(), /test:ball/);
  // From the list as well.
  for (const name of ['main', 'yard']) {
    await page.locator('#streams').selectOption(name);
    await page.waitForURL(new RegExp(`\\?stream=${name}$`));
    await live(page);
    await until(page, (pattern) => document.querySelector('#caption-source').textContent.includes(pattern), { main: 'test:smpte', yard: 'test:ball' }[name]);
  }
  // Removed under its page, which says so and brings it back.
  await page.locator('#view-all').click();
  await page.locator('.card.own .quiet').click();
  await page.locator('#remove-no').click();
  await page.locator('.card.own .quiet').click();
  await page.locator('#remove-form .danger').click();
  await until(page, () => document.querySelectorAll('.card').length === 1);
  await page.locator('#view-one').click();
  await until(page, () => document.querySelector('#link-notice').textContent.includes('has been removed'));
  await page.locator('#source').fill('test:ball');
  await page.locator('#source').press('Enter');
  await live(page);
  await moves(page);
});

test('the page asks for the token', async (t) => {
  const vidette = await program(t, { model: 'random', args: ['test:ball', '--api-token', 'a-token-of-some-length'] });
  const page = await open(t, vidette.url, { expected: [/401/] });
  await until(page, () => document.querySelector('#door').open);
  await page.locator('#token').fill('wrong');
  await page.locator('#token').press('Enter');
  await until(page, () => document.querySelector('#door-said').textContent.startsWith('the API token is wrong'));
  await page.locator('#token').fill('a-token-of-some-length');
  await page.locator('#token').press('Enter');
  await until(page, () => document.querySelector('#link-word').textContent === 'connected' && !document.querySelector('#door').open);
  await moves(page);
  assert.equal(await page.evaluate(() => document.cookie), '', 'scripts can’t see the session');
});
