// The fleet as tiles, one for each replica. A tile is made once and then kept up to date, so that a button keeps its focus.

import { press } from "./calls.js";
import { byId, make, setData, setText } from "./dom.js";
import { STATES, amount, percent, plural } from "./words.js";

const STALE_S = 2.5; // half a second between two reports: a replica this silent hangs, or its machine is too busy
const HANG_S = 10;
const tiles = new Map();

export function showFleet(status) {
  const list = byId("tiles");
  const rows = [...status.replicas].sort((a, b) => a.replica_id.localeCompare(b.replica_id, "en", { numeric: true }));
  const seen = new Set(rows.map((row) => row.replica_id));
  for (const [id, tile] of tiles) {
    if (!seen.has(id)) {
      tile.root.remove();
      tiles.delete(id);
    }
  }
  rows.forEach((row, place) => {
    if (!tiles.has(row.replica_id)) tiles.set(row.replica_id, newTile(row.replica_id));
    const tile = tiles.get(row.replica_id);
    if (list.children[place] !== tile.root) list.insertBefore(tile.root, list.children[place] ?? null);
    fill(tile, row, status.can_interfere);
  });
}

export function stateOf(row) {
  if (row.state === "ready" && (row.report_age_s ?? 0) > STALE_S) return STATES.hangs;
  return STATES[row.state] ?? { word: row.state, icon: "?", tone: "info" };
}

function newTile(id) {
  const part = (name, tag = "span", attributes = {}) => make(tag, { class: name, ...attributes });
  const tile = {
    icon: part("icon", "span", { "aria-hidden": "true" }),
    word: part("word"),
    model: part("model", "p"),
    busy: part("busy", "p"),
    kv: make("meter", { min: 0, max: 1, high: 0.85, "aria-label": `KV cache of ${id} in use` }),
    kvText: part("kv-text"),
    more: part("more quiet", "p"),
    kill: make("button", { type: "button", "aria-label": `Kill ${id}` }, "Kill"),
    hang: make("button", { type: "button", "aria-label": `Freeze ${id} for ${HANG_S} s` }, "Freeze 10 s"),
  };
  tile.buttons = make("div", { class: "row" }, tile.kill, tile.hang);
  tile.root = make(
    "li",
    { class: "tile", "data-replica": id },
    make("div", { class: "tile-head" }, make("h3", {}, id), make("span", { class: "state" }, tile.icon, " ", tile.word)),
    tile.busy,
    make("p", { class: "kv", title: "Share of the memory for running requests (the KV cache) that is in use" },
      make("span", { class: "quiet" }, "memory "), tile.kv, " ", tile.kvText),
    tile.more,
    tile.buttons,
  );
  const path = `/admin/replicas/${encodeURIComponent(id)}`;
  tile.kill.addEventListener("click", () => press(tile.kill, path, { action: "kill" }, `${id} is killed`));
  tile.hang.addEventListener("click", () =>
    press(tile.hang, path, { action: "hang", seconds: HANG_S }, `${id} is frozen for ${HANG_S} s`));
  return tile;
}

function fill(tile, row, canInterfere) {
  const state = stateOf(row);
  setData(tile.root, "tone", state.tone);
  setText(tile.icon, state.icon);
  setText(tile.word, state.word);
  const waiting = row.queue_depth ? `, ${amount(row.queue_depth)} waiting` : "";
  setText(tile.busy, `${amount(row.running)} running${waiting}`);
  tile.kv.value = row.kv_used_fraction ?? 0;
  setText(tile.kvText, percent(row.kv_used_fraction));
  setText(tile.more, facts(row).join(" · "));
  tile.buttons.hidden = !canInterfere;
  tile.kill.disabled = tile.hang.disabled = row.pid === null || row.state === "starting";
}

function facts(row) {
  const found = [`${amount(row.tokens_per_s)} tokens/s`];
  if (row.state === "down") return ["its process is started anew"];
  if (row.model && !row.replica_id.startsWith(row.model)) found.push(row.model);
  if (row.region) found.push(row.region);
  if (row.restarts) found.push(plural(row.restarts, "restart"));
  if (row.paced) found.push("paced");
  return found;
}
