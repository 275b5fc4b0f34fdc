// What the program takes of the machine and how fast the model writes. Not here: latencies of utterances
// (commentary.js), metrics for tools (/metrics).
import { $ } from './dom.js';
import { count, number, speaks, t } from './language.js';

let before = null;
let cpu = null;
let process = null;
let speed = null;
let device = null;
let gpu = null;

const gib = (bytes) => number(bytes / 2 ** 30, 1);

function show() {
  const unknown = t('figures.none');
  $('figure-cpu').textContent = cpu === null ? unknown : count('figures.cpu.of', process.cores, { percent: number(cpu * 100) });
  const memory = process?.memory_bytes ?? null;
  $('figure-memory').textContent = memory === null ? unknown : `${number(memory / 2 ** 20)} MiB`;
  $('figure-speed').textContent = speed === null ? unknown : t('figures.speed.value', { n: number(speed, speed < 10 ? 1 : 0) });
  $('gpu-memory').hidden = gpu === null;
  if (gpu !== null) $('figure-gpu').textContent = t('figures.gpu.of', { used: gib(gpu.used_bytes), total: gib(gpu.total_bytes) });
  $('figure-device').textContent = device === null ? unknown : device === 'cpu' ? t('figures.device.cpu') : device;
}

export function showStatus(status) {
  device = status.engine.device;
  gpu = status.engine.gpu_memory ?? null;
  process = status.process;
  const now = { at: status.uptime_s, cpu: process.cpu_s };
  if (before && (now.at < before.at || now.cpu < before.cpu)) before = null;
  // Over less than that, the rate is mostly chance.
  if (before && now.at - before.at >= 2) {
    cpu = (now.cpu - before.cpu) / (now.at - before.at) / process.cores;
    before = now;
  }
  before ??= now;
  show();
}

export function showSpeed({ tokens, stamps }) {
  const ms = stamps.last_token_ms - stamps.first_token_ms;
  if (tokens < 3 || !(ms > 0)) return;
  speed = ((tokens - 1) * 1000) / ms;
  show();
}

speaks(show);
