// How things are, in words: the dots, the notices and the countdown to the next attempt. A dot's colour says nothing
// that its word does not. Not here: figures (figures.js), what asks the server (server.js).
import { $, part } from './dom.js';
import { t, has, spoken, speaks } from './language.js';

const COLOUR = {
  source: { stopped: 'off', connecting: 'busy', streaming: 'good', stalled: 'busy', retrying: 'bad', ended: 'off' },
  engine: { absent: 'bad', loading: 'busy', ready: 'good', restarting: 'busy', failed: 'bad' },
  voice: { off: 'off', loading: 'busy', ready: 'good', speaking: 'good', unavailable: 'bad' },
  livekit: { away: 'off', connecting: 'busy', waiting: 'good', camera: 'good', muted: 'busy', retrying: 'bad' },
};
const ended = (text) => (/[.!?…]$/.test(text) ? text : `${text}.`);
const known = (kind, state) => (has(`${kind}.${state}`) ? t(`${kind}.${state}`) : String(state));

let status = null;
const retryAt = { source: null, livekit: null }; // When the next attempt begins.
let link = 'connecting';
let lostAt = null;
let removed = false;

function dot(id, colour, word) {
  $(`${id}-dot`).className = `dot ${colour}`;
  if ($(`${id}-word`).textContent !== word) $(`${id}-word`).textContent = word;
}

// Pieces are sentences of this page, or { foreign } words of the server, which speaks English.
function notice(id, pieces) {
  const element = $(id);
  const shown = pieces.filter(Boolean);
  const text = shown.map((piece) => piece.foreign ?? piece).join(' ');
  element.hidden = !text;
  // Said anew only when it changes, because a screen reader reads it each time.
  if (element.dataset.text === text) return;
  element.dataset.text = text;
  element.replaceChildren();
  for (const piece of shown) {
    const sentence = part(element, 'span', '');
    if (piece.foreign) sentence.lang = 'en';
    // What stands between backticks is to be typed.
    (piece.foreign ?? piece).split('`').forEach((words, i) => part(sentence, i % 2 ? 'code' : 'span', '', words));
    element.append(' ');
  }
}

function secondsLeft(what) {
  return retryAt[what] === null ? null : Math.ceil((retryAt[what] - Date.now()) / 1000);
}

// Counts from the first word of an attempt: later ones say the same wait again.
function countDown(what, before, now) {
  const waiting = now?.state === 'retrying' && typeof now.retry_in_s === 'number';
  const same = before?.attempt === now?.attempt && before?.state === now?.state;
  if (!waiting) retryAt[what] = null;
  else if (!same || retryAt[what] === null) retryAt[what] = Date.now() + (now.next_attempt_in_s ?? now.retry_in_s) * 1000;
}

const tries = (left) => (left > 0 ? t('notice.try.in', { seconds: left }) : t('notice.try.now'));

// For the grid of all streams as well.
export function sourceWord(source, left = null) {
  if (source.state === 'retrying' && left !== null) {
    return left > 0 ? t('source.retrying.in', { seconds: left }) : t('source.retrying.now');
  }
  return known('source', source.state);
}
export const sourceName = (source) => (source.source === 'webcam' ? t('mode.webcam') : source.source ?? '');
export const sourceColour = (source) => COLOUR.source[source.state] ?? 'bad';

function showSource() {
  if (!status) return;
  const { source } = status;
  const left = secondsLeft('source');
  dot('source', sourceColour(source), sourceWord(source, left));
  const failing = (source.message || source.fault) && source.state !== 'streaming' && source.state !== 'stopped';
  if (!failing) return notice('source-notice', []);
  const own = spoken() === 'en' && source.message;
  const words = own ? [{ foreign: ended(source.message) }] :
    [t(`fault.${source.fault ?? 'other'}`, { source: sourceName(source) || t('state.source') })];
  if (left !== null) {
    words.push(tries(left));
    if (source.attempt > 1) words.push(t('notice.try.attempt', { n: source.attempt }));
  }
  if (!own && source.message) words.push(t('notice.details'), { foreign: source.message });
  notice('source-notice', words);
}

// What is known to be said of a model, in this page's language; the rest as it is.
function modelWords(text) {
  if (!text || spoken() === 'en') return text ? [{ foreign: text }] : [];
  if (text.startsWith('This is the small built-in demo model')) return [t('notice.demo')];
  if (text.includes('RANDOM WEIGHTS')) return [t('notice.random')];
  return [t('notice.model'), { foreign: text }];
}

// The room, where there is one. What is wrong with the room of a webcam that is the source, the source says.
function showRoom() {
  const room = status?.livekit;
  $('livekit-state').hidden = !room;
  if (!room) return notice('livekit-notice', []);
  const left = secondsLeft('livekit');
  const state = room.state === 'camera' && room.muted ? 'muted' : room.state;
  const again = left > 0 ? t('source.retrying.in', { seconds: left }) : t('source.retrying.now');
  dot('livekit', COLOUR.livekit[state] ?? 'bad', state === 'retrying' && left !== null ? again : known('livekit', state));
  const failing = state === 'retrying' && room.message && status.source.source !== 'webcam';
  notice('livekit-notice', failing ? [t('notice.livekit'), { foreign: ended(room.message) }, left === null ? null : tries(left)] : []);
}

function showEngine() {
  if (!status) return;
  const { engine, commentary, voice } = status;
  const model = engine.state === 'ready' && engine.model;
  const word = model && engine.device ? t('engine.on', { model, device: engine.device }) : model || known('engine', engine.state);
  dot('engine', COLOUR.engine[engine.state] ?? 'bad', word);
  notice('model-notice', modelWords(engine.notice));
  notice('engine-notice', [engine.warning, engine.message, commentary.message].flatMap(modelWords));
  $('voice-state').hidden = !voice;
  if (voice) dot('voice', COLOUR.voice[voice.state] ?? 'busy', known('voice', voice.state));
  $('doing').textContent = known('doing', commentary.state);
}

export function showStatus(next) {
  const before = status;
  status = next;
  removed = false;
  countDown('source', before?.source, next.source);
  countDown('livekit', before?.livekit, next.livekit);
  showSource();
  showRoom();
  showEngine();
  showLink();
}

function showLink() {
  const colour = { good: 'good', connecting: 'busy', lost: 'bad' }[link];
  dot('link', colour, t(`link.${link}`));
  // A blink of the network is not worth a notice.
  const lost = lostAt !== null && Date.now() - lostAt > 1500;
  notice('link-notice', removed ? [t('notice.removed')] : lost ? [t('notice.link')] : []);
}

export function setLink(good) {
  link = good ? 'good' : 'lost';
  lostAt = good ? null : lostAt ?? Date.now();
  showLink();
}

export function setRemoved() {
  removed = true;
  showLink();
}

setInterval(() => { showSource(); showRoom(); showLink(); }, 500);
speaks(() => { showSource(); showRoom(); showEngine(); showLink(); });
