// The voice's controls: builds itself inside <div id="voice"></div>, plays /api/audio-stream through Web Audio, and
// shows who speaks. Not here: the voice's dot (state.js), the commentary's text (commentary.js).
//
// Sound comes as s16le, 48 kHz, mono, silence included, so time as heard is the server's. It is scheduled buffer by
// buffer, a little ahead; that works on pages without TLS too, where there is no AudioWorklet.
import { $, part, store } from './dom.js';
import { t, speaks } from './language.js';
import { base } from './server.js';

/** Sound that is held ready against the network's unevenness, seconds. */
const AHEAD = 0.15;
/** More than this is held back by nobody's wish: what is older is skipped. */
const MOST_AHEAD = 0.6;
/** Samples that are scheduled at once: 40 ms. */
const BLOCK = 1920;
const RATE = 48000;

/** Seconds to wait before the next attempt to connect. */
export const backoff = (attempt) => Math.min(0.5 * 2 ** attempt, 10);

/** Cuts a stream of bytes, wherever its pieces end, into blocks of samples between -1 and 1. */
export class Samples {
  #bytes = new Uint8Array(0);

  push(piece) {
    const all = new Uint8Array(this.#bytes.length + piece.length);
    all.set(this.#bytes);
    all.set(piece, this.#bytes.length);
    const blocks = [];
    let at = 0;
    for (; all.length - at >= BLOCK * 2; at += BLOCK * 2) {
      const view = new DataView(all.buffer, at, BLOCK * 2);
      blocks.push(Float32Array.from({ length: BLOCK }, (_, n) => view.getInt16(n * 2, true) / 32768));
    }
    this.#bytes = all.slice(at);
    return blocks;
  }
}

class Player {
  #context = null;
  #gain = null;
  #analyser = null;
  #abort = null;
  #next = 0;
  #volume = 1;
  #muted = false;
  state = 'idle'; // idle, connecting, playing, lost, refused

  /** Must be called from a click: browsers let no page make a sound by itself. */
  listen() {
    if (this.#abort) return;
    try {
      if (!this.#context) this.#open();
      this.#context.resume();
    } catch {
      this.state = 'refused';
      return;
    }
    this.#abort = new AbortController();
    this.#run(this.#abort.signal);
  }

  stop() {
    this.#abort?.abort();
    this.#abort = null;
    this.state = 'idle';
    // Nothing that is scheduled shall be heard after this.
    this.#context?.close();
    this.#context = this.#gain = this.#analyser = null;
  }

  get listening() { return this.#abort !== null; }

  set volume(volume) { this.#volume = volume; this.#apply(); }

  set muted(muted) { this.#muted = muted; this.#apply(); }

  get muted() { return this.#muted; }

  /** Loudness of what is heard now, 0 to 1. */
  level() {
    if (!this.#analyser) return 0;
    const samples = new Float32Array(this.#analyser.fftSize);
    this.#analyser.getFloatTimeDomainData(samples);
    return Math.sqrt(samples.reduce((sum, s) => sum + s * s, 0) / samples.length);
  }

  #open() {
    this.#context = new AudioContext({ sampleRate: RATE, latencyHint: 'interactive' });
    this.#gain = this.#context.createGain();
    this.#analyser = this.#context.createAnalyser();
    this.#analyser.fftSize = 1024;
    // The meter shows what is said, also while it is muted.
    this.#analyser.connect(this.#gain);
    this.#gain.connect(this.#context.destination);
    this.#apply(true);
  }

  #apply(atOnce = false) {
    if (!this.#gain) return;
    const value = this.#muted ? 0 : this.#volume ** 2;
    if (atOnce) this.#gain.gain.value = value;
    else this.#gain.gain.setTargetAtTime(value, this.#context.currentTime, 0.01);
  }

  async #run(signal) {
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      this.state = attempt === 0 ? 'connecting' : 'lost';
      try {
        const answer = await fetch(`${base}/audio-stream`, { signal, cache: 'no-store' });
        if (!answer.ok) throw new Error(String(answer.status));
        const reader = answer.body.getReader();
        const samples = new Samples();
        this.#next = 0;
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          attempt = 0;
          this.state = 'playing';
          samples.push(value).forEach((block) => this.#schedule(block));
        }
      } catch { /* The network, or the server, went away: again. */ }
      if (signal.aborted) return;
      this.state = 'lost';
      await new Promise((resolve) => { setTimeout(resolve, backoff(attempt) * 1000); });
    }
  }

  #schedule(block) {
    const context = this.#context;
    if (!context || context.state !== 'running') return;
    const now = context.currentTime;
    // At the beginning, and after a gap of the network: collect a little first.
    if (this.#next < now) this.#next = now + AHEAD;
    if (this.#next > now + MOST_AHEAD) return;
    const buffer = context.createBuffer(1, BLOCK, RATE);
    buffer.copyToChannel(block, 0);
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.#analyser);
    source.start(this.#next);
    this.#next += BLOCK / RATE;
  }
}

const root = $('voice');
root.className = 'voice';
root.setAttribute('role', 'group');
const button = (className) => Object.assign(part(root, 'button', className), { type: 'button' });
const listen = button('main voice-listen');
const mute = button('quiet voice-mute');
const label = part(root, 'label', 'voice-volume');
const name = part(label, 'span', '');
const volume = Object.assign(part(label, 'input', ''), { type: 'range', min: '0', max: '1', step: '0.05' });
const meter = part(root, 'span', 'voice-meter');
meter.setAttribute('role', 'meter');
meter.setAttribute('aria-valuemin', '0');
meter.setAttribute('aria-valuemax', '100');
const bar = part(meter, 'span', '');
const word = part(root, 'span', 'voice-word');
word.setAttribute('role', 'status');

const player = new Player();
let voice = null;

const stored = Number(store.get('volume') ?? 0.8);
volume.value = Number.isFinite(stored) ? stored : 0.8;
player.volume = Number(volume.value);

// [sentence, the server's own words or '', whether it is bad news]
function say() {
  if (player.state === 'refused') return [t('sound.refused'), '', true];
  if (player.state === 'lost') return [t('sound.lost'), '', true];
  if (voice === null) return ['', '', false];
  if (!voice.enabled) return [t('sound.off'), '', false];
  if (voice.state === 'loading') return [t('sound.loading'), '', false];
  if (voice.state === 'unavailable') return [t('sound.unavailable'), voice.reason ?? '', true];
  if (player.state === 'connecting') return [t('sound.connecting'), '', false];
  if (voice.state === 'speaking') return [t('sound.speaking', { name: voice.name }), '', false];
  return [t(player.listening ? 'sound.waiting' : 'sound.ready', { name: voice.name }), '', false];
}

function show() {
  root.setAttribute('aria-label', t('sound.name'));
  meter.setAttribute('aria-label', t('sound.level'));
  name.textContent = t('sound.volume');
  listen.textContent = t(player.listening ? 'sound.stop' : 'sound.listen');
  listen.hidden = voice === null || !voice.enabled;
  listen.disabled = !player.listening && voice?.state === 'unavailable';
  listen.setAttribute('aria-pressed', String(player.listening));
  mute.textContent = t(player.muted ? 'sound.unmute' : 'sound.mute');
  mute.setAttribute('aria-pressed', String(player.muted));
  mute.hidden = label.hidden = meter.hidden = !player.listening;
  const [sentence, foreign, bad] = say();
  const said = `${sentence} ${foreign}`;
  if (word.dataset.said !== said) {
    word.dataset.said = said;
    word.replaceChildren();
    part(word, 'span', '', foreign ? `${sentence} ` : sentence);
    // The server speaks English.
    if (foreign) part(word, 'span', '', foreign).lang = 'en';
  }
  word.classList.toggle('bad', bad);
}

function draw() {
  if (!player.listening) return;
  // Speech lies between -40 and 0 dB.
  const decibels = 20 * Math.log10(Math.max(player.level(), 1e-4));
  const level = Math.min(Math.max(1 + decibels / 40, 0), 1);
  bar.style.transform = `scaleX(${level.toFixed(2)})`;
  meter.classList.toggle('loud', level > 0.9);
  meter.setAttribute('aria-valuenow', String(Math.round(level * 100)));
  requestAnimationFrame(draw);
}

listen.addEventListener('click', () => {
  if (player.listening) player.stop();
  else player.listen();
  show();
  draw();
});
mute.addEventListener('click', () => { player.muted = !player.muted; show(); });
volume.addEventListener('input', () => {
  player.volume = Number(volume.value);
  store.set('volume', volume.value);
});
// What the player does between two words of the server.
setInterval(() => { if (player.listening) show(); }, 300);
speaks(show);

export function showStatus(status) {
  voice = status.voice ?? null;
  show();
}
