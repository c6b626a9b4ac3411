// A rollout: how far it has come, what it waits for, and what the figures say so far.

import { make } from "./dom.js";
import { amount, duration, percent, shareOf } from "./words.js";

const STRATEGIES = {
  canary: "a few users first",
  "blue-green": "everybody at once",
  shadow: "nobody sees it, copies of questions only",
  ramp: "more users step by step",
};
const METRICS = {
  errors: "failed", slow: "slow", bad: "wrong or bad",
};

export function rolloutCard(rollout) {
  const { old, new: fresh, strategy, phase } = rollout;
  const what = make("p", {}, make("b", {}, `${old} → ${fresh}`), `, ${strategy}`,
    make("span", { class: "quiet" }, STRATEGIES[strategy] ? ` (${STRATEGIES[strategy]})` : ""));
  const untested = rollout.without_eval && make("p", { class: "fact", "data-level": "warning" }, "! started without its test score");
  const column = (...parts) => make("div", { class: "stack" }, ...parts);
  return [
    column(what, untested, phaseLine(rollout, phase)),
    column(stageBar(rollout), ...progress(rollout, phase)),
    column(verdicts(rollout)),
  ];
}

function phaseLine({ new: fresh, old, share, stages, reason, exposed_share }, phase) {
  const isShadow = stages?.at(-1) === 0;
  const lines = {
    waiting: ["info", `◌ waits until replicas of ${fresh} are ready`],
    failed: ["alarm", `✕ ${reason ?? `${fresh} could not be started`}`],
    running: ["info", `● ${shareOf(share)} of the users get ${fresh}`],
    warm: ["good", `✓ everybody gets ${fresh}; ${old} is kept warm for the way back`],
    done: ["good", isShadow ? "✓ the shadow has ended; nobody saw it" : `✓ done: ${fresh} has replaced ${old}`],
    rolled_back: ["alarm", `✕ rolled back: ${reason ?? "no reason was given"}`],
  };
  const [level, text] = lines[phase] ?? ["info", phase];
  const seen = phase === "rolled_back" && exposed_share !== undefined && exposed_share !== null
    ? ` ${shareOf(exposed_share)} of all answers in that time came from ${fresh}.` : "";
  return make("p", { class: "fact", "data-level": level }, text, seen);
}

function stageBar({ stages, stage, phase }) {
  if (!stages?.length) return null;
  const isOver = phase === "done" || phase === "warm";
  const state = (i) => {
    if (isOver || i < stage) return "passed";
    if (i !== stage) return "ahead";
    return phase === "rolled_back" ? "failed" : "now";
  };
  const signs = { passed: "✓ ", now: "● ", failed: "✕ ", ahead: "" };
  return make("ol", { class: "stages", "aria-label": "Stages" },
    ...stages.map((share, i) =>
      make("li", { class: "stage", "data-state": state(i), "aria-current": state(i) === "now" ? "step" : null },
        `${signs[state(i)]}${shareOf(share)}`)));
}

function progress({ answers_in_stage, min_answers, since_s }, phase) {
  if (phase !== "running" || !min_answers) return [];
  const have = Math.min(answers_in_stage, min_answers);
  return [
    make("p", { class: "progress-line" },
      make("progress", { max: min_answers, value: have, "aria-label": "Answers of this stage" }),
      ` ${amount(answers_in_stage)} of at least ${amount(min_answers)} answers`,
      make("span", { class: "quiet" }, since_s === undefined || since_s === null ? "" : `, ${duration(since_s)} in`)),
  ];
}

// What the answers say so far: how many of the new version went wrong, against the old one in the same time.
function verdicts({ p_values, alpha, counts, phase }) {
  const names = Object.keys(p_values ?? {});
  if (!names.length || phase === "waiting") return null;
  return make("ul", { class: "plain-list" }, ...names.map((name) => {
    const p = p_values[name];
    const limit = alpha?.[name] ?? 0.01;
    if (counts?.[name] && !counts[name].new?.of) {
      return make("li", { class: "quiet" }, `· ${METRICS[name] ?? name}: nothing is known of this yet`);
    }
    const [sign, level, words] = inWords(p, limit);
    const title = `p = ${p} against harm; the rollout goes back at ${limit}`;
    return make("li", { class: "fact", "data-level": level, title },
      `${sign} ${METRICS[name] ?? name}: ${words}`,
      make("span", { class: "quiet" }, ` ${compared(counts?.[name])}p\u00a0=\u00a0${amount(p)}`));
  }));
}

function compared(count) {
  if (!count?.new?.of || !count.old?.of) return "";
  return `${percent(count.new.bad / count.new.of, 1)} against ${percent(count.old.bad / count.old.of, 1)}, `;
}

function inWords(p, limit) {
  if (p <= limit) return ["✕", "alarm", "more than before"];
  if (p <= Math.sqrt(limit)) return ["!", "warning", "perhaps more than before"];
  return ["✓", "good", "no sign of harm"];
}
