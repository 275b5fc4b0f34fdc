// What a person orders: the source, the instruction with its history, the profile. Not here: the rules, which are the
// server's; the list of streams (streams.js).
import { $, part, store } from './dom.js';
import { has, speaks, t } from './language.js';
import { ask, base, explain, stream } from './server.js';
import * as commentary from './commentary.js';
import { sourceName } from './state.js';

// Instructions remembered, and characters of one in the menu.
const MOST_REMEMBERED = 30;
const MENU_WIDTH = 60;

const KINDS = {
  rtsp: { placeholder: 'rtsp://user:password@camera/stream', examples: ['rtsp://camera.local:554/stream'] },
  http: { placeholder: 'http://camera/video.mjpeg', examples: ['http://camera.local/video.mjpeg', 'https://example.org/live.m3u8'] },
  file: { placeholder: 'clip.mp4', examples: [] },
  device: { placeholder: '/dev/video0', examples: ['/dev/video0', '/dev/video1'] },
  test: { placeholder: 'test:ball', examples: ['test:ball', 'test:smpte', 'test:pinwheel', 'test:blink', 'test:colors'] },
};

let touched = false; // The instruction is being written here.
let told = () => {};
let update = () => {};

function say(key, bad = null) {
  told = () => { $('said').textContent = key ? t(key) : bad ? explain(bad) : ''; };
  told();
  $('said').classList.toggle('bad', bad !== null);
}

export async function order(path, body, done, post = () => ask('POST', `${base}/${path}`, body)) {
  say(null);
  try {
    update(await post());
    say(done);
    return true;
  } catch (error) {
    say(null, error);
    return false;
  }
}

// ---- Source -----------------------------------------------------------------------------------------------

const kindOf = (source) => {
  if (/^rtsps?:/i.test(source)) return 'rtsp';
  if (/^https?:/i.test(source)) return 'http';
  if (/^test:/i.test(source)) return 'test';
  if (/^(\/dev\/|\d+$)/.test(source)) return 'device';
  return source ? 'file' : null;
};

export function showKinds(select, input, list) {
  const { placeholder, examples } = KINDS[select.value];
  input.placeholder = placeholder;
  list.replaceChildren();
  for (const example of examples) part(list, 'option', '').value = example;
}

function kinds(select, input, list) {
  for (const kind of Object.keys(KINDS)) {
    const option = part(select, 'option', '');
    option.value = kind;
    option.dataset.i18n = `kind.${kind}`;
    option.textContent = t(`kind.${kind}`);
  }
  select.addEventListener('change', () => {
    // What is written there is of another kind.
    if (kindOf(input.value.trim()) !== select.value) input.value = '';
    showKinds(select, input, list);
    input.focus();
  });
  input.addEventListener('input', () => {
    const kind = kindOf(input.value.trim());
    if (!kind || kind === select.value || (kind === 'file' && select.value !== 'file' && input.value.length < 4)) return;
    select.value = kind;
    showKinds(select, input, list);
  });
  showKinds(select, input, list);
}
kinds($('kind'), $('source'), $('examples'));
kinds($('new-kind'), $('new-source'), $('new-examples'));

$('source-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  commentary.ordered('mark.cut');
  const source = $('source').value.trim();
  await order('start', { source }, 'source.started', async () => {
    try {
      return await ask('POST', `${base}/start`, { source });
    } catch (error) {
      // It was removed; the default one comes back by itself.
      if (error.code !== 'stream_unknown' || stream === null) throw error;
      return ask('PUT', base, { source });
    }
  });
});
$('stop').addEventListener('click', () => {
  commentary.ordered('mark.cut.stop');
  order('stop', {}, 'source.stopped.said');
});

// The last source, one click away when another one, or none, took its place.
let previous = null;
function showAgain() {
  $('again').hidden = previous === null;
  $('again').textContent = previous === null ? '' : t('source.again', { source: previous });
}
export function again() {
  commentary.ordered('mark.cut');
  return order('resume', {}, 'source.started');
}
$('again').addEventListener('click', again);

// ---- Instruction and its history --------------------------------------------------------------------------

function remembered() {
  try {
    const list = JSON.parse(store.get('instructions') ?? '[]');
    return Array.isArray(list) ? list.filter((text) => typeof text === 'string').slice(0, MOST_REMEMBERED) : [];
  } catch {
    return [];
  }
}

function remember(text) {
  const list = [text, ...remembered().filter((other) => other !== text)].slice(0, MOST_REMEMBERED);
  store.set('instructions', JSON.stringify(list));
  showHistory();
}

function showHistory() {
  const list = remembered();
  const select = $('history');
  select.replaceChildren();
  part(select, 'option', '', t('instruction.history.pick')).value = '';
  list.forEach((text, i) => {
    part(select, 'option', '', text.length > MENU_WIDTH ? `${text.slice(0, MENU_WIDTH)}…` : text).value = String(i);
  });
  part(select, 'option', '', t('instruction.history.clear')).value = 'clear';
  $('history-label').hidden = list.length === 0;
}

let place = -1; // In the history; -1 is what was being written.
let draft = '';

function recall(step) {
  const list = remembered();
  const to = Math.max(-1, Math.min(place + step, list.length - 1));
  if (to === place) return;
  if (place === -1) draft = $('instruction').value;
  place = to;
  $('instruction').value = to === -1 ? draft : list[to];
  touched = true;
  $('instruction').setSelectionRange($('instruction').value.length, $('instruction').value.length);
}

$('history').addEventListener('change', () => {
  const chosen = $('history').value;
  if (chosen === 'clear') {
    store.set('instructions', null);
    showHistory();
  } else if (chosen !== '') {
    $('instruction').value = remembered()[Number(chosen)] ?? '';
    touched = true;
    $('history').value = '';
  }
  $('instruction').focus();
});
// Another window has remembered something.
addEventListener('storage', (event) => { if (event.key === 'vidette.instructions') showHistory(); });

$('instruction').addEventListener('input', () => {
  touched = true;
  place = -1;
});
$('instruction').addEventListener('keydown', (event) => {
  const field = $('instruction');
  const { value, selectionStart: at, selectionEnd: end } = field;
  if (event.isComposing) return;
  if (event.key === 'Enter' && !event.shiftKey) {
    event.preventDefault();
    $('instruction-form').requestSubmit();
  } else if (event.key === 'ArrowUp' && at === end && !value.slice(0, at).includes('\n')) {
    event.preventDefault();
    recall(1);
  } else if (event.key === 'ArrowDown' && at === end && !value.slice(at).includes('\n')) {
    event.preventDefault();
    recall(-1);
  }
});
$('instruction-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const instruction = $('instruction').value;
  commentary.ordered('mark.cut.instruction');
  if (await order('instruction', { instruction }, 'instruction.sent')) {
    remember(instruction.trim());
    place = -1;
    touched = $('instruction').value !== instruction;
  }
});

// ---- Profile ----------------------------------------------------------------------------------------------

$('profile').addEventListener('change', async () => {
  touched = false;
  commentary.ordered('mark.cut.instruction');
  await order('instruction', { profile: $('profile').value }, 'profile.changed');
});

let profiles = [];
function showProfiles() {
  const chosen = $('profile').value;
  $('profile').replaceChildren();
  for (const { name, summary } of profiles) {
    const own = has(`profile.${name}`);
    const option = part($('profile'), 'option', '', own ? t(`profile.${name}`) : name);
    option.value = name;
    option.title = own ? t(`profile.${name}.summary`) : summary;
  }
  $('profile').value = chosen || profiles[0]?.name;
  showSummary();
}
function showSummary() {
  $('profile').title = $('profile').selectedOptions[0]?.title ?? '';
}

// ---- For others -------------------------------------------------------------------------------------------

export async function begin(showStatus) {
  update = showStatus;
  if (profiles.length > 0) return;
  ({ profiles } = await ask('GET', `${base}/profiles`));
  showProfiles();
}

export function showStatus({ source, previous_source: last, commentary: { state, instruction, profile } }) {
  $('stop').disabled = source.state === 'stopped' && state === 'stopped';
  if (!touched) $('instruction').value = instruction;
  if (document.activeElement !== $('profile')) $('profile').value = profile;
  showSummary();
  $('caption-source').textContent = sourceName(source);
  previous = source.source === last ? null : last ?? null;
  showAgain();
  const size = source.width ? `${source.width}×${source.height}` : '';
  $('caption-size').textContent = [size, source.decoder].filter(Boolean).join(' · ');
}

speaks(() => { showHistory(); showProfiles(); showAgain(); told(); });
