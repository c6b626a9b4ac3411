// A question, and its answer as it is written. What befalls the stack meanwhile is noted below it.

import { post, read } from "./calls.js";
import { byId, make, setText } from "./dom.js";
import { onEvent } from "./events.js";
import { plural, seconds } from "./words.js";

const MAX_TOKENS = 300;
let asking = null; // AbortController of the answer that is being written
let writer = ""; // the model that writes it
let known = ""; // the models in the list
let answerId = null;

export function startAsking() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(byId("question").value.trim(), byId("model").value);
  });
  byId("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      byId("ask").requestSubmit();
    }
  });
  byId("stop").addEventListener("click", () => asking?.abort());
  for (const button of document.querySelectorAll("[data-rating]")) {
    button.addEventListener("click", () => rate(button.dataset.rating));
  }
  onEvent((event) => {
    const isItsOwn = event.kind === "replica" && event.text.includes(`${writer}-`); // replicas are called MODEL-NUMBER
    if (asking && writer && isItsOwn) byId("answer-events").append(make("li", {}, event.text));
  });
}

export async function showModels(status) {
  const served = (status.models ?? []).join();
  if (served === known) return;
  known = served;
  try {
    const models = (await read(await fetch("/v1/models"))).data.map((model) => model.id);
    const chosen = byId("model").value;
    byId("model").replaceChildren(...models.map((name) => make("option", { value: name, selected: name === chosen }, name)));
  } catch {
    known = ""; // asked again with the next snapshot
  }
}

async function ask(question, model) {
  if (!question || asking) return;
  asking = new AbortController();
  begin();
  const told = { text: "", tokens: 0, longestMs: 0, startMs: performance.now(), firstMs: null, by: model };
  try {
    await stream(question, model, told);
    const whole = told.finish === "length" ? "cut at its length limit" : "complete";
    setText(byId("answer-note"), `${told.by} answered, ${whole}: ${summary(told)}.`);
    byId("thumbs").hidden = answerId === null;
  } catch (error) {
    const stopped = error.name === "AbortError" ? "stopped by you" : `failed: ${error.message}`;
    setText(byId("answer-note"), `${stopped} (${summary(told)})`);
  } finally {
    asking = null;
    byId("send").disabled = false;
    byId("stop").hidden = true;
    byId("answer").dataset.state = "done";
  }
}

function begin() {
  answerId = null;
  writer = "";
  byId("answer").hidden = false;
  byId("answer").dataset.state = "writing";
  byId("thumbs").hidden = true;
  byId("send").disabled = true;
  byId("stop").hidden = false;
  setText(byId("thanks"), "");
  setText(byId("answer-text"), "");
  setText(byId("answer-note"), "waiting for the first word…");
  byId("answer-events").replaceChildren();
}

function summary(told) {
  const first = told.firstMs === null ? "" : `, the first after ${seconds((told.firstMs - told.startMs) / 1000)}`;
  const pause = told.tokens > 1 ? `, longest pause ${seconds(told.longestMs / 1000)}` : "";
  return `${plural(told.tokens, "token")}${first}${pause}`;
}

async function stream(question, model, told) {
  const body = {
    model,
    messages: [{ role: "user", content: question }],
    max_tokens: MAX_TOKENS,
    stream: true,
    stream_options: { include_usage: true },
  };
  const answer = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal: asking.signal,
  });
  if (!answer.ok) await read(answer);
  writer = told.by = answer.headers.get("x-miniserve-model") ?? model;
  setText(byId("answer-note"), `${told.by} is writing…`);
  for await (const data of dataOf(answer.body)) {
    if (data === "[DONE]") return;
    take(JSON.parse(data), told);
  }
  throw new Error("the stream ended before the answer was complete");
}

function take(chunk, told) {
  if (chunk.error) throw new Error(chunk.error.message);
  answerId = chunk.id ?? answerId;
  told.finish = chunk.choices?.[0]?.finish_reason ?? told.finish;
  told.tokens = chunk.usage?.completion_tokens ?? told.tokens;
  const text = chunk.choices?.[0]?.delta?.content;
  if (!text) return;
  const nowMs = performance.now();
  if (told.firstMs === null) told.firstMs = nowMs;
  else told.longestMs = Math.max(told.longestMs, nowMs - told.lastMs);
  told.lastMs = nowMs;
  told.tokens += 1; // a chunk may hold several; the last one tells how many there were
  told.text += text;
  setText(byId("answer-text"), told.text);
}

// The data of each server-sent event. The gateway ends its lines with LF.
async function* dataOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const whole = (rest + value).split("\n\n");
    rest = whole.pop();
    for (const event of whole) {
      const lines = event.split("\n").filter((line) => line.startsWith("data: "));
      if (lines.length) yield lines.map((line) => line.slice(6)).join("\n");
    }
  }
}

async function rate(rating) {
  try {
    const answer = await post("/v1/feedback", { id: answerId, rating });
    setText(byId("thanks"), answer?.counted === false ? "This answer was judged already." : "Noted, thank you.");
  } catch (error) {
    setText(byId("thanks"), error.message);
  }
}
