"""Chapter 3's experiments: a chat on real block managers, two servers and their queues, and Larkspur built four ways.

Larkspur is the course's fictional service: an assistant for a chain of garden centres. `on_replicas` and `larkspur` run
the real scheduler and block manager in virtual time; `finish_s` is a model of a few lines. Contains no answers.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean

import numpy as np
import simpy

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.course.chapters.ch12_balancer.lab import HARDWARE, MODEL
from miniserve.course.figures import line_style, new_figure, show
from miniserve.engine.step_time import StepTimeModel
from miniserve.faults import ReplicaFault
from miniserve.hardware.prices import load_price_list
from miniserve.observe.outcomes import Outcomes
from miniserve.observe.percentiles import percentile
from miniserve.policies.routing.affinity import ConsistentHash
from miniserve.policies.routing.balancer import Balancer, LeastOutstanding
from miniserve.scenario.model import (
    Cache,
    EngineSection,
    FaultEvent,
    Faults,
    FleetSection,
    PolicySection,
    ReplicaGroup,
    RunSection,
    Scenario,
    SharedCache,
)
from miniserve.sim.replica import SimReplica
from miniserve.sim.run import simulate
from miniserve.toml.reader import Recipe
from miniserve.types import Request, SamplingParams
from miniserve.workload.arrivals import Poisson
from miniserve.workload.conversations import MESSAGE, Conversations
from miniserve.workload.lengths import CONVERSATION_OUTPUT, CONVERSATION_PROMPT
from miniserve.workload.requests import Workload

BLOCK_TOKENS = 16


def prefill_s_per_token() -> float:
    """Return the seconds that one more prompt token costs on a Larkspur replica, according to the price list."""
    prices = load_price_list()
    return prices.machine(HARDWARE).step_time(prices.model(MODEL)).per_prefill_token_s


def kv_bytes_per_token() -> float:
    """Return how many bytes a replica keeps for one token."""
    return load_price_list().model(MODEL).kv_bytes_per_token


def room_tokens() -> int:
    """Return for how many tokens one replica can keep keys and values."""
    prices = load_price_list()
    return prices.machine(HARDWARE).kv_blocks(prices.model(MODEL), BLOCK_TOKENS) * BLOCK_TOKENS


# --- one chat, turn by turn ----------------------------------------------------------------------------------------

Turn = tuple[str, int, int]  # replica, tokens of the message, tokens of the answer
CHAT: tuple[Turn, ...] = (("A", 100, 60), ("A", 40, 90), ("B", 30, 75), ("A", 50, 60))


def on_replicas(turns: Sequence[Turn], block_tokens: int = BLOCK_TOKENS) -> list[tuple[int, int]]:
    """Let replicas with the real scheduler and cache serve a chat; return prompt and cached tokens of each turn."""
    env = simpy.Environment()
    names = sorted({name for name, _, _ in turns})
    cache, times = CacheConfig(1_000, block_tokens), StepTimeModel(0.01, 0, 0, 0, 0)
    replicas = {
        name: SimReplica(env, name, SchedulerConfig(), cache, times, max_model_len=10_000, turn=i)
        for i, name in enumerate(names)
    }
    rows, said = [], 0
    for number, (name, message, answer) in enumerate(turns, start=1):
        prompt = said + message
        sampling = SamplingParams(max_tokens=answer, ignore_eos=True)
        attempt = replicas[name].submit(Request(f"turn-{number}", MODEL, range(prompt), sampling))
        env.run(attempt.ended)
        rows.append((prompt, attempt.cached_tokens))
        said = prompt + answer
    return rows


# --- two servers and their queues ----------------------------------------------------------------------------------

SERVERS = 2
REREAD_S = 0.25  # for each earlier turn that has to be read again


def finish_s(chats: Sequence[int], *, sticky: bool) -> float:
    """Return when two servers have served all chats, given as numbers of turns; all begin at second 0.

    A turn takes 1 s. A sticky chat stays where it began (the first on A, the second on B, the third on A, ...).
    Otherwise a turn goes to the server that is free first, and takes `REREAD_S` more for each earlier turn of its chat.
    The turn that has waited longest is next; a chat asks its next question when it has its answer.
    """
    free_s = [0.0] * SERVERS
    asking = [(0.0, i, 0) for i in range(len(chats))]  # (when it asks, chat, turns it has had); a heap
    while asking:
        asked_s, chat, had = heapq.heappop(asking)
        server = chat % SERVERS if sticky else free_s.index(min(free_s))
        free_s[server] = max(asked_s, free_s[server]) + 1 + (0 if sticky else REREAD_S * had)
        if had + 1 < chats[chat]:
            heapq.heappush(asking, (free_s[server], chat, had + 1))
    return max(free_s)


# --- who moves when a server leaves --------------------------------------------------------------------------------


def moved_share(place: Callable[[int, int], object], servers: int, sessions: int = 1_200) -> float:
    """Return the share of sessions that `place(session, servers)` puts elsewhere when the last server leaves."""
    return sum(place(i, servers) != place(i, servers - 1) for i in range(sessions)) / sessions


# --- Larkspur, built four ways -------------------------------------------------------------------------------------

REPLICAS = 4
SECONDS = 900.0
RATE_PER_S = 1.0
SEED = 3  # of the run that the tables show
SEEDS = (1, 2, 3, 4, 5)  # of the runs whose mean a claim rests on
FAULT_S = (600.0, 780.0)
Design = tuple[Callable[..., Balancer], bool, bool]  # the balancer, a cache in each replica, a shared tier

DESIGNS: Mapping[str, Design] = {
    "sticky": (partial(ConsistentHash, load_factor=1e9), True, False),
    "stateless": (LeastOutstanding, False, False),
    "cache per replica": (LeastOutstanding, True, False),
    "shared tier": (LeastOutstanding, True, True),
}
TIER_BYTES, LINK_BYTES_PER_S, LINK_LATENCY_S = 200e9, 5e9, 0.001
CHATS = Conversations(follow_up_fraction=0.7, max_prompt_tokens=8_000)
DEMAND = Workload(Poisson(RATE_PER_S), CONVERSATION_PROMPT, CONVERSATION_OUTPUT, CHATS)


def larkspur(
    design: str, *, crash: bool = False, link_bytes_per_s: float = LINK_BYTES_PER_S, seed: int = SEED
) -> Outcomes:
    """Simulate a quarter of an hour of chats on four replicas; with `crash`, one is away during `FAULT_S`."""
    return _larkspur(design, crash, link_bytes_per_s, seed)


@functools.cache  # behind `larkspur`, so that a default and the same value written out are one run
def _larkspur(design: str, crash: bool, link_bytes_per_s: float, seed: int) -> Outcomes:
    make, cached, shared = DESIGNS[design]
    tier = SharedCache(TIER_BYTES, link_bytes_per_s, LINK_LATENCY_S) if shared else None
    start_s, end_s = FAULT_S
    event = FaultEvent(start_s, ReplicaFault.CRASH, ("l4-1",), end_s - start_s)
    scenario = Scenario(
        DEMAND,
        RunSection(duration_s=SECONDS, seed=seed),
        FleetSection((ReplicaGroup("l4", REPLICAS, hardware=HARDWARE),), MODEL, prefix_tier=tier),
        EngineSection(cache=Cache(prefix_caching=cached)),
        PolicySection(Recipe(design, make), first_token_s="off", first_token_share="off", resume=False),
        faults=Faults(events=(event,) if crash else ()),
    )
    return simulate(scenario).outcomes


def demand(seeds: Sequence[int] = SEEDS) -> dict[str, float]:
    """Return what the chats of `larkspur` ask for in an average run: how many requests, and their mean prompts."""
    first, later = list[int](), list[int]()
    for seed in seeds:
        seen = set[str | None]()
        for request in DEMAND.requests(seed, duration_s=SECONDS):
            (later if request.session_key in seen else first).append(len(request.prompt_ids))
            seen.add(request.session_key)
    return {
        "chats' first requests": round(len(first) / len(seeds)),
        "mean prompt of a first request (tokens)": round(fmean(first)),
        "follow-ups": round(len(later) / len(seeds)),
        "mean prompt of a follow-up (tokens)": round(fmean(later)),
        "of which a new message (tokens)": round(MESSAGE.mean_tokens),
    }


def computed_tokens(outcomes: Outcomes) -> float:
    """Return the prompt tokens that were computed and not found in a cache."""
    return float((outcomes.prompt_tokens - outcomes.cached_tokens).sum())


def times_more(seeds: Sequence[int] = SEEDS) -> float:
    """Return how many times as many prompt tokens `stateless` computes as `shared tier`, in the runs of all `seeds`."""
    without, tier = (
        sum(computed_tokens(larkspur(design, seed=seed)) for seed in seeds) for design in ("stateless", "shared tier")
    )
    return without / tier


def found_share(outcomes: Outcomes) -> float:
    return float(outcomes.cached_tokens.sum() / outcomes.prompt_tokens.sum())


def ttft_s(outcomes: Outcomes, q: float) -> float:
    """Return a percentile of the time to first token."""
    served = outcomes.where(outcomes.served)
    return percentile(served.ttft_s, q)


def draw_found(runs: Mapping[str, Outcomes], window_s: float = 60.0) -> None:
    """Draw, over the time of arrival, the share of prompt tokens that a cache held."""
    figure, ax = new_figure("Prompt tokens found in a cache", x="time of arrival (s)", y="share of prompt tokens")
    starts = np.arange(0, SECONDS - window_s / 2, window_s)
    ends = []
    for i, (name, outcomes) in enumerate(runs.items()):
        shares = [found_share(outcomes.arrived_between(start, start + window_s)) for start in starts]
        ax.plot(starts + window_s / 2, shares, **line_style(i), label=name)
        before, within = outcomes.arrived_between(FAULT_S[0] - 120, FAULT_S[0]), outcomes.arrived_between(*FAULT_S)
        ends.append(f"{name} {found_share(before):.0%} before and {found_share(within):.0%} during")
    ax.axvspan(*FAULT_S, color="#dddddd", zorder=0, label="a replica is away")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_yticks(np.arange(0, 1.01, 0.2))
    ax.set_ylim(-0.03, 1.25)  # room for the legend above 100%
    ax.legend(loc="upper left", ncols=4)
    show(
        figure, alt=f"Share of prompt tokens found, during the fault and in the two minutes before: {'; '.join(ends)}."
    )


# --- where state lives ---------------------------------------------------------------------------------------------

STATES = {
    "a": "The text of a chat so far, in an app that keeps it on the phone.",
    "b": "Keys and values that a replica has computed for a chat's tokens.",
    "c": "How many tokens a customer has used this month, which a contract limits.",
    "d": "Yesterday's chat, which the customer continues on another device.",
    "e": "How long this answer may be, and how random.",
    "f": "The model's work on the shop's guide, which every prompt begins with.",
    "g": "The photo of a sick rose, uploaded once and asked about for a week, from any device.",
    "h": "An extra set of weights for one garden centre; a replica reads it from disk when it is first asked for.",
}
PLACES = {
    "request": "it comes with each request",
    "cache": "a replica may keep it, and may lose it at any time",
    "store": "a database or file store outside the replicas",
}
