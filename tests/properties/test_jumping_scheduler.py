"""A jump over n steps leaves what n steps of the engine's own scheduler and block manager leave.

Two schedulers get the same requests. The engine's takes each step; the simulator's takes as many at once as are certain
to be alike, or some of them and then the rest, as when somebody asks in mid-jump. After each jump everything must be
equal: plans, counters, queues, block tables, which texts are found, and which block is taken next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from itertools import repeat
from random import Random
from typing import Any

import pytest
from books import books

from miniserve.config import SchedulerConfig
from miniserve.engine.batch import Batch
from miniserve.engine.block_manager import BlockManager
from miniserve.engine.scheduler import Scheduler
from miniserve.engine.sequence import Sequence
from miniserve.errors import RequestError
from miniserve.sim.jumps import JumpingScheduler
from miniserve.sim.run_blocks import RunBlocks
from miniserve.sim.sequence import make_sequence
from miniserve.types import Priority, Request, SamplingParams

MAX_MODEL_LEN = 200
STEP_S = 0.25


class Pair:
    """Both schedulers, with one clock."""

    def __init__(self, config: SchedulerConfig, num_blocks: int, block_size: int, caching: bool) -> None:
        self.plain = Scheduler(config, BlockManager(num_blocks, block_size, caching), MAX_MODEL_LEN)
        self.fast = JumpingScheduler(config, RunBlocks(num_blocks, block_size, caching), MAX_MODEL_LEN)
        self.now_s = 0.0

    def add(self, request: Request) -> None:
        refusals = [refused(scheduler, make_sequence(request, self.now_s)) for scheduler in (self.plain, self.fast)]
        assert refusals[0] == refusals[1]

    def abort(self, request_id: str) -> None:
        self.plain.abort(request_id)
        self.fast.abort(request_id)

    def schedule(self) -> tuple[Batch, Batch]:
        plain, fast = self.plain.schedule(self.now_s), self.fast.schedule(self.now_s)
        assert plan(fast) == plan(plain)
        return plain, fast

    def advance(self, plain: Batch, fast: Batch, steps: int) -> tuple[Batch, Batch]:
        """Take `steps` steps and plan the next."""
        plain = self._single_steps(plain, steps)
        fast = self.fast.advance_steady(fast, steps)
        assert plan(fast) == plan(plain)
        self.compare()
        return plain, fast

    def commit(self, plain: Batch, fast: Batch, steps: int) -> None:
        """Take `steps` steps and plan nothing."""
        grown = self.plain.commit(self._single_steps(plain, steps - 1), repeat(0))
        grown_fast = self.fast.commit(fast, repeat(0)) if steps == 1 else self.fast.commit_steady(fast, steps)
        assert [about(seq) for seq in grown_fast] == [about(seq) for seq in grown]
        self.now_s += STEP_S
        self.compare()

    def _single_steps(self, batch: Batch, steps: int) -> Batch:
        for _ in range(steps):
            self.plain.commit(batch, repeat(0))
            self.now_s += STEP_S
            batch = self.plain.schedule(self.now_s)
        return batch

    def compare(self) -> None:
        plain, fast = self.plain, self.fast
        assert asdict(fast.counters) == asdict(plain.counters)
        assert [seq.request_id for seq in fast.running] == [seq.request_id for seq in plain.running]
        assert fast.num_waiting == plain.num_waiting
        assert [about(seq) for seq in fast.sequences()] == [about(seq) for seq in plain.sequences()]
        assert books(fast.blocks) == books(plain.blocks)
        for scheduler in (plain, fast):
            scheduler.blocks.check_integrity(scheduler.sequences())


def refused(scheduler: Scheduler, seq: Sequence) -> str:
    try:
        scheduler.add(seq)
    except RequestError as error:
        return str(error)
    return ""


def plan(batch: Batch) -> list[tuple[str, int, int, bool]]:
    return [(work.seq.request_id, *work[1:]) for work in batch.works]


def about(seq: Sequence) -> tuple[Any, ...]:
    """Return all there is to know of a sequence."""
    places = (seq.num_computed, seq.high_water, seq.cached_tokens, seq.turn_tokens, seq.queued_s, seq.rank)
    return (seq.request_id, seq.status, seq.finish_reason, *places, list(seq.tokens), list(seq.block_table))


def a_pair(rng: Random) -> Pair:
    max_running = rng.randint(1, 8)
    config = SchedulerConfig(
        max_running=max_running,
        max_batch_tokens=max_running + rng.choice([0, 10, 500]),
        watermark_fraction=rng.choice([0.0, 0.05]),
        aging_s=5.0,
        turn_tokens=rng.choice([None, 1, 7, 40]),
        max_waiting=rng.choice([3, 100]),
    )
    room, block_size = rng.choice([160, 240, 400, 6400]), rng.choice([1, 4, 16])
    return Pair(config, room // block_size, block_size, caching=rng.random() < 0.8)


def a_request(rng: Random, name: str) -> Request:
    first = rng.randrange(3) << 20
    prompt = range(first, first + rng.randint(1, 60))
    return Request(
        name,
        "m",
        tuple(prompt) if rng.random() < 0.2 else prompt,
        SamplingParams(max_tokens=rng.randint(1, 120)),
        priority=rng.choice(list(Priority)),
        tenant=rng.choice(["", "", "alice"]),
    )


def live(pair: Pair, rng: Random, steps: int) -> Counter[str]:
    """Let both take `steps` steps, or a few more; return how many of which kind."""
    seen: Counter[str] = Counter()
    busy = rng.choice([0.2, 0.5, 0.9])
    while pair.plain.counters.steps < steps:
        if not pair.plain.has_work or rng.random() < busy:
            seen["requests"] += 1
            pair.add(a_request(rng, f"r{seen['requests']}"))
        plain, fast = pair.schedule()
        if not fast:
            continue  # the request was refused
        left = pair.fast.steady_steps(fast)
        if left > 1 and rng.random() < 0.5:
            some = rng.randint(1, left - 1)
            plain, fast = pair.advance(plain, fast, some)
            left -= some
            seen["looks"] += 1
        if rng.random() < 0.1:  # what happens during a step is known to the next, so the jump ends with it
            pair.abort(rng.choice(pair.plain.sequences()).request_id)
            left = 1
        pair.commit(plain, fast, left)
        seen["jumps"] += left > 1
        seen["jumped_steps"] += left if left > 1 else 0
    return seen


@pytest.mark.parametrize("steps", [2_000, pytest.param(10_000, marks=pytest.mark.full)])
@pytest.mark.parametrize("seed", range(3))
def test_jumps_equal_single_steps(seed: int, steps: int, record_property: Callable[[str, object], None]) -> None:
    rng = Random(seed)
    total: Counter[str] = Counter()
    while total["steps"] < steps:
        pair = a_pair(rng)
        total += live(pair, rng, 200)
        counters = pair.plain.counters
        total += Counter(
            steps=counters.steps,
            preemptions=counters.preemptions,
            yields=counters.yields,
            found_tokens=counters.prefix_hit_tokens,
            evictions=pair.plain.blocks.evictions,
        )
    for name, count in total.items():
        record_property(name, count)
    for name in ("jumps", "looks", "evictions", "found_tokens", "preemptions", "yields"):
        assert total[name] > steps / 500, name
    assert total["jumped_steps"] > steps / 10


def test_the_engines_own_methods_are_not_replaced() -> None:
    assert not {name for name in vars(JumpingScheduler) if not name.startswith("__")} & set(vars(Scheduler))
