// The program as its users have it: a process on a free port, with the demo model or the tiny random one.
// Not here: the browser (browser.mjs), what is expected.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { tmpdir } from 'node:os';
import { atEnd } from './ends.mjs';

export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const BINARY = process.env.VIDETTE ?? `${process.env.CARGO_TARGET_DIR ?? `${ROOT}target`}/debug/vidette`;
export const CLIP = `${ROOT}gguf/demo/clip.webm`;
// `here` is the demo model as one has it who starts the program in the project's folder: its clip's path is short.
const MODELS = { demo: `${ROOT}gguf/demo`, random: `${ROOT}gguf/tiny-random`, here: 'gguf/demo' };
const PATIENCE_MS = 60000;

// Starts `vidette run`; ends with the test. Programs that it calls are looked for in `path` first.
export async function program(t, { args = [], model = 'demo', port = 0, path = null } = {}) {
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is missing: run \`make test\`, or set VIDETTE`);
  // One thread: on a busy machine several wait for each other more than they compute.
  const all = ['run', ...args, '--server-port', String(port), '--model-path', MODELS[model], '--threads', '1'];
  // What the random one is shown does not matter, and one frame is looked at sooner than four.
  if (model === 'random') all.push('--frames-per-inference', '1');
  const { PATH, HOME, TMPDIR, XDG_RUNTIME_DIR } = process.env;
  const env = Object.fromEntries(Object.entries({ PATH: path ? `${path}:${PATH}` : PATH, HOME, TMPDIR, XDG_RUNTIME_DIR }).filter(([, v]) => v));
  const child = spawn(BINARY, all, { env, cwd: model === 'here' ? ROOT : tmpdir(), stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  const address = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`the program does not listen:\n${log}`)), PATIENCE_MS);
    child.stderr.setEncoding('utf8').on('data', (text) => {
      log += text;
      const at = /open (http:\/\/[^/\s]+)\//.exec(log);
      if (at) { clearTimeout(timer); resolve(at[1]); }
    });
    child.on('exit', (code) => reject(new Error(`the program ended with ${code}:\n${log}`)));
    child.on('error', reject);
  });
  const running = {
    url: address,
    port: Number(new URL(address).port),
    log: () => log,
    async status(path = '/api/status') {
      return (await fetch(`${address}${path}`)).json();
    },
    async post(path, body) {
      return fetch(`${address}${path}`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
    },
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
  atEnd(t, running.stop);
  return running;
}
