// The page: one stream of snapshots comes in, each part of the page shows its share of it.

import { startAsking, showModels } from "./ask.js";
import { addHistory, addRow, redrawCharts, startCharts } from "./charts.js";
import { showCards } from "./cards.js";
import { startControls, showControls } from "./controls.js";
import { byId, setData, setText } from "./dom.js";
import { forgetEvents, showEvents } from "./events.js";
import { showFleet } from "./fleet.js";
import { caveat, headline } from "./headline.js";

const SILENCE_MS = 5_000; // five snapshots missed: say that these figures are old
const AGAIN_MS = 2_000;
let run = null;
let lastHeardMs = performance.now();
let stream = null;

function take(message) {
  if (run !== null && message.run !== run) {
    location.reload(); // the gateway was started anew: our token may be void
    return;
  }
  run = message.run;
  lastHeardMs = performance.now();
  if (message.history) addHistory(message.history);
  else addRow(message.row);
  showEvents(message.events);
  showFleet(message.status);
  showControls(message.status);
  showCards(message.status);
  showModels(message.status);
  const { text, level } = headline(message.status);
  setText(byId("headline-text"), text);
  setData(byId("headline"), "level", level);
  setText(byId("caveat"), caveat(message.status));
  setText(byId("connection"), "");
  document.body.dataset.live = "yes";
}

function connect() {
  stream?.close();
  stream = new EventSource("/page/events");
  stream.onmessage = (event) => take(JSON.parse(event.data));
  stream.onerror = () => {
    if (stream.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    stream.close();
    setTimeout(connect, AGAIN_MS); // it was refused (too many viewers, say), so the browser would not
  };
}

function watchSilence() {
  const silentMs = performance.now() - lastHeardMs;
  if (silentMs < SILENCE_MS) return;
  document.body.dataset.live = "no";
  setText(byId("connection"), `No word from the gateway for ${Math.round(silentMs / 1000)} s; trying again`);
}

function startTheme() {
  const button = byId("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const show = () => {
    setText(button, isDark() ? "Light" : "Dark");
    button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
    redrawCharts();
  };
  button.addEventListener("click", () => {
    const wanted = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = wanted;
    localStorage.setItem("miniserve-theme", wanted);
    show();
  });
  dark.addEventListener("change", show);
  show();
}

startCharts();
startTheme();
startControls();
startAsking();
forgetEvents();
connect();
setInterval(watchSilence, 1_000);
