"""Chapter 7's experiments: prompts that some replicas already know, guides that are too popular, two real models.

Larkspur is the course's fictional service: an assistant for a chain of garden centres. Its fleet is simulated with the
real scheduler and block manager; the models that answer questions here are real and small. Contains no answers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from miniserve.clock import monotonic
from miniserve.config import EngineConfig, SchedulerConfig
from miniserve.course.chapters.ch12_balancer.lab import HARDWARE, MODEL, SLOTS
from miniserve.course.figures import bar_style, line_style, new_figure, show
from miniserve.course.tables import table
from miniserve.engine.step_time import StepTimeModel
from miniserve.hardware.prices import load_price_list
from miniserve.hardware.rightsizing import MeanLoad as MeanWorkload
from miniserve.hardware.rightsizing import seconds_per_request
from miniserve.models.store import cached_models, default_cache, resolve_model
from miniserve.observe.outcomes import Outcomes
from miniserve.observe.percentiles import percentile
from miniserve.policies.routing.affinity import PrefixAffinity
from miniserve.policies.routing.balancer import Balancer, LeastOutstanding
from miniserve.policies.routing.model_router import threshold_for
from miniserve.scenario.model import (
    Cache,
    EngineSection,
    FleetSection,
    PolicySection,
    ReplicaGroup,
    RunSection,
    Scenario,
)
from miniserve.seeds import uniform
from miniserve.sim.run import simulate
from miniserve.toml.reader import Recipe
from miniserve.types import ReplicaView, Request
from miniserve.workload.arrivals import Poisson
from miniserve.workload.conversations import MESSAGE, Conversations
from miniserve.workload.lengths import CONVERSATION_OUTPUT, CONVERSATION_PROMPT
from miniserve.workload.requests import Workload

ROOT = Path(__file__).resolve().parents[4]
POLICIES: Mapping[str, Callable[[], Balancer]] = {
    "by load": LeastOutstanding,
    "by prefix alone": partial(PrefixAffinity, beta=0.0),
    "by both": PrefixAffinity,
}


def replica_times() -> StepTimeModel:
    """Return how long the steps of one of Larkspur's replicas take, by the price list."""
    prices = load_price_list()
    return prices.machine(HARDWARE).step_time(prices.model(MODEL))


# --- a quarter of an hour with two replicas, by hand ---------------------------------------------------------------

BLOCK_TOKENS, GUIDE_TOKENS = 100, 200
EVENTS: tuple[tuple[str, int | None], ...] = (  # a request and its prompt's tokens; None: it has its answer
    ("a1", 1800), ("b1", 400), ("a1", None), ("c1", 500), ("a2", 2000), ("d1", 500), ("b1", None), ("e1", 500),
    ("a2", None), ("b2", 600), ("e1", None), ("a3", 2200), ("b2", None), ("b3", 800),
)  # fmt: skip

Row = tuple[str, int, int, str, int]  # request, outstanding on A and on B, replica, tokens found there


def prompt(chat: str, tokens: int) -> tuple[int, ...]:
    """Return a prompt: the guide that all chats begin with, then tokens of the chat's own."""
    own = 10_000 * (1 + ord(chat))
    return (*range(GUIDE_TOKENS), *range(own, own + tokens - GUIDE_TOKENS))


def by_hand(balancer: Balancer) -> list[Row]:
    """Let `balancer` place the requests of `EVENTS` on the replicas A and B, which never forget anything."""
    outstanding, place = {"A": 0, "B": 0}, dict[str, str]()
    sent: dict[str, list[tuple[int, ...]]] = {"A": [], "B": []}
    rows = []
    for name, tokens in EVENTS:
        if tokens is None:
            outstanding[place[name]] -= 1
            continue
        asked = prompt(name[0], tokens)
        views = [ReplicaView(id_, outstanding=count) for id_, count in outstanding.items()]
        chosen = balancer.choose(Request(name, MODEL, asked), views)
        assert chosen is not None, "there are two replicas"
        rows.append((name, outstanding["A"], outstanding["B"], chosen, held(sent[chosen], asked)))
        place[name] = chosen
        outstanding[chosen] += 1
        sent[chosen].append(asked)
    return rows


def held(sent: Sequence[tuple[int, ...]], asked: tuple[int, ...]) -> int:
    """Return how many leading tokens `asked` shares with a prompt in `sent`, in whole blocks."""
    longest = max((_shared(other, asked) for other in sent), default=0)
    return longest // BLOCK_TOKENS * BLOCK_TOKENS


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    different = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(different, min(len(one), len(other)))


# --- a quiet evening of chats --------------------------------------------------------------------------------------

EVENING_PER_S, EVENING_REQUESTS = 0.4, 1500


def _scenario(workload: Workload, policy: str, requests: int, replicas: int, blocks: int | None = None) -> Scenario:
    """Return a run of the fleet in which a late answer is just late: there is no second attempt."""
    return Scenario(
        workload,
        RunSection(requests=requests),
        FleetSection((ReplicaGroup("gpu", replicas, hardware=HARDWARE),), model=MODEL, probe_interval_s=5.0),
        EngineSection(SchedulerConfig(max_running=SLOTS, max_batch_tokens=512), Cache(num_blocks=blocks)),
        PolicySection(
            Recipe(policy, POLICIES[policy]),
            progress=Recipe("off", _off),
            ejector=Recipe("off", _off),
            first_token_s="off",
            first_token_share="off",
        ),
    )


def _off() -> Any:
    """Return no policy: the part is switched off."""
    return None


def _run(scenario: Scenario, seed: int) -> Outcomes:
    result = simulate(scenario, seed)
    if result.stopped is not None:
        raise RuntimeError(f"the run stopped early: {result.stopped}")
    return result.outcomes


def evening(policy: str, replicas: int = 4, *, blocks: int | None = None, seed: int = 1) -> Outcomes:
    """Simulate a quiet evening of chats. `blocks`: of each KV cache, instead of what the GPU has room for."""
    return _evening(policy, replicas, blocks or cache_blocks(), seed)


@functools.lru_cache(maxsize=64)
def _evening(policy: str, replicas: int, blocks: int, seed: int) -> Outcomes:
    chats = Workload(Poisson(EVENING_PER_S), conversations=Conversations(max_prompt_tokens=4000))
    return _run(_scenario(chats, policy, EVENING_REQUESTS, replicas, blocks), seed)


def found_share(outcomes: Outcomes) -> float:
    """Return the share of all prompt tokens that was found in the caches."""
    return float(outcomes.cached_tokens.sum() / outcomes.prompt_tokens.sum())


def mean_outstanding(outcomes: Outcomes, replicas: int) -> float:
    """Return how many requests a replica has outstanding, on average over the run."""
    return float(outcomes.e2e_s.sum() / outcomes.duration_s / replicas)


def cache_blocks() -> int:
    """Return how many blocks of 16 tokens the KV cache of one of Larkspur's replicas has."""
    prices = load_price_list()
    return prices.machine(HARDWARE).kv_blocks(prices.model(MODEL))


def draw_found(shares: Mapping[str, Sequence[float]], replicas: Sequence[int]) -> None:
    """Draw the share of prompt tokens found in the caches, over the number of replicas."""
    figure, ax = new_figure(
        "What the caches give, by the size of the fleet", x="replicas", y="prompt tokens found in caches"
    )
    for i, (name, values) in enumerate(shares.items()):
        ax.plot(replicas, values, **line_style(i, markers=True), label=name)
    ax.set_xticks(replicas)
    ax.set_ylim(0, None)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.legend(frameon=False)
    told = "; ".join(f"{name} from {values[0]:.0%} to {values[-1]:.0%}" for name, values in shares.items())
    show(
        figure,
        alt=f"Share of prompt tokens found in caches, from {replicas[0]} to {replicas[-1]} replicas: {told}.",
        data={"replicas": replicas, **{name: [f"{v:.1%}" for v in values] for name, values in shares.items()}},
    )


# --- a spring day: questions behind guides --------------------------------------------------------------------

SPRING_REQUESTS = 500
DAYS: Mapping[str, Mapping[str, float]] = {
    "Friday": {"guides": 40, "hot_share": 0.0},
    "Saturday": {"guides": 12, "hot_share": 0.6},
}


@dataclass(frozen=True, slots=True)
class Guides(Workload):
    """Single questions, each after one of a few long guides. One guide may be hot; the others share the rest.

    With a `hot_share` of 0, no guide is hot, and all have an equal share.
    """

    guides: int = 12
    guide_tokens: int = 2000
    hot_share: float = 0.0

    def requests(
        self, seed: int = 0, *, count: int | None = None, duration_s: float | None = None
    ) -> Iterator[Request]:
        for request in Workload.requests(self, seed, count=count, duration_s=duration_s):
            question = tuple(-1 - token for token in request.prompt_ids)  # below 0: no guide has these
            guide = self._guide(uniform(seed, "guide", request.request_id))
            yield replace(request, prompt_ids=_guide_tokens(guide, self.guide_tokens) + question)

    def _guide(self, u: float) -> int:
        if self.hot_share == 0:
            return int(u * self.guides)
        if u < self.hot_share:
            return 0
        return 1 + int((u - self.hot_share) / (1 - self.hot_share) * (self.guides - 1))


@functools.lru_cache(maxsize=64)
def _guide_tokens(guide: int, tokens: int) -> tuple[int, ...]:
    return tuple(range(guide * tokens, (guide + 1) * tokens))


def spring(
    policy: str,
    *,
    guides: int = 12,
    guide_tokens: int = 2000,
    hot_share: float = 0.0,
    requests_per_s: float = 1.2,
    seed: int = 1,
) -> Outcomes:
    """Simulate a spring day on four replicas: questions behind guides."""
    return _spring(policy, guides, guide_tokens, float(hot_share), float(requests_per_s), seed)


@functools.lru_cache(maxsize=64)
def _spring(
    policy: str, guides: int, guide_tokens: int, hot_share: float, requests_per_s: float, seed: int
) -> Outcomes:
    demand = Guides(Poisson(requests_per_s), MESSAGE, guides=guides, guide_tokens=guide_tokens, hot_share=hot_share)
    return _run(_scenario(demand, policy, SPRING_REQUESTS, 4), seed)


def day(name: str, policy: str) -> Outcomes:
    """Simulate one of `DAYS`."""
    return spring(policy, guides=int(DAYS[name]["guides"]), hot_share=DAYS[name]["hot_share"])


def capacity_per_s(guide_tokens: int, *, known: bool) -> float:
    """Return how many requests one replica serves per second, all slots busy; `known`: its cache has the guide."""
    prompt_tokens = guide_tokens + MESSAGE.mean_tokens
    cached = guide_tokens / prompt_tokens if known else 0.0
    mean = MeanWorkload(1.0, prompt_tokens, CONVERSATION_OUTPUT.mean_tokens, cached)
    return 1 / seconds_per_request(replica_times(), mean, SLOTS)


def ttft_p99_s(outcomes: Outcomes) -> float:
    """Return the 99th percentile of the time to first token."""
    return percentile(outcomes.ttft_s, 99)


def busiest_share(outcomes: Outcomes) -> float:
    """Return the busiest replica's share of all requests."""
    return max(_shares(outcomes))


def _shares(outcomes: Outcomes, replicas: int = 4) -> list[float]:
    """Return each replica's share of the requests, the busiest first."""
    counts = np.bincount(outcomes.replica, minlength=replicas)
    return sorted((counts / len(outcomes)).tolist(), reverse=True)


def spring_table(runs: Mapping[str, Outcomes], caption: str) -> None:
    """Show the share found in the caches, the waits, and the busiest replica's share of the requests."""
    table(
        {
            "balancer": list(runs),
            "found in caches": [f"{found_share(run):.0%}" for run in runs.values()],
            "p50 (s)": [percentile(run.ttft_s, 50) for run in runs.values()],
            "p99 (s)": [ttft_p99_s(run) for run in runs.values()],
            "busiest replica": [f"{busiest_share(run):.0%} of the requests" for run in runs.values()],
        },
        caption,
    )


def draw_shares(runs: Mapping[str, Outcomes]) -> None:
    """Draw each replica's share of the requests, the busiest first."""
    figure, ax = new_figure("Who does the work", x="replica, the busiest first", y="share of requests")
    width = 0.8 / len(runs)
    for i, (name, run) in enumerate(runs.items()):
        places = np.arange(4) + (i - (len(runs) - 1) / 2) * width
        ax.bar(places, _shares(run), width * 0.92, label=name, **bar_style(i))
    ax.set_xticks(range(4), ["first", "second", "third", "fourth"])
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.legend(frameon=False)
    told = "; ".join(f"{name}: {', '.join(f'{s:.0%}' for s in _shares(run))}" for name, run in runs.items())
    show(figure, alt=f"Share of the requests that each of four replicas got, the busiest first. {told}.")


# --- one real replica's engine -------------------------------------------------------------------------------------


def long_prompt(tokens: int = 480, model: str = "large") -> tuple[int, ...]:
    """Return the beginning of an English text, in a model's tokens."""
    from miniserve.models.tokenizer import Tokenizer

    text = (ROOT / "data/eval/prose.txt").read_text(encoding="utf-8")
    return tuple(Tokenizer.load(_folder(model)).encode(text)[:tokens])


def ttft_curve(
    prompt_ids: Sequence[int], known: Sequence[int], model: str = "large", repeats: int = 7
) -> dict[int, float]:
    """Return the measured time to first token (median), by how many leading tokens the cache knew.

    Each measurement has a tenant of its own, and tenants share no cache: the engine knows only what it should.
    """
    from miniserve.course.chapters.start_here.lab import request, stream_times
    from miniserve.engine.engine import load_engine

    config = EngineConfig(SchedulerConfig(max_batch_tokens=512))  # the whole prompt in one step
    engine = load_engine(_folder(model), config=config)

    def first_token_s(first: int, tenant: str) -> float:
        if first:
            engine.run([replace(request("before", prompt_ids[:first], 1), tenant=tenant)])
        return stream_times(engine, replace(request("timed", prompt_ids, 1), tenant=tenant))[0]

    first_token_s(0, "warming up")
    return {n: median(first_token_s(n, f"{n} known, {i}") for i in range(repeats)) for n in known}


def smollm2_ttft() -> None:
    """Measure SmolLM2 with and without a hit if this machine has it; otherwise say that it is skipped."""
    if not any(each.name == "smollm2" and not each.problem for each in cached_models(default_cache())):
        print("SmolLM2 is not on this machine: skipped. Nothing else needs it.")
        return
    curve = ttft_curve(long_prompt(480, "smollm2"), (0, 464), "smollm2", repeats=1)
    for known, seconds in curve.items():
        print(f"SmolLM2, 480 tokens, {known:>3} of them known: {1000 * seconds:,.0f} ms to the first token")


def _folder(model: str) -> Path:
    return resolve_model(model, default_cache(), offline=True)


def draw_ttft(curve: Mapping[int, float]) -> None:
    """Draw the measured times to first token, and the straight line through them."""
    known, times_ms = list(curve), [1000 * seconds for seconds in curve.values()]
    slope, base = np.polyfit(known, times_ms, 1)
    figure, ax = new_figure("A prefix hit, measured", x="prompt tokens in the cache", y="time to first token (ms)")
    ax.plot(known, times_ms, **{**line_style(0, markers=True), "linestyle": ""}, label="measured, median")
    ax.plot(known, [base + slope * n for n in known], **line_style(1), label="straight line")
    ax.set_ylim(0, None)
    ax.legend(frameon=False)
    show(
        figure,
        alt=f"The time to first token falls, from {times_ms[0]:.1f} ms with {known[0]} tokens in the cache to "
        f"{times_ms[-1]:.1f} ms with {known[-1]}: about {-1000 * slope:.0f} microseconds per token.",
        data={"tokens in the cache": known, "time to first token (ms)": times_ms},
    )


# --- two real models -----------------------------------------------------------------------------------------------

PRICED = {"small": "llama-3.2-1b", "large": MODEL}  # what Larkspur would run: names of the price list


def usd_per_1000() -> dict[str, float]:
    """Return what 1,000 answers of typical length cost on one of Larkspur's GPUs, all slots busy, by model size."""
    prices = load_price_list()
    machine = prices.machine(HARDWARE)
    usual = MeanWorkload(1.0, CONVERSATION_PROMPT.mean_tokens, CONVERSATION_OUTPUT.mean_tokens)
    busy_s = {
        size: seconds_per_request(machine.step_time(prices.model(name)), usual, SLOTS) for size, name in PRICED.items()
    }
    return {size: 1000 * seconds * machine.usd_per_hour / 3600 for size, seconds in busy_s.items()}


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: is it right, and how probable did the model think each of its tokens?"""

    right: bool
    logprobs: tuple[float, ...]


def questions(each: int = 400) -> tuple[list[tuple[str, bool]], list[tuple[str, str, bool]]]:
    """Return questions to learn from, as (question, is hard), and others to measure on, as (question, answer, hard).

    Both come from the evaluation sets, and no question is in both. The second list has about half of 2 x `each`.
    """
    from miniserve.policies.routing.model_router import is_training_item
    from miniserve.training.evalset import read_set

    learn, measure = [], []
    for difficulty in ("easy", "hard"):
        items = read_set(ROOT / "data/eval", difficulty)
        learn += [(item.question, difficulty == "hard") for item in items if is_training_item(item.key)]
        held_out = [item for item in items[:each] if not is_training_item(item.key)]
        measure += [(item.question, item.answer, difficulty == "hard") for item in held_out]
    return learn, measure


def ask_all(model: str, asked: Sequence[tuple[str, str, bool]]) -> tuple[list[Said], float]:
    """Let a real model answer all questions, 16 at a time; return its answers, and the seconds per answer."""
    from miniserve.course.chapters.start_here.lab import request, tokenizer
    from miniserve.engine.engine import load_engine

    engine, words = load_engine(_folder(model)), tokenizer(model)
    engine.run([request("warming up", words.encode_chat([{"role": "user", "content": "2 plus 2"}]), 2)])
    start_s = engine.clock()
    for i, (question, _, _) in enumerate(asked):
        plain = request(str(i), words.encode_chat([{"role": "user", "content": question}]), 48)
        engine.add(replace(plain, sampling=replace(plain.sampling, logprobs=0)))
    tokens: list[list[int]] = [[] for _ in asked]
    logprobs: list[list[float]] = [[] for _ in asked]
    while engine.has_work:
        for event in engine.step():
            tokens[int(event.request_id)] += event.token_ids
            logprobs[int(event.request_id)] += [each.logprob for each in event.logprobs]
    seconds = (engine.clock() - start_s) / len(asked)
    texts = [words.decode(ids) for ids in tokens]
    right = [text == answer for text, (_, answer, _) in zip(texts, asked, strict=True)]
    return [Said(ok, tuple(row)) for ok, row in zip(right, logprobs, strict=True)], seconds


def scoring_s(hardness: Callable[[str], float], asked: Sequence[tuple[str, str, bool]]) -> float:
    """Return the seconds that a router takes to look at one question (the mean)."""
    start_s = monotonic()
    for question, _, _ in asked:
        hardness(question)
    return (monotonic() - start_s) / len(asked)


def routed(
    scores: Sequence[float], small: Sequence[Said], large: Sequence[Said], shares: Sequence[float]
) -> list[float]:
    """Return the accuracy for each share of the questions, highest scores first, that goes to `large`."""
    found = []
    for share in shares:
        threshold = threshold_for(scores, share)
        answers = (b if score >= threshold else a for score, a, b in zip(scores, small, large, strict=True))
        found.append(fmean(answer.right for answer in answers))
    return found


def draw_routers(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    small: tuple[float, float],
    large: tuple[float, float],
) -> None:
    """Draw accuracy over cost: one curve per router, and the random mix as a straight line between both models."""
    figure, ax = new_figure("What a router is worth", x="USD per 1,000 answers", y="right answers", size=(7.2, 3.8))
    ax.plot(
        [small[0], large[0]], [small[1], large[1]], **{**line_style(5), "marker": "o"}, label="small, large, random mix"
    )
    for i, (name, (usd, right)) in enumerate(curves.items()):
        ax.plot(usd, right, **line_style(i), label=name)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.legend(frameon=False, loc="lower right")
    told = "; ".join(f"{name}: {_at_half(usd, right, small, large)}" for name, (usd, right) in curves.items())
    show(
        figure,
        alt=f"Share of right answers over cost. The small model alone: {small[1]:.0%} for {small[0]:.3f} USD; the "
        f"large one alone: {large[1]:.0%} for {large[0]:.3f} USD. At a cost half way between them, {told}; the random "
        f"mix has {(small[1] + large[1]) / 2:.0%}.",
    )


def _at_half(
    usd: Sequence[float], right: Sequence[float], small: tuple[float, float], large: tuple[float, float]
) -> str:
    return f"{float(np.interp((small[0] + large[0]) / 2, usd, right)):.0%}"


# --- situations ----------------------------------------------------------------------------------------------------

SITUATIONS = {
    "a": "The fifth message of a long chat. The replica that read the first four is about as busy as the others.",
    "b": "The fifth message of a long chat. The replica that read the first four has 30 requests in its queue, the "
    "others have 2 each.",
    "c": "Single questions, each about something different: no two prompts begin alike.",
    "d": "When do you open on Sundays? When it was measured, both models were right equally often on such questions.",
    "e": "Is this weed killer safe for a child's sandpit? Wrong answers do harm, and on such questions the small "
    "model was often wrong, yet sure of itself.",
    "f": "Article drafts, made overnight: nobody waits for a first token. Nobody can tell in advance which are hard, "
    "but the small model is usually unsure when it is wrong.",
    "g": "Two rival chains use the same service, and their prompts begin with the same words. Neither may learn from "
    "the speed of an answer what the other has asked.",
    "h": "Nine questions in ten begin with the same guide. Each replica read it long ago.",
}
CHOICES = {
    "by prefix": "send it to the replica whose cache holds its beginning",
    "by load": "send it to the replica with the least to do",
    "small model": "let the small model answer",
    "large model": "let the large model answer",
    "cascade": "ask the small model first, and then the large one if the small one wasn't sure",
    "no sharing": "give them separate caches, whatever it costs",
}
