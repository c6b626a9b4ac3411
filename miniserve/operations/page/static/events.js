// What happened, newest first, each with its local time and a sign for how serious it is.

import { byId, make } from "./dom.js";
import { LEVELS, clockTime } from "./words.js";

const MOST = 200;
const all = []; // oldest first
const listeners = [];

export const events = () => all;
export const onEvent = (listener) => listeners.push(listener);

export function forgetEvents() {
  all.length = 0;
  byId("events").replaceChildren();
}

export function showEvents(news) {
  const fresh = news.filter((event) => event.number > (all.at(-1)?.number ?? 0));
  const list = byId("events");
  for (const event of fresh) {
    all.push(event);
    list.prepend(line(event));
    for (const listener of listeners) listener(event);
  }
  while (all.length > MOST) {
    all.shift();
    list.lastElementChild.remove();
  }
  byId("no-events").hidden = all.length > 0;
}

function line(event) {
  const level = LEVELS[event.level] ?? LEVELS.info;
  return make(
    "li",
    { class: "event", "data-level": event.level, "data-kind": event.kind, "data-number": event.number },
    make("time", { datetime: new Date(event.at_s * 1000).toISOString() }, clockTime(event.at_s)),
    make("span", { class: "icon", role: "img", "aria-label": level.word, title: level.word }, level.icon),
    make("span", { class: "text" }, event.text),
  );
}
