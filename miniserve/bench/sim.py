"""How fast is the simulator? One fixed scenario, run at several sizes with the prefix cache off and on.

Eight replicas of a data-centre GPU with a model of 8 billion parameters (the step time uses round figures of that
order, not a measurement), conversations of published lengths, power of two choices, the gateway's own bundle of
policies. The load is about half of a replica's capacity, which keeps about 17 sequences decoding in each.

What matters is the cost per request: it must not grow with the number of requests, and neither may memory, apart from
the columns in which outcomes are kept.

Machines get faster and slower within minutes. So small sizes run several times, half of them before the largest and
half after it, and the median counts.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import psutil
import simpy
from rich.console import Console
from rich.table import Table

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.hardware.spec import ReplicaSpec
from miniserve.observe.outcomes import OutcomeLog
from miniserve.policies.bundle import Policies
from miniserve.policies.dispatch import dispatch
from miniserve.policies.routing.balancer import PowerOfTwo
from miniserve.sim import drive
from miniserve.sim.fleet import SimFleet
from miniserve.types import Request
from miniserve.workload import Conversations, Poisson, Workload

REPLICAS = 8
RATE_PER_S = 48.0
FOLLOW_UP_FRACTION = 0.39
STEP_TIME = StepTimeModel(
    base_s=0.008,  # 16 GB of weights at 2 TB/s
    per_decode_row_s=30e-6,
    per_prefill_token_s=25e-6,  # 40,000 tokens/s
    per_context_token_s=50e-9,  # 128 KB of keys and values at 2.5 TB/s
    per_prefill_pair_s=1e-9,
)
SCHEDULER = SchedulerConfig(max_running=128, max_batch_tokens=2048)
NUM_BLOCKS = 27_000  # 55 GB, next to the weights
_SHORT = 30_000  # requests: smaller sizes run several times in a row


def bench_sim(sizes: Sequence[int], seed: int, console: Console) -> dict[str, Any]:
    """Return seconds, cost per request and memory at each size, with the prefix cache off and on."""
    runs = []
    # Each run has its own process: a process's peak memory never falls again.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        for prefix_caching in (False, True):
            for requests in there_and_back(sizes):
                console.print(f"simulating {requests:,} requests, prefix cache {'on' if prefix_caching else 'off'} ...")
                runs.append(processes.submit(measure, requests, prefix_caching, seed).result())
    scenario = {"replicas": REPLICAS, "rate_per_s": RATE_PER_S, "follow_up_fraction": FOLLOW_UP_FRACTION}
    return {**scenario, "sizes": _by_size(runs), "runs": runs}


def there_and_back(sizes: Sequence[int]) -> list[int]:
    """Return the sizes in running order: up to the largest, which runs once, and down again."""
    *small, largest = sorted(sizes)
    up = [size for size in small for _ in range(max(1, _SHORT // size))]
    return [*up, largest, *reversed(up)]


def _by_size(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each size's median cost, and its ratio to that of the smallest."""
    costs: dict[tuple[bool, int], list[float]] = defaultdict(list)
    for run in runs:
        costs[_case(run)].append(run["us_per_request"])
    medians = {case: statistics.median(each) for case, each in costs.items()}
    smallest = min(run["requests"] for run in runs)
    return [
        {
            "requests": requests,
            "prefix_cache": cache,
            "runs": len(costs[cache, requests]),
            "us_per_request": round(us, 1),
            "times_the_smallest": round(us / medians[cache, smallest], 3),
        }
        for (cache, requests), us in medians.items()
    ]


def _case(row: dict[str, Any]) -> tuple[bool, int]:
    return row["prefix_cache"], row["requests"]


def measure(requests: int, prefix_caching: bool, seed: int) -> dict[str, Any]:
    """Run the scenario once; return what it cost and, to show that it was no empty run, its results."""
    started_s, cpu_s = time.perf_counter(), time.process_time()
    log, fleet = simulate_once(requests, prefix_caching, seed)
    seconds, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    counters = [member.replica.counters for member in fleet.members()]
    summary = log.outcomes().summary()
    return {
        "requests": requests,
        "prefix_cache": prefix_caching,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_s, 2),
        "us_per_request": round(1e6 * cpu_s / requests, 1),
        "peak_memory_mb": round(_peak_memory_bytes() / 1e6),
        "served": summary.served,
        "simulated_s": round(summary.duration_s, 1),
        "steps": sum(c.steps for c in counters),
        "preemptions": sum(c.preemptions for c in counters),
        "hit_fraction": round(_share(counters, "prefix_hit_tokens", "prefix_query_tokens"), 4),
        "ttft_p50_s": summary.ttft.p50_s if summary.ttft else None,
        "ttft_p99_s": summary.ttft.p99_s if summary.ttft else None,
        "e2e_p99_s": summary.e2e.p99_s if summary.e2e else None,
    }


def simulate_once(requests: int, prefix_caching: bool, seed: int = 0) -> tuple[OutcomeLog, SimFleet]:
    """Run the fixed scenario to the end."""
    env = simpy.Environment()
    fleet = SimFleet(env, seed=seed)
    policies = Policies(PowerOfTwo(seed=seed))
    drive.start_control(fleet, policies)
    spec = ReplicaSpec(STEP_TIME, SCHEDULER, CacheConfig(NUM_BLOCKS, 16, prefix_caching))
    for _ in range(REPLICAS):
        fleet.add(spec, ready=True)
    log = OutcomeLog()
    conversations = Conversations(FOLLOW_UP_FRACTION) if prefix_caching else None
    workload = Workload(Poisson(RATE_PER_S), conversations=conversations)
    done = env.event()

    def serve(index: int, request: Request) -> Generator[simpy.Event, Any, None]:
        story = dispatch(request, fleet.view, lambda: env.now, policies)
        outcome = yield from drive.run(env, story, fleet)
        log.record_outcome(index, request, outcome, env.now)
        if len(log) == requests:
            done.succeed()

    def arrive() -> Generator[simpy.Event, Any, None]:
        for index, request in enumerate(workload.requests(seed, count=requests)):
            yield env.timeout(request.arrived_s - env.now)
            env.process(serve(index, request))

    env.process(arrive())
    env.run(until=done)
    return log, fleet


def _share(counters: Sequence[Any], part: str, whole: str) -> float:
    total = sum(getattr(c, whole) for c in counters)
    return sum(getattr(c, part) for c in counters) / total if total else 0.0


def _peak_memory_bytes() -> int:
    """Return this process's peak memory."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # exists on Unix only; Linux counts in KiB, macOS in bytes

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def sim_table(result: dict[str, Any]) -> Table:
    table = Table(title=f"simulating {result['replicas']} replicas, one core")
    for heading in ("requests", "prefix cache", "runs", "µs each", "times", "s", "MB", "hits", "p99 ms"):
        table.add_column(heading, justify="right")
    for size in result["sizes"]:
        run = next(run for run in result["runs"] if _case(run) == _case(size))
        table.add_row(
            f"{size['requests']:,}",
            "on" if size["prefix_cache"] else "off",
            str(size["runs"]),
            f"{size['us_per_request']:.0f}",
            f"{size['times_the_smallest']:.2f}",
            f"{size['us_per_request'] * size['requests'] / 1e6:.1f}",
            str(run["peak_memory_mb"]),
            f"{run['hit_fraction']:.1%}",
            f"{1e3 * run['ttft_p99_s']:.0f}",
        )
    return table
