// The commentary to take along: copied, as text, or as WebVTT subtitles. Not here: what is kept (commentary.js).
import { $, part } from './dom.js';
import { clock, spoken, t } from './language.js';
import { said } from './commentary.js';
import { stream } from './server.js';

// Marks that turn the direction of what follows: harmless on the page, which isolates each text, but not in a file.
const TURNS = /[\u202A-\u202E\u2066-\u2069]/g;
// How long a subtitle stays when nothing follows soon.
const LONGEST_CUE_MS = 7000;
const SHORTEST_CUE_MS = 500;

const clean = (text) => text.replace(TURNS, '');
const date = (ms) => new Date(ms).toLocaleDateString(spoken(), { year: 'numeric', month: '2-digit', day: '2-digit' });
const at = (u) => u.stamps.newest_frame_unix_ms;

export function asText(utterances) {
  const head = [t('export.title'), stream === null ? null : t('export.stream', { stream }), t('export.from'), ''];
  let day = null;
  const lines = utterances.flatMap((u) => {
    const mark = u.key ? ` [${t(u.key)}]` : '';
    const line = `${clock(at(u))}  ${clean(u.text).replace(/\s*\n\s*/g, '\n          ')}${mark}`;
    const today = date(at(u));
    if (today === day) return [line];
    day = today;
    return ['', today, line];
  });
  return [...head.filter((line) => line !== null), ...lines, ''].join('\n');
}

function stamp(ms) {
  const two = (n) => String(Math.floor(n)).padStart(2, '0');
  return `${two(ms / 3600000)}:${two((ms / 60000) % 60)}:${two((ms / 1000) % 60)}.${String(Math.round(ms) % 1000).padStart(3, '0')}`;
}

// https://www.w3.org/TR/webvtt1/: no blank line and no "-->" within a cue, & and < escaped.
export function asVtt(utterances) {
  const zero = utterances.length > 0 ? Math.min(...utterances.map(at)) : 0;
  const title = stream === null ? t('export.title') : `${t('export.title')} - ${stream}`;
  const head = ['WEBVTT', '', `NOTE ${title}`, `${t('export.from')} ${t('export.zero', { time: new Date(zero).toISOString() })}`, ''];
  const cues = [...utterances].sort((a, b) => at(a) - at(b)).flatMap((u, i, all) => {
    const begin = at(u) - zero;
    const next = i + 1 < all.length ? at(all[i + 1]) - zero : Infinity;
    const end = Math.max(begin + SHORTEST_CUE_MS, Math.min(next, begin + LONGEST_CUE_MS));
    const text = clean(u.text).replace(/\n\s*\n/g, '\n').replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
    return [`${stamp(begin)} --> ${stamp(end)}`, text, ''];
  });
  return [...head, ...cues].join('\n');
}

function save(text, type, ending) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = part(null, 'a', '');
  link.href = address;
  link.download = `vidette-${stream ?? 'commentary'}-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}.${ending}`;
  link.click();
  // The download has begun by then; there is no event for it.
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

let forgetting = null;
function tell(key) {
  $('talk-said').textContent = t(key);
  clearTimeout(forgetting);
  forgetting = setTimeout(() => { $('talk-said').textContent = ''; }, 4000);
}

// The clipboard is only there on https and localhost; the old way works elsewhere.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = part(document.body, 'textarea', 'unseen', text);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

$('copy').addEventListener('click', async () => tell(await copy(asText(said())) ? 'talk.copied' : 'talk.copy.failed'));
$('save-text').addEventListener('click', () => save(asText(said()), 'text/plain', 'txt'));
$('save-vtt').addEventListener('click', () => save(asVtt(said()), 'text/vtt', 'vtt'));
