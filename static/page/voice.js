// The voice: who speaks, and what keeps it from speaking, in words; with the controls to hear it. Not here: the controls
// (listening.js), the sound (player.js), the voice's dot (state.js), the commentary's text (commentary.js).
import { $ } from './dom.js';
import { t, speaks } from './language.js';
import { controls } from './listening.js';
import { Player } from './player.js';

const player = new Player('audio-stream');
let voice = null;

function say() {
  if (player.state === 'refused') return [t('sound.refused'), '', true];
  if (player.state === 'lost') return [t('sound.lost'), '', true];
  if (voice === null) return ['', '', false];
  if (!voice.enabled) return [t('sound.off'), '', false];
  if (voice.state === 'loading') return [t('sound.loading'), '', false];
  if (voice.state === 'unavailable') return [t('sound.unavailable'), voice.reason ?? '', true];
  if (player.state === 'connecting') return [t('sound.connecting'), '', false];
  // Why it is not the model's own, where that one was to be had: worth knowing, and nothing is wrong.
  const note = voice.note ?? '';
  if (voice.state === 'speaking') return [t('sound.speaking', { name: voice.name }), note, false];
  return [t(player.listening ? 'sound.waiting' : 'sound.ready', { name: voice.name }), note, false];
}

const { show, listen } = controls($('voice'), player, {
  names: { name: 'sound.name', listen: 'sound.listen', stop: 'sound.stop' },
  stored: 'volume',
  say,
  offered: () => voice !== null && voice.enabled,
  able: () => voice?.state !== 'unavailable',
});
speaks(show);

export function showStatus(status) {
  voice = status.voice ?? null;
  show();
}

// ---- For the webcam ---------------------------------------------------------------------------------------

export const listening = () => player.listening;

/** Calls `handle` when somebody begins or ceases to listen. */
export function whenListening(handle) { listen.addEventListener('click', handle); }

/** The voice comes by a LiveKit room: its track, `null` while there is none, `false` outside of a room. */
export function room(track) {
  player.room = track;
  show();
}
