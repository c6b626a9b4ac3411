// Cards for the parts beside the serving: each shows its section of the status, and a part that does not run has none.

import { byId, make } from "./dom.js";
import { figures } from "./figures.js";
import { costCard, qualityCard } from "./money.js";
import { alertCard, feedbackCard, sloCard } from "./promises.js";
import { rolloutCard } from "./rollout.js";

const CARDS = [
  ["Alerts", "alerts", alertCard],
  ["Rollout of a new version", "rollout", rolloutCard],
  ["Promises (SLO)", "slo", sloCard],
  ["Judged by users", "feedback", feedbackCard],
  ["Quality of the answers", "quality", qualityCard],
  ["Cost", "cost", costCard],
  ["Experiment", "experiments", figures],
];
const shown = new Map(); // section -> the text that its card was made from

export function showCards(status) {
  for (const [title, name, fill] of CARDS) {
    const section = status[name] ?? null;
    const text = JSON.stringify(section);
    if (shown.get(name) === text) continue;
    shown.set(name, text);
    place(name, title, section === null ? null : tried(fill, section));
  }
  byId("cards").hidden = byId("cards").children.length === 0;
}

function place(name, title, content) {
  const old = byId(`card-${name}`);
  if (content === null) {
    old?.remove();
    return;
  }
  const card = make("article", { class: "card", id: `card-${name}` }, make("h2", {}, title), ...content);
  if (old) old.replaceWith(card);
  else if (name === "rollout") byId("rollout-place").append(card);
  else insertInOrder(card, name);
}

function insertInOrder(card, name) {
  const later = CARDS.slice(CARDS.findIndex(([, each]) => each === name) + 1).filter(([, each]) => each !== "rollout");
  const next = later.map(([, each]) => byId(`card-${each}`)).find((each) => each !== null);
  byId("cards").insertBefore(card, next ?? null);
}

// A section of a shape that this page does not know must not cost the rest of the page.
function tried(fill, section) {
  try {
    return fill(section);
  } catch (error) {
    console.warn("a section cannot be shown", error);
    return [make("p", { class: "quiet" }, "This cannot be shown here; see /status.")];
  }
}
