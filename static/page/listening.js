// The controls of one sound: listen, mute, volume, loudness, a word. They build themselves inside an empty element.
// Not here: the sound itself (player.js), what the word is (voice.js, source-sound.js).
import { part, store } from './dom.js';
import { t } from './language.js';

/**
 * `names` are the keys of its sentences: name, listen, stop. `say()` gives [sentence, the server's own words or '',
 * whether it is bad news]; `offered()` whether there is something to hear, `able()` whether it can be heard now.
 */
export function controls(root, player, { names, stored, say, offered, able = () => true, quiet = false }) {
  root.className = 'voice';
  root.setAttribute('role', 'group');
  const button = (className) => Object.assign(part(root, 'button', className), { type: 'button' });
  const listen = button('voice-listen');
  const mute = button('quiet voice-mute');
  const label = part(root, 'label', 'voice-volume');
  const name = part(label, 'span', '');
  const volume = Object.assign(part(label, 'input', ''), { type: 'range', min: '0', max: '1', step: '0.05' });
  const meter = part(root, 'span', 'voice-meter');
  meter.setAttribute('role', 'meter');
  meter.setAttribute('aria-valuemin', '0');
  meter.setAttribute('aria-valuemax', '100');
  const bar = part(meter, 'span', '');
  const word = part(root, 'span', 'voice-word');
  word.setAttribute('role', 'status');
  const before = Number(store.get(stored) ?? 0.8);
  volume.value = Number.isFinite(before) ? before : 0.8;
  player.volume = Number(volume.value);

  function show() {
    root.setAttribute('aria-label', t(names.name));
    meter.setAttribute('aria-label', t('sound.level'));
    name.textContent = t('sound.volume');
    listen.textContent = t(player.listening ? names.stop : names.listen);
    // Once pressed it asks for nothing more.
    listen.classList.toggle('main', !quiet && !player.listening);
    listen.hidden = !offered();
    listen.disabled = !player.listening && !able();
    listen.setAttribute('aria-pressed', String(player.listening));
    mute.textContent = t(player.muted ? 'sound.unmute' : 'sound.mute');
    mute.setAttribute('aria-pressed', String(player.muted));
    mute.hidden = label.hidden = meter.hidden = !player.listening;
    const [sentence, foreign, bad] = say();
    const said = `${sentence} ${foreign}`;
    if (word.dataset.said !== said) {
      word.dataset.said = said;
      word.replaceChildren();
      part(word, 'span', '', foreign ? `${sentence} ` : sentence);
      // The server speaks English.
      if (foreign) part(word, 'span', '', foreign).lang = 'en';
    }
    word.classList.toggle('bad', bad);
  }

  function draw() {
    if (!player.listening) return;
    // Speech lies between -40 and 0 dB.
    const decibels = 20 * Math.log10(Math.max(player.level(), 1e-4));
    const level = Math.min(Math.max(1 + decibels / 40, 0), 1);
    bar.style.transform = `scaleX(${level.toFixed(2)})`;
    meter.classList.toggle('loud', level > 0.9);
    meter.setAttribute('aria-valuenow', String(Math.round(level * 100)));
    requestAnimationFrame(draw);
  }

  listen.addEventListener('click', () => {
    if (player.listening) player.stop();
    else player.listen();
    show();
    draw();
  });
  mute.addEventListener('click', () => { player.muted = !player.muted; show(); });
  volume.addEventListener('input', () => {
    player.volume = Number(volume.value);
    store.set(stored, volume.value);
  });
  // What the player does between two words of the server.
  setInterval(() => { if (player.listening) show(); }, 300);
  return { show, listen };
}
