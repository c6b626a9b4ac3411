"""Jumping over equal steps changes nothing: two replicas live through the same things, one of them step by step.

That one has the engine's own block manager, the other one keeps runs of blocks. `test_jumping_scheduler.py` does the
same with schedulers, without a clock between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import simpy
from books import books
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import RequestError, UpstreamError
from miniserve.sim.replica import SimAttempt, SimReplica
from miniserve.types import Priority, Request, SamplingParams

# Steps of equal length that floats hold exactly, so that events meet; of equal length that they do not; and of lengths
# that depend on everything.
STEP_TIMES = [
    StepTimeModel(0.25, 0.0, 0.0, 0.0, 0.0),
    StepTimeModel(0.1, 0.0, 0.0, 0.0, 0.0),
    StepTimeModel(0.05, 0.0113, 0.0071, 0.00037, 0.000019),
]
MAX_MODEL_LEN = 200
ACTIONS = ("submit",) * 6 + ("abort",) * 3 + ("look",) * 2 + ("tokens_sent", "kill", "pause", "resume", "slow")


@dataclass
class Life:
    """One replica, what happened to it, and everything that could be seen of it."""

    replica: SimReplica
    attempts: list[SimAttempt] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)

    def submit(self, request: Request) -> None:
        try:
            attempt = self.replica.submit(request)
        except RequestError as error:
            self.seen.append((self.replica.env.now, "refused", str(error)))
            return
        number = len(self.attempts)
        self.attempts.append(attempt)
        attempt.ended.callbacks.append(lambda _: self.seen.append((self.replica.env.now, "ended", number)))
        if number % 2:
            attempt.first_token.callbacks.append(lambda _: self.seen.append((self.replica.env.now, "first", number)))

    def chosen(self, which: int) -> SimAttempt | None:
        return self.attempts[which % len(self.attempts)] if self.attempts else None

    def look(self) -> None:
        """Note all there is: counters, queues, every table, which texts are found, and which block is taken next."""
        replica = self.replica
        replica.blocks.check_integrity(replica.sequences())
        self.seen.append(
            (
                replica.env.now,
                asdict(replica.counters),
                (replica.num_running, replica.num_waiting, replica.kv_used_fraction),
                [
                    (
                        s.request_id,
                        s.status,
                        s.num_computed,
                        s.high_water,
                        s.turn_tokens,
                        s.queued_s,
                        list(s.block_table),
                    )
                    for s in replica.sequences()
                ],
                books(replica.blocks),
            )
        )

    def summary(self) -> list[Any]:
        return [
            (
                a.sequence.request_id,
                a.first_token_s,
                a.finish_reason,
                str(a.error),
                a.tokens_sent(),
                list(a.sequence.tokens),
            )
            for a in self.attempts
        ]


def live(life: Life, events: list[tuple[float, Callable[[Life], None]]]) -> None:
    """Do each event at its time, as a process of its own, and go on until nothing more happens."""

    def happen(delay_s: float, act: Callable[[Life], None]) -> Any:
        yield life.replica.env.timeout(delay_s)
        act(life)

    env = life.replica.env
    for at_s, act in events:
        env.process(happen(at_s, act))
    env.run(until=max((at_s for at_s, _ in events), default=0.0) + 1e-3)
    life.look()
    life.replica.resume()
    env.run(until=env.now + 10_000.0)
    life.look()


def act(kind: str, request: Request, which: int) -> Callable[[Life], None]:
    """Return what `kind` does to a life."""

    def do(life: Life) -> None:
        attempt = life.chosen(which)
        match kind:
            case "submit":
                life.submit(request)
            case "abort" if attempt is not None:
                attempt.abort()
            case "look":
                life.look()
            case "tokens_sent" if attempt is not None:
                life.seen.append((life.replica.env.now, attempt.tokens_sent()))
            case "kill":
                life.replica.kill(UpstreamError("killed"))
            case "pause":
                life.replica.pause()
            case "resume":
                life.replica.resume()
            case "slow":
                life.replica.speed = 0.5 + which % 3

    return do


@st.composite
def events(draw: st.DrawFn) -> list[tuple[float, Callable[[Life], None]]]:
    times = st.one_of(st.integers(0, 240).map(lambda n: n / 4), st.floats(0, 60, allow_nan=False))
    return [
        (draw(times), act(draw(st.sampled_from(ACTIONS)), draw(requests(number)), draw(st.integers(0, 40))))
        for number in range(draw(st.integers(1, 25)))
    ]


@st.composite
def requests(draw: st.DrawFn, number: int) -> Request:
    first = draw(st.integers(0, 2)) << 20
    prompt = range(first, first + draw(st.integers(1, 60)))
    return Request(
        f"r{number}",
        "m",
        tuple(prompt) if draw(st.integers(0, 4)) == 0 else prompt,
        SamplingParams(max_tokens=draw(st.integers(1, 90))),
        priority=draw(st.sampled_from(Priority)),
        tenant=draw(st.sampled_from(["", "", "alice"])),
    )


def twins(step_time: StepTimeModel, scheduler: SchedulerConfig, cache: CacheConfig) -> tuple[Life, Life]:
    lives = [
        Life(
            SimReplica(
                simpy.Environment(),
                "a",
                scheduler,
                cache,
                step_time,
                max_model_len=MAX_MODEL_LEN,
                single_step=single_step,
            )
        )
        for single_step in (True, False)
    ]
    return lives[0], lives[1]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    events=events(),
    step_time=st.sampled_from(STEP_TIMES),
    num_blocks=st.sampled_from([20, 40, 400]),
    block_size=st.sampled_from([1, 4, 16]),
    caching=st.booleans(),
    max_running=st.integers(1, 6),
    extra_budget=st.sampled_from([0, 10, 500]),
    turn_tokens=st.sampled_from([None, 1, 7, 40]),
    max_waiting=st.sampled_from([3, 100]),
)
def test_a_jump_equals_single_steps(
    events: list[tuple[float, Callable[[Life], None]]],
    step_time: StepTimeModel,
    num_blocks: int,
    block_size: int,
    caching: bool,
    max_running: int,
    extra_budget: int,
    turn_tokens: int | None,
    max_waiting: int,
) -> None:
    scheduler = SchedulerConfig(
        max_running=max_running,
        max_batch_tokens=max_running + extra_budget,
        watermark_fraction=0.05,
        aging_s=5.0,
        turn_tokens=turn_tokens,
        max_waiting=max_waiting,
    )
    stepping, jumping = twins(step_time, scheduler, CacheConfig(num_blocks, block_size, caching))
    for life in (stepping, jumping):
        live(life, events)
    assert jumping.seen == stepping.seen
    assert jumping.summary() == stepping.summary()
    assert all(attempt.ended.triggered for attempt in jumping.attempts)
    assert jumping.replica.blocks.num_used == 0


def ask(name: str, first: int, prompt: int, output: int) -> Callable[[Life], None]:
    request = Request(name, "m", range(first, first + prompt), SamplingParams(max_tokens=output))
    return lambda life: life.submit(request)


def test_a_jump_ends_where_a_running_sequence_makes_room_for_one_that_waits() -> None:
    """Too rare to be drawn: the next block of the queue's head was evicted and is written again by somebody's decoding.

    x and a1 compute the same two blocks side by side, x's are kept and become idle; f's prompt evicts the second of
    them. a2 finds the first, decodes, and with its fourth token has written the second again: now b, which waits for
    blocks, also finds those that a1 wrote after it, and fits.
    """
    events = [
        (0.0, ask("x", 0, 9, 1)),
        (0.0, ask("a1", 0, 9, 60)),
        (1.1, ask("y", 2 << 20, 21, 1)),
        (5.1, ask("f", 1 << 20, 20, 80)),
        (5.6, ask("a2", 0, 5, 40)),
        (5.6, ask("b", 0, 21, 5)),
    ]
    config = SchedulerConfig(max_running=8, max_batch_tokens=500, watermark_fraction=0.0, turn_tokens=None)
    stepping, jumping = twins(STEP_TIMES[0], config, CacheConfig(20, 4))
    for life in (stepping, jumping):
        live(life, events)
    assert jumping.seen == stepping.seen
    waited = jumping.attempts[-1]
    assert waited.sequence.request_id == "b"
    assert waited.first_token_s == 7.0  # it came at 5.6; the others run for many seconds more
