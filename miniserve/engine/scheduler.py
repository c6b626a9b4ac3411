"""Who computes what in the next step: continuous batching, one token budget, nobody starves.

Each step is a fresh decision. A sequence is "prompt plus what it has generated"; some of it is in the KV cache, the
rest must be computed, and when the last token is computed the next one is sampled. Decoding (one token missing) and
prefilling (many missing) differ in nothing else, so one step mixes them:

    budget 128 |d|d|d|d|d|  prefill of A: 83 of its 300 tokens  |  prefill of B: 40 |     d = one decode token

1. Running sequences: first those that decode (they wait for one token only), then prefills in chunks.
   If the pool has no block left for one, the sequence of worst rank is *preempted*: its blocks are freed, it waits
   again and is recomputed later (its full blocks usually still sit in the prefix cache).
2. Waiting sequences, best rank first, as long as there are a slot, budget, and blocks for the whole prompt.
   The queue is never skipped: a large prompt at its head is not overtaken for ever by small ones.

**Rank** is `queued_s + class * aging_s`, smaller is better: a request of the next lower class is treated as one that
came `aging_s` later. Two ranks never change order as time passes, so a plain heap serves, and a sequence is overtaken
only by those that arrived less than `class * aging_s` after it: a bound on waiting, whatever the load. The best-ranked
running sequence is never preempted for another, so something always finishes.

**Turns.** A long generation that has produced `turn_tokens` in a row gives up its slot when a short one waits for it,
and queues again as if it had just arrived.

Pure Python, no clock: `now_s` is told. The simulator runs this very class and replaces only the model's step.
Source: Orca (Yu et al., OSDI 2022) for iteration-level batching; Sarathi-Serve (Agrawal et al. 2024, arXiv:2403.02310)
for chunked prefill beside decodes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from miniserve.config import SchedulerConfig
from miniserve.engine.block_manager import BlockManager
from miniserve.engine.sequence import Sequence, SequenceStatus
from miniserve.errors import Overloaded
from miniserve.types import FinishReason


@dataclass(frozen=True, slots=True)
class Work:
    """Compute tokens `[start, start + num_tokens)` of `seq` in this step."""

    seq: Sequence
    start: int
    num_tokens: int
    samples: bool  # the last token of the sequence is among them, so a new one comes out

    @property
    def end(self) -> int:
        return self.start + self.num_tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's work, rows of a single token first."""

    works: tuple[Work, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.works)

    @property
    def num_tokens(self) -> int:
        return sum(work.num_tokens for work in self.works)

    @property
    def decode_rows(self) -> int:
        return sum(1 for work in self.works if work.num_tokens == 1)

    @property
    def prefill_tokens(self) -> int:
        return sum(work.num_tokens for work in self.works if work.num_tokens > 1)

    @property
    def context_tokens(self) -> int:
        """Cached tokens that the single-token rows attend to."""
        return sum(work.end for work in self.works if work.num_tokens == 1)

    @property
    def prefill_pairs(self) -> int:
        """(query, key) pairs that the chunks attend over, at the causal average."""
        chunks = (work for work in self.works if work.num_tokens > 1)
        return sum(work.num_tokens * (2 * work.start + work.num_tokens + 1) // 2 for work in chunks)


@dataclass(slots=True)
class Counters:
    """Everything since start that a chapter may plot. Tokens unless the name says otherwise."""

    steps: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefix_query_tokens: int = 0
    prefix_hit_tokens: int = 0
    recomputed_tokens: int = 0
    preemptions: int = 0
    yields: int = 0
    finished: dict[str, int] = field(default_factory=lambda: {reason.value: 0 for reason in FinishReason})


class Scheduler:
    """Queues and rules of one replica. Call `schedule`, compute, then `commit`; `add` and `abort` at any moment."""

    def __init__(
        self, config: SchedulerConfig, blocks: BlockManager, max_model_len: int, eos_ids: Iterable[int] = ()
    ) -> None:
        self.config = config
        self.blocks = blocks
        self.max_model_len = max_model_len
        self.eos_ids = frozenset(eos_ids)
        self.counters = Counters()
        self.running: list[Sequence] = []
        self._by_id: dict[str, Sequence] = {}
        self._waiting: list[tuple[float, int, Sequence]] = []  # heap of (rank, tie-breaker, sequence)
        self._arrivals = 0
        self._num_waiting = 0
        self._watermark = int(config.watermark_fraction * blocks.num_blocks)

    # --- queues

    @property
    def num_waiting(self) -> int:
        return self._num_waiting

    @property
    def has_work(self) -> bool:
        return bool(self.running) or self._num_waiting > 0

    def sequences(self) -> list[Sequence]:
        """All live sequences, running and waiting."""
        return list(self._by_id.values())

    def rank(self, seq: Sequence) -> float:
        """Smaller is served earlier. See the module's text."""
        return seq.queued_s + seq.request.priority * self.config.aging_s

    def add(self, seq: Sequence) -> None:
        """Queue a new sequence.

        Raises: Overloaded if `max_waiting` sequences wait already; ValueError if its id is in use.
        """
        if self._num_waiting >= self.config.max_waiting:
            raise Overloaded(
                f"the replica has {self._num_waiting} requests waiting already; try again later", None, None, 1.0
            )
        if seq.request_id in self._by_id:
            raise ValueError(f"request id {seq.request_id!r} is already in use")
        cap = self.config.max_output_tokens[seq.request.priority]
        seq.max_output_tokens = min(seq.max_output_tokens, cap, self.max_model_len - seq.num_prompt)
        self._by_id[seq.request_id] = seq
        self._push(seq)

    def abort(self, request_id: str) -> Sequence | None:
        """Drop a sequence wherever it is; its blocks are free on return. Unknown ids are ignored."""
        seq = self._by_id.get(request_id)
        if seq is not None:
            self._finish(seq, FinishReason.ABORT)
        return seq

    def _push(self, seq: Sequence) -> None:
        seq.status = SequenceStatus.WAITING
        self._num_waiting += 1
        self._arrivals += 1
        heapq.heappush(self._waiting, (self.rank(seq), self._arrivals, seq))

    def _head(self) -> Sequence | None:
        """Return the best waiting sequence. (Aborted ones stay in the heap until they surface here.)"""
        while self._waiting and self._waiting[0][2].status is not SequenceStatus.WAITING:
            heapq.heappop(self._waiting)
        return self._waiting[0][2] if self._waiting else None

    # --- one step

    def schedule(self, now_s: float) -> Batch:
        """Choose the next step's work; blocks for it are taken. Empty only if nothing is running or waiting."""
        self._end_a_turn(now_s)
        planned: dict[Sequence, int] = {}
        preempted = self._plan_running(planned)
        if not preempted:  # a step that had to take blocks away has none to give to newcomers
            self._admit_waiting(planned)
        works = [self._work(seq, n) for seq, n in planned.items()]
        works.sort(key=lambda work: work.num_tokens > 1)
        return Batch(tuple(works))

    def _work(self, seq: Sequence, num_tokens: int) -> Work:
        start = seq.num_computed
        return Work(seq, start, num_tokens, samples=start + num_tokens == len(seq.tokens))

    def _plan_running(self, planned: dict[Sequence, int]) -> bool:
        """Give every running sequence its decode token or a prefill chunk. Return whether any was preempted."""
        budget, before = self.config.max_batch_tokens, self.counters.preemptions
        for seq in sorted(self.running, key=lambda seq: (seq.num_uncomputed > 1, self.rank(seq))):
            num_tokens = min(seq.num_uncomputed, budget)
            if seq.status is not SequenceStatus.RUNNING or num_tokens == 0:
                continue
            while not self.blocks.grow(seq, seq.num_computed + num_tokens):
                victim = max(self.running, key=lambda other: (self.rank(other), other.request_id))
                budget += planned.pop(victim, 0)
                self._preempt(victim)
                if victim is seq:
                    break
            else:
                planned[seq] = num_tokens
                budget -= num_tokens
        return self.counters.preemptions > before

    def _admit_waiting(self, planned: dict[Sequence, int]) -> None:
        budget = self.config.max_batch_tokens - sum(planned.values())
        while budget > 0 and (seq := self._head()) is not None:
            hits = self._room_for(seq)
            if hits is None:
                return
            heapq.heappop(self._waiting)
            self._num_waiting -= 1
            self._admit(seq, hits)
            planned[seq] = min(seq.num_uncomputed, budget)
            budget -= planned[seq]

    def _room_for(self, seq: Sequence) -> list[int] | None:
        """Return the cached prefix of `seq` if it can be admitted now, else None.

        It needs a slot and blocks for all its tokens, and must leave a few to those that run already.
        """
        if len(self.running) >= self.config.max_running:
            return None
        hits = self.blocks.cached_prefix(seq)
        reserve = self._watermark if self.running else 0
        return hits if self.blocks.blocks_missing(seq, hits) + reserve <= self.blocks.num_free else None

    def _admit(self, seq: Sequence, hits: list[int]) -> None:
        self.blocks.admit(seq, hits)
        seq.status = SequenceStatus.RUNNING
        seq.turn_tokens = 0
        self.running.append(seq)
        if seq.high_water == 0:  # the first time: later admissions find the sequence's own blocks, which is no merit
            seq.cached_tokens = min(seq.num_computed, seq.num_prompt)
            self.counters.prompt_tokens += seq.num_prompt
            self.counters.prefix_query_tokens += len(seq.tokens)
            self.counters.prefix_hit_tokens += seq.num_computed

    def commit(self, batch: Batch, new_tokens: Seq[int]) -> list[Sequence]:
        """Book a computed step: one of `new_tokens` per sampling work, in order. Return the sequences that got one."""
        tokens = iter(new_tokens)
        grown: list[Sequence] = []
        self.counters.steps += 1
        for work in batch.works:
            token = next(tokens) if work.samples else None
            seq = work.seq
            if seq.status is not SequenceStatus.RUNNING:
                continue  # aborted while the step was being computed
            self.counters.recomputed_tokens += max(0, min(work.end, seq.high_water) - work.start)
            seq.num_computed = work.end
            seq.high_water = max(seq.high_water, work.end)
            self.blocks.publish(seq, work.start, work.end)
            if token is not None:
                self._append(seq, token)
                grown.append(seq)
        return grown

    def _append(self, seq: Sequence, token: int) -> None:
        seq.tokens.append(token)
        seq.turn_tokens += 1
        self.counters.generated_tokens += 1
        if token in self.eos_ids and not seq.request.sampling.ignore_eos:
            self._finish(seq, FinishReason.STOP)
        elif seq.num_output >= seq.max_output_tokens:
            self._finish(seq, FinishReason.LENGTH)

    # --- ways out

    def _leave(self, seq: Sequence) -> None:
        """Take `seq` off the running list, or leave its heap entry to be dropped later; free its blocks."""
        if seq.status is SequenceStatus.RUNNING:
            self.running.remove(seq)
        else:
            self._num_waiting -= 1
        self.blocks.release(seq)

    def _finish(self, seq: Sequence, reason: FinishReason) -> None:
        self._leave(seq)
        seq.status = SequenceStatus.FINISHED
        seq.finish_reason = reason
        del self._by_id[seq.request_id]
        self.counters.finished[reason.value] += 1

    def _preempt(self, seq: Sequence) -> None:
        """Back to the queue with the old rank: recomputed as soon as there is room."""
        self._leave(seq)
        self._push(seq)
        self.counters.preemptions += 1

    def _end_a_turn(self, now_s: float) -> None:
        """If a short sequence waits for room, the sequence that has run longest past its turn makes some."""
        turn, head = self.config.turn_tokens, self._head()
        if turn is None or head is None or head.num_output >= turn or self._room_for(head) is not None:
            return
        due = [
            seq
            for seq in self.running
            if seq.turn_tokens >= turn and self.rank(head) < now_s + seq.request.priority * self.config.aging_s
        ]
        if due:
            seq = max(due, key=lambda seq: (seq.turn_tokens, seq.request_id))
            self._leave(seq)
            seq.queued_s = now_s
            self._push(seq)
            self.counters.yields += 1
