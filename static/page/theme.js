// Light, dark, or as the system has it. A plain script and no module, so that it runs before the first paint.
// Not here: the colours (style.css).
(() => {
  const root = document.documentElement;
  let chosen = null;
  try { chosen = localStorage.getItem('vidette.theme'); } catch { /* Nothing is remembered then. */ }
  const apply = (theme) => {
    if (theme === 'light' || theme === 'dark') root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  apply(chosen);
  addEventListener('DOMContentLoaded', () => {
    const select = document.getElementById('theme');
    select.value = root.dataset.theme ?? 'auto';
    select.addEventListener('change', () => {
      apply(select.value);
      try { localStorage.setItem('vidette.theme', select.value); } catch { /* As above. */ }
    });
  });
})();
