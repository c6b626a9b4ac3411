// What users are promised and what they thought: error budgets, alerts, and judged answers.

import { make } from "./dom.js";
import { alertsFiring } from "./headline.js";
import { amount, clockTime, percent, seconds, shareOf } from "./words.js";

const SHOWN = 3; // alerts that are over

export function sloCard(slo) {
  return Object.entries(slo).map(([name, goal]) => {
    const left = Math.max(0, Math.min(1, goal.budget_left ?? 0));
    const level = goal.budget_left <= 0 ? "alarm" : goal.budget_left < 0.25 ? "warning" : "good";
    return make("div", { class: "goal" },
      make("p", {}, make("b", {}, promise(name, goal))),
      make("p", { class: "budget fact", "data-level": level },
        make("meter", { min: 0, max: 1, low: 0.25, optimum: 1, value: left, "aria-label": `${name}: error budget left` }),
        goal.budget_left <= 0 ? " ✕ its error budget is spent" : ` ${percent(goal.budget_left)} of its error budget left`),
      make("p", { class: "quiet" }, `${amount(goal.bad)} of ${amount(goal.events)} missed it; ${spending(goal.burn)}`));
  });
}

function promise(name, { target, limit_s }) {
  if (name === "speed") return `${shareOf(target)} of the answers begin within ${seconds(limit_s)}`;
  if (name === "availability") return `${shareOf(target)} of the questions are answered`;
  return `${name}: ${shareOf(target)}`;
}

// Burn rate: 1 would spend the budget exactly in its period.
function spending(burn) {
  const spans = Object.entries(burn ?? {});
  if (!spans.length) return "";
  const [span, rate] = spans.reduce((most, each) => (each[1] > most[1] ? each : most));
  return rate === 0 ? "nothing was spent lately" : `it burns ${amount(rate)} times as fast as it may (over ${span})`;
}

export function alertCard(alerts) {
  const firing = alertsFiring(alerts);
  const over = (alerts.over ?? []).slice(-SHOWN).reverse();
  return [
    firing.length
      ? make("ul", { class: "plain-list" }, ...firing.map((alert) =>
        make("li", { class: "fact", "data-level": alert.severity === "ticket" ? "warning" : "alarm" },
          `${alert.severity === "ticket" ? "!" : "✕"} ${alert.text}`,
          make("span", { class: "quiet" }, ` since ${clockTime(alert.since_s)}`))))
      : make("p", { class: "fact", "data-level": "good" }, "✓ No alert is firing."),
    over.length
      ? make("ul", { class: "plain-list quiet" }, ...over.map((alert) =>
        make("li", {}, `over since ${clockTime(alert.until_s)}: ${alert.text}`)))
      : null,
  ].filter((each) => each !== null);
}

export function feedbackCard(feedback) {
  const models = Object.entries(feedback);
  if (!models.length) return [make("p", { class: "quiet" }, "Nobody has judged an answer yet.")];
  return [make("dl", { class: "pairs" }, ...models.map(([model, { judged, good }]) =>
    make("div", { class: "pair" }, make("dt", {}, model),
      make("dd", {}, `${percent(good / judged)} good`, make("span", { class: "quiet" }, ` of ${amount(judged)}`)))))];
}
