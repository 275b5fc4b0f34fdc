// All streams: the list to choose from, the grid to watch, adding and removing. Its pictures are stills, fetched in
// turn, because a browser has six connections for all windows of a server and each live video takes one.
// Not here: the stream that is being watched (video.js, commentary.js).
import { $, part } from './dom.js';
import { clock, speaks, t } from './language.js';
import { ask, explain, pathOf, stream as own } from './server.js';
import { sourceColour, sourceName, sourceWord } from './state.js';
import * as video from './video.js';

const LIST_MS = 2000;
const STILL_PAUSE_MS = 500;

const cards = new Map(); // name -> its card's parts
let fallback = null; // The default stream's name.
let told = () => {};
let timer = null;

const current = () => own ?? fallback;
const shown = () => location.hash === '#all';

function say(key, values = {}, bad = null) {
  told = () => { $('all-said').textContent = bad ? explain(bad) : key ? t(key, values) : ''; };
  told();
  $('all-said').classList.toggle('bad', bad !== null);
}

// ---- The list ---------------------------------------------------------------------------------------------

export async function refresh() {
  const all = await ask('GET', '/api/streams');
  fallback = all.default;
  const names = all.streams.map(({ stream }) => stream);
  const pick = $('streams');
  const listed = [...pick.options].map((option) => option.value);
  const wanted = names.includes(current()) ? names : [...names, current()];
  if (listed.join(' ') !== wanted.join(' ')) {
    pick.replaceChildren();
    for (const name of wanted) part(pick, 'option', '', name);
  }
  pick.value = current();
  $('streams-label').hidden = wanted.length < 2;
  for (const [name, card] of cards) {
    if (names.includes(name)) continue;
    release(card);
    card.element.remove();
    cards.delete(name);
  }
  for (const status of all.streams) draw(status);
  $('all-empty').hidden = names.length > 0;
}

function draw(status) {
  const name = status.stream;
  if (!cards.has(name)) cards.set(name, make(name));
  const card = cards.get(name);
  card.status = status;
  card.element.classList.toggle('own', name === current());
  card.dot.className = `dot ${sourceColour(status.source)}`;
  card.word.textContent = sourceWord(status.source);
  card.source.textContent = sourceName(status.source);
  const last = status.last_utterance;
  card.text.textContent = last ? last.text.trim().slice(0, 300) : t('all.silent');
  card.text.classList.toggle('soft', !last);
  card.time.textContent = last ? clock(last.stamps.newest_frame_unix_ms) : '';
}

function make(name) {
  const element = part($('grid'), 'li', 'card');
  const screen = part(element, 'a', 'still');
  screen.href = `?stream=${encodeURIComponent(name)}`;
  const picture = part(screen, 'img', '');
  picture.hidden = true;
  const head = part(element, 'div', 'card-head');
  part(head, 'h3', '', name);
  const state = part(head, 'span', 'card-state');
  const dot = part(state, 'span', 'dot');
  const word = part(state, 'span', '');
  const source = part(element, 'p', 'card-source');
  const text = part(element, 'p', 'card-text');
  text.dir = 'auto';
  const foot = part(element, 'div', 'card-foot');
  const time = part(foot, 'span', 'card-time');
  const watch = part(foot, 'a', 'button');
  watch.href = screen.href;
  const remove = part(foot, 'button', 'quiet');
  remove.type = 'button';
  remove.addEventListener('click', () => askToRemove(name));
  const card = { element, picture, screen, dot, word, source, text, time, watch, remove, address: null };
  label(name, card);
  return card;
}

function label(name, { screen, picture, watch, remove }) {
  picture.alt = t('all.picture', { stream: name });
  screen.setAttribute('aria-label', t('all.watch.long', { stream: name }));
  watch.textContent = t('all.watch');
  watch.setAttribute('aria-label', t('all.watch.long', { stream: name }));
  remove.textContent = t('all.remove');
  remove.setAttribute('aria-label', t('all.remove.long', { stream: name }));
}

function release(card) {
  if (card.address) URL.revokeObjectURL(card.address);
  card.address = null;
}

// ---- The stills -------------------------------------------------------------------------------------------

// One at a time, so that the rest of the page, and other windows, find a connection.
async function stills() {
  while (shown()) {
    for (const [name, card] of [...cards]) {
      if (!shown() || document.hidden) break;
      if (card.status.source.state !== 'streaming') continue;
      try {
        const answer = await fetch(`${pathOf(name)}/frame`);
        if (!answer.ok || !cards.has(name)) continue;
        const blob = await answer.blob();
        release(card);
        card.address = URL.createObjectURL(blob);
        card.picture.src = card.address;
        card.picture.hidden = false;
      } catch { /* The dots say that the server is away. */ }
    }
    await new Promise((resolve) => setTimeout(resolve, STILL_PAUSE_MS));
  }
}

// ---- Which view -------------------------------------------------------------------------------------------

let fetching = null;
function showView() {
  const all = shown();
  $('one').hidden = all;
  $('all').hidden = !all;
  for (const [id, on] of [['view-one', !all], ['view-all', all]]) {
    if (on) $(id).setAttribute('aria-current', 'page');
    else $(id).removeAttribute('aria-current');
  }
  video.cover('view', all);
  if (all) {
    refresh().catch(() => {});
    fetching ??= stills().finally(() => { fetching = null; });
  } else for (const card of cards.values()) release(card);
}
addEventListener('hashchange', showView);

// ---- Adding and removing ----------------------------------------------------------------------------------

$('add-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const name = $('new-name').value.trim();
  const source = $('new-source').value.trim();
  try {
    await ask('PUT', pathOf(name), source ? { source } : {});
    say('all.added', { stream: name });
    $('new-name').value = '';
    $('new-source').value = '';
    await refresh();
  } catch (error) {
    say(null, {}, error);
  }
});

let removing = null;
function askToRemove(name) {
  removing = name;
  $('remove-ask').textContent = t('all.remove.ask', { stream: name });
  $('remove').showModal();
}
$('remove-no').addEventListener('click', () => $('remove').close());
$('remove-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  $('remove').close();
  try {
    await ask('DELETE', pathOf(removing));
    say('all.removed', { stream: removing });
    await refresh();
  } catch (error) {
    say(null, {}, error);
  }
});

// ---- For others -------------------------------------------------------------------------------------------

$('streams').addEventListener('change', () => { location.search = `?stream=${encodeURIComponent($('streams').value)}`; });

export async function begin() {
  await refresh();
  showView();
  clearInterval(timer);
  timer = setInterval(() => { if (shown() && !document.hidden) refresh().catch(() => {}); }, LIST_MS);
}

speaks(() => {
  for (const [name, card] of cards) {
    label(name, card);
    draw(card.status);
  }
  told();
});
