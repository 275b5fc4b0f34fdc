// The browser's webcam as the source: asks for the camera, publishes it into the stream's LiveKit room, plays the voice
// that comes back, and says in plain words what stands in the way. Which of the two kinds of source is chosen is here
// too. Not here: files, cameras and addresses (controls.js), the voice's controls (voice.js).
import { $, part } from './dom.js';
import { speaks, t } from './language.js';
import { backoff } from './player.js';
import { ask, base, explain } from './server.js';
import * as controls from './controls.js';
import * as video from './video.js';
import * as voice from './voice.js';

// What the model sees is smaller than this; viewers see this.
const WISH = { width: 1280, height: 720, frameRate: 24 };
const SOURCE = 'webcam';
// The browser's names for why there is no camera.
const CAMERA_TROUBLE = {
  NotAllowedError: 'denied', SecurityError: 'denied', PermissionDeniedError: 'denied',
  NotFoundError: 'none', DevicesNotFoundError: 'none', OverconstrainedError: 'none',
  NotReadableError: 'busy', TrackStartError: 'busy', AbortError: 'busy',
};

/** What stands in the way, by its key; `foreign` is what the server said. */
class Trouble extends Error {
  constructor(key, values = {}, foreign = null) {
    super(key);
    Object.assign(this, { key, values, foreign });
  }
}

let mode = 'source';
let chosen = false; // The mode was chosen here; until then it follows the stream.
let phase = 'off'; // off, asking, joining, live, reconnecting
let trouble = null;
let turn = 0; // Whatever was begun in an earlier turn has nothing to say any more.
let kit = null; // LiveKit's client.
let track = null;
let room = null;
let source = null; // The stream's, as the server told last.
let previous = null;
let born = null;
let ordered = false; // The stream was switched to this camera.
let again = false; // It must be, anew: the program knows nothing of it any more.
let ordering = false;

// After a reload the camera goes on: it was switched on in this window and not off.
const memory = {
  get on() { try { return sessionStorage.getItem('vidette.webcam') === 'on'; } catch { return false; } },
  set on(on) { try { sessionStorage.setItem('vidette.webcam', on ? 'on' : 'off'); } catch { /* Then it does not. */ } },
};

// ---- What is shown ----------------------------------------------------------------------------------------

const busy = () => phase !== 'off';

function words() {
  if (trouble) return trouble.foreign ?? t(`webcam.${trouble.key}`, trouble.values);
  if (phase === 'off' && source === SOURCE) return t('webcam.other');
  return t(`webcam.${phase}`);
}

function show() {
  const webcam = mode === 'webcam';
  for (const [id, on] of [['mode-source', !webcam], ['mode-webcam', webcam]]) $(id).setAttribute('aria-pressed', String(on));
  $('source-form').hidden = webcam;
  $('webcam').hidden = !webcam;
  $('webcam-start').hidden = busy();
  $('webcam-stop').hidden = !busy();
  const seen = track !== null;
  $('preview').hidden = !seen;
  video.cover(video.OWN, seen);
  const said = words();
  if ($('webcam-said').textContent !== said) $('webcam-said').textContent = said;
  $('webcam-said').classList.toggle('bad', trouble !== null);
}

function enter(next) {
  phase = next;
  trouble = null;
  show();
}

async function listCameras() {
  const devices = await navigator.mediaDevices.enumerateDevices().catch(() => []);
  const cameras = devices.filter((device) => device.kind === 'videoinput');
  const now = track?.mediaStreamTrack.getSettings().deviceId ?? $('camera').value;
  $('camera').replaceChildren();
  cameras.forEach((camera, i) => {
    part($('camera'), 'option', '', camera.label || t('webcam.camera.n', { n: i + 1 })).value = camera.deviceId;
  });
  if (cameras.some((camera) => camera.deviceId === now)) $('camera').value = now;
  $('camera-label').hidden = cameras.length < 2;
}

// ---- The camera -------------------------------------------------------------------------------------------

function client() {
  kit ??= new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = '/vendor/livekit-client.js';
    script.addEventListener('load', () => {
      window.LivekitClient.setLogLevel('silent'); // What matters is said on the page.
      resolve(window.LivekitClient);
    });
    script.addEventListener('error', () => {
      script.remove();
      kit = null;
      reject(new Trouble('client'));
    });
    document.head.append(script);
  });
  return kit;
}

async function camera(lk) {
  const deviceId = $('camera').value || undefined;
  try {
    return await lk.createLocalVideoTrack({ deviceId, resolution: WISH });
  } catch (error) {
    const key = CAMERA_TROUBLE[error.name];
    throw key ? new Trouble(key) : new Trouble('failed', { reason: error.message });
  }
}

const token = () => ask('POST', `${base}/livekit/token`, {}).catch((error) => {
  if (error.code === 'livekit_off') throw new Trouble('disabled');
  throw error;
});

// ---- The room ---------------------------------------------------------------------------------------------

// The voice is fetched while somebody listens, and no other picture or sound ever.
function heed() {
  if (!room) return;
  for (const other of room.remoteParticipants.values()) {
    for (const sound of other.audioTrackPublications.values()) sound.setSubscribed(voice.listening());
  }
}
voice.whenListening(heed);

async function join(lk, mine, { url, token: pass }) {
  const own = new lk.Room({ dynacast: true, stopLocalTrackOnUnpublish: false, publishDefaults: { simulcast: true, videoCodec: 'vp8', backupCodec: false } });
  const event = lk.RoomEvent;
  const on = (name, handle) => own.on(name, (...values) => { if (mine === turn && room === own) handle(...values); });
  room = own;
  on(event.TrackPublished, heed);
  on(event.TrackSubscribed, (sound) => { if (sound.kind === 'audio') voice.room(sound.mediaStreamTrack); });
  on(event.TrackUnsubscribed, (sound) => { if (sound.kind === 'audio') voice.room(null); });
  on(event.SignalReconnecting, () => enter('reconnecting'));
  on(event.Reconnecting, () => enter('reconnecting'));
  on(event.Reconnected, () => enter('live'));
  try {
    await own.connect(url, pass, { autoSubscribe: false, maxRetries: 1 });
    if (mine !== turn) return;
    // The camera stays on while the room is changed: it is stopped by `leave` alone.
    await own.localParticipant.publishTrack(track, { source: lk.Track.Source.Camera, name: SOURCE, simulcast: true, videoCodec: 'vp8' });
  } catch (error) {
    quit(own);
    if (mine !== turn) return;
    const refused = error.reason === lk.ConnectionErrorReason.NotAllowed || error.status === 401;
    throw new Trouble(refused ? 'refused' : 'unreachable', { url });
  }
  on(event.Disconnected, (reason) => disconnected(lk, mine, reason));
  // It may have gone in between.
  if (own.state === lk.ConnectionState.Disconnected) disconnected(lk, mine, undefined);
  voice.room(null);
  heed();
}

function quit(was) {
  if (room === was) room = null;
  was?.disconnect(false).catch(() => {});
}

// Not by us: the server ended or began anew, or someone put us out.
async function disconnected(lk, mine, reason) {
  quit(room);
  voice.room(null);
  const gone = lk.DisconnectReason;
  if (reason === gone.DUPLICATE_IDENTITY || reason === gone.PARTICIPANT_REMOVED) {
    leave(new Trouble('removed'));
    return;
  }
  for (let attempt = 0; mine === turn; attempt += 1) {
    enter('reconnecting');
    await new Promise((resolve) => { setTimeout(resolve, backoff(attempt) * 1000); });
    if (mine !== turn) return;
    try {
      // The former one may be too old.
      const ticket = await token();
      if (mine !== turn) return;
      await join(lk, mine, ticket);
      if (mine === turn) enter('live');
      return;
    } catch { /* Again. */ }
  }
}

// Tells the server to watch this camera.
async function order() {
  ordered = false;
  if (!await controls.order('start', { source: SOURCE }, 'source.started')) throw new Trouble('refused.source');
  ordered = true;
}

// ---- On and off -------------------------------------------------------------------------------------------

async function start() {
  const mine = ++turn;
  enter('asking');
  try {
    if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) {
      throw new Trouble('insecure', { local: `http://localhost:${location.port || 80}/` });
    }
    // Before anyone is asked for the camera: whether there is any use for it.
    let ticket = await token();
    const asked = Date.now();
    const lk = await client();
    const own = await camera(lk);
    if (mine !== turn) return own.stop();
    track = own;
    track.attach($('preview'));
    track.on(lk.TrackEvent.Ended, () => { if (mine === turn) leave(new Trouble('lost')); });
    listCameras();
    enter('joining');
    // A person may think long about whether to give the camera.
    if (Date.now() - asked > 60_000) ticket = await token();
    await join(lk, mine, ticket);
    if (mine !== turn) return;
    memory.on = true;
    await order();
    if (mine === turn && phase === 'joining') enter('live');
  } catch (error) {
    if (mine !== turn) return;
    leave(error instanceof Trouble ? error : new Trouble('failed', {}, explain(error)));
  }
}

// The camera goes off, the room is left. The stream stays as it is.
function leave(why = null) {
  turn += 1;
  memory.on = false;
  ordered = false;
  const was = room;
  room = null;
  was?.disconnect(true).catch(() => {});
  if (track) {
    track.detach($('preview'));
    track.stop();
    $('preview').srcObject = null;
  }
  track = null;
  voice.room(false);
  phase = 'off';
  trouble = why;
  show();
}

$('webcam-start').addEventListener('click', start);
$('webcam-stop').addEventListener('click', () => {
  leave();
  controls.order('stop', {}, 'source.stopped.said');
});
$('camera').addEventListener('change', async () => {
  if (!track) return;
  try {
    await track.restartTrack({ ...WISH, deviceId: { exact: $('camera').value } });
  } catch (error) {
    leave(new Trouble(CAMERA_TROUBLE[error.name] ?? 'lost'));
  }
});
navigator.mediaDevices?.addEventListener?.('devicechange', () => { if (track) listCameras(); });

// ---- Which kind of source ---------------------------------------------------------------------------------

$('mode-webcam').addEventListener('click', () => {
  chosen = true;
  mode = 'webcam';
  if (busy()) show();
  else start();
});
$('mode-source').addEventListener('click', () => {
  chosen = true;
  mode = 'source';
  const own = busy();
  if (own) leave();
  trouble = null;
  show();
  if (source !== SOURCE) return;
  if (previous) controls.again();
  else if (own) controls.order('stop', {}, 'source.stopped.said');
});

// Nothing is taken from under the hand that types.
$('source').addEventListener('input', () => { chosen = true; });

export async function showStatus(status) {
  source = status.source.source;
  previous = status.previous_source ?? null;
  const now = performance.now() / 1000 - status.uptime_s;
  const anew = born !== null && now > born + 1;
  if (born === null && memory.on) {
    [chosen, mode] = [true, 'webcam'];
    start();
  }
  born = now;
  if (!chosen) mode = source === SOURCE ? 'webcam' : 'source';
  show();
  const mine = turn;
  again = (again || (anew && ordered)) && busy();
  if (again) {
    if (ordering) return;
    ordering = true;
    // A token asked for brings the program into the room as well.
    await token().then(() => (mine === turn ? order() : null)).then(() => { again = false; }, () => {});
    ordering = false;
    return;
  }
  if (!ordered || source === SOURCE) return;
  // Somebody chose another source; unless this was an old word that came late.
  const { source: sure } = await ask('GET', `${base}/status`).catch(() => status);
  if (mine !== turn || !ordered || sure.source === SOURCE) return;
  if (phase === 'live') leave(new Trouble('elsewhere'));
}

speaks(show);
