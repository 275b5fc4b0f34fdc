// The controls of the voice and of the source's own sound, before the real program with the real espeak-ng. Not here: the sound itself (tests/voice.rs),
// the rest of the page (watching.test.mjs, looks.test.mjs).
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { close, open, until } from './support/browser.mjs';
import { program } from './support/program.mjs';

after(close);
const TALK = ['test:ball@320x240', '--change-threshold', '0', '--max-tokens', '12', '--temperature', '2'];
const loud = (page) => until(page, () => Number(document.querySelector('#voice .voice-meter')?.getAttribute('aria-valuenow')) > 20);

async function becomes(vidette, what, true_) {
  const end = Date.now() + 120000;
  for (;;) {
    const { voice } = await vidette.status();
    if (true_(voice)) return voice;
    assert.ok(Date.now() < end, `${what}: ${JSON.stringify(voice)}`);
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
}

test('one can listen, mute and set the volume, and the sound comes back after the server', async (t) => {
  const vidette = await program(t, { model: 'random', args: [...TALK, '--enable-tts'] });
  await becomes(vidette, 'ready', (v) => v.state === 'ready' || v.state === 'speaking');
  const page = await open(t, vidette.url, { expected: [/net::ERR/, /503/] });
  const listen = page.locator('#voice .voice-listen');
  await listen.waitFor();
  assert.equal(await listen.textContent(), 'Listen');
  await until(page, () => document.querySelector('#voice .voice-word')?.textContent.includes('espeak-ng'));
  assert.equal((await vidette.status()).voice.listeners, 0, 'no sound without a click');

  await listen.click();
  await becomes(vidette, 'listened to', (v) => v.listeners === 1);
  await loud(page);
  await page.locator('#voice .voice-mute').click();
  assert.equal(await page.locator('#voice .voice-mute').textContent(), 'Unmute');
  await loud(page); // the meter tells what is said, though it is not heard
  await page.locator('#voice .voice-volume input').fill('0.3');
  assert.equal(await page.evaluate(() => localStorage.getItem('vidette.volume')), '0.3');

  await vidette.stop();
  const again = await program(t, { model: 'random', port: vidette.port, args: [...TALK, '--enable-tts'] });
  await becomes(again, 'listened to again', (v) => v.listeners === 1);
  await loud(page);
  await listen.click();
  await becomes(again, 'left alone', (v) => v.listeners === 0);
  assert.equal(await listen.textContent(), 'Listen');
});

test('the page says why there is no voice, in the reader’s language', async (t) => {
  const off = await program(t, { model: 'random', args: TALK });
  const page = await open(t, off.url, { language: 'de-DE', expected: [/net::ERR/] });
  await until(page, () => document.querySelector('#voice .voice-word')?.textContent.includes('ENABLE_TTS=true'));
  assert.match(await page.locator('#voice .voice-word').textContent(), /^Die Stimme ist aus/);
  assert.equal(await page.locator('#voice .voice-listen').isHidden(), true);
  await off.stop();

  const mute = await program(t, { model: 'random', args: [...TALK, '--enable-tts', '--voice', 'minicpm-o'] });
  const other = await open(t, mute.url);
  await until(other, () => document.querySelector('#voice .voice-word')?.textContent.includes('vidette pull'));
  assert.equal(await other.locator('#voice .voice-listen').isDisabled(), true);
});

test('the source is heard apart from the voice, where it has sound', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vidette-sound-'));
  const clip = join(folder, 'loud.mp4');
  t.after(() => rmSync(folder, { recursive: true }));
  execFileSync('ffmpeg', ['-v', 'error', '-f', 'lavfi', '-i', 'testsrc2=s=320x240:r=25', '-f', 'lavfi', '-i', 'sine=f=500', '-t', '4', '-c:v', 'libx264',
    '-preset', 'ultrafast', '-pix_fmt', 'yuv420p', '-c:a', 'aac', clip]);
  const vidette = await program(t, { model: 'random', args: [clip, '--max-tokens', '12'] });
  const page = await open(t, vidette.url);
  const listeners = async () => Number(/vidette_source_audio_listeners\{stream="main"\} (\d+)/.exec(await (await fetch(`${vidette.url}/metrics`)).text())?.[1] ?? 0);
  await until(page, () => !document.querySelector('#source-sound').hidden);
  assert.equal(await listeners(), 0, 'no sound without a click');
  await page.locator('#source-sound .voice-listen').click();
  const loud = () => until(page, () => Number(document.querySelector('#source-sound .voice-meter').getAttribute('aria-valuenow')) > 20);
  await loud();
  await page.locator('#source-sound .voice-mute').click();
  assert.equal(await page.locator('#source-sound .voice-mute').textContent(), 'Unmute');
  await page.locator('#source-sound .voice-volume input').fill('0.4');
  assert.equal(await page.evaluate(() => localStorage.getItem('vidette.source-volume')), '0.4');
  assert.equal(await page.evaluate(() => localStorage.getItem('vidette.volume')), null, 'the voice has a volume of its own');
  await loud();
  await page.locator('#source').fill('test:ball');
  await page.locator('#source').press('Enter');
  await until(page, () => document.querySelector('#source-sound').hidden);
  const end = Date.now() + 60000;
  while (await listeners() !== 0) {
    assert.ok(Date.now() < end, 'it is still listened to');
    await page.waitForTimeout(50);
  }
});
