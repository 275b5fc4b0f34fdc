#!/usr/bin/env node
// The page's memory over minutes of fast talk: a line a quarter minute, and the second half against the first.
// Usage: node scripts/page-memory.mjs [minutes]   (after make test, which installs what it needs)
// Not here: the short form, which make test runs (tests/web/memory.test.mjs).
import { asProgram } from '../tests/web/support/ends.mjs';
import { close, open, until } from '../tests/web/support/browser.mjs';
import { measure, median, talk } from '../tests/web/support/heap.mjs';
import { program } from '../tests/web/support/program.mjs';
import { synthetic } from '../tests/web/support/synthetic.mjs';

const BATCH = 60;
const minutes = Number(process.argv[2] ?? 10);
if (!(minutes > 0)) {
  console.error('usage: page-memory.mjs [minutes]');
  process.exit(64);
}
await asProgram(async (scope) => {
  const vidette = await program(scope, { model: 'random', args: ['test:smpte'] });
  const server = await synthetic(scope, vidette);
  const page = await open(scope, server.url);
  await until(page, () => document.querySelector('#link-word').textContent === 'connected');
  const cdp = await page.context().newCDPSession(page);
  const began = Date.now();
  const readings = [];
  let told = 1;
  for (let next = 0; Date.now() - began < minutes * 60_000;) {
    await talk(server, page, told, BATCH);
    told += BATCH;
    if (Date.now() - began < next) continue;
    next += 15_000;
    const reading = { seconds: Math.round((Date.now() - began) / 1000), told: told - 1, ...await measure(cdp) };
    console.log(`${reading.seconds} s, ${reading.told} utterances: heap ${(reading.bytes / 2 ** 20).toFixed(2)} MiB, ${reading.nodes} nodes, ${reading.listeners} listeners`);
    // The first fills what is bounded.
    if (reading.told > 600) readings.push(reading);
  }
  const middle = Math.floor(readings.length / 2);
  const [first, second] = [readings.slice(0, middle), readings.slice(middle)].map((half) => median(half.map((r) => r.bytes)));
  console.log(`medians of the halves: ${(first / 2 ** 20).toFixed(2)} MiB and ${(second / 2 ** 20).toFixed(2)} MiB, ratio ${(second / first).toFixed(3)}`);
  return second < first * 1.03 + 100_000 ? 0 : 1;
}, close);
