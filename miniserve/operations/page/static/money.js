// What the replicas' time costs and where it goes, and how good each version's answers are.

import { make } from "./dom.js";
import { amount, duration, percent } from "./words.js";

const MOST_ACCOUNTS = 5;
const ACCOUNTS = {
  prompt: "reading questions",
  output: "writing answers",
  again: "computing again",
  hedge: "races that were lost",
  failed: "attempts that failed",
  shadow: "copies that nobody saw",
  left: "answers nobody waited for",
  idle: "idle",
  starting: "starting up",
  cached: "found in the cache",
};

const pair = (label, ...value) => make("div", { class: "pair" }, make("dt", {}, label), make("dd", {}, ...value));

export function costCard(cost) {
  const hasPrice = cost.usd_per_replica_hour > 0;
  const facts = hasPrice
    ? [
      pair("a million tokens", dollars(cost.usd_per_million_tokens)),
      pair("an answer", dollars(cost.usd_per_answer)),
      pair("so far", dollars(cost.usd)),
    ]
    : [
      pair("time of replicas so far", duration(cost.replica_s)),
      pair("for an answer", cost.answers ? `${amount(cost.replica_s / cost.answers)} s` : "–"),
    ];
  return [make("dl", { class: "pairs" }, ...facts), ...accounts(cost.by_account ?? {}), priceNote(cost, hasPrice)];
}

function priceNote(cost, hasPrice) {
  const text = hasPrice ? `at ${dollars(cost.usd_per_replica_hour)} an hour for each replica` : "no price was given, so this is time only";
  return make("p", { class: "quiet" }, text);
}

function accounts(byAccount) {
  const rows = Object.entries(byAccount).filter(([, line]) => line.seconds > 0).sort((a, b) => b[1].seconds - a[1].seconds);
  const all = rows.reduce((sum, [, line]) => sum + line.seconds, 0);
  if (!all) return [];
  return [
    make("p", { class: "quiet" }, "Where the replicas' time went:"),
    make("ul", { class: "plain-list shares" }, ...rows.slice(0, MOST_ACCOUNTS).map(([name, line]) =>
      make("li", { class: "share" },
        make("span", {}, ACCOUNTS[name] ?? name),
        make("progress", { max: 1, value: line.seconds / all, "aria-label": `share of ${ACCOUNTS[name] ?? name}` }),
        make("span", {}, percent(line.seconds / all))))),
  ];
}

const dollars = (value) =>
  typeof value === "number" ? `${value < 0.01 ? value.toPrecision(2) : value.toFixed(value < 1 ? 3 : 2)}\u00a0USD` : "–";

export function qualityCard(quality) {
  const versions = Object.entries(quality.versions ?? {});
  if (!versions.length) return [make("p", { class: "quiet" }, "No answer has been looked at yet.")];
  const head = ["answers", "liked", "refused", "repeat"];
  return [
    make("div", { class: "table", tabindex: 0 }, make("table", {},
      make("thead", {}, make("tr", {}, make("td", {}, ""), ...head.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...versions.map(([name, one]) => make("tr", {}, make("th", { scope: "row" }, name),
        ...[amount(one.answers), percent(one.liked), percent(one.refused), percent(one.looped)].map((text) => make("td", {}, text))))))),
    ...Object.entries(quality.answers_missing ?? {}).map(([name, missing]) =>
      make("p", { class: "quiet" }, `${name} is being compared; ${amount(missing)} answers are still missing`)),
    ...Object.entries(quality.verdicts ?? {}).map(([name, shifts]) => verdict(name, shifts)),
  ];
}

function verdict(name, shifts) {
  const alarms = shifts.filter((shift) => shift.alarm).map((shift) => shift.metric);
  return alarms.length
    ? make("p", { class: "fact", "data-level": "warning" }, `! ${name} answers differently: ${alarms.join(", ")}`)
    : make("p", { class: "fact", "data-level": "good" }, `✓ ${name} answers like the version before it`);
}
