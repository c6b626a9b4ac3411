// Six charts over the same time, drawn by uPlot. Lines differ by dash as well as by colour, and each has its value in
// words beside it: the newest, or the one below the pointer.

import uPlot from "./uplot/uPlot.esm.js";
import { byId, make, setText } from "./dom.js";
import { events, onEvent } from "./events.js";
import { amount, clockTime, percent, seconds } from "./words.js";

const KEPT = 600; // samples
const HEIGHT = 118;
const DASHES = [[], [6, 3], [2, 3]];
const MARKED_KINDS = new Set(["person", "rollout", "load", "autoscaler", "experiment", "alert", "alerts"]);

const CHARTS = [
  {
    title: "Wait for the first word",
    about: "TTFT",
    lines: [["p50", "ttft_p50_s"], ["p95", "ttft_p95_s"], ["p99", "ttft_p99_s"]],
    form: seconds,
  },
  { title: "Text written", about: "all replicas", lines: [["tokens/s", "tokens_per_s"]], form: amount },
  {
    title: "Questions answered",
    about: "per second",
    lines: [["answered", "requests_per_s"], ["of them failed", "failed_per_s"]],
    form: amount,
  },
  { title: "Work in the replicas", about: "requests", lines: [["running", "running"], ["waiting", "waiting"]], form: amount },
  {
    title: "Memory in use",
    about: "KV cache",
    lines: [["mean", "kv_mean"], ["fullest", "kv_most"]],
    form: (value) => percent(value),
    most: 1,
  },
  {
    title: "Replicas",
    about: "ready, and all there are",
    lines: [["ready", "ready"], ["in all", "replicas"]],
    form: amount,
    whole: true,
    stepped: true,
  },
];

let columns = {}; // name -> values, oldest first
const drawn = [];
let hovered = null; // index of the sample below the pointer

export function startCharts() {
  for (const chart of CHARTS) drawn.push(newChart(chart));
  byId("span").addEventListener("change", redrawCharts);
  new ResizeObserver(() => drawn.forEach((one) => one.plot.setSize({ width: one.place.clientWidth, height: HEIGHT }))).observe(
    byId("charts"));
  onEvent(() => drawn.forEach((one) => one.plot.redraw(false)));
}

export function addHistory(history) {
  columns = Object.fromEntries(history.columns.map((name, i) => [name, history.rows.map((row) => row[i])]));
  show();
}

export function addRow(row) {
  Object.values(columns).forEach((values, i) => {
    values.push(row[i]);
    if (values.length > KEPT) values.shift();
  });
  show();
}

export function redrawCharts() {
  drawn.forEach((one) => one.recolour());
  show();
}

function show() {
  if (!columns.at_s) return;
  for (const { chart, plot } of drawn) plot.setData([columns.at_s, ...chart.lines.map(([, name]) => columns[name])]);
  showValues();
}

function showValues() {
  const last = columns.at_s.length - 1;
  const at = hovered === null || hovered > last ? last : hovered;
  for (const { chart, values } of drawn) {
    chart.lines.forEach(([, name], i) => setText(values[i], chart.form(columns[name][at])));
  }
  document.body.dataset.samples = String(columns.at_s.length);
}

function newChart(chart) {
  const values = chart.lines.map(() => make("b", {}));
  const legend = make(
    "figcaption",
    {},
    make("span", { class: "chart-title" }, chart.title),
    " ",
    make("span", { class: "quiet" }, chart.about),
    make("span", { class: "legend" },
      ...chart.lines.map(([label], i) =>
        make("span", { class: "key" }, make("i", { class: `line line-${i}`, "aria-hidden": "true" }), `${label} `, values[i]))),
  );
  const place = make("div", { class: "plot", role: "img", "aria-label": `${chart.title}: a chart; the newest values are in its caption` });
  byId("charts").append(make("figure", { class: "chart" }, legend, place));
  const plot = new uPlot(options(chart, place), [[], ...chart.lines.map(() => [])], place);
  const recolour = () => {
    plot.redraw(false);
  };
  return { chart, plot, place, values, recolour };
}

function options(chart, place) {
  const axis = { stroke: () => colour("axis"), grid: { stroke: () => colour("grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  return {
    width: Math.max(200, place.clientWidth),
    height: HEIGHT,
    legend: { show: false },
    cursor: {
      y: false,
      drag: { x: false, y: false },
      sync: { key: "miniserve" },
      points: { size: 6 },
    },
    padding: [8, 8, 0, 0],
    scales: { x: { time: true, range: timeRange }, y: { range: (_, __, top) => [0, chart.most ?? roundTop(top)] } },
    axes: [
      { ...axis, space: 70, size: 24, values: (_, ticks) => ticks.map((tick) => clockTime(tick).slice(0, 5)), incrs: [60, 120, 300] },
      { ...axis, space: 34, size: 48, incrs: chart.whole ? [1, 2, 5, 10, 20, 50] : undefined, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : chart.form(tick))) },
    ],
    series: [
      {},
      ...chart.lines.map(([label], i) => ({
        label,
        stroke: () => colour(`line-${i}`),
        width: 1.6,
        dash: DASHES[i],
        points: { show: false },
        spanGaps: false,
        paths: chart.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
      })),
    ],
    hooks: { setCursor: [noteCursor], draw: [drawMarks] },
  };
}

function timeRange() {
  const newest = columns.at_s?.at(-1) ?? Date.now() / 1000;
  return [newest - Number(byId("span").value), newest];
}

function roundTop(top) {
  if (!(top > 0)) return 1;
  const step = 10 ** Math.floor(Math.log10(top * 1.1));
  return Math.ceil((top * 1.1) / (step / 2)) * (step / 2);
}

function noteCursor(plot) {
  hovered = plot.cursor.idx ?? null;
  if (columns.at_s) showValues();
}

function drawMarks(plot) {
  const { ctx, bbox } = plot;
  const [from_s] = timeRange();
  ctx.save();
  for (const event of events()) {
    const isMarked = event.level === "warning" || event.level === "alarm" || MARKED_KINDS.has(event.kind);
    if (!isMarked || event.at_s < from_s) continue;
    const x = Math.round(plot.valToPos(event.at_s, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.strokeStyle = colour(`level-${event.level}`);
    ctx.lineWidth = devicePixelRatio;
    ctx.globalAlpha = 0.65;
    ctx.setLineDash(event.level === "info" ? [2, 4] : []);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

// The style sheet decides on colours, for light and dark; a canvas has to be told.
function colour(name) {
  const probe = byId(`colour-${name}`) ?? document.body.appendChild(make("span", { id: `colour-${name}`, class: `colour ${name}`, hidden: true }));
  return getComputedStyle(probe).color;
}
