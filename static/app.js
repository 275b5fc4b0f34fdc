// The page: shows the stream's picture, state and commentary, and gives orders.
// What the model wrote is untrusted: it goes into the page by textContent only.
"use strict";

const $ = (id) => document.getElementById(id);
const MOST_ENTRIES = 200;

/* ---- asking the server ---- */

async function ask(method, path, body) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  const data = answer.status === 204 ? null : await answer.json();
  if (answer.status === 401) askForToken();
  if (!answer.ok) {
    const error = data && data.error ? data.error : { message: "the server answered " + answer.status };
    throw new Error(error.hint ? error.message + " — " + error.hint : error.message);
  }
  return data;
}

/** Runs an order and shows its failure beside the form. */
async function order(place, work) {
  $(place).textContent = "";
  try {
    await work();
  } catch (error) {
    $(place).textContent = error.message;
  }
}

/* ---- the token ---- */

function askForToken() {
  $("session").hidden = false;
  $("app").hidden = true;
  $("token").focus();
}

$("session").addEventListener("submit", (event) => {
  event.preventDefault();
  order("session-error", async () => {
    await ask("POST", "/api/session", { token: $("token").value });
    location.reload();
  });
});

/* ---- the picture ---- */

let videoWait = 1000;
let videoTimer = 0;

function playVideo() {
  clearTimeout(videoTimer);
  if (document.hidden) return;
  $("video").src = "/api/mjpeg?" + Date.now();
}

function haltVideo() {
  clearTimeout(videoTimer);
  $("video").removeAttribute("src");
}

$("video").addEventListener("load", () => {
  videoWait = 1000;
  $("video").hidden = false;
  $("no-video").hidden = true;
});
$("video").addEventListener("error", () => {
  if (!$("video").hasAttribute("src")) return;
  clearTimeout(videoTimer);
  videoTimer = setTimeout(playVideo, videoWait);
  videoWait = Math.min(videoWait * 2, 15000);
});
// Nobody watches a hidden page: then no picture has to be encoded.
document.addEventListener("visibilitychange", () => (document.hidden ? haltVideo() : playVideo()));

/* ---- the state ---- */

const SOURCE_WORDS = {
  stopped: ["", "no source"], connecting: ["busy", "connecting"], streaming: ["good", "live"],
  stalled: ["bad", "stalled"], retrying: ["bad", "lost, trying again"], ended: ["", "ended"],
};
const ENGINE_WORDS = {
  absent: ["bad", "no model"], loading: ["busy", "model loading"], ready: ["good", "model ready"], failed: ["bad", "model failed"],
};
const DOING = { looking: "looking", speaking: "speaking", unchanged: "nothing changes", waiting_for_frames: "waiting for frames" };

function dot(name, state, words) {
  $("dot-" + name).className = "dot " + state;
  $("word-" + name).textContent = words;
}

let instructionShown = null;
let retryAt = 0;
let trouble = "";

function showStatus(status) {
  const { source, engine, commentary } = status;
  const [sourceState, sourceWord] = SOURCE_WORDS[source.state] || ["", source.state];
  const size = source.state === "streaming" && source.width ? " " + source.width + "×" + source.height : "";
  dot("source", sourceState, sourceWord + size);
  const [engineState, engineWord] = ENGINE_WORDS[engine.state] || ["", engine.state];
  const doing = engine.state === "ready" ? DOING[commentary.state] : undefined;
  dot("engine", engineState, doing ? engineWord + ", " + doing : engineWord);
  $("word-engine").title = [engine.model, engine.device].filter(Boolean).join(" on ");

  $("warning").hidden = !engine.warning;
  $("warning").textContent = engine.warning || "";
  trouble = [source.message, engine.message, commentary.message].filter(Boolean).join(" · ");
  retryAt = source.state === "retrying" && source.retry_in_s ? Date.now() + source.retry_in_s * 1000 : 0;
  showTrouble();

  const live = source.state === "streaming";
  if (source.state === "stopped") $("video").hidden = true;
  $("no-video").hidden = live && !$("video").hidden;
  $("no-video").textContent = live ? "" : sourceWord;
  if (document.activeElement !== $("source") && source.source) $("source").value = source.source;
  // The person's own typing is never overwritten.
  if (commentary.instruction !== instructionShown && document.activeElement !== $("instruction")) {
    $("instruction").value = commentary.instruction;
    instructionShown = commentary.instruction;
  }
  if (document.activeElement !== $("profile")) $("profile").value = commentary.profile;
}

function showTrouble() {
  const left = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  $("trouble").textContent = trouble + (retryAt && left ? " · next try in " + left + " s" : "");
  $("trouble").hidden = !trouble;
}
setInterval(showTrouble, 1000);

/* ---- the commentary ---- */

const log = $("log");
let writing = null; // the entry of the utterance that is being written
let skips = null; // the entry that folds answers without words

const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const seconds = (ms) => (ms / 1000).toFixed(ms < 9950 ? 2 : 1) + " s";

/** Keeps to the end of the log unless the person has scrolled away from it. */
function changeLog(change) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  change();
  while (log.children.length > MOST_ENTRIES) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function entry(kind, text) {
  const item = document.createElement("li");
  item.className = kind;
  const line = document.createElement("p");
  line.textContent = text;
  item.append(line);
  log.append(item);
  return item;
}

function onToken({ utterance, text }) {
  changeLog(() => {
    if (!writing || writing.number !== utterance) {
      if (writing) writing.item.classList.remove("writing");
      writing = { number: utterance, item: entry("writing", "") };
      skips = null;
    }
    writing.item.firstElementChild.textContent += text;
  });
}

function onUtterance(data) {
  const now = Date.now();
  changeLog(() => {
    if (data.skipped) {
      if (!skips) skips = { item: entry("skip", ""), from: now, count: 0 };
      skips.count += 1;
      const times = skips.count > 1 ? " ×" + skips.count + " · " + clock(skips.from) + "–" + clock(now) : " · " + clock(now);
      skips.item.firstElementChild.textContent = "nothing to say" + times;
      return;
    }
    let item = writing && writing.number === data.utterance ? writing.item : entry("", "");
    writing = null;
    skips = null;
    item.className = data.finish;
    item.firstElementChild.textContent = data.text.trim();
    const meta = document.createElement("p");
    meta.className = "meta";
    const s = data.stamps;
    const parts = [clock(s.newest_frame_unix_ms || now)];
    if (s.first_token_ms != null) parts.push("first word " + seconds(s.first_token_ms));
    if (s.last_token_ms != null) parts.push("done " + seconds(s.last_token_ms), "from oldest frame " + seconds(s.window_ms + s.last_token_ms));
    if (data.finish === "cancelled") parts.push("cut off");
    if (data.finish === "error") parts.push("failed");
    meta.textContent = parts.join(" · ");
    meta.title = "first word, done: from the capture of the newest frame to the first and last token; " +
      "from oldest frame: from the capture of the window's oldest frame to the last token";
    item.append(meta);
  });
}

$("clear").addEventListener("click", () => {
  log.replaceChildren();
  writing = null;
  skips = null;
});

/* ---- the events ---- */

function listen() {
  const events = new EventSource("/api/stream");
  const on = (name, handle) => events.addEventListener(name, (event) => handle(JSON.parse(event.data)));
  events.onopen = () => dot("link", "good", "connected");
  events.onerror = () => {
    dot("link", "bad", "connection lost, coming back");
    if (events.readyState === EventSource.CLOSED) {
      ask("GET", "/api/status").catch(() => {});
      setTimeout(listen, 3000);
    }
  };
  on("token", onToken);
  on("utterance", onUtterance);
  on("status", showStatus);
  on("lagged", ({ missed }) => changeLog(() => entry("note", missed + " events were missed")));
  on("bye", () => dot("link", "bad", "the server ended"));
}

/* ---- the orders ---- */

$("source-form").addEventListener("submit", (event) => {
  event.preventDefault();
  order("source-error", async () => {
    showStatus(await ask("POST", "/api/start", { source: $("source").value }));
    playVideo();
  });
});
$("stop").addEventListener("click", () => order("source-error", async () => showStatus(await ask("POST", "/api/stop", {}))));

function apply() {
  order("instruction-error", async () => {
    const wanted = $("instruction").value;
    showStatus(await ask("POST", "/api/instruction", { instruction: wanted }));
    instructionShown = wanted;
  });
}
$("instruction-form").addEventListener("submit", (event) => {
  event.preventDefault();
  apply();
});
$("instruction").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    apply();
  }
});
$("profile").addEventListener("change", () => {
  order("instruction-error", async () => {
    const status = await ask("POST", "/api/instruction", { profile: $("profile").value });
    $("profile").blur();
    showStatus(status);
  });
});

async function start() {
  try {
    const { profiles } = await ask("GET", "/api/profiles");
    $("profile").replaceChildren();
    for (const profile of profiles) {
      const option = document.createElement("option");
      option.value = profile.name;
      option.textContent = profile.name + ": " + profile.summary;
      $("profile").append(option);
    }
    showStatus(await ask("GET", "/api/status"));
  } catch (error) {
    dot("link", "bad", error.message);
    if (!$("session").hidden) return;
    setTimeout(start, 3000);
    return;
  }
  listen();
  playVideo();
}
start();
