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

Pure Python, no clock: `now_s` is told. The simulator replaces the model's step by its duration, and runs a subclass
that books many equal steps at once (`sim/jumps.py`), held to this class bit for bit in `tests/properties/`.
Source: Orca (Yu et al., OSDI 2022) for iteration-level batching; Sarathi-Serve (Agrawal et al. 2024, arXiv:2403.02310)
for chunked prefill beside decodes.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from miniserve.config import SchedulerConfig
from miniserve.engine.batch import Batch, Work
from miniserve.engine.block_manager import BlockManager
from miniserve.engine.sequence import Sequence, SequenceStatus
from miniserve.errors import InvalidRequest, Overloaded, prompt_too_long
from miniserve.types import FinishReason


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
        self.max_model_len = min(max_model_len, blocks.num_blocks * blocks.block_size)
        self.eos_ids = frozenset(eos_ids)
        self.counters = Counters()
        self.running: list[Sequence] = []  # best rank first
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

        Raises: InvalidRequest if it cannot fit; Overloaded if `max_waiting` sequences wait already; ValueError if its
            id is in use.
        """
        self._check_fit(seq)
        if self._num_waiting >= self.config.max_waiting:
            raise Overloaded(
                f"the replica has {self._num_waiting} requests waiting already; try again later", retry_after_s=1.0
            )
        if seq.request_id in self._by_id:
            raise ValueError(f"request id {seq.request_id!r} is already in use")
        cap = self.config.max_output_tokens[seq.request.priority]
        seq.max_output_tokens = min(seq.max_output_tokens, cap, self.max_model_len - seq.num_prompt)
        self._by_id[seq.request_id] = seq
        self._push(seq)

    def _check_fit(self, seq: Sequence) -> None:
        prompt, limit = seq.num_prompt, self.max_model_len
        resumed = seq.num_tokens - prompt
        if prompt == 0:
            raise InvalidRequest("the prompt is empty: send at least one token", "prompt")
        if prompt >= limit:
            raise prompt_too_long(prompt, limit)
        if prompt + resumed >= limit:
            raise InvalidRequest(
                f"the prompt has {prompt} tokens and {resumed} to resume after, but the context is {limit}",
                "prompt",
                "context_length_exceeded",
            )
        if seq.max_output_tokens <= resumed:
            raise InvalidRequest(f"max_tokens is {seq.max_output_tokens}: ask for at least {resumed + 1}", "max_tokens")

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> Sequence | None:
        """Drop a sequence wherever it is; its blocks are free on return. Unknown ids are ignored."""
        seq = self._by_id.get(request_id)
        if seq is not None:
            self._finish(seq, reason)
        return seq

    def _push(self, seq: Sequence) -> None:
        seq.status = SequenceStatus.WAITING
        self._num_waiting += 1
        self._arrivals += 1
        seq.rank = self.rank(seq)
        heapq.heappush(self._waiting, (seq.rank, self._arrivals, seq))

    def _head(self) -> Sequence | None:
        """Return the best waiting sequence. (Aborted ones stay in the heap until they surface here.)"""
        while self._waiting and self._waiting[0][2].status is not SequenceStatus.WAITING:
            heapq.heappop(self._waiting)
        return self._waiting[0][2] if self._waiting else None

    # --- one step

    def schedule(self, now_s: float) -> Batch:
        """Choose the next step's work; blocks for it are taken. Empty only if nothing is running or waiting."""
        self._end_a_turn(now_s)  # first: the slot and the blocks that it frees go to the short one in this very step
        works: list[Work] = []
        preempted = self._plan_running(works)
        if self._num_waiting and not preempted:  # a step that had to take blocks away has none to give to newcomers
            self._admit_waiting(works)
        return Batch(works)

    def _plan_running(self, works: list[Work]) -> bool:
        """Plan the decode token of every running sequence, then prefill chunks. Return whether any was preempted."""
        before, block_size = self.counters.preemptions, self.blocks.block_size
        in_prefill: list[Sequence] = []
        for seq in self.running[:]:
            start = seq.num_computed
            if seq.num_tokens - start > 1:
                in_prefill.append(seq)
            elif start < len(seq.block_table) * block_size or self._make_room(seq):
                works.append(Work(seq, start, 1, True))
        budget = self.config.max_batch_tokens - len(works)
        for seq in in_prefill:  # their blocks were taken at admission
            if budget > 0 and seq.status is SequenceStatus.RUNNING:
                works.append(self._chunk(seq, budget))
                budget -= works[-1].num_tokens
        return self.counters.preemptions > before

    def _make_room(self, seq: Sequence) -> bool:
        """Find a block for the next token of `seq`, preempting others if need be. Return False if it is preempted."""
        while seq.status is SequenceStatus.RUNNING:
            if self.blocks.grow(seq, seq.num_tokens):
                return True
            # The worst rank gives way, even if it is `seq`: so the best never does, and something always finishes.
            # Nothing is planned for it yet, because sequences are planned best rank first.
            self._preempt(self.running[-1])
        return False

    def _chunk(self, seq: Sequence, budget: int) -> Work:
        num_tokens = min(seq.num_uncomputed, budget)
        return Work(seq, seq.num_computed, num_tokens, samples=num_tokens == seq.num_uncomputed)

    def _admit_waiting(self, works: list[Work]) -> None:
        budget = self.config.max_batch_tokens - sum(work.num_tokens for work in works)
        while budget > 0 and (seq := self._head()) is not None:
            hits = self._room_for(seq)
            if hits is None:
                return
            heapq.heappop(self._waiting)
            self._num_waiting -= 1
            self._admit(seq, hits)
            works.append(self._chunk(seq, budget))
            budget -= works[-1].num_tokens

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
        insort(self.running, seq, key=attrgetter("rank"))
        if seq.high_water == 0:  # the first time: later admissions find the sequence's own blocks, which is no merit
            seq.cached_tokens = min(seq.num_computed, seq.num_prompt)
            self.counters.prompt_tokens += seq.num_prompt
            self.counters.prefix_query_tokens += seq.num_tokens
            self.counters.prefix_hit_tokens += seq.num_computed

    def commit(self, batch: Batch, new_tokens: Iterable[int]) -> list[Sequence]:
        """Book a computed step: one of `new_tokens` per sampling work, in order. Return the sequences that got one."""
        tokens = iter(new_tokens)
        grown: list[Sequence] = []
        self.counters.steps += 1
        for seq, start, num_tokens, samples in batch.works:
            token = next(tokens) if samples else None
            if seq.status is not SequenceStatus.RUNNING:
                continue  # aborted while the step was being computed
            end = start + num_tokens
            if start < seq.high_water:
                self.counters.recomputed_tokens += min(end, seq.high_water) - start
            if end > seq.high_water:
                seq.high_water = end
            seq.num_computed = end
            self.blocks.publish(seq, start, end)
            if token is not None:
                self._append(seq, token)
                grown.append(seq)
        return grown

    def _append(self, seq: Sequence, token: int) -> None:
        seq.append(token)
        seq.turn_tokens += 1
        self.counters.generated_tokens += 1
        sampling = seq.request.sampling
        if token in sampling.stop_token_ids or (token in self.eos_ids and not sampling.ignore_eos):
            self._finish(seq, FinishReason.STOP)
        elif seq.num_tokens >= seq.num_prompt + seq.max_output_tokens:
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
        turn = self.config.turn_tokens
        if turn is None or (head := self._head()) is None or head.num_output >= turn:
            return
        # It queues again as of now. Only if it then ranks behind the short one is anything gained: otherwise the next
        # admission would give it back the slot that it has just left.
        due = [
            seq
            for seq in self.running
            if seq.turn_tokens >= turn and head.rank < now_s + seq.request.priority * self.config.aging_s
        ]
        if due and self._room_for(head) is None:
            seq = max(due, key=lambda seq: (seq.turn_tokens, seq.request_id))
            self._leave(seq)
            seq.queued_s = now_s
            self._push(seq)
            self.counters.yields += 1
