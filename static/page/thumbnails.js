// The picture that an utterance describes: small beside it, larger with the look's latencies in a card, which opens on
// hover, focus or tap. Fetched when it comes into view, bounded in number. Not here: the utterances (commentary.js).
import { $, part } from './dom.js';
import { clock, number, seconds, t } from './language.js';
import { base } from './server.js';

// Most pictures held here, as many as the server keeps.
export const MOST_PICTURES = 64;
// Requests at once: a browser has six connections for all windows of a server.
const AT_ONCE = 2;

const looks = new WeakMap(); // button -> { u, state: 'none' | 'waiting' | 'shown' | 'gone' }
const shown = new Map(); // button -> blob address, oldest first
const queue = []; // Buttons that wait for their picture, newest last.
let running = 0;
let open = null;
let pinned = false;

const inView = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) want(target);
}, { root: $('log'), rootMargin: '150px 0px' });

export function attach(entry, u) {
  const button = part(entry, 'button', 'thumb');
  button.type = 'button';
  button.setAttribute('aria-expanded', 'false');
  button.setAttribute('aria-controls', 'look');
  part(button, 'img', '').alt = '';
  looks.set(button, { u, state: 'none' });
  label(button);
  inView.observe(button);
  button.addEventListener('pointerenter', (event) => { if (event.pointerType === 'mouse') show(button, false); });
  button.addEventListener('pointerleave', () => { if (open === button && !pinned) hide(); });
  button.addEventListener('focus', () => { if (button.matches(':focus-visible')) show(button, false); });
  button.addEventListener('blur', () => { if (open === button) hide(); });
  button.addEventListener('click', () => {
    if (open === button && pinned) hide();
    else show(button, true);
  });
  return button;
}

export function label(button) {
  const { u } = looks.get(button);
  button.setAttribute('aria-label', t('look.picture', { time: clock(u.stamps.newest_frame_unix_ms) }));
}

export function forget(button) {
  if (open === button) hide();
  inView.unobserve(button);
  release(button);
  looks.delete(button);
}

function release(button) {
  const address = shown.get(button);
  if (!address) return;
  shown.delete(button);
  URL.revokeObjectURL(address);
  button.firstElementChild.removeAttribute('src');
}

function want(button) {
  const look = looks.get(button);
  if (!look || look.state !== 'none' || document.hidden) return;
  look.state = 'waiting';
  queue.push(button);
  while (queue.length > MOST_PICTURES) {
    const dropped = looks.get(queue.shift());
    if (dropped) dropped.state = 'none';
  }
  next();
}

async function next() {
  if (running >= AT_ONCE || queue.length === 0) return;
  const button = queue.pop();
  const look = looks.get(button);
  if (!look) return next();
  running += 1;
  try {
    const answer = await fetch(`${base}/utterances/${look.u.utterance}/frame`);
    // After a restart of the program another utterance may have the number.
    const ours = Math.round(Number(answer.headers.get('x-timestamp')) * 1000) === look.u.stamps.newest_frame_unix_ms;
    if (answer.ok && ours) keep(button, look, await answer.blob());
    else look.state = 'gone';
  } catch {
    look.state = 'none';
  }
  running -= 1;
  button.classList.toggle('gone', look.state === 'gone');
  if (open === button) fill(button);
  next();
}

function keep(button, look, blob) {
  if (!looks.has(button)) return;
  look.state = 'shown';
  shown.set(button, URL.createObjectURL(blob));
  button.firstElementChild.src = shown.get(button);
  for (const oldest of shown.keys()) {
    if (shown.size <= MOST_PICTURES) break;
    release(oldest);
    looks.get(oldest).state = 'none';
    // Observed anew, so that it is fetched again when it is looked at again.
    inView.unobserve(oldest);
    inView.observe(oldest);
  }
}

// ---- The card -------------------------------------------------------------------------------------------

function show(button, pin) {
  if (open && open !== button) hide();
  open = button;
  pinned = pin;
  want(button);
  fill(button);
  button.setAttribute('aria-expanded', 'true');
  button.setAttribute('aria-describedby', 'look');
  $('look').hidden = false;
  place(button);
}

export function hide() {
  if (!open) return;
  open.setAttribute('aria-expanded', 'false');
  open.removeAttribute('aria-describedby');
  open = null;
  pinned = false;
  $('look').hidden = true;
}

function fill(button) {
  const { u, state } = looks.get(button);
  const s = u.stamps;
  $('look-picture').hidden = state !== 'shown';
  $('look-wait').hidden = state === 'shown';
  $('look-wait').textContent = t(state === 'gone' ? 'look.gone' : 'look.wait');
  if (state === 'shown') $('look-picture').src = shown.get(button);
  $('look-picture').alt = t('look.frame', { time: clock(s.newest_frame_unix_ms) });
  $('look-instruction').textContent = u.instruction;
  const list = $('look-figures');
  list.replaceChildren();
  const row = (key, text) => {
    const pair = part(list, 'div', '');
    part(pair, 'dt', '', t(key));
    part(pair, 'dd', '', text);
  };
  const steps = {
    'look.start': s.start_ms, 'look.encoded': s.encode_done_ms, 'look.prefilled': s.prefill_done_ms,
    'latency.first': s.first_token_ms, 'latency.last': s.last_token_ms,
    'latency.oldest': typeof s.last_token_ms === 'number' ? s.window_ms + s.last_token_ms : null,
    'look.audio.first': s.first_audio_ms, 'look.audio.last': s.last_audio_ms,
  };
  for (const [key, ms] of Object.entries(steps)) if (typeof ms === 'number') row(key, seconds(ms));
  row('look.frames', `${number(u.frames)}, ${number(u.frames_encoded)}`);
  row('look.tokens', number(u.tokens));
}

// Beside the button where there is room, else under or over it.
function place(button) {
  const card = $('look');
  const at = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = card;
  const gap = 10;
  const beside = at.left - width - gap >= 0;
  let left = beside ? at.left - width - gap : at.left;
  let top = beside ? at.top + at.height / 2 - height / 2 : at.bottom + gap;
  if (!beside && top + height > innerHeight) top = at.top - height - gap;
  left = Math.max(gap, Math.min(left, innerWidth - width - gap));
  top = Math.max(gap, Math.min(top, innerHeight - height - gap));
  card.style.left = `${left}px`;
  card.style.top = `${top}px`;
}

addEventListener('keydown', (event) => { if (event.key === 'Escape') hide(); });
addEventListener('pointerdown', (event) => { if (open && !open.contains(event.target) && !$('look').contains(event.target)) hide(); });
$('log').addEventListener('scroll', () => { if (open && !pinned) hide(); else if (open) place(open); }, { passive: true });
addEventListener('resize', hide);
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  // What came while nobody looked was not fetched.
  for (const button of $('log').querySelectorAll('.thumb')) { inView.unobserve(button); inView.observe(button); }
});
