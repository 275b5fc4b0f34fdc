// Sound from the server, or from a LiveKit room, on its way to the ear: fetching, scheduling, volume, loudness.
// Not here: controls (listening.js), who is in the room (webcam.js).
//
// Sound comes as s16le, 48 kHz, mono, silence included, so time as heard is the server's. It is scheduled buffer by
// buffer, a little ahead; that works on pages without TLS too, where there is no AudioWorklet.
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

export class Player {
  #path;
  #context = null;
  #gain = null;
  #analyser = null;
  #abort = null;
  #next = 0;
  #volume = 1;
  #muted = false;
  #room = false; // In a room nothing is fetched.
  #track = null; // The room's sound, once it is there.
  state = 'idle'; // idle, connecting, playing, lost, refused

  /** `path` is the server's route for the sound, below the stream's own. */
  constructor(path) { this.#path = path; }

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
    this.#begin();
  }

  #begin() {
    this.#abort = new AbortController();
    if (this.#room) this.#join(this.#abort.signal);
    else this.#run(this.#abort.signal);
  }

  /** Sound comes from a room from now on, by `track`, or by nothing yet; `false` is out of the room. Never both. */
  set room(track) {
    const [room, next] = [track !== false, track || null];
    if (room === this.#room && next === this.#track) return;
    [this.#room, this.#track] = [room, next];
    if (!this.#abort) return;
    this.#abort.abort();
    this.#begin();
  }

  #join(signal) {
    this.state = 'connecting';
    if (!this.#track) return;
    const stream = new MediaStream([this.#track]);
    // Chromium gives a remote track's sound to Web Audio only while an element plays it as well.
    const element = Object.assign(new Audio(), { srcObject: stream, muted: true });
    element.play().catch(() => {});
    const node = this.#context.createMediaStreamSource(stream);
    node.connect(this.#analyser);
    this.state = 'playing';
    signal.addEventListener('abort', () => {
      node.disconnect();
      element.srcObject = null;
    });
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
        const answer = await fetch(`${base}/${this.#path}`, { signal, cache: 'no-store' });
        if (!answer.ok) throw new Error(String(answer.status));
        const reader = answer.body.getReader();
        const samples = new Samples();
        this.#next = 0;
        // Of this source only, so that nothing of it is heard once another one took its place.
        const out = this.#context.createGain();
        out.connect(this.#analyser);
        signal.addEventListener('abort', () => out.disconnect());
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          attempt = 0;
          this.state = 'playing';
          samples.push(value).forEach((block) => this.#schedule(block, out));
        }
      } catch { /* The network, or the server, went away: again. */ }
      if (signal.aborted) return;
      this.state = 'lost';
      await new Promise((resolve) => { setTimeout(resolve, backoff(attempt) * 1000); });
    }
  }

  #schedule(block, out) {
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
    source.connect(out);
    source.start(this.#next);
    this.#next += BLOCK / RATE;
  }
}

