"""Chapter 12's experiments: Larkspur's fleet under a balancer, old views, long prompts in the way, real replicas.

Larkspur is the course's fictional service: an assistant for a chain of garden centres. Customers chat and
staff have articles drafted, on one fleet. Contains no answers.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.course import figures
from miniserve.course.tables import table
from miniserve.engine.block_manager import BlockManager
from miniserve.engine.scheduler import Scheduler
from miniserve.engine.sequence import Sequence as Generation
from miniserve.engine.step_time import StepTimeModel
from miniserve.hardware.prices import load_price_list
from miniserve.observe.outcomes import Floats, Outcomes
from miniserve.observe.percentiles import percentiles
from miniserve.policies.bundle import Policies
from miniserve.policies.routing.balancer import Balancer
from miniserve.scenario.model import EngineSection, FleetSection, PolicySection, ReplicaGroup, RunSection, Scenario
from miniserve.sim.run import simulate
from miniserve.toml.reader import Recipe
from miniserve.types import ReplicaView, Request, SamplingParams
from miniserve.workload.arrivals import Poisson
from miniserve.workload.lengths import CONVERSATION_OUTPUT, Geometric
from miniserve.workload.requests import Workload

HARDWARE, MODEL = "l4", "llama-3.1-8b"  # names in data/hardware.toml
REQUESTS_PER_S = 1.1  # of the whole fleet of four
SLOTS = 12  # answers that one replica writes at a time: more would slow each of them down
ARTICLE_TOKENS, ARTICLE_SHARE = 2000, 0.1

MakeBalancer = Callable[[], Balancer]


# --- Larkspur ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChatsAndArticles:
    """Lengths of answers: nine in ten are chats, as long as in a published trace; one in ten is an article."""

    @property
    def mean_tokens(self) -> float:
        return (1 - ARTICLE_SHARE) * CONVERSATION_OUTPUT.mean_tokens + ARTICLE_SHARE * ARTICLE_TOKENS

    def at(self, u: float) -> int:
        chats = 1 - ARTICLE_SHARE
        return CONVERSATION_OUTPUT.at(u / chats) if u < chats else ARTICLE_TOKENS


def larkspur(make: MakeBalancer, *, requests: int = 1000, replicas: int = 4, probe_interval_s: float = 0.5) -> Scenario:
    """Return Larkspur's afternoon: four L4 cards, each with the real scheduler and a formula for step times."""
    group = ReplicaGroup("gpu", replicas, hardware=HARDWARE)
    return Scenario(
        Workload(Poisson(REQUESTS_PER_S * replicas / 4), output=ChatsAndArticles()),
        RunSection(requests=requests),
        FleetSection((group,), model=MODEL, probe_interval_s=probe_interval_s),
        EngineSection(SchedulerConfig(max_running=SLOTS, max_batch_tokens=512)),
        PolicySection(balancer=Recipe(getattr(make, "__name__", "balancer"), make)),
    )


def run(make: MakeBalancer, *, seed: int = 1, **settings: float) -> Outcomes:
    """Simulate an afternoon with the balancer that `make()` returns; all balancers meet the same demand for a seed."""
    scenario = larkspur(make, **settings)  # type: ignore[arg-type]
    result = simulate(scenario, seed)
    if result.stopped is not None:
        raise RuntimeError(f"the run stopped early: {result.stopped}")
    return result.outcomes


class OldViews:
    """Shows a balancer the fleet as it was at the last report, one every `every_s` seconds, `outstanding` included.

    A balancer that is one of many sees the fleet like that: only the reports count the others' requests.
    """

    def __init__(self, balancer: Balancer, every_s: float) -> None:
        self._balancer = balancer
        self._every_s = every_s
        self._next_report_s = 0.0
        self._reported: dict[str, ReplicaView] = {}

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if request.arrived_s >= self._next_report_s:
            self._reported = {view.replica_id: view for view in replicas}
            self._next_report_s = request.arrived_s + self._every_s
        return self._balancer.choose(request, tuple(self._reported.get(view.replica_id, view) for view in replicas))


def with_old_views(make: MakeBalancer, every_s: float) -> MakeBalancer:
    """Return a maker of balancers that see a report every `every_s` seconds."""
    return lambda: OldViews(make(), every_s)


@functools.lru_cache(maxsize=64)
def ttft_p99_s(make: MakeBalancer, every_s: float = 0.0, seed: int = 1) -> float:
    """Return the 99th percentile of the time to first token, with a report every `every_s` seconds (0: no delay)."""
    outcomes = run(with_old_views(make, every_s) if every_s else make, seed=seed)
    return percentiles(outcomes.ttft_s, (99,))[0]


# --- figures and tables --------------------------------------------------------------------------------------------


def compare(runs: Mapping[str, Outcomes], caption: str = "Time to first token, Larkspur's afternoon") -> None:
    """Show p50, p95 and p99 of the time to first token, and the whole curve for each balancer."""
    rows = {name: percentiles(outcomes.ttft_s, (50, 95, 99)) for name, outcomes in runs.items()}
    table(
        {
            "balancer": list(rows),
            **{f"p{q} (s)": [row[i] for row in rows.values()] for i, q in enumerate((50, 95, 99))},
        },
        caption,
    )
    figure, ax = figures.new_figure("How many wait longer?", x="time to first token (s)", y="share of requests")
    for i, (name, outcomes) in enumerate(runs.items()):
        ordered = np.sort(outcomes.ttft_s)
        shown = np.unique(np.geomspace(1, len(ordered), 50).astype(int))  # the rare long waits matter: keep them all
        ax.plot(ordered[-shown], shown / len(ordered), label=name, **figures.line_style(i))
    ax.set(xscale="log", yscale="log", ylim=(1e-3, 1))
    ax.legend(frameon=False)
    told = "; ".join(f"{name}: p50 {p50:.2f} s, p99 {p99:.1f} s" for name, (p50, _, p99) in rows.items())
    figures.show(figure, alt=f"Share of requests that waited longer than a time, both axes logarithmic. {told}.")


def queues(runs: Mapping[str, Outcomes], seconds: float = 200.0) -> None:
    """Show how many requests each replica held around the worst moment of the first run, one panel per balancer."""
    figure, axes = figures.new_figure(
        "Requests in each replica", x="time (s)", y="requests", panels=len(runs), size=(9.0, 3.2)
    )
    first = next(iter(runs.values()))
    worst_s = float(first.arrived_s[np.argmax(first.ttft_s)])
    times = np.linspace(max(0.0, worst_s - seconds / 2), worst_s + seconds / 2, 80)
    most = {}
    for ax, (name, outcomes) in zip(axes if len(runs) > 1 else [axes], runs.items(), strict=True):
        for i, replica in enumerate(sorted(outcomes.replicas)):
            ax.step(times, _held(outcomes, replica, times), where="post", label=replica, **figures.line_style(i))
        ax.axhline(SLOTS, color=figures.BLACK, linewidth=0.8)
        ax.set_title(name, fontsize=10)
        held = [_held(outcomes, replica, times) for replica in outcomes.replicas]
        most[name] = max(row.max() for row in held), min(row.min() for row in held)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    told = ", ".join(
        f"{name}: the fullest held {high:.0f}, the emptiest {low:.0f}" for name, (high, low) in most.items()
    )
    figures.show(
        figure, alt=f"Requests held by each of four replicas over time; above the line at {SLOTS} they wait. {told}."
    )


def _held(outcomes: Outcomes, replica: str, times: Floats) -> Floats:
    own = outcomes.where(outcomes.replica == outcomes.replicas.index(replica))
    came, left = np.sort(own.arrived_s), np.sort(own.ended_s)
    return np.asarray(np.searchsorted(came, times) - np.searchsorted(left, times), dtype=np.float64)


def herding(p99s: Mapping[str, Sequence[float]], every_s: Sequence[float]) -> None:
    """Show p99 against the age of the numbers."""
    figure, ax = figures.new_figure(
        "Stale numbers", x="seconds between two reports", y="p99 of time to first token (s)"
    )
    for i, (name, values) in enumerate(p99s.items()):
        ax.plot(every_s, values, label=name, **figures.line_style(i, markers=True))
    ax.set(ylim=(0, None))
    ax.legend(frameon=False)
    told = "; ".join(f"{name} from {values[0]:.1f} s to {values[-1]:.1f} s" for name, values in p99s.items())
    figures.show(
        figure,
        alt=f"p99 of the time to first token, with reports every {every_s[0]:g} to {every_s[-1]:g} s: {told}.",
        data={"seconds between reports": every_s, **{f"{name} (s)": values for name, values in p99s.items()}},
    )


# --- one replica ---------------------------------------------------------------------------------------------------


def one_replica(max_batch_tokens: int) -> tuple[Scheduler, StepTimeModel]:
    """Return the real scheduler of one of Larkspur's replicas, and how long its steps take."""
    prices = load_price_list()
    hardware, model = prices.hardware[HARDWARE], prices.models[MODEL]
    cache = CacheConfig(hardware.kv_blocks(model, 16), prefix_caching=False)
    blocks = BlockManager(cache.num_blocks, cache.block_size, cache.prefix_caching)
    config = SchedulerConfig(max_running=64, max_batch_tokens=max_batch_tokens)
    return Scheduler(config, blocks, 1 << 20), hardware.step_time(model)


def generation(name: str, prompt_tokens: int, answer_tokens: int, now_s: float = 0.0) -> Generation:
    """Return a sequence in the scheduler's form."""
    sampling = SamplingParams(max_tokens=answer_tokens, ignore_eos=True)
    return Generation(Request(name, MODEL, range(prompt_tokens), sampling, now_s), now_s)


def token_gaps(gaps_s: Mapping[str, Sequence[float]], caption: str) -> None:
    """Show the times between two tokens of a reader's text: percentiles, and each gap in turn."""
    rows = {name: percentiles(values, (50, 95, 99, 100)) for name, values in gaps_s.items()}
    heads = ("p50 (ms)", "p95 (ms)", "p99 (ms)", "longest (ms)")
    columns = {head: [1000 * row[i] for row in rows.values()] for i, head in enumerate(heads)}
    table({"prompts": list(rows), **columns}, caption)
    figure, axes = figures.new_figure("Pauses in the text", x="token", y="gap before it (ms)", panels=len(gaps_s))
    for i, (ax, (name, values)) in enumerate(zip(axes, gaps_s.items(), strict=True)):
        ax.plot(1000 * np.asarray(values), **figures.line_style(i))
        ax.set_title(name, fontsize=10)
        ax.set_ylim(0, None)
    told = "; ".join(f"{name}: p50 {1000 * row[0]:.0f} ms, p99 {1000 * row[2]:.0f} ms" for name, row in rows.items())
    figures.show(figure, alt=f"Time before each token of a reader's text. {told}.")


# --- real replicas -------------------------------------------------------------------------------------------------

REAL_MODEL = Path(__file__).resolve().parents[4] / "data/models/small"


def real_requests(count: int, rate_per_s: float, seed: int = 1) -> Iterator[Request]:
    """Yield requests for the small model: short prompts; answers of 40 tokens on average, most of them far from it."""
    workload = Workload(Poisson(rate_per_s), prompt=Geometric(8.0), output=Geometric(40.0), model="small")
    for request in workload.requests(seed, count=count):
        prompt, answer = request.prompt_ids[:20], min(request.sampling.max_tokens, 160)
        yield replace(request, prompt_ids=prompt, sampling=replace(request.sampling, max_tokens=answer))


class Switch:
    """A balancer that asks another one, which can be swapped while the gateway runs."""

    def __init__(self) -> None:
        self._balancer: Balancer | None = None
        self._sent: Counter[str] = Counter()

    def use(self, balancer: Balancer) -> Counter[str]:
        """Ask `balancer` from now on; return a count of where its requests go, which grows as they go."""
        self._balancer, self._sent = balancer, Counter()
        return self._sent

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        assert self._balancer is not None, "`use` a balancer before the first request"
        chosen = self._balancer.choose(request, replicas)
        self._sent[str(chosen)] += 1
        return chosen


@asynccontextmanager
async def real_stack(balancer: Balancer, replicas: int = 2) -> AsyncIterator[str]:
    """Start processes of the `small` model, and a gateway with `balancer`; yield its URL. The block's end stops all."""
    from miniserve.processes.http_server import bind
    from miniserve.processes.stack import GatewayOptions, running_stack

    options = GatewayOptions("small", REAL_MODEL, drain_timeout_s=20.0, policies=Policies(balancer))
    arguments = ["--offline", "--threads", "1"]
    async with running_stack(options, bind(0), replicas=replicas, replica_arguments=arguments) as stack:
        yield stack.url


async def measure(url: str, rate_per_s: float, count: int = 40) -> Outcomes:
    """Send requests to a real gateway, each at its own time; return what the clients saw."""
    from miniserve.clients.load import LoadRun
    from miniserve.clock import monotonic

    result = await LoadRun(url, "small", monotonic).run(real_requests(count, rate_per_s))
    return result.outcomes


async def busy_rate(url: str, utilization: float = 0.8) -> float:
    """Return the request rate that keeps these replicas at `utilization`, measured with a burst.

    At least 8: on a machine that is busy with other things, a low rate would take for ever.
    """
    await measure(url, 1000.0, count=10)  # the first answers of a fresh process are slow
    burst = await measure(url, 1000.0, count=30)
    return max(8.0, utilization * len(burst) / burst.duration_s)


def real_table(runs: Mapping[str, Outcomes], sent: Mapping[str, Mapping[str, int]]) -> None:
    """Show what the clients of real replicas saw. With so few requests there is no p99; the slowest stands for it."""
    rows = {name: percentiles(outcomes.e2e_s, (50, 90, 100)) for name, outcomes in runs.items()}
    columns: dict[str, Sequence[object]] = {"balancer": list(rows)}
    columns |= {head: [row[i] for row in rows.values()] for i, head in enumerate(("p50 (s)", "p90 (s)", "slowest (s)"))}
    columns |= {f"sent to {id_}": [sent[name].get(id_, 0) for name in rows] for id_ in ("r0", "r1")}
    table(columns, "Whole answers from two real processes")
