#!/usr/bin/env node
// Takes docs/page.png, the README's picture of the page: the real program with the demo model on its own clip, in a real
// browser. Usage: node scripts/page-picture.mjs [FILE [dark|light [WIDTHxHEIGHT [LANGUAGE]]]]
// (after make test, which installs what it needs). VIDETTE names another program than target/debug/vidette.
// Not here: what the page must look like (tests/web/looks.test.mjs).
import { asProgram } from '../tests/web/support/ends.mjs';
import { close, context, until } from '../tests/web/support/browser.mjs';
import { ROOT, program } from '../tests/web/support/program.mjs';

const [file = `${ROOT}docs/page.png`, theme = 'dark', size = '1280x800', language = 'en-GB'] = process.argv.slice(2);
const [width, height] = size.split('x').map(Number);
if (!['dark', 'light'].includes(theme) || !(width > 0 && height > 0)) {
  console.error('usage: page-picture.mjs [FILE [dark|light [WIDTHxHEIGHT [LANGUAGE]]]]');
  process.exit(64);
}
// What is said in a look is read before it is shown to others.
const UTTERANCES = 3;
await asProgram(async (scope) => {
  const vidette = await program(scope, { model: 'here', args: ['--enable-tts'] });
  const own = await context(scope, { theme, width, height, language, args: ['--autoplay-policy=no-user-gesture-required'] });
  const page = await own.newPage();
  await page.goto(vidette.url);
  await until(page, () => document.querySelector('#source-dot.good') && document.querySelector('#voice-dot.good'));
  await page.locator('#voice .voice-listen').click();
  await until(page, (wanted) => document.querySelectorAll('.entry.utterance.stop .thumb img[src]').length >= wanted, UTTERANCES);
  await until(page, () => !document.querySelector('#figure-cpu').textContent.match(/known|bekannt/)
    && !document.querySelector('#figure-speed').textContent.match(/known|bekannt/));
  await until(page, () => !document.querySelector('#video').hidden && document.querySelector('#video').naturalWidth > 0);
  // The picture of one look, where there is room for it beside the video.
  if (width > 900) {
    const thumb = page.locator('.entry.utterance.stop .thumb').last();
    await thumb.hover();
    await until(page, () => document.querySelector('#look-picture').naturalWidth === 320);
  }
  await page.screenshot({ path: file });
  console.log(file);
  for (const text of await page.locator('.entry.utterance .text').allTextContents()) console.log(`  ${text}`);
}, close);
