// The state of everything in one sentence. Pure.

import { stateOf } from "./fleet.js";
import { amount, plural, seconds } from "./words.js";

const TOO_MANY_OVERRUNS = 0.05; // of a paced replica's steps

export function headline(status) {
  const rows = status.replicas;
  const troubled = rows.filter((row) => stateOf(row).tone === "alarm" || stateOf(row).tone === "warning");
  const ready = rows.filter((row) => row.state === "ready").length - troubled.filter((row) => row.state === "ready").length;
  const firing = alertsFiring(status.alerts);
  const ttft = status.requests?.ttft_s;
  const facts = [`${ready} of ${plural(rows.length, "replica")} ready`];
  if (status.requests) facts.push(`${amount(status.requests.tokens_per_s)} tokens/s`);
  if (ttft) facts.push(`answers begin after ${seconds(ttft.p50)}`);
  if (status.requests?.failed) facts.push(`${plural(status.requests.failed, "answer")} failed since the start`);
  let verdict = status.requests?.failed ? "All well now" : "All well";
  let level = "good";
  if (!status.ready) [verdict, level] = ["No replica is ready, so questions are refused", "alarm"];
  else if (firing.length) [verdict, level] = [plural(firing.length, "alert"), "alarm"];
  else if (troubled.length) {
    verdict = `${troubled.map((row) => row.replica_id).join(" and ")} ${troubled.length === 1 ? "is" : "are"} out; the others answer`;
    level = "warning";
  }
  return { text: `${verdict}: ${facts.join(" · ")}`, level };
}

// Return what a person must know to read the figures rightly; "" if there is nothing.
export function caveat(status) {
  const late = status.replicas.filter((row) => (row.overrun_fraction ?? 0) > TOO_MANY_OVERRUNS);
  if (!late.length) return "";
  const names = late.map((row) => row.replica_id).join(", ");
  return `! This machine is too busy: ${names} cannot keep ${late.length === 1 ? "its" : "their"} pace, so these times mean little.`;
}

export const alertsFiring = (alerts) => alerts?.firing ?? [];
