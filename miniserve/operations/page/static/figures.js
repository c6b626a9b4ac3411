// Any part's section of the status as figures for a person: names from its keys, units from their endings.

import { make } from "./dom.js";
import { amount, duration, percent, seconds } from "./words.js";

const MOST_ROWS = 12;
const ENDINGS = [
  [/_(fraction|share)$|^(share|fraction)$/, (value) => percent(value, 1)],
  [/_s$/, (value) => (Math.abs(value) < 60 ? seconds(value) : duration(value))],
  [/usd/, (value) => `${value.toFixed(Math.abs(value) < 1 ? 4 : 2)} USD`],
];

// Return elements for a section: pairs of a name and a figure, and a table for what is told of several things alike.
export function figures(section) {
  if (Array.isArray(section)) return section.length ? [table(section.map((one, i) => [one?.name ?? i + 1, one]))] : [none()];
  if (section === null || typeof section !== "object") return [make("p", {}, said("", section))];
  const plain = Object.entries(section).filter(([, value]) => value !== null && typeof value !== "object");
  const deep = Object.entries(section).filter(([, value]) => value !== null && typeof value === "object");
  const parts = plain.length ? [pairs(plain)] : [];
  const rows = deep.every(([, value]) => isPlain(value)) && areAlike(deep.map(([, value]) => value));
  if (rows && deep.length) return [...parts, table(deep)];
  for (const [name, value] of deep) {
    if (Object.keys(value).length) parts.push(make("h3", {}, words(name)), ...figures(value));
  }
  return parts.length ? parts : [none()];
}

const none = () => make("p", { class: "quiet" }, "Nothing to show yet.");
const isPlain = (value) => !Array.isArray(value) && Object.values(value).every((one) => one === null || typeof one !== "object");
const areAlike = (values) => new Set(values.map((one) => Object.keys(one).sort().join())).size === 1;

function pairs(entries) {
  return make("dl", { class: "pairs" },
    ...entries.slice(0, MOST_ROWS).map(([name, value]) =>
      make("div", { class: "pair" }, make("dt", {}, words(name)), make("dd", {}, said(name, value)))));
}

function table(rows) {
  const names = [...new Set(rows.flatMap(([, row]) => Object.keys(row ?? {})))].filter((name) => name !== "name");
  const shown = names.filter((name) => rows.some(([, row]) => row?.[name] !== null && typeof row?.[name] !== "object"));
  return make("div", { class: "table", tabindex: 0 },
    make("table", {},
      make("thead", {}, make("tr", {}, make("td", {}), ...shown.map((name) => make("th", { scope: "col" }, words(name))))),
      make("tbody", {}, ...rows.slice(0, MOST_ROWS).map(([title, row]) =>
        make("tr", {}, make("th", { scope: "row" }, String(title)), ...shown.map((name) => make("td", {}, said(name, row?.[name]))))))));
}

const words = (name) => name.replace(/_(s|fraction)$/, "").replaceAll("_", " ").replace(/^usd per/, "cost per").replace(/\b(ttft|slo|kv)\b/g, (word) => word.toUpperCase());

function said(name, value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value ?? "–");
  const [, form] = ENDINGS.find(([ending]) => ending.test(name)) ?? [null, amount];
  return form(value);
}
