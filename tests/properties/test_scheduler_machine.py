"""A random life of scheduler and block manager: the books balance at every step, and in the end all were served."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from miniserve.config import SchedulerConfig
from miniserve.engine.block_manager import BlockManager
from miniserve.engine.scheduler import Scheduler
from miniserve.engine.sequence import Sequence, SequenceStatus
from miniserve.types import FinishReason, Priority, Request, SamplingParams

STEMS = [tuple(range(100, 140)), tuple(range(100, 120)) + tuple(range(300, 320)), tuple(range(500, 540))]


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        num_blocks=st.integers(5, 16),
        block_size=st.sampled_from([1, 2, 4, 8]),
        max_running=st.integers(1, 6),
        extra_budget=st.integers(0, 30),
        turn_tokens=st.sampled_from([None, 1, 4]),
        caching=st.booleans(),
    )
    def start(
        self,
        num_blocks: int,
        block_size: int,
        max_running: int,
        extra_budget: int,
        turn_tokens: int | None,
        caching: bool,
    ) -> None:
        config = SchedulerConfig(
            max_running=max_running,
            max_batch_tokens=max_running + extra_budget,
            turn_tokens=turn_tokens,
            aging_s=5.0,
            watermark_fraction=0.05,
        )
        self.limit = num_blocks * block_size
        self.blocks = BlockManager(num_blocks, block_size, caching)
        self.scheduler = Scheduler(config, self.blocks, self.limit, eos_ids=[0])
        self.now_s = 0.0
        self.seqs: list[Sequence] = []
        self.expected: dict[str, int] = {}

    @rule(
        stem=st.sampled_from(STEMS),
        cut=st.integers(1, 20),
        own=st.integers(0, 6),
        output=st.integers(1, 60),
        priority=st.sampled_from(Priority),
        tenant=st.sampled_from(["", "alice"]),
    )
    def add(self, stem: tuple[int, ...], cut: int, own: int, output: int, priority: Priority, tenant: str) -> None:
        name = f"r{len(self.seqs)}"
        prompt = (stem[:cut] + tuple(range(900, 900 + own)))[: self.limit - 1]
        request = Request(name, "m", prompt, SamplingParams(max_tokens=output), tenant=tenant, priority=priority)
        seq = Sequence(request, self.now_s)
        self.scheduler.add(seq)
        self.seqs.append(seq)
        self.expected[name] = min(output, self.limit - len(prompt))

    @precondition(lambda self: self.seqs)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(self.seqs))
        self.scheduler.abort(seq.request_id)
        assert not seq.block_table

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(count=st.integers(1, 5))
    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def step(self) -> None:
        had_work = self.scheduler.has_work
        batch = self.scheduler.schedule(self.now_s)
        assert bool(batch) == had_work, "work is waiting but the step is empty"
        assert batch.num_tokens <= self.scheduler.config.max_batch_tokens
        assert len(self.scheduler.running) <= self.scheduler.config.max_running
        for work in batch.works:
            assert work.end <= len(work.seq.block_table) * self.blocks.block_size
            assert work.start == work.seq.num_computed
        self.scheduler.commit(batch, [1000 + work.seq.num_output for work in batch.works if work.samples])
        self.now_s += 0.1

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "scheduler"):
            live = self.scheduler.sequences()
            self.blocks.check_integrity(live)
            waiting = [seq for seq in live if seq.status is SequenceStatus.WAITING]
            assert len(waiting) == self.scheduler.num_waiting
            assert all(not seq.block_table for seq in waiting)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        work = sum(len(seq.request.prompt_ids) + seq.max_output_tokens for seq in self.seqs)
        for _ in range(20 * work + 100):
            if not self.scheduler.has_work:
                break
            self.step()
        assert not self.scheduler.has_work, "somebody starves"
        assert self.blocks.num_used == 0
        for seq in self.seqs:
            aborted = seq.finish_reason is FinishReason.ABORT
            assert aborted or seq.num_output == self.expected[seq.request_id]
            # The made-up tokens are numbered: none was lost, doubled or swapped by preemption.
            assert seq.tokens[seq.num_prompt :] == [1000 + i for i in range(seq.num_output)]


# 100 lives of 100 rules each: 10,000 random operations, each of them up to five steps.
SchedulerMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestSchedulerMachine = SchedulerMachine.TestCase


def test_ten_thousand_steps_under_pressure() -> None:
    """A pool far too small for its load: preemption and turns all the time, and still nobody is lost."""
    rng = Random(7)
    blocks = BlockManager(24, 4)
    config = SchedulerConfig(max_running=6, max_batch_tokens=20, turn_tokens=10, aging_s=3.0)
    scheduler = Scheduler(config, blocks, 96, eos_ids=[0])
    seqs: list[Sequence] = []
    for step in range(10_000):
        if scheduler.num_waiting < 8 and rng.random() < 0.4:
            stem = rng.choice(STEMS)[: rng.randrange(1, 40)]
            sampling = SamplingParams(max_tokens=rng.randrange(1, 50))
            request = Request(f"r{step}", "m", stem, sampling, priority=rng.choice(list(Priority)))
            seqs.append(Sequence(request, step * 0.1))
            scheduler.add(seqs[-1])
        if rng.random() < 0.01 and scheduler.has_work:
            scheduler.abort(rng.choice(scheduler.sequences()).request_id)
        batch = scheduler.schedule(step * 0.1)
        scheduler.commit(batch, [1000 + work.seq.num_output for work in batch.works if work.samples])
        blocks.check_integrity(scheduler.sequences())
    assert scheduler.counters.preemptions > 500
    assert scheduler.counters.yields > 100
    oldest = min((seq.queued_s for seq in scheduler.sequences()), default=1000.0)
    assert oldest > 1000.0 - 60.0, "somebody starves"
    for seq in seqs:
        assert seq.tokens[seq.num_prompt :] == [1000 + i for i in range(seq.num_output)]
