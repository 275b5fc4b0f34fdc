// The page's beginning: who hears what. Not here: anything that a module under page/ is about.
import { $ } from './page/dom.js';
import './page/language.js';
import * as server from './page/server.js';
import * as state from './page/state.js';
import * as video from './page/video.js';
import * as figures from './page/figures.js';
import * as commentary from './page/commentary.js';
import * as controls from './page/controls.js';
import * as streams from './page/streams.js';
import * as voice from './page/voice.js';
import * as sourceSound from './page/source-sound.js';
import * as webcam from './page/webcam.js';
import './page/export.js';

const POLL_MS = 5000;
const AGAIN_MS = 2000;

function showStatus(status) {
  state.showStatus(status);
  controls.showStatus(status);
  commentary.showStatus(status);
  video.showSource(status.source, status.viewers);
  figures.showStatus(status);
  voice.showStatus(status);
  sourceSound.showStatus(status);
  webcam.showStatus(status);
}

// The door: the token, when the server asks for one. Without it there is nothing behind.
server.whenUnauthorized(() => { if (!$('door').open) $('door').showModal(); });
$('door').addEventListener('cancel', (event) => event.preventDefault());
$('door-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    await server.ask('POST', '/api/session', { token: $('token').value });
    location.reload();
  } catch (error) {
    $('door-said').textContent = server.explain(error);
    $('token').select();
  }
});

async function begin() {
  try {
    await streams.begin();
    // A stream that was removed still has a page, from which it can be started again.
    await controls.begin(showStatus).catch((error) => { if (error.code !== 'stream_unknown') throw error; });
  } catch (error) {
    if (error.status === 401) return;
    state.setLink(false);
    setTimeout(begin, AGAIN_MS);
    return;
  }
  server.listen({
    open(times) {
      state.setLink(true);
      if (times > 0) video.reopen();
      controls.begin(showStatus).catch(() => {});
    },
    lost() {
      state.setLink(false);
      commentary.lost();
    },
    gone() {
      state.setLink(true);
      state.setRemoved();
    },
    restarted: commentary.restarted,
    status: showStatus,
    token: commentary.token,
    utterance(u) {
      commentary.utterance(u);
      figures.showSpeed(u);
    },
    lagged: commentary.lagged,
  });
  setInterval(() => {
    if (!document.hidden && !$('door').open) server.ask('GET', `${server.base}/status`).then(showStatus, () => {});
  }, POLL_MS);
}
begin();
