// The source's own sound, apart from the voice's: off until it is asked for, with its own mute and volume. Shown where
// the source has sound. Not here: the controls (listening.js), the sound (player.js).
import { $ } from './dom.js';
import { t, speaks } from './language.js';
import { controls } from './listening.js';
import { Player } from './player.js';

const player = new Player('source-audio');
let source = null;

function say() {
  if (player.state === 'refused') return [t('sound.refused'), '', true];
  if (player.state === 'lost') return [t('sound.lost'), '', true];
  if (player.state === 'connecting') return [t('sound.connecting'), '', false];
  return ['', '', false];
}

const { show } = controls($('source-sound'), player, {
  names: { name: 'hear.name', listen: 'hear.listen', stop: 'hear.stop' },
  stored: 'source-volume',
  say,
  offered: () => true,
  quiet: true,
});
speaks(show);

export function showStatus(status) {
  // While its sound is lost with it, as between two tries, nothing is taken from under the listener.
  if (source !== status.source.source && !status.source.audio) player.stop();
  source = status.source.source;
  $('source-sound').hidden = !status.source.audio && !player.listening;
  show();
}
