// Asking the server, and listening to its events; both come back by themselves. Not here: what is shown of it.
import { t, has, spoken } from './language.js';

const RECONNECT_MS = 2000;

// The stream that this page watches; null stands for the default one.
export const stream = new URLSearchParams(location.search).get('stream');
export const pathOf = (name) => (name === null ? '/api' : `/api/streams/${encodeURIComponent(name)}`);
export const base = pathOf(stream);

export class Refused extends Error {
  constructor(status, error) {
    super(error?.hint ? `${error.message}; ${error.hint}` : error?.message ?? t('error.status', { status }));
    this.status = status;
    this.code = error?.code ?? null;
  }
}

// In the page's language. English is the server's own, and says more.
export function explain(error) {
  if (!(error instanceof Refused)) return t('error.silent');
  if (spoken() === 'en') return error.message;
  return has(`error.${error.code}`) ? t(`error.${error.code}`) : `${t('error.other')} ${error.message}`;
}

let onUnauthorized = () => {};
export function whenUnauthorized(handle) { onUnauthorized = handle; }

export async function ask(method, path, body) {
  const options = { method };
  if (body !== undefined) Object.assign(options, { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
  const answer = await fetch(path, options);
  const json = await answer.json().catch(() => null);
  if (!answer.ok) {
    if (answer.status === 401 && path !== '/api/session') onUnauthorized();
    throw new Refused(answer.status, json?.error);
  }
  return json;
}

// handlers: open(times before), lost(), gone(), restarted(), status, token, utterance, lagged.
export function listen(handlers) {
  let source = null;
  let lastId = 0;
  let opened = 0;
  let born = -Infinity;
  let timer = null;

  function connect() {
    clearTimeout(timer);
    source?.close();
    // From 0 on, so that a fresh page shows what was said before it was opened.
    source = new EventSource(`${base}/stream?last_event_id=${lastId}`);
    let first = true;
    let fresh = opened === 0;
    const on = (type, handle) => source.addEventListener(type, (event) => {
      if (event.lastEventId) lastId = Number(event.lastEventId);
      handle(JSON.parse(event.data));
    });
    source.addEventListener('open', () => {
      first = true;
      handlers.open(opened);
      opened += 1;
    });
    on('status', (status) => {
      // Younger than it should be: another stream, whose ids have nothing to do with the former's.
      const now = performance.now() / 1000 - status.uptime_s;
      const restarted = first && now > born + 1 && born !== -Infinity;
      if (first) born = now;
      first = false;
      if (restarted) {
        lastId = 0;
        handlers.restarted();
        connect();
      }
      handlers.status(status);
    });
    on('token', (e) => { fresh = false; handlers.token(e); });
    on('utterance', (e) => { fresh = false; handlers.utterance(e); });
    // What was said long before this page was opened is not missed by it.
    on('lagged', (e) => { if (!fresh) handlers.lagged(e); fresh = false; });
    on('bye', () => handlers.lost());
    source.addEventListener('error', () => {
      handlers.lost();
      // While it is not closed, the browser comes back by itself.
      if (source.readyState !== EventSource.CLOSED) return;
      clearTimeout(timer);
      timer = setTimeout(connect, RECONNECT_MS);
      ask('GET', `${base}/status`).catch((error) => { if (error.code === 'stream_unknown') handlers.gone(); });
    });
  }
  connect();
}
