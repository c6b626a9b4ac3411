// Numbers and states as a person reads them. Pure.

export const STATES = {
  ready: { word: "ready", icon: "●", tone: "good" },
  starting: { word: "starting", icon: "◌", tone: "info" },
  draining: { word: "draining", icon: "◐", tone: "info" },
  down: { word: "down", icon: "✕", tone: "alarm" },
  hangs: { word: "hangs?", icon: "‖", tone: "warning" },
};

export const LEVELS = {
  info: { icon: "·", word: "note" },
  good: { icon: "✓", word: "good" },
  warning: { icon: "!", word: "warning" },
  alarm: { icon: "✕", word: "alarm" },
};

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export function seconds(value) {
  if (!isNumber(value)) return "–";
  if (value < 1) return `${Math.round(value * 1000)}\u00a0ms`;
  return value < 100 ? `${value.toPrecision(2)}\u00a0s` : `${Math.round(value)}\u00a0s`;
}

export function duration(value) {
  if (!isNumber(value)) return "–";
  if (value < 90) return `${Math.round(value)}\u00a0s`;
  if (value < 5400) return `${Math.round(value / 60)}\u00a0min`;
  return `${(value / 3600).toFixed(1)}\u00a0h`;
}

export function amount(value) {
  if (!isNumber(value)) return "–";
  if (value === 0 || Math.abs(value) >= 20) return Math.round(value).toLocaleString("en-GB");
  return String(Number(value.toPrecision(Math.abs(value) >= 10 ? 3 : 2))); // as many digits as one can use
}

export const percent = (share, digits = 0) => (isNumber(share) ? `${(share * 100).toFixed(digits)} %` : "–");

export function shareOf(share) {
  return isNumber(share) ? `${Number((share * 100).toPrecision(3))}\u00a0%` : "–";
}

export const clockTime = (at_s) =>
  new Date(at_s * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export const plural = (count, one, many = `${one}s`) => `${amount(count)} ${count === 1 ? one : many}`;
