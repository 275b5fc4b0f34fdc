// The browser's webcam as the source: the real program with the demo model, a real livekit-server, a real browser whose
// camera shows a known picture. Not here: the room's other end in detail (tests/livekit.rs), the rest of the page.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import test, { after } from 'node:test';
import { close, context, open, until } from './support/browser.mjs';
import { DENIED, NO_CAMERA, THREE_CAMERAS, camera, freePort, keys, livekit } from './support/livekit.mjs';
import { CLIP, program } from './support/program.mjs';
import { listenIn, singer, spectrum } from './support/sound.mjs';
import { STRINGS } from '../../static/page/strings.js';

after(close);
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
// What the browser complains of when a server goes away, and that LiveKit's client asks its server over HTTP why.
const AWAY = [/net::ERR/, /WebSocket/, /503/, /a request elsewhere: http:\/\/127\.0\.0\.1:\d+\/rtc/];

const watched = (page) => until(page, (text) => document.querySelector('#webcam-said').textContent === text, STRINGS.en['webcam.live']);
const live = (page) => until(page, () => document.querySelector('#source-word').textContent === 'live');

async function becomes(vidette, what, true_) {
  const end = Date.now() + 120000;
  for (;;) {
    const status = await vidette.status();
    if (true_(status)) return status;
    assert.ok(Date.now() < end, `${what}: ${JSON.stringify(status)}`);
    await new Promise((resolve) => { setTimeout(resolve, 100); });
  }
}
const fromWebcam = (vidette) => becomes(vidette, 'from the webcam', ({ source }) => source.source === 'webcam' && source.state === 'streaming');

// Colours of a picture of the program's and of the camera's own, at the same 16 x 9 places.
const pictures = (page) => page.evaluate(async () => {
  const colours = (picture) => {
    const canvas = new OffscreenCanvas(16, 9);
    const paint = canvas.getContext('2d', { willReadFrequently: true });
    paint.imageSmoothingQuality = 'high';
    paint.drawImage(picture, 0, 0, 16, 9);
    return [...paint.getImageData(0, 0, 16, 9).data];
  };
  const answer = await fetch('/api/frame').catch(() => null);
  if (!answer?.ok || document.querySelector('#preview').videoWidth === 0) return null;
  const seen = await createImageBitmap(await answer.blob());
  return { seen: colours(seen), shown: colours(document.querySelector('#preview')), size: [seen.width, seen.height] };
});

// Until a frame has the camera's colours: the first ones are small and smeared.
async function sees(page) {
  for (const end = Date.now() + 60000; ;) {
    const both = await pictures(page);
    assert.ok(Date.now() < end, `no picture comes: ${JSON.stringify(both)}`);
    const { seen, shown } = both ?? { seen: [], shown: [] };
    // Two sizes of a picture differ at a shape's edge, whatever made them smaller.
    const apart = seen.filter((value, i) => Math.abs(value - shown[i]) > 30).length;
    const [red, green, blue] = [0, 1, 2].map((channel) => Math.max(...seen.filter((_, i) => i % 4 === channel)) - Math.min(...seen.filter((_, i) => i % 4 === channel)));
    // Not one grey, so that exchanged channels are seen.
    if (both && apart <= seen.length / 25 && red > 40 && green > 40 && blue > 40) return;
    await page.waitForTimeout(200);
  }
}

const lights = (page) => page.evaluate(() => window.tracks.filter((track) => track.readyState === 'live').length);

async function visitor(t, url, options, before = () => {}) {
  const page = await (await context(t, options)).newPage();
  await before(page);
  await page.addInitScript(() => {
    // Every camera track that the page was given, and every connection that it made.
    window.tracks = [];
    window.peers = [];
    const given = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wish) => {
      const stream = await given(wish);
      window.tracks.push(...stream.getTracks());
      return stream;
    };
    const Peer = window.RTCPeerConnection;
    window.RTCPeerConnection = class extends Peer {
      constructor(...all) {
        super(...all);
        window.peers.push(this);
      }
    };
  });
  await page.goto(url);
  return page;
}

test('the camera is watched in its own colours, and one click goes to it and back', async (t) => {
  const room = await livekit(t);
  const vidette = await program(t, { args: [CLIP, ...room.args] });
  const page = await visitor(t, vidette.url, { args: camera(t, CLIP), expected: AWAY });
  await live(page);
  await page.locator('#source').fill('rtsp://half/typed');
  await page.locator('#mode-webcam').click();
  await watched(page);
  await fromWebcam(vidette);
  await sees(page);
  assert.equal(await page.locator('#livekit-word').textContent(), 'receives a camera');
  assert.equal(await page.locator('#preview').isVisible(), true);
  assert.equal(await page.evaluate(() => window.tracks.some((track) => track.kind === 'audio')), false, 'the microphone is off');
  // The model sees what it shows.
  await page.locator('#instruction').fill('What colour is the circle?');
  await page.locator('#instruction').press('Enter');
  const last = async () => (await vidette.status('/api/streams')).streams[0].last_utterance;
  let said = await last();
  for (const end = Date.now() + 120000; said?.instruction !== 'What colour is the circle?' || said.finish !== 'stop'; said = await last()) {
    assert.ok(Date.now() < end, `no answer to the question: ${JSON.stringify(said)}`);
    await page.waitForTimeout(100);
  }
  t.diagnostic(`asked for the circle's colour, it says: ${said.text}`);
  assert.match(said.text, /\bred\b/i);
  await until(page, (text) => [...document.querySelectorAll('.entry.utterance .text')].some((e) => e.textContent === text), said.text.trim());

  // Back with one click: to what was watched, with what was typed.
  await page.locator('#mode-source').click();
  await becomes(vidette, 'back at the clip', ({ source }) => source.source === CLIP && source.state === 'streaming');
  await until(page, () => document.querySelector('#preview').hidden && !document.querySelector('#video').hidden);
  assert.equal(await lights(page), 0, 'the camera is off');
  assert.equal(await page.locator('#source').inputValue(), 'rtsp://half/typed');
  await page.locator('#mode-webcam').click();
  await watched(page);
  await fromWebcam(vidette);
  await sees(page);
  await page.locator('#webcam-stop').click();
  await becomes(vidette, 'stopped', ({ source }) => source.state === 'stopped');
  await until(page, (text) => document.querySelector('#webcam-said').textContent === text, STRINGS.en['webcam.off']);
  assert.equal(await lights(page), 0, 'the camera is off');
});

test('it goes on after a reload and after the LiveKit server, and other windows see it', async (t) => {
  const room = await livekit(t);
  const vidette = await program(t, { model: 'random', args: ['test:ball@320x240', '--max-tokens', '12', ...room.args] });
  const args = camera(t, CLIP);
  const page = await visitor(t, vidette.url, { args, expected: AWAY });
  await live(page);
  await page.locator('#mode-webcam').click();
  await watched(page);
  await fromWebcam(vidette);
  await page.reload();
  await watched(page);
  await sees(page);
  const other = await open(t, vidette.url, { expected: AWAY });
  await until(other, () => !document.querySelector('#video').hidden && document.querySelector('#video').naturalWidth > 0);
  await until(other, (text) => document.querySelector('#webcam-said').textContent === text, STRINGS.en['webcam.other']);
  await room.stop();
  await until(page, (text) => document.querySelector('#webcam-said').textContent === text, STRINGS.en['webcam.reconnecting']);
  await until(page, () => /^lost, |^connecting/.test(document.querySelector('#livekit-word').textContent));
  // However often it has to be tried.
  let tickets = 0;
  page.on('request', (request) => { if (request.url().endsWith('/livekit/token')) tickets += 1; });
  for (const end = Date.now() + 120000; tickets < 4;) {
    assert.ok(Date.now() < end, 'it does not try again');
    await page.waitForTimeout(100);
  }
  assert.equal(await page.locator('#webcam-said').textContent(), STRINGS.en['webcam.reconnecting']);
  assert.equal(await lights(page), 1);
  await room.start();
  await watched(page);
  const before = (await (await fetch(`${vidette.url}/metrics`)).text()).match(/vidette_frames_total\{stream="main"\} (\d+)/)[1];
  await becomes(vidette, 'pictures again', ({ source }) => source.state === 'streaming');
  for (let now = before; Number(now) < Number(before) + 3;) {
    now = (await (await fetch(`${vidette.url}/metrics`)).text()).match(/vidette_frames_total\{stream="main"\} (\d+)/)[1];
    await page.waitForTimeout(200);
  }
  await sees(page);
  // The program itself begins anew, with another source in its orders.
  await vidette.stop();
  const again = await program(t, { model: 'random', port: vidette.port, args: ['test:ball@320x240', '--max-tokens', '12', ...room.args] });
  await fromWebcam(again);
  await watched(page);
  await sees(page);
  // Somebody else chooses another source: the camera does not stay on for nothing.
  await other.locator('#mode-source').click();
  await becomes(again, 'another source', ({ source }) => source.source.startsWith('test:ball'));
  await until(page, (text) => document.querySelector('#webcam-said').textContent === text, STRINGS.en['webcam.elsewhere']);
  assert.equal(await lights(page), 0);
});

test('a tone and then speech come back by the room, and only by it', async (t) => {
  const room = await livekit(t);
  const voice = singer(t, 1000);
  const talk = ['test:ball@320x240', '--change-threshold', '0', '--max-tokens', '12', '--temperature', '2', '--enable-tts'];
  const vidette = await program(t, { model: 'random', args: [...talk, ...room.args], path: voice.folder });
  await becomes(vidette, 'able to speak', ({ voice }) => voice.state === 'ready' || voice.state === 'speaking');
  const page = await visitor(t, vidette.url, { args: camera(t, CLIP), expected: AWAY }, listenIn);
  await live(page);
  const streams = [];
  page.on('request', (request) => { if (request.url().includes('/audio-stream')) streams.push(request.url()); });
  await page.locator('#mode-webcam').click();
  await watched(page);
  await page.locator('#voice .voice-listen').click();
  await until(page, () => Number(document.querySelector('#voice .voice-meter').getAttribute('aria-valuenow')) > 20);
  // (Energy and level are 0 in these figures: they count what the muted element plays, not what Web Audio takes.)
  const measure = () => page.evaluate(async () => {
    for (const peer of window.peers.filter((p) => p.connectionState === 'connected')) {
      for (const one of (await peer.getStats()).values()) {
        if (one.type === 'inbound-rtp' && one.kind === 'audio') {
          return { packets: one.packetsReceived, lost: one.packetsLost, samples: one.totalSamplesReceived, concealed: one.concealedSamples };
        }
      }
    }
    return null;
  });
  let heard = await measure();
  // A second of it that came as it was sent; a busy machine may lose or delay any part, which the browser then makes up.
  for (const end = Date.now() + 120000; !(heard?.packets > 50 && heard.samples - heard.concealed > 48000); heard = await measure()) {
    assert.ok(Date.now() < end, `no voice by the room: ${JSON.stringify(heard)}`);
    await page.waitForTimeout(100);
  }
  t.diagnostic(`the voice by the room: ${JSON.stringify(heard)}`);
  // Whatever a busy machine makes of some of it, there is a third of a second of the tone as it was sung.
  let tone = await spectrum(page);
  for (const end = Date.now() + 120000; !(Math.abs(tone.hz - 1000) < 6 && tone.around > 0.9 && tone.rms > 0.03); tone = await spectrum(page)) {
    assert.ok(Date.now() < end, `no tone of 1000 Hz: ${JSON.stringify(tone)}`);
    await page.waitForTimeout(50);
  }
  t.diagnostic(`the tone: ${JSON.stringify(tone)}`);
  voice.speak();
  // Speech has its energy where speech has it, and goes from pitch to pitch.
  const pitches = new Set();
  for (const end = Date.now() + 120000; pitches.size < 6;) {
    const now = await spectrum(page);
    if (now.rms > 0.01 && now.voice > 0.8 && now.around < 0.8 && Math.abs(now.hz - 1000) > 40) pitches.add(Math.round(now.hz / 20));
    assert.ok(Date.now() < end, `no speech: ${JSON.stringify([now, ...pitches])}`);
    await page.waitForTimeout(50);
  }
  t.diagnostic(`speech, strongest at ${[...pitches].map((p) => p * 20).join(', ')} Hz`);
  assert.deepEqual(streams, [], 'nothing was fetched beside the room');
  await page.locator('#voice .voice-mute').click();
  assert.equal(await page.locator('#voice .voice-mute').textContent(), 'Unmute');
  // Out of the room it comes from the server again.
  await page.locator('#mode-source').click();
  await until(page, () => document.querySelector('#voice .voice-listen').getAttribute('aria-pressed') === 'true');
  await becomes(vidette, 'listened to', ({ voice }) => voice.audience.some((a) => a.silence));
  await until(page, () => Number(document.querySelector('#voice .voice-meter').getAttribute('aria-valuenow')) > 20);
  assert.equal(streams.length, 1);
});

test('of several cameras one is chosen, also while it is on', async (t) => {
  const room = await livekit(t);
  const vidette = await program(t, { model: 'random', args: ['test:ball@320x240', '--max-tokens', '12', ...room.args] });
  const page = await visitor(t, vidette.url, { args: THREE_CAMERAS, expected: AWAY });
  await live(page);
  await page.locator('#mode-webcam').click();
  await watched(page);
  await until(page, () => document.querySelectorAll('#camera option').length === 3 && !document.querySelector('#camera-label').hidden);
  const used = () => page.evaluate(() => document.querySelector('#preview').srcObject.getVideoTracks()[0].getSettings().deviceId);
  const first = await used();
  const all = await page.locator('#camera option').evaluateAll((options) => options.map((o) => o.value));
  assert.equal(first, all[0]);
  // Chromium's second one gives depth (Y16), which a page sees and WebRTC does not send.
  const [, , third] = all;
  await page.locator('#camera').selectOption(third);
  await until(page, (id) => document.querySelector('#preview').srcObject?.getVideoTracks()[0]?.getSettings().deviceId === id, third);
  assert.equal(await lights(page), 1);
  await fromWebcam(vidette);
  // Its pictures come, more of them than were on their way from the first.
  const frames = async () => (await vidette.status()).frames;
  const before = await frames();
  await becomes(vidette, 'watching the chosen camera', (status) => status.frames > before + 20);
});

test('what stands in the way is said, with what to do, and the source plays on', async (t) => {
  const off = await program(t, { model: 'random', args: ['test:ball@320x240', '--max-tokens', '12', '--allowed-hosts', 'vidette.test'] });
  const nowhere = `ws://127.0.0.1:${await freePort()}`;
  const on = await program(t, { model: 'random', args: ['test:ball@320x240', '--max-tokens', '12', ...keys(nowhere)] });
  const fake = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];
  const far = [...fake, '--host-resolver-rules=MAP vidette.test 127.0.0.1'];
  const busy = () => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('in use', 'NotReadableError')); };
  for (const [key, vidette, args, values, before] of [
    ['disabled', off, fake],
    ['insecure', { ...off, url: `http://vidette.test:${off.port}` }, far, { local: `http://localhost:${off.port}/` }],
    ['denied', on, DENIED],
    ['none', on, NO_CAMERA],
    ['busy', on, fake, {}, busy],
    ['unreachable', on, fake, { url: nowhere }],
  ]) {
    for (const [language, theme, width] of [['en-GB', 'dark', 1280], ['de-DE', 'light', 360]]) {
      const page = await (await context(t, { args, language, theme, width, expected: [...AWAY, /404/, /Cross-Origin-Opener-Policy/] })).newPage();
      if (before) await page.addInitScript(before);
      await page.goto(vidette.url);
      await until(page, () => document.querySelector('#video').naturalWidth > 0);
      await page.locator('#mode-webcam').click();
      // A server's address comes with or without the stroke at its end.
      const words = STRINGS[language.slice(0, 2)][`webcam.${key}`].replace(/\{(\w+)\}/g, (_, name) => values?.[name] ?? '');
      await until(page, (text) => {
        const said = document.querySelector('#webcam-said');
        return said.classList.contains('bad') && said.textContent.replace(/(ws:[^ ]*?)\/? /, '$1 ') === text.replace(/(ws:[^ ]*?)\/? /, '$1 ');
      }, words);
      assert.equal(await page.locator('#webcam-start').isVisible(), true, `${key}: it can be tried again`);
      assert.equal(await page.locator('#preview').isVisible(), false);
      // The source plays on; where the camera's own picture lay over it, it is fetched anew.
      await until(page, () => !document.querySelector('#video').hidden && document.querySelector('#video').naturalWidth > 0);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0, `${key}, ${language}`);
      await page.evaluate(AXE);
      const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
      assert.deepEqual(violations.filter((v) => ['serious', 'critical'].includes(v.impact)).map((v) => v.id), [], `${key}, ${theme}`);
      await page.locator('#mode-source').click();
      assert.equal(await page.locator('#source').isVisible(), true);
      await page.close();
    }
  }
  assert.equal((await off.status()).source.state, 'streaming');
});

test('the licences of what the page contains are shown', async (t) => {
  const vidette = await program(t, { model: 'random' });
  const page = await open(t, vidette.url, { expected: [/favicon/] });
  await page.locator('.about a').click();
  await until(page, () => /livekit-client 2\.\d+\.\d+: Apache-2\.0/.test(document.body.textContent) && document.body.textContent.includes('TERMS AND CONDITIONS'));
});
