// What this page asks of the gateway. Whatever changes the stack goes with the token that came with the page.

import { byId, setText } from "./dom.js";

const token = document.querySelector('meta[name="miniserve-token"]').content;

export async function post(path, body) {
  const headers = { "content-type": "application/json", "x-admin-token": token };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  return read(answer);
}

export async function read(answer) {
  const text = await answer.text();
  let json = null;
  try {
    json = JSON.parse(text);
  } catch {
    // what is no JSON is shown as it is
  }
  if (!answer.ok) throw new Error(json?.error?.message ?? `the gateway answered ${answer.status}`);
  return json;
}

let hush = 0;

// Say in one place what a press has led to; it stays long enough to be read.
export function sayPressed(text, level = "info") {
  const place = byId("pressed");
  setText(place, text);
  place.dataset.level = level;
  clearTimeout(hush);
  hush = setTimeout(() => setText(place, ""), 12_000);
}

// Press a button: it is busy until the answer has come, and the answer is said.
export async function press(button, path, body, done) {
  button.disabled = true;
  try {
    const answer = await post(path, body);
    sayPressed(`✓ ${answer?.done ?? done}`, "good");
  } catch (error) {
    sayPressed(`✕ ${error.message}`, "alarm");
  } finally {
    button.disabled = false;
  }
}
