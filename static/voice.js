// The voice's controls: builds itself inside <div id="voice"></div>, plays /api/audio-stream through Web Audio, and
// shows who speaks. Not here: the commentary's text (app.js), looks (voice.css).
//
// Sound comes as s16le, 48 kHz, mono, silence included, so time as heard is the server's. It is scheduled buffer by
// buffer, a little ahead; that works on pages without TLS too, where there is no AudioWorklet.

const WORDS = {
  label: 'Voice',
  listen: 'Listen',
  mute: 'Mute',
  unmute: 'Unmute',
  stop: 'Stop listening',
  volume: 'Volume',
  level: 'Loudness',
  off: 'The voice is off. Start Vidette with ENABLE_TTS=true to hear the commentary.',
  loading: 'The voice is being prepared…',
  unavailable: 'The voice can’t speak.',
  ready: (name) => `${name} speaks`,
  speaking: (name) => `${name} is speaking`,
  waiting: 'waiting for the next words',
  connecting: 'connecting…',
  lost: 'The sound is interrupted; trying again…',
  refused: 'The sound can’t be played here.',
};

const POLL_MS = 3000;
/** Sound that is held ready against the network's unevenness, seconds. */
const AHEAD = 0.15;
/** More than this is held back by nobody's wish: what is older is skipped. */
const MOST_AHEAD = 0.6;
/** Samples that are scheduled at once: 40 ms. */
const BLOCK = 1920;
const RATE = 48000;
const STORED = 'vidette.volume';

const root = document.getElementById('voice');
const stream = new URLSearchParams(location.search).get('stream');
const base = stream ? `/api/streams/${encodeURIComponent(stream)}` : '/api';

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

function build() {
  root.className = 'voice';
  root.setAttribute('role', 'group');
  root.setAttribute('aria-label', WORDS.label);
  const make = (tag, className, parent = root) => {
    const element = document.createElement(tag);
    element.className = className;
    parent.append(element);
    return element;
  };
  const button = (className) => Object.assign(make('button', className), { type: 'button' });

  const listen = button('main voice-listen');
  const mute = button('quiet voice-mute');
  const label = make('label', 'voice-volume');
  label.append(WORDS.volume);
  const volume = Object.assign(make('input', '', label), { type: 'range', min: '0', max: '1', step: '0.05' });
  const meter = make('span', 'voice-meter');
  meter.setAttribute('role', 'meter');
  meter.setAttribute('aria-label', WORDS.level);
  meter.setAttribute('aria-valuemin', '0');
  meter.setAttribute('aria-valuemax', '100');
  const bar = make('span', '', meter);
  const word = make('span', 'voice-word');
  word.setAttribute('role', 'status');

  const player = new Player();
  let voice = null;

  const stored = Number(readStored() ?? 0.8);
  volume.value = Number.isFinite(stored) ? stored : 0.8;
  player.volume = Number(volume.value);

  function show() {
    const able = voice !== null && voice.enabled;
    listen.textContent = player.listening ? WORDS.stop : WORDS.listen;
    listen.hidden = !able;
    listen.disabled = !player.listening && voice?.state === 'unavailable';
    listen.setAttribute('aria-pressed', String(player.listening));
    mute.textContent = player.muted ? WORDS.unmute : WORDS.mute;
    mute.setAttribute('aria-pressed', String(player.muted));
    mute.hidden = label.hidden = meter.hidden = !player.listening;
    const [text, bad] = say();
    if (word.textContent !== text) word.textContent = text;
    word.classList.toggle('bad', bad);
  }

  function say() {
    if (player.state === 'refused') return [WORDS.refused, true];
    if (player.state === 'lost') return [WORDS.lost, true];
    if (voice === null) return ['', false];
    if (!voice.enabled) return [WORDS.off, false];
    if (voice.state === 'loading') return [WORDS.loading, false];
    if (voice.state === 'unavailable') return [[WORDS.unavailable, voice.reason].filter(Boolean).join(' '), true];
    if (player.state === 'connecting') return [WORDS.connecting, false];
    if (voice.state === 'speaking') return [WORDS.speaking(voice.name), false];
    const words = WORDS.ready(voice.name);
    return [player.listening ? `${words}: ${WORDS.waiting}` : words, false];
  }

  function draw() {
    if (player.listening) {
      // Speech lies between -40 and 0 dB.
      const decibels = 20 * Math.log10(Math.max(player.level(), 1e-4));
      const level = Math.min(Math.max(1 + decibels / 40, 0), 1);
      bar.style.transform = `scaleX(${level.toFixed(2)})`;
      meter.classList.toggle('loud', level > 0.9);
      meter.setAttribute('aria-valuenow', String(Math.round(level * 100)));
      requestAnimationFrame(draw);
    }
  }

  async function poll() {
    // While the page asks for its token, there is no answer to be had.
    if (document.querySelector('dialog[open]')) return;
    const before = player.state;
    try {
      const answer = await fetch(`${base}/status`, { cache: 'no-store' });
      if (answer.ok) voice = (await answer.json()).voice ?? null;
    } catch { /* app.js tells that the server is away. */ }
    if (before !== player.state || !document.hidden) show();
  }

  listen.addEventListener('click', () => {
    if (player.listening) player.stop();
    else player.listen();
    show();
    draw();
    poll();
  });
  mute.addEventListener('click', () => { player.muted = !player.muted; show(); });
  volume.addEventListener('input', () => {
    player.volume = Number(volume.value);
    store(volume.value);
  });
  show();
  poll();
  setInterval(poll, POLL_MS);
  // What the player does between two answers of the server.
  setInterval(() => { if (player.listening) show(); }, 300);
}

function readStored() {
  try { return localStorage.getItem(STORED); } catch { return null; }
}

function store(value) {
  try { localStorage.setItem(STORED, value); } catch { /* A private window: it is forgotten, that is all. */ }
}

if (root) build();
