// The page under what the real model does not say on demand: hostile text, silence, floods, breaks. The events are the
// test's own (support/synthetic.mjs), everything else is the real program. Not here: the rest.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test, { after, before } from 'node:test';
import { close, open, until, words } from './support/browser.mjs';
import { program } from './support/program.mjs';
import { synthetic } from './support/synthetic.mjs';

let vidette = null;
const ends = [];
before(async () => { vidette = await program({ after: (end) => ends.push(end) }, { model: 'random', args: ['test:smpte'] }); });
after(async () => {
  await close();
  for (const end of ends) await end();
});

async function stage(t, options) {
  const server = await synthetic(t, vidette);
  const page = await open(t, server.url, options);
  await until(page, () => document.querySelector('#link-word').textContent === 'connected');
  return { server, page };
}
const lastText = (page, text) => until(page, (wanted) => [...document.querySelectorAll('.entry .text')].at(-1)?.textContent === wanted, text);

test('what a sign held to the camera says stays text', async (t) => {
  const { server, page } = await stage(t, { width: 360, height: 740 });
  const signs = [
    'Sign: <img src=x onerror="window.pwned=1"> <script>window.pwned=2</script> &amp; "quotes" {name}',
    '\u202Etxet desrever\u2066 and \u2067more\u202D of it \u200Bzero',
    '<a href="javascript:window.pwned=3">click</a><style>*{display:none}</style>',
    'עברית <b>fett</b> العربية',
  ];
  for (const [i, sign] of signs.entries()) {
    server.say(i + 1, sign, { tokens: true, instruction: sign });
    await lastText(page, sign);
  }
  assert.equal(await page.locator('#log script, #log a, #log style, #log b:not(.x), #announce img').count(), 0);
  assert.equal(await page.evaluate(() => window.pwned), undefined);
  // Turned text keeps within its own box: the time after it reads as ever.
  assert.match((await words(page, '.entry .meta time'))[1], /^\d\d:\d\d:\d\d$/);
  assert.equal(await page.evaluate(() => [...document.querySelectorAll('.text')].every((e) => getComputedStyle(e).unicodeBidi === 'isolate')), true);
  await page.locator('.thumb').last().click();
  assert.equal(await page.locator('#look-instruction').textContent(), signs.at(-1));
  await page.keyboard.press('Escape');
  // 100 kB without a space, whole and in tokens.
  const long = 'x'.repeat(100_000);
  server.say(10, long);
  for (let i = 0; i < 100; i += 1) server.token(11, 'y'.repeat(1000));
  await until(page, () => document.querySelector('.writing .text')?.textContent.length === 10_000);
  server.say(11, 'y'.repeat(100_000));
  await until(page, () => document.querySelectorAll('.entry.utterance').length === 6 && !document.querySelector('.writing'));
  assert.equal((await words(page, '.entry .text')).at(-1), 'y'.repeat(10_000));
  assert.match((await words(page, '.entry .meta')).at(-2), /and 90,000 more characters/);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0);
  assert.equal(await page.evaluate(() => { const l = document.querySelector('#log'); return l.scrollWidth - l.clientWidth; }), 0);
  server.say(12, 'All is well.');
  await lastText(page, 'All is well.');
});

test('silence folds, ends are told, and broken beginnings are closed', async (t) => {
  const { server, page } = await stage(t);
  const at = Date.parse('2026-01-05T10:00:30Z');
  for (let i = 0; i < 3; i += 1) server.say(1 + i, '...', { at: at + i * 60_000 });
  await until(page, () => /^3 quiet looks · \d\d:\d\d–\d\d:\d\d$/.test(document.querySelector('.entry.quiet')?.textContent));
  assert.equal(await page.locator('.entry').count(), 1);
  server.token(4, 'A red ');
  await until(page, () => document.querySelector('.writing .text')?.textContent === 'A red ');
  server.token(4, 'car.');
  server.say(4, 'A red car.', { finish: 'length' });
  await lastText(page, 'A red car.');
  assert.match((await words(page, '.meta'))[0], /first word 0\.5 s, last word 1\.3 s.*oldest frame → last word 2\.8 s/);
  assert.equal((await words(page, '.mark')).at(-1), 'ended: too long');
  server.say(5, '...');
  await until(page, () => document.querySelectorAll('.entry.quiet').length === 2);
  assert.match((await words(page, '.entry.quiet'))[1], /^1 quiet look · /);
  // Cut off by somebody else's instruction: what is in force now is not what was answered.
  server.token(6, 'It goes to');
  server.say(6, 'It goes to', { finish: 'cancelled' });
  await until(page, () => [...document.querySelectorAll('.mark')].at(-1)?.textContent === 'cut off');
  server.status({ commentary: { instruction: 'Only dogs.' } });
  await until(page, () => [...document.querySelectorAll('.mark')].at(-1)?.textContent === 'cut off by the new instruction');
  // The end of 7 never comes.
  server.token(7, 'Lost in');
  server.say(8, 'Another.');
  await lastText(page, 'Another.');
  assert.equal(await page.locator('.writing').count(), 0);
  server.send('lagged', { missed: 12 });
  await until(page, () => document.querySelector('.missed')?.textContent === '12 events were missed; this page could not keep up');
  server.say(9, '', { finish: 'error' });
  await until(page, () => [...document.querySelectorAll('.mark')].at(-1)?.textContent === 'the model failed');
});

test('the talk stays bounded, and does not run away from who reads further up', async (t) => {
  const { server, page } = await stage(t);
  for (let i = 1; i <= 300; i += 1) server.say(i, `Sentence number ${i}.`);
  await lastText(page, 'Sentence number 300.');
  assert.equal(await page.locator('.entry').count(), 200);
  assert.match(await page.locator('#bound').textContent(), /last 200 lines and 64 pictures/);
  const atEnd = () => { const l = document.querySelector('#log'); return l.scrollHeight - l.scrollTop - l.clientHeight < 5; };
  await until(page, atEnd);
  await page.evaluate(() => { document.querySelector('#log').scrollTop = 100; });
  await page.locator('#jump').waitFor({ state: 'visible' });
  server.say(301, 'Unseen at first.');
  await lastText(page, 'Unseen at first.');
  // The button and the place are brought up to date once a frame, after the text.
  await until(page, () => document.querySelector('#jump').textContent === 'Jump to newest (1 new)');
  assert.equal(await page.evaluate(atEnd), false);
  await page.locator('#jump').click();
  await until(page, atEnd);
  await page.locator('#pause').click();
  server.say(302, 'While paused.');
  await lastText(page, 'While paused.');
  await page.locator('#jump').waitFor({ state: 'visible' });
  await page.locator('#pause').click();
  await until(page, atEnd);
  // Pictures: only of what comes into view, and no more than 64 of them, however far one reads.
  for (let top = 0; top < 12; top += 1) {
    await page.evaluate((part) => { const l = document.querySelector('#log'); l.scrollTop = (l.scrollHeight * part) / 12; }, top);
    await until(page, () => {
      const { top: from, bottom: to } = document.querySelector('#log').getBoundingClientRect();
      const seen = [...document.querySelectorAll('.thumb')].filter((b) => { const r = b.getBoundingClientRect(); return r.bottom > from && r.top < to; });
      return seen.length > 0 && seen.every((b) => b.querySelector('img').hasAttribute('src'));
    });
  }
  await until(page, () => document.querySelectorAll('.thumb img[src]').length > 40);
  assert.ok(await page.locator('.thumb img[src]').count() <= 64);
  await page.locator('#clear').click();
  assert.equal(await page.locator('.entry').count(), 0);
  assert.equal(await page.locator('#no-talk').isVisible(), true);
});

test('what was said is copied and saved, true and harmless', async (t) => {
  const { server, page } = await stage(t);
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  const at = Date.parse('2026-01-05T10:00:30.250Z');
  server.say(1, 'A <b>cat</b> & a dog --> both.', { at });
  server.say(2, '...', { at: at + 1000 });
  server.say(3, 'Two\n\nlines \u202Eturned.', { at: at + 2500 });
  server.say(4, 'Cut o', { at: at + 3_605_000, finish: 'cancelled' });
  await lastText(page, 'Cut o');
  await page.locator('#copy').click();
  await until(page, () => document.querySelector('#talk-said').textContent === 'Copied.');
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(copied, /^Vidette commentary\n/);
  assert.match(copied, /\d\d:\d\d:\d\d {2}A <b>cat<\/b> & a dog --> both\.\n/);
  assert.match(copied, /Two\n {10}lines turned\.\n/);
  assert.match(copied, /Cut o \[cut off.*\]\n$/);
  const save = async (id) => {
    const [download] = await Promise.all([page.waitForEvent('download'), page.locator(id).click()]);
    return { name: download.suggestedFilename(), text: readFileSync(await download.path(), 'utf8') };
  };
  const text = await save('#save-text');
  assert.match(text.name, /^vidette-commentary-.*\.txt$/);
  assert.equal(text.text, copied);
  const vtt = await save('#save-vtt');
  assert.match(vtt.name, /\.vtt$/);
  assert.match(vtt.text, /^WEBVTT\n\nNOTE Vidette commentary\n.*00:00:00\.000 is 2026-01-05T10:00:30\.250Z\n\n/);
  assert.ok(vtt.text.endsWith([
    '00:00:00.000 --> 00:00:02.500', 'A &lt;b&gt;cat&lt;/b&gt; &amp; a dog --&gt; both.', '',
    '00:00:02.500 --> 00:00:09.500', 'Two', 'lines turned.', '',
    '01:00:05.000 --> 01:00:12.000', 'Cut o', '',
  ].join('\n')), vtt.text);
  // A browser's own parser takes it.
  const elsewhere = await page.context().newPage();
  const cues = await elsewhere.evaluate((file) => {
    const track = document.createElement('track');
    const video = document.createElement('video');
    video.append(track);
    document.body.append(video);
    track.track.mode = 'showing';
    track.src = URL.createObjectURL(new Blob([file], { type: 'text/vtt' }));
    return new Promise((resolve) => {
      track.addEventListener('load', () => resolve([...track.track.cues].map((c) => c.getCueAsHTML().textContent)));
      track.addEventListener('error', () => resolve(null));
    });
  }, vtt.text);
  assert.deepEqual(cues, ['A <b>cat</b> & a dog --> both.', 'Two\nlines turned.', 'Cut o']);
});

// Waits until whoever listened has come back, after `asked` requests for the events.
async function back(server, asked) {
  while (server.asked() === asked || server.listeners() === 0) await new Promise((resolve) => { setTimeout(resolve, 20); });
}

test('states have words, the voice when there is one, and a break is told and mended', async (t) => {
  const { server, page } = await stage(t, { expected: [/ERR_/] });
  await until(page, () => document.querySelector('#voice-word').textContent === 'off' && !document.querySelector('#voice-state').hidden);
  server.status({ voice: { state: 'speaking' }, engine: { warning: null, notice: null, message: null }, commentary: { message: 'the engine gave no sign of life for 180 s' } });
  await until(page, () => document.querySelector('#voice-word').textContent === 'speaking' && !document.querySelector('#voice-state').hidden);
  await until(page, () => document.querySelector('#engine-notice').textContent.includes('no sign of life'));
  server.status({ source: { state: 'retrying', message: 'the camera at rtsp://cam.lan/s refused the user name or password; check them', fault: 'auth', attempt: 3, retry_in_s: 300 } });
  await until(page, () => /check them\. Next try in \d+ s\. \(attempt 3\)/.test(document.querySelector('#source-notice').textContent));
  await until(page, () => Number(/Next try in (\d+) s/.exec(document.querySelector('#source-notice').textContent)[1]) < 300);
  await until(page, () => /^lost, next try in \d+ s$/.test(document.querySelector('#source-word').textContent));
  // Without a room or a GPU nothing is said of them.
  assert.equal(await page.locator('#livekit-state').isHidden(), true);
  assert.equal(await page.locator('#gpu-memory').isHidden(), true);
  const room = { state: 'waiting', message: null, attempt: 0, retry_in_s: null, muted: false };
  for (const [patch, word, colour] of [
    [{}, 'waits for a camera', 'good'], [{ state: 'camera' }, 'receives a camera', 'good'], [{ state: 'camera', muted: true }, 'camera muted', 'busy'],
    [{ state: 'away' }, 'not in the room', 'off'], [{ state: 'connecting' }, 'connecting…', 'busy'],
  ]) {
    server.status({ livekit: { ...room, ...patch } });
    await until(page, (text) => document.querySelector('#livekit-word').textContent === text && !document.querySelector('#livekit-state').hidden, word);
    assert.ok(await page.locator(`#livekit-dot.${colour}`).isVisible(), word);
    assert.equal(await page.locator('#livekit-notice').isHidden(), true);
  }
  server.status({ livekit: { ...room, state: 'retrying', message: 'the LiveKit server has not answered for 15 s', attempt: 2, retry_in_s: 300 } });
  await until(page, () => /^lost, next try in \d+ s$/.test(document.querySelector('#livekit-word').textContent));
  await until(page, () => /^The LiveKit room can’t be used: the LiveKit server has not answered for 15 s\. Next try in \d+ s\.$/
    .test(document.querySelector('#livekit-notice').textContent.trim()));
  await until(page, () => Number(/in (\d+) s/.exec(document.querySelector('#livekit-word').textContent)[1]) < 300);
  server.status({ livekit: { ...room, state: 'camera' }, engine: { device: 'A card', gpu_memory: { used_bytes: 7.5 * 2 ** 30, total_bytes: 80 * 2 ** 30 } } });
  await until(page, () => document.querySelector('#figure-gpu').textContent === '7.5 of 80.0 GiB' && !document.querySelector('#gpu-memory').hidden);
  assert.equal(await page.locator('#figure-device').textContent(), 'A card');
  await until(page, () => document.querySelector('#livekit-notice').hidden);
  server.token(1, 'Half a sen');
  await page.locator('.writing').waitFor();
  const asked = server.asked();
  server.hangUp();
  await back(server, asked);
  await until(page, () => document.querySelector('#link-word').textContent === 'connected');
  server.say(1, 'Half a sentence.');
  await lastText(page, 'Half a sentence.');
});
