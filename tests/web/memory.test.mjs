// The page does not grow over a long talk. The ten-minute form of this is scripts/page-memory.mjs.
import assert from 'node:assert/strict';
import test, { after } from 'node:test';
import { close, open, until } from './support/browser.mjs';
import { measure, median, talk } from './support/heap.mjs';
import { program } from './support/program.mjs';
import { synthetic } from './support/synthetic.mjs';

after(close);

test('the heap is as large after many utterances as after few', async (t) => {
  const vidette = await program(t, { model: 'random', args: ['test:smpte'] });
  const server = await synthetic(t, vidette);
  const page = await open(t, server.url);
  await until(page, () => document.querySelector('#link-word').textContent === 'connected');
  const cdp = await page.context().newCDPSession(page);
  const batch = 150;
  let told = 1;
  // Until every bound is reached: 200 lines, 64 pictures.
  for (let i = 0; i < 3; i += 1, told += batch) await talk(server, page, told, batch);
  const readings = [];
  for (let i = 0; i < 10; i += 1, told += batch) {
    await talk(server, page, told, batch);
    readings.push(await measure(cdp));
  }
  const half = (what, from, to) => median(readings.slice(from, to).map((r) => r[what]));
  const shown = JSON.stringify(readings);
  // Of 750 utterances between the halves, each of which would leave at least its text: half a megabyte and 3000 nodes.
  assert.ok(half('bytes', 5, 10) < half('bytes', 0, 5) * 1.03 + 100_000, shown);
  assert.ok(half('nodes', 5, 10) < half('nodes', 0, 5) + 700, shown);
  assert.ok(half('listeners', 5, 10) < half('listeners', 0, 5) + 300, shown);
});
