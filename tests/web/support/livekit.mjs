// The real livekit-server on loopback, and browsers with a camera that shows a known picture, with none, or with one
// that may not be used. Not here: the program (program.mjs), what is expected.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atEnd } from './ends.mjs';
import { ROOT } from './program.mjs';

const SERVER = process.env.VIDETTE_LIVEKIT_SERVER ?? `${ROOT}target/tools/livekit-server`;
const PATIENCE_MS = 60000;
const KEY = 'APIvidettetests';
const SECRET = 'q8Zt3LwXv0nRk5JbYc7PdH2sMfA9uGeT';

export async function freePort() {
  const probe = net.createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

// Ends with the test. `restart` kills it and starts it anew on the same port.
export async function livekit(t) {
  if (!existsSync(SERVER)) throw new Error(`${SERVER} is missing: run \`make test\`, or set VIDETTE_LIVEKIT_SERVER`);
  const [port, tcp, udp] = [await freePort(), await freePort(), await freePort()];
  const folder = mkdtempSync(join(tmpdir(), 'vidette-livekit-'));
  const config = join(folder, 'livekit.yaml');
  writeFileSync(config, JSON.stringify({ // YAML contains JSON.
    port, bind_addresses: ['127.0.0.1'], keys: { [KEY]: SECRET }, logging: { level: 'info' },
    rtc: { tcp_port: tcp, udp_port: udp, use_external_ip: false, enable_loopback_candidate: true, interfaces: { includes: ['lo'] }, node_ip: '127.0.0.1' },
  }));
  let child = null;
  let log = '';
  const start = async () => {
    child = spawn(SERVER, ['--config', config], { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => { log += text; });
    for (const end = Date.now() + PATIENCE_MS; ;) {
      if (child.exitCode !== null || Date.now() > end) throw new Error(`livekit-server does not listen:\n${log}`);
      if (await fetch(`http://127.0.0.1:${port}/`).then(() => true, () => false)) return;
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
  };
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  };
  await start();
  atEnd(t, async () => {
    await stop();
    rmSync(folder, { recursive: true });
  });
  return { url: `ws://127.0.0.1:${port}`, args: keys(`ws://127.0.0.1:${port}`), start, stop };
}

// The program's arguments for a LiveKit server at `url`.
export const keys = (url) => ['--livekit-enabled', '--livekit-url', url, '--livekit-api-key', KEY, '--livekit-api-secret', SECRET];

const MEDIA = ['--allow-loopback-in-peer-connection', '--autoplay-policy=no-user-gesture-required'];
const FAKE = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];

// A browser whose camera shows the first picture of a clip.
export function camera(t, clip) {
  const folder = mkdtempSync(join(tmpdir(), 'vidette-camera-'));
  const file = join(folder, 'camera.y4m');
  execFileSync('ffmpeg', ['-v', 'error', '-i', clip, '-vf', 'select=eq(n\\,0),loop=loop=29:size=1,setpts=N/15/TB,scale=640:360', '-r', '15', '-frames:v', '30', '-pix_fmt', 'yuv420p', file]);
  t.after(() => rmSync(folder, { recursive: true }));
  return [...MEDIA, ...FAKE, `--use-file-for-fake-video-capture=${file}`];
}
export const THREE_CAMERAS = [...MEDIA, '--use-fake-device-for-media-stream=device-count=3', '--use-fake-ui-for-media-stream'];
export const NO_CAMERA = ['--use-fake-device-for-media-stream=device-count=0', '--use-fake-ui-for-media-stream'];
export const DENIED = ['--use-fake-device-for-media-stream', '--deny-permission-prompts'];
