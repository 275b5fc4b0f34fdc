// The commentary as it is written: tokens, finished utterances with their times and latencies, silence folded, all of
// it bounded. Text goes in by text nodes only. Not here: pictures (thumbnails.js), copies and downloads (export.js).
import { $, part } from './dom.js';
import { clock, count, minute, number, seconds, speaks, t } from './language.js';
import * as thumbnails from './thumbnails.js';

// Lines kept, and characters shown of one utterance.
const MOST_LINES = 200;
const MOST_TEXT = 10000;
// What was said just before the page was opened is not read out.
const QUIET_AT_FIRST_MS = 1500;
const MOST_ANNOUNCED = 4;

const log = $('log');
// What is in the log, in its order: { kind, entry, … }; kinds are said, writing, quiet, missed and restarted.
let records = [];
let open = null; // The record being written.
let following = true;
let unseen = 0;
let commentary = null;
let announced = 0; // Characters of the open utterance that were read out.
const born = Date.now();

function add(kind, more = {}) {
  const entry = document.createElement('li');
  entry.className = `entry ${kind}`;
  log.append(entry);
  const record = { kind, entry, ...more };
  records.push(record);
  while (records.length > MOST_LINES) drop(records.shift());
  $('no-talk').hidden = true;
  if (!following) unseen += 1;
  return record;
}

function drop(record) {
  if (record.button) thumbnails.forget(record.button);
  record.entry.remove();
  if (open === record) open = null;
}

function remove(record) {
  records = records.filter((other) => other !== record);
  drop(record);
}

// ---- One utterance ----------------------------------------------------------------------------------------

export function token({ utterance, text }) {
  if (open && open.utterance !== utterance) cut(open, null);
  if (!open) {
    open = add('writing', { utterance, length: 0 });
    announced = 0;
    const body = part(open.entry, 'div', 'body');
    const line = part(body, 'p', 'text');
    line.dir = 'auto';
    open.words = line.appendChild(document.createTextNode(''));
    part(open.entry, 'span', 'thumb waiting').setAttribute('aria-hidden', 'true');
  }
  const piece = open.length === 0 ? text.trimStart() : text;
  if (open.length < MOST_TEXT) open.words.appendData(piece.slice(0, MOST_TEXT - open.length));
  open.length += piece.length;
  announce(open.words.data, false);
  scroll();
}

// An utterance whose end was not told.
function cut(record, key) {
  record.kind = 'cut';
  record.entry.className = 'entry cancelled';
  record.key = key ?? 'mark.cut';
  record.mark = part(record.entry.firstElementChild, 'p', 'meta mark', t(record.key));
  open = null;
}

export function utterance(u) {
  if (open && open.utterance !== u.utterance) cut(open, null);
  const text = u.text.trim();
  if (u.skipped || (!text && u.finish !== 'error')) {
    if (open) remove(open);
    if (u.skipped) quiet(u.stamps.newest_frame_unix_ms);
    return;
  }
  const record = open ?? add('said');
  open = null;
  // Kept for the export and for another language; a long text is cut here, for good.
  const more = Math.max(0, text.length - MOST_TEXT);
  Object.assign(record, { kind: 'said', u: { ...u, text: text.slice(0, MOST_TEXT) }, more, words: null });
  record.entry.replaceChildren();
  draw(record);
  if (u.finish !== 'cancelled') announce(record.u.text, true);
  announced = 0;
  scroll();
}

function draw(record) {
  const { entry, u } = record;
  entry.className = `entry utterance ${u.finish}`;
  if (!record.body) record.body = part(null, 'div', 'body');
  record.body.replaceChildren();
  part(record.body, 'p', 'text', u.text).dir = 'auto';
  if (record.more) part(record.body, 'p', 'meta', count('talk.longer', record.more));
  const meta = part(record.body, 'p', 'meta');
  const s = u.stamps;
  part(meta, 'time', '', clock(s.newest_frame_unix_ms)).dateTime = new Date(s.newest_frame_unix_ms).toISOString();
  record.key ??= { cancelled: 'mark.cut', error: 'mark.error', length: 'mark.length' }[u.finish];
  if (u.finish === 'cancelled') settle(record);
  if (record.key) record.mark = part(meta, 'span', 'mark', t(record.key));
  if (typeof s.last_token_ms === 'number') {
    const newest = { first: seconds(s.first_token_ms), last: seconds(s.last_token_ms) };
    part(meta, 'span', 'latency', t('latency.newest', newest));
    part(meta, 'span', 'latency', t('latency.window', { last: seconds(s.window_ms + s.last_token_ms) }));
  }
  entry.append(record.body);
  if (record.button) entry.append(record.button);
  else record.button = thumbnails.attach(entry, u);
}

// ---- Why it was cut off -----------------------------------------------------------------------------------

let order = null; // The last order that this page gave: { key, at }.
export function ordered(key) { order = { key, at: Date.now() }; }

// The server says that it was cut off; why, says what was ordered, here or elsewhere.
function settle(record) {
  if (record.key !== 'mark.cut' || !record.u) return;
  if (order && Date.now() - order.at < 10000) record.key = order.key;
  else if (commentary && commentary.instruction !== record.u.instruction) record.key = 'mark.cut.instruction';
  else if (commentary?.state === 'stopped') record.key = 'mark.cut.stop';
  if (record.mark) record.mark.textContent = t(record.key);
}

export function showStatus(status) {
  commentary = status.commentary;
  const last = records.findLast((record) => record.kind === 'said');
  if (last?.u.finish === 'cancelled') settle(last);
}

// ---- The lines between ------------------------------------------------------------------------------------

function quiet(ms) {
  let record = records.at(-1);
  if (record?.kind === 'quiet') Object.assign(record, { count: record.count + 1, to: ms });
  else record = add('quiet', { count: 1, from: ms, to: ms });
  describe(record);
  scroll();
}

export function lagged({ missed }) {
  describe(add('missed', { count: missed }));
  scroll();
}

export function restarted() {
  if (open) cut(open, 'mark.cut.lost');
  if (records.length === 0) return;
  describe(add('restarted'));
  scroll();
}

// What was being written when the connection went is written anew, or never ends.
export function lost() {
  if (!open) return;
  open.entry.classList.add('held');
}

function describe({ kind, entry, count: n, from, to }) {
  const span = kind === 'quiet' && (minute(from) === minute(to) ? minute(to) : `${minute(from)}–${minute(to)}`);
  entry.textContent = { quiet: () => `${count('talk.quiet', n)} · ${span}`, missed: () => count('talk.missed', n),
    restarted: () => t('talk.restarted') }[kind]();
}

// ---- Reading out ------------------------------------------------------------------------------------------

// Whole sentences only: what a screen reader gets in pieces, it reads in pieces.
function announce(text, whole) {
  if (Date.now() - born < QUIET_AT_FIRST_MS) { announced = text.length; return; }
  const rest = text.slice(announced);
  const end = whole ? rest.length : rest.search(/[.!?…。！？]["'”»]?\s(?![\s\S]*[.!?…。！？]["'”»]?\s)/) + 1;
  const sentence = rest.slice(0, end).trim();
  if (!sentence) return;
  announced += end;
  part($('announce'), 'p', '', sentence.slice(0, 1000)).dir = 'auto';
  while ($('announce').childElementCount > MOST_ANNOUNCED) $('announce').firstElementChild.remove();
}

// ---- Scrolling --------------------------------------------------------------------------------------------

// At most once a frame: each asks for a layout of the whole list.
let scrolling = false;
let lastTop = 0; // Where following left it.
function scroll() {
  if (scrolling) return;
  scrolling = true;
  requestAnimationFrame(() => {
    scrolling = false;
    if (following) toEnd();
    showFollowing();
  });
}

function toEnd() {
  log.scrollTop = log.scrollHeight;
  lastTop = log.scrollTop;
}

function showFollowing() {
  $('pause').setAttribute('aria-pressed', String(!following));
  $('jump').hidden = following || records.length === 0;
  $('jump').textContent = unseen > 0 ? count('talk.jump.new', unseen) : t('talk.jump');
}

function follow(on) {
  following = on;
  log.classList.toggle('following', on);
  // At once: what a scroll event that is still on its way finds must be the end already.
  if (on) {
    unseen = 0;
    toEnd();
  }
  showFollowing();
  scroll();
}

// Not by the pause button alone: who scrolls up reads there.
log.addEventListener('scroll', () => {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (following && !atEnd && log.scrollTop < lastTop - 5) follow(false);
  else if (!following && atEnd && !pausedByHand) follow(true);
}, { passive: true });

let pausedByHand = false;
$('pause').addEventListener('click', () => {
  pausedByHand = following;
  follow(!following);
});
$('jump').addEventListener('click', () => {
  pausedByHand = false;
  follow(true);
  log.focus();
});
new ResizeObserver(() => { if (following) toEnd(); }).observe(log);

$('clear').addEventListener('click', () => {
  for (const record of records) if (record !== open) drop(record);
  records = open ? [open] : [];
  unseen = 0;
  pausedByHand = false;
  $('no-talk').hidden = records.length > 0;
  follow(true);
});

// ---- For others -------------------------------------------------------------------------------------------

// Finished utterances, oldest first.
export const said = () => records.filter((record) => record.kind === 'said').map((record) => ({ ...record.u, key: record.key }));

speaks(() => {
  for (const record of records) {
    if (record.kind === 'said') {
      draw(record);
      thumbnails.label(record.button);
    } else if (record.kind === 'cut') record.mark.textContent = t(record.key);
    else if (record.kind !== 'writing') describe(record);
  }
  showFollowing();
  $('bound').textContent = t('talk.bound', { lines: number(MOST_LINES), pictures: number(thumbnails.MOST_PICTURES) });
});
