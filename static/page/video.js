// The live picture, shown only while somebody can see it: pictures are encoded for those who watch.
// Not here: stills of other streams (streams.js), pictures of utterances (thumbnails.js).
import { $ } from './dom.js';
import { speaks, t } from './language.js';
import { base } from './server.js';

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15000;
export const OWN = 'own camera'; // What covers the picture in its own place.

let state = 'stopped';
let webcam = false;
const covers = new Set(); // What lies over it.
let playing = false;
let begun = 0;
let wait = FIRST_WAIT_MS;
let timer = null;

const wanted = () => state !== 'stopped' && state !== 'ended' && covers.size === 0 && !document.hidden;

function apply() {
  if (wanted() && !playing && timer === null) play();
  if (!wanted()) stop();
  if ($('video').hidden) show(false);
  words();
}

function words() {
  const key = { stopped: $('video').dataset.seen ? 'video.stopped' : 'video.none', ended: 'video.ended' }[state];
  $('no-video').textContent = t(key ?? (webcam ? 'video.webcam' : 'video.waiting'));
}

function play() {
  playing = true;
  begun = Date.now();
  $('video').src = `${base}/mjpeg?at=${begun}`;
}

function stop() {
  clearTimeout(timer);
  timer = null;
  if (playing) {
    playing = false;
    // An empty picture ends the request; taking the attribute away alone does not everywhere.
    $('video').src = 'data:,';
    $('video').removeAttribute('src');
  }
  if (state === 'stopped' || state === 'ended' || covers.has(OWN)) show(false);
}

function again() {
  const pause = wait;
  stop();
  wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  timer = setTimeout(() => { timer = null; apply(); }, pause);
}

function show(on) {
  $('video').hidden = !on;
  $('no-video').hidden = on || covers.has(OWN);
}

export function showSource(source, viewers) {
  state = source.state;
  webcam = source.source === 'webcam';
  apply();
  // The browser does not tell when a motion JPEG breaks off; the server knows how many it serves.
  if (playing && viewers === 0 && Date.now() - begun > 4000) again();
}

// Something lies over it: another view, or the webcam's own picture.
export function cover(by, on) {
  if (on) covers.add(by);
  else covers.delete(by);
  apply();
}

// What broke the events has broken the video too.
export function reopen() {
  if (!playing) return;
  stop();
  apply();
}

$('video').addEventListener('load', () => {
  if (!playing) return;
  wait = FIRST_WAIT_MS;
  $('video').dataset.seen = 'yes';
  show(true);
});
$('video').addEventListener('error', () => { if (playing) again(); });
document.addEventListener('visibilitychange', apply);
speaks(words);
