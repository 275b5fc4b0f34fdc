// Sound as it arrives in the browser, measured, and a voice that sings one tone until it is to speak. Not here: the
// program (program.mjs), what is expected.
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// A folder with an espeak-ng that sings `hz` whatever it is to say, and is the real one after `speak()`.
export function singer(t, hz) {
  const folder = mkdtempSync(join(tmpdir(), 'vidette-singer-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const program = join(folder, 'espeak-ng');
  const real = execFileSync('/bin/sh', ['-c', 'command -v espeak-ng'], { encoding: 'utf8' }).trim();
  // As espeak-ng writes it: a header of 44 bytes, one channel of 16 bits.
  execFileSync('ffmpeg', ['-v', 'error', '-f', 'lavfi', '-i', `sine=f=${hz}:r=22050:d=2.5`, '-c:a', 'pcm_s16le', '-bitexact', `${program}.wav`]);
  writeFileSync(program, `#!/bin/sh\n[ -e "$0.speaks" ] && exec ${real} "$@"\n/bin/cat >/dev/null\nexec /bin/cat "$0.wav"\n`);
  chmodSync(program, 0o755);
  return { folder, speak: () => writeFileSync(`${program}.speaks`, '') };
}

// Before the page is loaded: lets `spectrum` hear what the page's own meter hears.
export const listenIn = (page) => page.addInitScript(() => {
  window.ears = [];
  const make = AudioContext.prototype.createAnalyser;
  AudioContext.prototype.createAnalyser = function createAnalyser() {
    const [own, ear] = [make.call(this), make.call(this)];
    ear.fftSize = 16384;
    ear.smoothingTimeConstant = 0;
    own.connect(ear);
    window.ears.push(ear);
    return own;
  };
});

// Of the last third of a second: the strongest frequency, the loudness, and how much of the energy lies around that
// frequency and how much between 80 and 5000 Hz, where speech is.
export const spectrum = (page) => page.evaluate(() => {
  const ear = window.ears.at(-1);
  const [wave, decibels] = [new Float32Array(ear.fftSize), new Float32Array(ear.frequencyBinCount)];
  ear.getFloatTimeDomainData(wave);
  ear.getFloatFrequencyData(decibels);
  const energy = [...decibels].map((d) => 10 ** (d / 10));
  const width = ear.context.sampleRate / ear.fftSize;
  const sum = (from, to) => energy.slice(Math.max(0, Math.round(from / width)), Math.round(to / width)).reduce((a, b) => a + b, 0);
  const hz = energy.indexOf(Math.max(...energy)) * width;
  const all = sum(0, Infinity);
  return { hz, rms: Math.sqrt(wave.reduce((a, s) => a + s * s, 0) / wave.length), around: sum(hz - 20, hz + 20) / all, voice: sum(80, 5000) / all };
});
