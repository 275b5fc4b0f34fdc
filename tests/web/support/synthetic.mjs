// Before the real program stands a server that passes everything on but the commentary's events, which the test writes:
// for what the real model does not say on demand (hostile text, silence, thousands of utterances).
// Not here: anything that the real program can show by itself.
import http from 'node:http';
import { once } from 'node:events';
import { atEnd } from './ends.mjs';

const JPEG_OF = '/api/frame';

export async function synthetic(t, program) {
  const target = new URL(program.url);
  const listeners = new Set();
  let id = 0;
  const before = await program.status();
  const begun = performance.now();
  let patched = before;
  // Its age grows: a page takes a stream that is younger than it should be for another one.
  const status = () => ({ ...patched, uptime_s: before.uptime_s + (performance.now() - begun) / 1000 });
  let picture = null;
  const stamps = new Map(); // utterance -> newest_frame_unix_ms
  let asked = 0; // Requests for the events.
  let pictures = 0; // Requests for pictures of utterances.

  const server = http.createServer((request, response) => {
    // The program may have ended before its page.
    answer(request, response).catch(() => response.destroy());
  });
  async function answer(request, response) {
    const path = new URL(request.url, target).pathname;
    if (path === '/api/stream') {
      asked += 1;
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.write(`retry: 200\nevent: status\ndata: ${JSON.stringify(status())}\n\n`);
      listeners.add(response);
      response.on('close', () => listeners.delete(response));
      return;
    }
    if (path === '/api/status') {
      response.writeHead(200, { 'Content-Type': 'application/json' });
      response.end(JSON.stringify(status()));
      return;
    }
    const frame = /^\/api\/utterances\/(\d+)\/frame$/.exec(path);
    if (frame) {
      pictures += 1;
      picture ??= Buffer.from(await (await fetch(`${program.url}${JPEG_OF}`)).arrayBuffer());
      response.writeHead(200, { 'Content-Type': 'image/jpeg', 'X-Timestamp': String((stamps.get(Number(frame[1])) ?? 0) / 1000) });
      response.end(picture);
      return;
    }
    const onward = http.request({ host: target.hostname, port: target.port, path: request.url, method: request.method, headers: request.headers },
      (answer) => { response.writeHead(answer.statusCode, answer.headers); answer.pipe(response); });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
  }
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(t, () => { server.closeAllConnections(); server.close(); });

  const send = (event, data) => {
    id += 1;
    for (const listener of listeners) listener.write(`event: ${event}\nid: ${id}\ndata: ${JSON.stringify(data)}\n\n`);
  };
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    listeners: () => listeners.size,
    asked: () => asked,
    pictures: () => pictures,
    send,
    status(patch) {
      for (const [part, values] of Object.entries(patch)) {
        patched = { ...patched, [part]: typeof values === 'object' ? { ...patched[part], ...values } : values };
      }
      send('status', status());
    },
    token: (utterance, text) => send('token', { utterance, text }),
    // A finished utterance; `tokens` says whether its words come first.
    say(utterance, text, { finish = 'stop', at = Date.now(), tokens = false, instruction = 'Tell me what you see.' } = {}) {
      stamps.set(utterance, at);
      if (stamps.size > 500) stamps.delete(stamps.keys().next().value);
      if (tokens) for (const word of text.match(/\S+\s*/g) ?? []) send('token', { utterance, text: word });
      send('utterance', {
        utterance, text, skipped: text === '...', finish, instruction, tokens: 12, frames: 4, frames_encoded: 2,
        stamps: {
          oldest_frame: 10, newest_frame: 16, newest_frame_unix_ms: at, window_ms: 1500, start_ms: 4, encode_done_ms: 220,
          prefill_done_ms: 410, first_token_ms: 470, last_token_ms: 1250, first_audio_ms: null, last_audio_ms: null,
        },
      });
    },
    hangUp() { for (const listener of listeners) listener.destroy(); },
  };
}
