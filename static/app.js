// The page's behaviour. Everything that comes from the server is shown by textContent only: the model's words
// can be steered by whoever holds a sign to the camera. Not here: looks (style.css), any state worth keeping.
const MOST_ENTRIES = 200;
const POLL_MS = 5000;
const name = new URLSearchParams(location.search).get('stream');
const base = name ? `/api/streams/${encodeURIComponent(name)}` : '/api';
const $ = (id) => document.getElementById(id);

// ---- Asking the server ---------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, error) {
    super(error?.hint ? `${error.message}; ${error.hint}` : error?.message ?? `the server answered ${status}`);
    this.status = status;
  }
}

async function ask(path, body) {
  const options = body === undefined ? {} :
    { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const json = await answer.json().catch(() => null);
  if (!answer.ok) {
    if (answer.status === 401 && path !== '/api/session') openDoor();
    throw new Refused(answer.status, json?.error);
  }
  return json;
}

// ---- State: dots, notices, caption ----------------------------------------------------------------------

const SOURCE = {
  stopped: ['off', 'not started'], connecting: ['busy', 'connecting…'], streaming: ['good', 'live'],
  stalled: ['busy', 'no new pictures'], retrying: ['bad', 'lost'], ended: ['off', 'played to its end'],
};
const ENGINE = {
  absent: ['bad', 'none'], loading: ['busy', 'loading…'], ready: ['good', 'ready'], failed: ['bad', 'failed'],
};
const DOING = {
  stopped: 'stopped', waiting_for_engine: 'waiting for the model', waiting_for_frames: 'waiting for pictures',
  pausing: 'between two looks', unchanged: 'nothing changes', looking: 'looking…', speaking: 'speaking',
};

let status = null;
let retryAt = null;
let linkLost = null;

function say(id, [colour, word]) {
  $(`${id}-dot`).className = `dot ${colour}`;
  $(`${id}-word`).textContent = word;
}

function notice(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}

function showStatus(next) {
  const before = status;
  status = next;
  const { source, engine, commentary } = next;
  say('source', SOURCE[source.state] ?? ['bad', source.state]);
  const engineWords = ENGINE[engine.state] ?? ['bad', engine.state];
  if (engine.state === 'ready' && engine.model) engineWords[1] = engine.device ? `${engine.model} on ${engine.device}` : engine.model;
  say('engine', engineWords);
  notice('model-notice', engine.notice ?? '');
  notice('engine-notice', [engine.warning, engine.message, commentary.message].filter(Boolean).join(' · '));

  const waiting = source.state === 'retrying' && source.retry_in_s !== null;
  const sameWait = before && before.source.attempt === source.attempt && before.source.state === source.state;
  if (!waiting) retryAt = null;
  else if (!sameWait || retryAt === null) retryAt = Date.now() + source.retry_in_s * 1000;
  showSourceNotice();

  $('caption-source').textContent = source.source ?? '';
  $('caption-size').textContent = source.width ? `${source.width}×${source.height}${source.decoder ? ` · ${source.decoder}` : ''}` : '';
  $('doing').textContent = DOING[commentary.state] ?? commentary.state;
  $('stop').disabled = source.state === 'stopped' && commentary.state === 'stopped';
  if (!instructionTouched) $('instruction').value = commentary.instruction;
  if (document.activeElement !== $('profile')) $('profile').value = commentary.profile;
  video.want(source.state !== 'stopped' && source.state !== 'ended');
  video.heartbeat(next.viewers);
}

function showSourceNotice() {
  const source = status?.source;
  const failing = source && source.message && source.state !== 'streaming' && source.state !== 'stopped';
  let text = failing ? source.message : '';
  if (failing && retryAt !== null) {
    const left = Math.ceil((retryAt - Date.now()) / 1000);
    text += left > 0 ? ` · next try in ${left} s` : ' · trying again…';
    if (source.attempt > 1) text += ` (attempt ${source.attempt})`;
  }
  notice('source-notice', text);
}

function showLink(good) {
  if (good) linkLost = null;
  else linkLost ??= Date.now();
  say('link', good ? ['good', 'connected'] : ['bad', 'connection lost']);
  showLinkNotice();
}

function showLinkNotice() {
  // A blink of the network is not worth a notice.
  const lost = linkLost !== null && Date.now() - linkLost > 1500;
  notice('link-notice', lost ? 'The connection to Vidette is lost; trying again…' : '');
}

// ---- Video ----------------------------------------------------------------------------------------------

// Shown only while the page is visible: pictures are encoded for those who watch.
const video = {
  wanted: false, playing: false, begun: 0, wait: 1000, timer: null,
  want(on) {
    this.wanted = on;
    this.apply();
  },
  apply() {
    const on = this.wanted && !document.hidden;
    if (on && !this.playing && this.timer === null) this.play();
    if (!on) this.stop();
  },
  play() {
    this.playing = true;
    this.begun = Date.now();
    $('video').src = `${base}/mjpeg?at=${this.begun}`;
  },
  stop() {
    clearTimeout(this.timer);
    this.timer = null;
    if (!this.playing) return;
    this.playing = false;
    // An empty picture ends the request; taking the attribute away alone does not everywhere.
    $('video').src = 'data:,';
    $('video').removeAttribute('src');
    if (!this.wanted) this.show(false);
  },
  again() {
    const wait = this.wait;
    this.stop();
    this.wait = Math.min(this.wait * 2, 15000);
    this.timer = setTimeout(() => { this.timer = null; this.apply(); }, wait);
  },
  show(on) {
    $('video').hidden = !on;
    $('no-video').hidden = on;
  },
  // The browser does not tell when a motion JPEG breaks off; the server knows how many it serves.
  heartbeat(viewers) {
    if (this.playing && viewers === 0 && Date.now() - this.begun > 4000) this.again();
  },
};
$('video').addEventListener('load', () => { if (video.playing) { video.wait = 1000; video.show(true); } });
$('video').addEventListener('error', () => { if (video.playing) video.again(); });
document.addEventListener('visibilitychange', () => video.apply());

// ---- Commentary -----------------------------------------------------------------------------------------

const log = $('log');
let open = null; // The utterance being written: { utterance, entry, text }.
let silence = null; // The line into which answers of "..." are folded.
let follow = true;

function add(className) {
  const entry = document.createElement('li');
  entry.className = className;
  log.append(entry);
  while (log.childElementCount > MOST_ENTRIES) log.firstElementChild.remove();
  $('no-talk').hidden = true;
  return entry;
}

function part(parent, tag, className, text, title) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  if (title) element.title = title;
  parent.append(element);
  return element;
}

function scroll() {
  if (follow) log.scrollTop = log.scrollHeight;
  $('jump').hidden = follow || log.childElementCount === 0;
}

const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
const minute = (ms) => clock(ms).slice(0, 5);
const seconds = (ms) => (ms >= 9950 ? `${Math.round(ms / 1000)} s` : ms >= 100 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms)} ms`);

function onToken({ utterance, text }) {
  if (open?.utterance !== utterance) {
    if (open) close();
    open = { utterance, entry: null, text: '' };
  }
  open.text += text;
  // "..." means that there is nothing to say; it is not shown while it may still become that.
  if (/^[.…\s]*$/.test(open.text)) return;
  if (!open.entry) {
    silence = null;
    open.entry = add('entry writing');
    part(open.entry, 'p', 'text', '');
  }
  open.entry.firstElementChild.textContent = open.text.trimStart();
  scroll();
}

// An utterance whose end was never told.
function close() {
  open.entry?.classList.replace('writing', 'cut');
  open = null;
}

function onUtterance(u) {
  const entry = open?.utterance === u.utterance ? open.entry : null;
  if (open && open.utterance !== u.utterance) close();
  open = null;
  const text = u.text.trim();
  if (u.skipped || (!text && u.finish !== 'error')) {
    entry?.remove();
    if (u.skipped) fold(u.stamps.newest_frame_unix_ms);
    return;
  }
  silence = null;
  finish(entry ?? add('entry'), u, text);
  if (u.finish !== 'cancelled' && text) $('announce').textContent = text;
  scroll();
}

function finish(entry, u, text) {
  entry.className = `entry ${u.finish}`;
  entry.replaceChildren();
  part(entry, 'p', 'text', text);
  const meta = part(entry, 'p', 'meta', '');
  const s = u.stamps;
  const time = part(meta, 'time', '', clock(s.newest_frame_unix_ms), 'When the newest frame was captured');
  time.dateTime = new Date(s.newest_frame_unix_ms).toISOString();
  const mark = { cancelled: 'cut off', error: 'the model failed', length: 'too long, ended' }[u.finish];
  if (mark) part(meta, 'span', 'mark', mark);
  const latency = (label, ms, from, to) => {
    if (typeof ms === 'number') part(meta, 'span', 'latency', `${label} ${seconds(ms)}`, `From ${from} to ${to}: ${Math.round(ms)} ms`);
  };
  latency('first word', s.first_token_ms, 'the newest frame’s capture', 'the first token');
  latency('last word', s.last_token_ms, 'the newest frame’s capture', 'the last token');
  latency('since oldest frame', typeof s.last_token_ms === 'number' ? s.window_ms + s.last_token_ms : null, 'the oldest frame’s capture', 'the end of the text');
}

function fold(ms) {
  if (!silence || !silence.entry.isConnected) silence = { entry: add('entry silence'), count: 0, from: ms };
  silence.count += 1;
  const span = minute(silence.from) === minute(ms) ? minute(ms) : `${minute(silence.from)}–${minute(ms)}`;
  silence.entry.textContent = `nothing to say${silence.count > 1 ? ` ×${silence.count}` : ''} · ${span}`;
  scroll();
}

function onLagged({ missed }) {
  silence = null;
  add('entry lagged').textContent = `${missed} events were missed; this page could not keep up`;
  scroll();
}

log.addEventListener('scroll', () => {
  follow = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  $('jump').hidden = follow || log.childElementCount === 0;
});
$('jump').addEventListener('click', () => { follow = true; scroll(); log.focus(); });
$('clear').addEventListener('click', () => {
  log.replaceChildren();
  open = null;
  silence = null;
  follow = true;
  $('jump').hidden = true;
  $('no-talk').hidden = false;
});

// ---- Events ---------------------------------------------------------------------------------------------

let source = null;
let lastId = 0;
let opened = 0;
let comeBack = null;

function listen() {
  clearTimeout(comeBack);
  source?.close();
  // From 0 on, so that a fresh page shows what was said before it was opened.
  source = new EventSource(`${base}/stream?last_event_id=${lastId}`);
  let fresh = opened === 0;
  const on = (type, handle) => source.addEventListener(type, (event) => {
    if (event.lastEventId) lastId = Number(event.lastEventId);
    handle(JSON.parse(event.data));
  });
  source.addEventListener('open', () => {
    showLink(true);
    // What broke the events has broken the video too.
    if (opened > 0 && video.playing) { video.stop(); video.apply(); }
    opened += 1;
  });
  on('status', showStatus);
  on('token', (e) => { fresh = false; onToken(e); });
  on('utterance', (e) => { fresh = false; onUtterance(e); });
  // What was said long before this page was opened is not missed by it.
  on('lagged', (e) => { if (!fresh) onLagged(e); fresh = false; });
  on('bye', () => showLink(false));
  source.addEventListener('error', () => {
    showLink(false);
    // While it is not closed, the browser comes back by itself.
    if (source.readyState === EventSource.CLOSED) {
      comeBack = setTimeout(listen, 2000);
      ask(`${base}/status`).catch(() => {});
    }
  });
}

setInterval(() => { showSourceNotice(); showLinkNotice(); }, 500);
setInterval(() => {
  if (!document.hidden && !$('door').open) ask(`${base}/status`).then(showStatus, () => {});
}, POLL_MS);

// ---- Controls -------------------------------------------------------------------------------------------

let instructionTouched = false;

function told(text, bad = false) {
  $('said').textContent = text;
  $('said').classList.toggle('bad', bad);
}

async function order(path, body, done) {
  told('');
  try {
    showStatus(await ask(`${base}/${path}`, body));
    told(done);
    return true;
  } catch (error) {
    told(error instanceof Refused ? error.message : 'Vidette does not answer; is it running?', true);
    return false;
  }
}

$('source-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  await order('start', { source: $('source').value.trim() }, 'Started.');
});
$('stop').addEventListener('click', () => order('stop', {}, 'Stopped.'));

$('instruction').addEventListener('input', () => { instructionTouched = true; });
$('instruction').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    $('instruction-form').requestSubmit();
  }
});
$('instruction-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const instruction = $('instruction').value;
  if (await order('instruction', { instruction }, 'The next answer obeys the new instruction.')) {
    instructionTouched = $('instruction').value !== instruction;
  }
});
$('profile').addEventListener('change', async () => {
  instructionTouched = false;
  await order('instruction', { profile: $('profile').value }, 'The manner has changed.');
});

// ---- The door: the token, when the server asks for one --------------------------------------------------

function openDoor() {
  if (!$('door').open) $('door').showModal();
}
$('door-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    await ask('/api/session', { token: $('token').value });
    location.reload();
  } catch (error) {
    $('door-said').textContent = error.message;
    $('token').select();
  }
});
// Without the token there is nothing behind it.
$('door').addEventListener('cancel', (event) => event.preventDefault());

// ---- Beginning ------------------------------------------------------------------------------------------

async function begin() {
  try {
    const [{ profiles }, all] = await Promise.all([ask(`${base}/profiles`), ask('/api/streams')]);
    for (const profile of profiles) part($('profile'), 'option', '', profile.name, profile.summary);
    for (const { stream } of all.streams) part($('streams'), 'option', '', stream, '');
    $('streams').value = name ?? all.default;
    $('streams-label').hidden = all.streams.length < 2;
  } catch (error) {
    if (error.status === 401) return;
    setTimeout(begin, 2000);
    return showLink(false);
  }
  listen();
}
$('streams').addEventListener('change', () => { location.search = `?stream=${encodeURIComponent($('streams').value)}`; });
begin();
