"""The scheduler's rules, one by one, without a model: tokens are made up."""

from __future__ import annotations

import pytest

from miniserve.config import SchedulerConfig
from miniserve.engine.batch import Batch
from miniserve.engine.block_manager import BlockManager
from miniserve.engine.scheduler import Scheduler
from miniserve.engine.sequence import Sequence, SequenceStatus
from miniserve.errors import InvalidRequest, Overloaded, SetupError
from miniserve.types import FinishReason, Priority, Request, SamplingParams


class Bench:
    """A scheduler and a clock that advances one second a step."""

    def __init__(self, num_blocks: int = 64, block_size: int = 4, max_model_len: int = 256, **config: object) -> None:
        defaults: dict[str, object] = {"max_running": 4, "max_batch_tokens": 16, "turn_tokens": None}
        self.blocks = BlockManager(num_blocks, block_size)
        self.scheduler = Scheduler(SchedulerConfig(**{**defaults, **config}), self.blocks, max_model_len, eos_ids=[0])  # type: ignore[arg-type]
        self.now_s = 0.0
        self.count = 0

    def add(self, prompt: int, output: int = 100, priority: Priority = Priority.STANDARD, **kwargs: object) -> Sequence:
        self.count += 1
        ids = tuple(range(self.count * 1000, self.count * 1000 + prompt))
        request = Request(f"r{self.count}", "m", ids, SamplingParams(max_tokens=output), priority=priority, **kwargs)  # type: ignore[arg-type]
        seq = Sequence(request, self.now_s)
        self.scheduler.add(seq)
        return seq

    def step(self, token: int = 7) -> Batch:
        batch = self.scheduler.schedule(self.now_s)
        self.scheduler.commit(batch, [token for work in batch.works if work.samples])
        self.blocks.check_integrity(self.scheduler.sequences())
        self.now_s += 1.0
        return batch

    def drain(self, limit: int = 10_000) -> int:
        steps = 0
        while self.scheduler.has_work:
            self.step()
            steps += 1
            assert steps < limit, "the scheduler does not finish"
        return steps


def plan(batch: Batch) -> list[tuple[str, int, int]]:
    return [(work.seq.request_id, work.start, work.num_tokens) for work in batch.works]


def test_a_prompt_is_prefilled_then_decoded_token_by_token() -> None:
    bench = Bench()
    seq = bench.add(prompt=5, output=3)
    assert plan(bench.step()) == [("r1", 0, 5)]
    assert plan(bench.step()) == [("r1", 5, 1)]
    assert plan(bench.step()) == [("r1", 6, 1)]
    assert seq.finish_reason is FinishReason.LENGTH
    assert seq.tokens[5:] == [7, 7, 7]
    assert bench.blocks.num_used == 0


def test_a_long_prompt_is_chunked_beside_decodes_and_never_stops_them() -> None:
    bench = Bench(max_batch_tokens=8)
    bench.add(prompt=3)
    bench.step()
    bench.add(prompt=20)
    assert plan(bench.step()) == [("r1", 3, 1), ("r2", 0, 7)]
    assert plan(bench.step()) == [("r1", 4, 1), ("r2", 7, 7)]
    assert plan(bench.step()) == [("r1", 5, 1), ("r2", 14, 6)]
    assert plan(bench.step()) == [("r1", 6, 1), ("r2", 20, 1)]


def test_a_step_never_exceeds_its_token_budget_nor_the_slots() -> None:
    bench = Bench(max_batch_tokens=8, max_running=3)
    for _ in range(10):
        bench.add(prompt=7, output=5)
    while bench.scheduler.has_work:
        assert bench.step().num_tokens <= 8
        assert len(bench.scheduler.running) <= 3


def test_end_of_sequence_stops_unless_ignored() -> None:
    bench = Bench()
    stops = bench.add(prompt=2)
    bench.step(token=0)
    assert stops.finish_reason is FinishReason.STOP
    request = Request("x", "m", (1, 2), SamplingParams(max_tokens=2, ignore_eos=True))
    goes_on = Sequence(request)
    bench.scheduler.add(goes_on)
    bench.step(token=0)
    assert goes_on.finish_reason is None
    bench.step(token=0)
    assert goes_on.finish_reason is FinishReason.LENGTH


def test_the_context_and_the_class_cap_bound_the_answer() -> None:
    bench = Bench(max_model_len=10, max_output_tokens=(100, 100, 3))
    by_context = bench.add(prompt=6)
    by_class = bench.add(prompt=2, priority=Priority.BATCH)
    bench.drain()
    assert by_context.num_output == 4
    assert by_class.num_output == 3


def test_a_better_class_is_admitted_first() -> None:
    bench = Bench(max_running=1)
    bench.add(prompt=2, output=2)
    bench.step()
    batch, interactive = bench.add(2, 2, Priority.BATCH), bench.add(2, 2, Priority.INTERACTIVE)
    bench.drain()
    assert interactive.high_water
    assert bench.scheduler.rank(interactive) < bench.scheduler.rank(batch)


def test_waiting_makes_up_for_class() -> None:
    """One class is worth `aging_s`: whoever comes later than that does not overtake."""
    order: list[str] = []
    bench = Bench(max_running=1, aging_s=10.0)
    bench.add(prompt=2, output=30)
    bench.step()
    early = bench.add(2, 1, Priority.STANDARD)
    while bench.now_s < 20:
        bench.step()
        bench.add(2, 1, Priority.INTERACTIVE)
    arrivals = {seq.request_id: seq.queued_s for seq in bench.scheduler.sequences()}
    while bench.scheduler.has_work:
        before = set(bench.scheduler._by_id)
        bench.step()
        order += sorted(before - set(bench.scheduler._by_id))
    overtakers = order[1 : order.index(early.request_id)]
    assert overtakers
    assert all(arrivals[rid] < arrivals[early.request_id] + 10.0 for rid in overtakers)


def test_a_low_class_finishes_under_endless_high_class_load() -> None:
    bench = Bench(max_running=1, aging_s=5.0)
    low = bench.add(2, 3, Priority.BATCH)
    for _ in range(100):
        bench.add(2, 2, Priority.INTERACTIVE)
        bench.step()
        if low.status is SequenceStatus.FINISHED:
            break
    assert low.finish_reason is FinishReason.LENGTH


def test_without_blocks_the_worst_rank_is_preempted_and_recomputed() -> None:
    bench = Bench(num_blocks=6, block_size=4, max_model_len=24)
    first, second = bench.add(prompt=7, output=16), bench.add(prompt=7, output=16)
    while not bench.scheduler.counters.preemptions:
        bench.step()
    assert second.status is SequenceStatus.WAITING
    assert first.status is SequenceStatus.RUNNING
    assert second.num_computed == 0
    bench.drain()
    assert (first.num_output, second.num_output) == (16, 16)
    assert bench.scheduler.counters.recomputed_tokens > 0
    assert bench.blocks.num_used == 0


def test_nothing_is_admitted_in_a_step_that_preempted() -> None:
    bench = Bench(num_blocks=6, block_size=4, max_model_len=24, max_batch_tokens=64)
    bench.add(prompt=7, output=16)
    bench.add(prompt=7, output=16)
    while not bench.scheduler.counters.preemptions:
        bench.add(prompt=1, output=1)
        known = {seq.request_id for seq in bench.scheduler.running}
        batch = bench.step()
    assert {work.seq.request_id for work in batch.works} <= known


def test_a_prompt_waits_until_all_of_it_fits_and_is_not_overtaken() -> None:
    bench = Bench(num_blocks=8, block_size=4, max_model_len=32)
    bench.add(prompt=16, output=4)
    bench.step()
    large, small = bench.add(prompt=20, output=2), bench.add(prompt=1, output=2)
    bench.step()
    assert large.status is SequenceStatus.WAITING
    assert small.status is SequenceStatus.WAITING
    bench.drain()
    assert large.num_output == small.num_output == 2


@pytest.mark.parametrize("steps", range(8))
def test_abort_at_any_moment_frees_everything(steps: int) -> None:
    bench = Bench(num_blocks=6, block_size=4, max_model_len=24, max_batch_tokens=5)
    seq, other = bench.add(prompt=9, output=8), bench.add(prompt=7, output=4)
    for _ in range(steps):
        bench.step()
    bench.scheduler.abort(seq.request_id)
    bench.blocks.check_integrity(bench.scheduler.sequences())
    assert not seq.block_table
    bench.scheduler.abort(seq.request_id)  # twice is nothing
    bench.drain()
    assert other.num_output == 4
    assert bench.blocks.num_used == 0


def test_abort_while_the_step_is_being_computed() -> None:
    bench = Bench()
    seq, other = bench.add(prompt=4), bench.add(prompt=4)
    batch = bench.scheduler.schedule(0.0)
    bench.scheduler.abort(seq.request_id)
    grown = bench.scheduler.commit(batch, [7, 8])
    assert grown == [other]
    assert other.tokens[-1] == 8
    bench.blocks.check_integrity(bench.scheduler.sequences())


def test_a_long_generation_yields_to_a_short_one_that_waits() -> None:
    bench = Bench(max_running=1, turn_tokens=10, aging_s=0.0)
    long = bench.add(prompt=4, output=40)
    for _ in range(5):
        bench.step()
    short = bench.add(prompt=4, output=3)
    while long.num_output < 10:
        bench.step()
        assert short.status is SequenceStatus.WAITING
    bench.step()
    assert (long.status, short.status) == (SequenceStatus.WAITING, SequenceStatus.RUNNING)
    bench.drain()
    assert bench.scheduler.counters.yields == 1
    assert (long.num_output, short.num_output) == (40, 3)


def test_a_long_generation_keeps_its_slot_when_nobody_waits() -> None:
    bench = Bench(max_running=1, turn_tokens=5)
    bench.add(prompt=4, output=40)
    bench.drain()
    assert bench.scheduler.counters.yields == 0


def test_two_long_ones_do_not_throw_each_other_out() -> None:
    bench = Bench(max_running=1, turn_tokens=5, aging_s=0.0)
    bench.add(prompt=4, output=40)
    bench.add(prompt=4, output=40)
    bench.drain()
    assert bench.scheduler.counters.yields == 1  # the second was short once


def test_a_resumed_request_counts_what_the_client_has() -> None:
    bench = Bench()
    seq = bench.add(prompt=4, output=5, resume_ids=(11, 12))
    assert seq.num_output == 2
    bench.drain()
    assert seq.tokens[4:] == [11, 12, 7, 7, 7]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    bench = Bench(max_waiting=2)
    bench.add(1)
    bench.add(1)
    with pytest.raises(Overloaded, match="2 requests waiting") as caught:
        bench.add(1)
    assert caught.value.retry_after_s


def test_an_id_cannot_be_used_twice_at_once() -> None:
    bench = Bench()
    bench.add(1)
    bench.count -= 1
    with pytest.raises(ValueError, match="already in use"):
        bench.add(1)


def test_cached_prompt_tokens_are_not_scheduled_again() -> None:
    bench = Bench()
    bench.scheduler.add(Sequence(Request("a", "m", tuple(range(1, 12)), SamplingParams(max_tokens=1))))
    bench.drain()
    bench.scheduler.add(Sequence(Request("b", "m", tuple(range(1, 12)), SamplingParams(max_tokens=1))))
    batch = bench.step()
    assert plan(batch) == [("b", 8, 3)]
    assert batch.works[0].seq.cached_tokens == 8
    assert bench.scheduler.counters.prefix_hit_tokens == 8


@pytest.mark.parametrize(
    ("prompt", "resume_ids", "output", "reason"),
    [
        (0, (), 5, "empty"),
        (24, (), 5, "maximum context length is 24 tokens. However, the prompt has 24"),
        (20, (1, 2, 3, 4), 9, "4 to resume after, but the context is 24"),
        (4, (1, 2), 2, "max_tokens is 2: ask for at least 3"),
    ],
)
def test_what_cannot_fit_is_refused(prompt: int, resume_ids: tuple[int, ...], output: int, reason: str) -> None:
    """The pool holds 24 tokens, fewer than the model's context: a sequence that outgrew it would run for ever."""
    bench = Bench(num_blocks=6, block_size=4, max_model_len=64, max_batch_tokens=64)
    with pytest.raises(InvalidRequest, match=reason):
        bench.add(prompt, output, resume_ids=resume_ids)
    assert not bench.scheduler.has_work
    largest = bench.add(prompt=20, output=99, resume_ids=(1, 2, 3))
    bench.drain()
    assert largest.num_output == 4


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"max_output_tokens": (100, 100)}, "three numbers"),
        ({"max_output_tokens": (100, 0, 100)}, "at least 1"),
        ({"max_waiting": -1}, "max_waiting"),
    ],
)
def test_impossible_settings_are_refused(config: dict[str, object], reason: str) -> None:
    with pytest.raises(SetupError, match=reason):
        Bench(**config)  # type: ignore[arg-type]
