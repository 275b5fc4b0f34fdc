// The page's memory over a long talk: utterances without end from a synthetic stream, and the script heap after forced
// collections. Not here: what is expected of the figures (memory.test.mjs, scripts/page-memory.mjs).
import { until } from './browser.mjs';

const WORDS = ['a red circle', 'on the left', 'moves slowly', 'to the right', 'and a small', 'yellow star', 'comes from above'];
const sentence = (n) => `Look ${n}: ${WORDS.map((_, i) => WORDS[(n * 3 + i) % WORDS.length]).join(', ')}.`;

// Tells `count` utterances in tokens, every third silent, and waits until the page has shown the last.
export async function talk(server, page, from, count) {
  for (let n = from; n < from + count; n += 1) {
    if (n % 3 === 0) server.say(n, '...');
    else server.say(n, sentence(n), { tokens: true });
    // Not more at once than one connection holds.
    if (n % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const last = from + count - ((from + count - 1) % 3 === 0 ? 2 : 1);
  await until(page, (text) => [...document.querySelectorAll('.entry.utterance .text')].at(-1)?.textContent === text, sentence(last));
}

// Bytes of live script objects, and nodes of the document and off it.
export async function measure(cdp) {
  // What a first collection frees lets go of more.
  for (let i = 0; i < 3; i += 1) await cdp.send('HeapProfiler.collectGarbage');
  const { usedSize } = await cdp.send('Runtime.getHeapUsage');
  const { nodes, jsEventListeners } = await cdp.send('Memory.getDOMCounters');
  return { bytes: usedSize, nodes, listeners: jsEventListeners };
}

export const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
