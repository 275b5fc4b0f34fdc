// Debian's Chromium under Playwright, and a page that fails its test when the browser complains of it.
// Not here: the program (program.mjs).
import { chromium } from 'playwright-core';
import assert from 'node:assert/strict';
import { atEnd } from './ends.mjs';

const EXECUTABLE = process.env.CHROMIUM ?? '/usr/bin/chromium';
export const PATIENCE_MS = 120000;
const launched = new Map(); // Further arguments -> browser

async function browser(further) {
  const key = further.join(' ');
  const args = ['--disable-dev-shm-usage', '--disable-gpu', ...further];
  if (process.getuid?.() === 0) args.push('--no-sandbox');
  if (!launched.has(key)) launched.set(key, chromium.launch({ executablePath: EXECUTABLE, args }));
  return launched.get(key);
}

export async function close() {
  const all = [...launched.values()];
  launched.clear();
  for (const was of all) await (await was).close();
}

// A window of its own: nothing stored is shared with other tests. `expected` are complaints that the test provokes,
// `args` those of a browser of another kind.
export async function context(t, { width = 1280, height = 800, theme = 'dark', language = 'en-GB', touch = false, expected = [], args = [] } = {}) {
  const own = await (await browser(args)).newContext({
    viewport: { width, height }, colorScheme: theme, locale: language, reducedMotion: 'reduce', acceptDownloads: true, hasTouch: touch,
  });
  own.setDefaultTimeout(PATIENCE_MS);
  const complaints = [];
  own.on('weberror', (error) => complaints.push(String(error.error())));
  own.on('console', (message) => {
    const text = `${message.text()} ${message.location().url}`;
    if (['error', 'warning'].includes(message.type()) && !expected.some((e) => e.test(text))) complaints.push(text);
  });
  // The page asks nobody but its own server; a LiveKit server that it was told of is expected where it is.
  own.on('request', (request) => {
    const { origin, protocol } = new URL(request.url());
    if (!protocol.startsWith('http') || request.isNavigationRequest()) return;
    const text = `a request elsewhere: ${request.url()}`;
    if (origin !== new URL(request.frame().url()).origin && !expected.some((e) => e.test(text))) complaints.push(text);
  });
  atEnd(t, async () => {
    const heard = [...complaints];
    await own.close();
    assert.deepEqual(heard, [], 'the browser complained');
  });
  return own;
}

export async function open(t, url, options = {}) {
  const page = await (await context(t, options)).newPage();
  await page.goto(url);
  return page;
}

// Waits until an expression on the page is true; if it never is, says what the page showed. An expression that throws,
// as of an element that is not there yet, is not true yet.
export async function until(page, expression, argument) {
  const patient = new Function('argument', `try {
    const answer = (${expression})(argument);
    window.lastThrown = null;
    return answer;
  } catch (error) {
    window.lastThrown = String(error);
    return false;
  }`);
  try {
    await page.waitForFunction(patient, argument, { timeout: PATIENCE_MS, polling: 50 });
  } catch (error) {
    const seen = await page.evaluate(() => [window.lastThrown ?? '', document.body.innerText.replace(/\s+/g, ' ').slice(0, 3000)]).catch(() => ['', '(no page)']);
    throw new Error(`${error.message.split('\n')[0]}\nnever true: ${expression}\n${argument ?? ''}\nit threw at last: ${seen[0] || 'nothing'}\nthe page: ${seen[1]}`);
  }
}

export const words = (page, selector) => page.locator(selector).evaluateAll((all) => all.map((e) => e.textContent));
