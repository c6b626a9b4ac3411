// Buttons for the load and for rollouts. Each says what it led to; a part that does not run has no buttons.

import { press } from "./calls.js";
import { byId, setText } from "./dom.js";
import { amount, percent } from "./words.js";

const MODEL = "large"; // of which the project ships a good second version and a bad one
const GOOD = `${MODEL}@2`;
const BAD = `${MODEL}@bad`;
const STAGES = { strategy: "canary", shares: [0.2, 0.5, 1] };
const ENDED = new Set(["done", "rolled_back", "failed"]);

export function startControls() {
  for (const button of document.querySelectorAll("[data-load]")) {
    const factor = Number(button.dataset.load);
    button.addEventListener("click", () => press(button, "/admin/load", { factor }, `the load is ×${factor} now`));
  }
  const start = (id, body, done) =>
    byId(id).addEventListener("click", (event) => press(event.currentTarget, "/admin/rollout", body, done));
  start("start-good", { action: "start", new: GOOD, ...STAGES }, `a rollout of ${GOOD} has begun`);
  start("start-bad", { action: "start", new: BAD, without_eval: true, ...STAGES },
    `a rollout of ${BAD} has begun, without its test score`);
  start("roll-back", { action: "rollback" }, "rolled back");
  start("put-away", { action: "clear" }, "put away");
}

export function showControls(status) {
  const load = status.load ?? null;
  byId("load-control").hidden = load === null;
  if (load !== null) showLoad(load);
  const models = new Set((status.models ?? []).map((name) => name.split("@")[0]));
  byId("rollout-control").hidden = !status.can_roll_out || !models.has(MODEL);
  const phase = status.rollout?.phase;
  const isUnderWay = Boolean(phase) && !ENDED.has(phase);
  byId("roll-back").disabled = !isUnderWay;
  byId("put-away").hidden = !ENDED.has(phase);
  byId("start-good").disabled = byId("start-bad").disabled = isUnderWay;
}

function showLoad(load) {
  for (const button of document.querySelectorAll("[data-load]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.load) === load.factor));
  }
  const right = typeof load.good_fraction === "number" ? `, ${percent(load.good_fraction)} right` : "";
  setText(byId("load-state"), `${amount(load.rate_per_s)}/s${right}`);
}
