"""Chapter 2's experiments: an answer of Larkspur in virtual time, a reader, a real replica with and without streaming.

Larkspur is the course's fictional service: an assistant for a chain of garden centres. Contains no answers.
`python -m miniserve.course.chapters.ch02_why_streaming.lab` measures the real replica again and saves what
exercise 2.4 is judged by.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

from miniserve.clock import monotonic
from miniserve.course.chapters.ch12_balancer.lab import HARDWARE, MODEL, SLOTS, generation, one_replica
from miniserve.course.figures import BLACK, line_style, new_figure, show
from miniserve.course.tables import as_text, table
from miniserve.hardware.prices import load_price_list
from miniserve.observe.reading import READ_S, read_pieces
from miniserve.sse import SSEDecoder
from miniserve.workload.lengths import CONVERSATION_OUTPUT, CONVERSATION_PROMPT

RESULTS = Path(__file__).resolve().parents[4] / "data" / "results"
PROMPT_TOKENS = CONVERSATION_PROMPT.at(0.5)  # half of all published chat prompts are longer
ANSWER_TOKENS = CONVERSATION_OUTPUT.at(0.8)  # one answer in five is longer
CHUNK_TOKENS = 512  # of a prompt that Larkspur's replicas read in one step

# --- Larkspur, in virtual time -------------------------------------------------------------------------------------


@functools.cache
def larkspur_answer() -> tuple[float, ...]:
    """Return when each token of a chat answer is there, in seconds after the question, on one of Larkspur's L4s.

    Other answers in progress fill the replica's other slots. The scheduler is the real one; a formula says how long
    each step takes.
    """
    scheduler, step_time = one_replica(CHUNK_TOKENS)
    for i in range(SLOTS - 1):
        scheduler.add(generation(f"other-{i}", PROMPT_TOKENS, 4 * ANSWER_TOKENS))
    now_s = 0.0
    while not all(sequence.num_tokens > sequence.num_prompt for sequence in scheduler.sequences()):
        step = scheduler.schedule(now_s)
        now_s += step_time.seconds(step)
        scheduler.commit(step, itertools.repeat(0))
    asked_s = now_s
    came_s: list[float] = []
    scheduler.add(generation("chat", PROMPT_TOKENS, ANSWER_TOKENS, asked_s))
    while len(came_s) < ANSWER_TOKENS:
        step = scheduler.schedule(now_s)
        now_s += step_time.seconds(step)
        if any(sequence.request_id == "chat" for sequence in scheduler.commit(step, itertools.repeat(0))):
            came_s.append(now_s - asked_s)
    return tuple(came_s)


def gap_s(answers: int) -> float:
    """Return the time between two tokens when an L4 writes `answers` answers at once, each half written."""
    prices = load_price_list()
    step_time = prices.machine(HARDWARE).step_time(prices.model(MODEL))
    context_tokens = answers * (PROMPT_TOKENS + ANSWER_TOKENS // 2)
    return step_time.decode_seconds(answers, context_tokens, 1)[0]


# --- a timeline on paper -------------------------------------------------------------------------------------------

ARRIVE_MS = (600, 700, 800, 900, 1700, 1800, 2000, 2500)  # eight pieces; the writer paused after the fourth
READ_MS = 200  # what the reader needs for one


def _timeline(arrive_ms: Sequence[int], read_ms: int) -> dict[str, list[int]]:
    read = read_pieces(arrive_ms, read_ms)
    return {
        "piece": list(range(1, len(read) + 1)),
        "arrives (ms)": list(arrive_ms),
        "begins (ms)": [int(piece.begins_s) for piece in read],
        "ends (ms)": [int(piece.ends_s) for piece in read],
        "waited (ms)": [int(piece.waited_s) for piece in read],
    }


THREE_PIECES = _timeline((300, 350, 700), 100)  # the worked example


def draw_timeline(rows: Sequence[Sequence[float]] | None) -> None:
    """Draw the eight pieces as they arrive, streamed or whole, and how they are read if `rows` say so."""
    figure, axes = new_figure("Eight pieces of text", x="ms after the question", y="pieces", panels=2, size=(8.4, 3.4))
    count = len(ARRIVE_MS)
    places = list(range(1, count + 1))
    for ax, name, arrive in zip(axes, ("streamed", "whole"), (ARRIVE_MS, (ARRIVE_MS[-1],) * count), strict=True):
        ax.step([0, *arrive], [0, *places], where="post", **line_style(0), label="arrived")
        ax.set_title(name, fontsize=10)
        ax.set_xlim(0, ARRIVE_MS[-1] + count * READ_MS + 100)
    words = f"Streamed pieces arrive from {ARRIVE_MS[0]} ms on; whole, all arrive at {ARRIVE_MS[-1]:,} ms."
    if rows is not None:
        ends = [row[2] for row in rows]
        axes[0].step([0, *ends], [0, *places[count - len(ends) :]], where="post", **line_style(1), label="read")
        whole = [ARRIVE_MS[-1] + place * READ_MS for place in places]
        axes[1].step([0, *whole], [0, *places], where="post", **line_style(1), label="read")
        words += f" Streamed, the last one is read at {as_text(ends[-1])} ms; whole, at {whole[-1]:,} ms."
    axes[0].legend(loc="upper left")
    show(figure, alt=words)


# --- the perceived wait --------------------------------------------------------------------------------------------


def steady(ttft_s: float, tpot_s: float, tokens: int) -> list[float]:
    """Return when the tokens of an answer written at an even pace come."""
    return [ttft_s + i * tpot_s for i in range(tokens)]


def draw_waits(tpots_s: Sequence[float], waits_s: Mapping[str, Sequence[float]]) -> None:
    """Draw perceived waits over the pace of writing, one curve for each way to get them."""
    figure, ax = new_figure("Waiting for an answer", x="seconds from token to token", y="perceived wait (s)")
    for i, (name, waits) in enumerate(waits_s.items()):
        ax.plot(tpots_s, waits, **line_style(i, markers=True), label=name)
    ax.axvline(READ_S, color=BLACK, linewidth=0.8)
    where = (READ_S, 0.95)  # data across, share of the height up
    ax.annotate(
        "reading speed", where, (4, 0), xycoords=ax.get_xaxis_transform(), textcoords="offset points", fontsize=9
    )
    ax.set_ylim(0, None)
    ax.legend()
    ends = "; ".join(
        f"{name} {as_text(waits[0])} s at first and {as_text(waits[-1])} s at last" for name, waits in waits_s.items()
    )
    show(
        figure,
        alt=f"Wait for {as_text(tpots_s[0])} s to {as_text(tpots_s[-1])} s a token; reading takes {as_text(READ_S)} s: "
        f"{ends}. Streamed, it stays level up to the reading speed and rises beyond it.",
        data={"seconds per token": tpots_s, **{f"{name} (s)": waits for name, waits in waits_s.items()}},
    )


# --- filters that hold text back -----------------------------------------------------------------------------------


def begins(text: str, stop: str) -> str:
    """Return the longest end of `text` that may be the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((text[-n:] for n in range(longest, 0, -1) if text.endswith(stop[:n])), "")


def piece_by_piece(pieces: Sequence[str], stop: str) -> str:
    """Look for the stop string in each piece alone."""
    shown = ""
    for piece in pieces:
        if stop in piece:
            return shown + piece[: piece.index(stop)]
        shown += piece
    return shown


def keeps_the_rest(pieces: Sequence[str], stop: str) -> str:
    """Hold back what may begin the stop string; give out nothing more when the text has ended."""
    shown, held = "", ""
    for piece in pieces:
        text = held + piece
        if stop in text:
            return shown + text[: text.index(stop)]
        held = begins(text, stop)
        shown += text[: len(text) - len(held)]
    return shown


def loses_false_alarms(pieces: Sequence[str], stop: str) -> str:
    """Hold back what may begin the stop string; throw it away when the next piece shows that it does not."""
    shown, held = "", ""
    for piece in pieces:
        text = held + piece
        if stop in text:
            return shown + text[: text.index(stop)]
        before, held = len(held), begins(text, stop)
        shown += text[before : len(text) - len(held)]
    return shown + held


# --- a real replica ------------------------------------------------------------------------------------------------

# Given this prompt and told not to stop, the small model gives text with every token: nonsense, but at real times.
LONG_ANSWER = {"model": "small", "prompt": "Write abcdefgh backwards.", "temperature": 0, "ignore_eos": True}
KNOWN_TOKENS, ASKED_TOKENS = 101, 401
REPEATS, RECORD_REPEATS = 7, 21


@dataclass(frozen=True, slots=True)
class Answer:
    """What one client got: pieces of text and when each came, in seconds after it had asked."""

    came_s: tuple[float, ...]
    pieces: tuple[str, ...]
    ended_s: float  # nothing more comes
    received_bytes: int

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def ttft_s(self) -> float:
        return self.came_s[0]

    @property
    def gaps_s(self) -> list[float]:
        return [later - earlier for earlier, later in itertools.pairwise(self.came_s)]


@asynccontextmanager
async def real_replica(name: str = "small", folder: Path | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Start one replica in its own process; yield a client for it. The process ends with the block."""
    from miniserve.models.store import resolve_model
    from miniserve.processes.stack import GatewayOptions, replica_command
    from miniserve.processes.supervisor import Supervisor

    options = GatewayOptions(name, folder or resolve_model(name, Path(), offline=True))
    command, place = replica_command(options, ["--offline", "--threads", "1"]), _Place()
    async with (
        Supervisor(command, ["r0"], place, monotonic, drain_timeout_s=10.0),
        httpx.AsyncClient(base_url=place.url, timeout=60.0, trust_env=False) as client,
    ):
        yield client


class _Place:
    """Remembers where the replica answers."""

    url = ""

    async def up(self, replica_id: str, url: str) -> None:
        self.url = url

    def down(self, replica_id: str) -> None:
        self.url = ""


async def ask(client: httpx.AsyncClient, body: Mapping[str, object]) -> Answer:
    """Send one request; write down when each piece of the answer's text comes."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    came_s: list[float] = []
    pieces: list[str] = []
    received, decoder, asked_s = b"", SSEDecoder(), monotonic()
    async with client.stream("POST", path, json=dict(body)) as response:
        response.raise_for_status()
        async for chunk in response.aiter_raw():
            received += chunk
            for data in decoder.feed(chunk) if body["stream"] else ():
                if text := _text(data):
                    came_s.append(monotonic() - asked_s)
                    pieces.append(text)
    ended_s = monotonic() - asked_s
    if not body["stream"]:  # then everything that came is one JSON text
        came_s, pieces = [ended_s], [_text(received)]
    return Answer(tuple(came_s), tuple(pieces), ended_s, len(received))


def _text(data: str | bytes) -> str:
    choices = [] if data == "[DONE]" else json.loads(data)["choices"]
    for choice in choices:
        said = choice if "text" in choice else choice.get("delta") or choice.get("message") or {}
        return str(said.get("text") or said.get("content") or "")
    return ""


async def ask_in_turn(
    client: httpx.AsyncClient,
    wanted: Mapping[str, tuple[int, bool]],
    repeats: int = REPEATS,
    body: Mapping[str, object] = LONG_ANSWER,
) -> dict[str, list[Answer]]:
    """Ask for each of `wanted` (tokens, streamed or not), again and again, so that a busy moment hits them all.

    The first round of a fresh process is slow, so it is dropped.
    """
    answers: dict[str, list[Answer]] = {name: [] for name in wanted}
    for _ in range(1 + repeats):
        for name, (tokens, stream) in wanted.items():
            answers[name].append(await ask(client, {**body, "max_tokens": tokens, "stream": stream}))
    return {name: found[1:] for name, found in answers.items()}


def typical(run: Sequence[Answer]) -> Answer:
    """Return the answer that took the median time."""
    return sorted(run, key=lambda answer: answer.ended_s)[len(run) // 2]


def compare(runs: Mapping[str, Sequence[Answer]], caption: str) -> None:
    """Show what clients saw, the median of each figure over equal requests."""
    columns: dict[str, list[object]] = {
        "first text (ms)": [_median_ms([answer.ttft_s for answer in run]) for run in runs.values()],
        "median gap (ms)": [_gap(run, median) for run in runs.values()],
        "longest gap (ms)": [_gap(run, max) for run in runs.values()],
        "all there (ms)": [_median_ms([answer.ended_s for answer in run]) for run in runs.values()],
        "pieces": [median(len(answer.pieces) for answer in run) for run in runs.values()],
        "bytes": [median(answer.received_bytes for answer in run) for run in runs.values()],
    }
    table({"asked for": list(runs), **columns}, caption)


def _median_ms(seconds: Sequence[float]) -> float:
    return 1000 * median(seconds)


def _gap(run: Sequence[Answer], which: Any) -> object:
    gaps = [which(answer.gaps_s) for answer in run if answer.gaps_s]
    return _median_ms(gaps) if gaps else "-"


def draw_arrivals(answers: Mapping[str, Answer]) -> None:
    """Draw how much text each client has, over time."""
    figure, ax = new_figure("The same answer, twice", x="ms after the question", y="characters on the screen")
    for i, (name, answer) in enumerate(answers.items()):
        shown = np.unique(np.linspace(0, len(answer.came_s) - 1, 60).astype(int))
        lengths = np.cumsum([len(piece) for piece in answer.pieces])
        times_ms = [0, *(1000 * answer.came_s[j] for j in shown)]
        ax.step(times_ms, [0, *lengths[shown]], where="post", **line_style(i, markers=len(shown) == 1), label=name)
    ax.legend(loc="upper left")
    firsts = "; ".join(
        f"{name}: first text after {as_text(1000 * answer.came_s[0])} ms, all after {as_text(1000 * answer.ended_s)} ms"
        for name, answer in answers.items()
    )
    show(figure, alt=f"Characters on the screen over time. {firsts}.")


def smollm2() -> Path | None:
    """Return the folder of SmolLM2 if it has been fetched; None otherwise. Nothing is downloaded."""
    from miniserve.models.store import cached_models, default_cache

    found = (model for model in cached_models(default_cache()) if model.name == "smollm2" and not model.problem)
    return next((model.folder for model in found), None)


async def ask_vllm(
    question: Sequence[Mapping[str, str]],
    wanted: Mapping[str, tuple[int, bool]],
    transport: httpx.AsyncBaseTransport | None = None,
) -> dict[str, list[Answer]] | None:
    """Ask the vLLM server named by the environment variable VLLM_URL; if there is none, say so and return None."""
    url = os.environ.get("VLLM_URL", "")
    if not url:
        print("VLLM_URL names no server, so this cell is skipped. Nothing later needs it.")
        return None
    try:
        async with httpx.AsyncClient(base_url=url, timeout=60.0, trust_env=False, transport=transport) as client:
            models = (await client.get("/v1/models")).raise_for_status().json()["data"]
            body = {"model": models[0]["id"], "messages": question, "temperature": 0}
            return await ask_in_turn(client, wanted, repeats=3, body=body)
    except (httpx.HTTPError, httpx.InvalidURL, LookupError, ValueError) as error:  # or it is no such server
        print(f"VLLM_URL is {url}, and asking there failed ({type(error).__name__}: {error}); this cell is skipped.")
        return None


# --- cases ---------------------------------------------------------------------------------------------------------

CASES = {
    "a": "A customer asks how to prune roses and reads the answer of 300 words on a phone.",
    "b": "The stock program asks for five fields as JSON and books them once it has parsed all of them.",
    "c": "A customer is at the screen. A second model must judge the complete answer before any of it is shown.",
    "d": 'The shop\'s page asks whether a plant survives frost. The answer is one token, "yes" or "no".',
    "e": "Staff ask for a two-sentence summary of a contract of 30,000 tokens. The GPU reads it for 15 s.",
    "f": "The gateway streams to a proxy, which passes an answer on once it has 64 kB of it, or the end.",
    "g": "Five hundred article drafts are written at night; staff open the files in the morning.",
    "h": "A telephone assistant speaks each sentence as soon as it is complete. Answers have ten sentences.",
    "i": "At noon a question waits 20 s in a queue until a replica starts on it. Its answer takes 3 s.",
}
VERDICTS = {
    "helps": "a person takes it in while it is written",
    "needs the end": "the recipient needs all of it, or isn't there while it is written",
    "too short": "nothing comes after the first token",
    "too early": "most of the seconds pass before the first token",
    "held back": "a person would take it in as it comes, but something on the way holds it back",
}

# --- what was measured here ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recorded:
    """Medians measured on the machine this course was written on, in seconds; `where` describes that machine."""

    where: str
    known_s: float  # a whole answer of `KNOWN_TOKENS`
    known_ttft_s: float  # a streamed one, until its first text
    asked_s: float  # the same for `ASKED_TOKENS`
    asked_ttft_s: float
    asked_streamed_s: float  # until all of it is there


def recorded() -> Recorded:
    """Return the newest record."""
    record = json.loads(max(RESULTS.glob("*-streaming.json")).read_text(encoding="utf-8"))
    return Recorded(f"{record['environment']['cores']} cores of an {record['environment']['cpu']}", **record["result"])


async def measure() -> dict[str, float]:
    """Measure what `Recorded` holds, on a real replica."""
    wanted = {
        f"{n} {how}": (n, how == "streamed") for n in (KNOWN_TOKENS, ASKED_TOKENS) for how in ("whole", "streamed")
    }
    async with real_replica() as client:
        answers = await ask_in_turn(client, wanted, RECORD_REPEATS)
    first_s = {name: median(answer.ttft_s for answer in found) for name, found in answers.items()}
    streamed_s = median(answer.ended_s for answer in answers[f"{ASKED_TOKENS} streamed"])
    names = ("known_s", "known_ttft_s", "asked_s", "asked_ttft_s", "asked_streamed_s")
    return {name: round(value, 6) for name, value in zip(names, (*first_s.values(), streamed_s), strict=True)}


if __name__ == "__main__":
    from miniserve.bench.record import save_record

    print(save_record("streaming", asyncio.run(measure()), RESULTS))
