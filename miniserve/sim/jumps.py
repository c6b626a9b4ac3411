"""The engine's scheduler, made to jump: many steps that are alike are booked at once.

    steps      |dddd|dddd|dddd|dddd|dddd| ...     four sequences decode, and nothing else happens for `steady_steps`
    booked      commit_steady(batch, 5)           as if `commit` and `schedule` had been called for each

Most steps of a long run only add a token to everybody. How long that goes on is known beforehand, if no token ends an
answer: simulated ones end when their length is reached.

`Scheduler` itself is not changed: all of its methods are inherited as they are, and those added here must leave every
counter, queue and block table as the same number of its own steps would (`tests/properties/test_jumping_scheduler.py`,
and `test_jump.py` for whole replicas).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence as Seq
from typing import cast

from miniserve.engine.batch import Batch, Work
from miniserve.engine.scheduler import Scheduler
from miniserve.engine.sequence import Sequence
from miniserve.sim.sequence import SimSequence
from miniserve.types import FinishReason


class JumpingScheduler(Scheduler):
    """A `Scheduler` of simulated sequences (`sim.sequence`), on any block manager."""

    # --- how far

    def steady_steps(self, batch: Batch) -> int:
        """Return how many steps in a row, this planned one included, are certain to be `batch`, one token further each.

        That is so while everybody decodes and nobody finishes, ends a turn, needs another's blocks, or can be admitted.
        Holds until something is added or aborted. Cautious: may return too few.
        """
        if self.eos_ids or batch.prefill_tokens or len(batch.works) != len(self.running):
            return 1
        steps = self.max_model_len
        for seq in self.running:
            if seq.turn_tokens == 0:
                return 1  # just admitted: in the next step it moves to its rank's place
            left = seq.num_prompt + seq.max_output_tokens - seq.num_tokens
            if left < steps:
                steps = left
        if self._num_waiting:
            steps = min(steps, self._steps_of_an_unchanged_queue())
        return self._steps_with_blocks(steps) if steps > 1 else 1

    def _steps_of_an_unchanged_queue(self) -> int:
        """Return for how many steps the waiting sequences are certain to go on waiting, if all running ones decode."""
        head, turn = self._head(), self.config.turn_tokens
        assert head is not None
        if len(self.running) < self.config.max_running and (
            self._room_for(head) is not None or self._may_fill_for(head)
        ):
            return 1
        if turn is None or head.num_output >= turn:
            return self.max_model_len
        return max(1, turn - max(seq.turn_tokens for seq in self.running))

    def _may_fill_for(self, waiting: Sequence) -> bool:
        """Say whether a running sequence, if it only decodes, might fill the first block that `waiting` lacks."""
        blocks, size = self.blocks, self.blocks.block_size
        if not blocks.prefix_caching:
            return False
        hits, wanted = len(blocks.cached_prefix(waiting)), waiting.block_keys(size)
        for seq in self.running:
            full = seq.num_computed // size
            if full == 0 or (full <= hits and seq.block_keys(size)[full - 1] == wanted[full - 1]):
                return True  # it has written the same text so far, and not yet beyond that block
        return False

    def _steps_with_blocks(self, steps: int) -> int:
        """Return how many steps, `steps` at most, can add a token to each running sequence before blocks are lacking.

        The first of them is planned already.
        """
        size, free = self.blocks.block_size, self.blocks.num_free
        if len(self.running) * (steps // size + 1) <= free:
            return steps  # as is clear without counting
        full_after = Counter(-seq.num_computed % size for seq in self.running)
        for step in range(1, steps):
            free -= full_after[step % size]
            if free < 0:
                return step
        return steps

    # --- jump

    def commit_steady(self, batch: Batch, steps: int) -> list[Sequence]:
        """Equals `steps` times `commit`, with `schedule` in between. Return the sequences that got tokens."""
        seqs = self._decode(batch, steps, plan_next=False)
        for seq in seqs:
            if seq.num_tokens >= seq.num_prompt + seq.max_output_tokens:
                self._finish(seq, FinishReason.LENGTH)
        return seqs

    def advance_steady(self, batch: Batch, steps: int) -> Batch:
        """Equals `steps` times `commit` and `schedule`; return the batch that is planned then."""
        self._decode(batch, steps, plan_next=True)
        return Batch(Work(seq, start + steps, 1, True) for seq, start, _, _ in batch.works)

    def _decode(self, batch: Batch, steps: int, plan_next: bool) -> list[Sequence]:
        seqs = [work.seq for work in batch.works]
        for seq in cast(list[SimSequence], seqs):
            seq.extend(steps)
            seq.turn_tokens += steps
            seq.num_computed += steps
            seq.high_water = seq.num_computed
        self._fill_blocks(seqs, steps, plan_next)
        self.counters.steps += steps
        self.counters.generated_tokens += steps * len(seqs)
        return seqs

    def _fill_blocks(self, seqs: Seq[Sequence], steps: int, plan_next: bool) -> None:
        """Do what `publish` and `grow` would have done in the last `steps` steps, a token of each of `seqs` in each.

        A sequence whose block becomes full with a step publishes it then, and takes another before the next step:
        within the `steps`, and after the last of them if the next is planned already.
        """
        blocks, size = self.blocks, self.blocks.block_size
        full_at: dict[int, list[Sequence]] = defaultdict(list)
        for seq in seqs:
            for step in range(size - (seq.num_computed - steps) % size, steps + 1, size):
                full_at[step].append(seq)
        for step in sorted(full_at):
            full = full_at[step]
            for seq in full:
                end = seq.num_computed - steps + step
                blocks.publish(seq, end - 1, end)
            if step < steps or plan_next:
                for seq, block in zip(full, blocks.take(len(full)), strict=True):
                    seq.block_table.append(block)
