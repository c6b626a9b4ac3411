// Cost, promises, quality and experiments: a few figures each, in words.

import { make } from "./dom.js";
import { amount, percent, shareOf } from "./words.js";

const row = (label, value, level = null) =>
  make("div", { class: "pair", "data-level": level }, make("dt", {}, label), make("dd", {}, value));
const list = (...rows) => make("dl", { class: "pairs" }, ...rows.filter((each) => each !== null));

export function costCard(cost) {
  const known = [];
  if (cost.usd_per_million_tokens !== undefined) known.push(row("for a million tokens", dollars(cost.usd_per_million_tokens)));
  return [known.length ? list(...known) : flat(cost)];
}

export function sloCard(slo) {
  return [flat(slo)];
}

export function qualityCard(quality) {
  return [flat(quality)];
}

export function experimentCard(experiment) {
  return [flat(experiment)];
}

export const dollars = (value) =>
  typeof value === "number" ? `${value.toFixed(value < 1 ? 3 : 2)} USD` : "–";

// Any section as a list of its figures, one level deep.
function flat(section, depth = 0) {
  if (section === null || typeof section !== "object") return make("span", {}, said(section));
  const entries = Object.entries(section).slice(0, 12);
  return list(...entries.map(([name, value]) =>
    row(name.replaceAll("_", " "), value !== null && typeof value === "object" && depth < 1 ? flat(value, depth + 1) : said(value))));
}

function said(value) {
  if (typeof value === "number") return amount(value);
  if (value !== null && typeof value === "object") return JSON.stringify(value);
  return String(value ?? "–");
}

export { percent, shareOf };
