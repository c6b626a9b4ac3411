"""The KV cache as pages: who owns which block, and which freed blocks are worth keeping.

Memory for keys and values is cut into blocks of `block_size` tokens. A sequence owns a *block table*, the list of its
blocks in order; they may lie anywhere, so nothing is ever moved and at most one block per sequence is partly empty.

    free:   plain [ 2, 7 ]         hold nothing known; taken first, from the right
            idle  [ 9, 4, 11 ]     still hold a known prefix, least recently used first; taken from the left

A full block is known by a key that covers all text before it too (`sequence.next_key`), so finding the longest cached
prefix is a walk from block 0 until the first miss. A hit takes an idle block back into use, or shares it when somebody
else is using it (reference counts). Only full blocks are ever shared and full blocks are never written again,
so no copy on write is needed.

Pure Python: it hands out numbers; `model` and `attention` own the memory. Every operation is O(blocks touched).
Source: PagedAttention (Kwon et al. 2023, arXiv:2309.06180); the order of reuse as in vLLM's v1 block pool.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from functools import lru_cache

from miniserve.engine.sequence import BlockKey, Sequence


@lru_cache(maxsize=8)
def _numbers(num_blocks: int) -> tuple[int, ...]:
    """Return the blocks' numbers, the last first. All pools of a simulated fleet share them: 32 bytes a number."""
    return tuple(range(num_blocks - 1, -1, -1))


class BlockManager:
    """Block tables, reference counts, prefix cache.

    Invariants (see `check_integrity`): free + used = total; a block's count is the number of tables it is in; a block
    is free exactly when its count is 0, and then idle if it has a key, else plain; a key names one block.
    """

    def __init__(self, num_blocks: int, block_size: int, prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.evictions = 0  # cached blocks overwritten for lack of plain ones
        # Small books: a long run is bound by what it must fetch from memory. `_known` is 1 where there is a key.
        self._ref_counts = array("H", bytes(2 * num_blocks))
        self._known = bytearray(num_blocks)
        self._plain = list(_numbers(num_blocks))
        self._idle: deque[int] = deque()
        self._stale: Counter[int] = Counter()  # entries in `_idle` that no longer count: the block was found again
        self._num_stale = 0
        self._key_of: list[BlockKey | None] = [None] * num_blocks
        self._block_of: dict[BlockKey, int] = {}

    # --- what is there

    @property
    def num_free(self) -> int:
        return len(self._plain) + len(self._idle) - self._num_stale

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_free

    @property
    def num_cached(self) -> int:
        """Blocks, used or free, whose content could be found again."""
        return len(self._block_of)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def cached_prefix(self, seq: Sequence) -> list[int]:
        """Return the blocks that already hold the start of `seq`; changes nothing.

        At most `num_tokens - 1` tokens are reported: the last one must be computed again, since its *output* is what
        the next token is sampled from.
        """
        if not self.prefix_caching:
            return []
        hits: list[int] = []
        for key in seq.block_keys(self.block_size)[: (seq.num_tokens - 1) // self.block_size]:
            block = self._block_of.get(key)
            if block is None:
                break
            hits.append(block)
        return hits

    def blocks_missing(self, seq: Sequence, hits: list[int]) -> int:
        """Return how many free blocks would be lost if `seq` were admitted with these `hits`."""
        idle_hits = sum(1 for block in hits if self._ref_counts[block] == 0)
        return self.blocks_for(seq.num_tokens) - len(hits) + idle_hits

    # --- changes

    def admit(self, seq: Sequence, hits: list[int]) -> None:
        """Give `seq` its cached prefix and blocks for all its tokens. The caller has checked `blocks_missing`."""
        assert not seq.block_table
        assert seq.num_computed == 0
        for block in hits:
            if self._ref_counts[block] == 0:  # its entry stays in the queue, and is passed over when its turn comes
                self._stale[block] += 1
                self._num_stale += 1
            self._ref_counts[block] += 1
        if self._num_stale > self.num_blocks:
            self._drop_stale()
        seq.block_table.extend(hits)
        seq.num_computed = len(hits) * self.block_size
        grown = self.grow(seq, seq.num_tokens)
        assert grown, "admit() without checking blocks_missing()"

    def grow(self, seq: Sequence, num_tokens: int) -> bool:
        """Make room for `num_tokens` tokens in total. Return False, changing nothing, if the pool is too empty."""
        missing = self.blocks_for(num_tokens) - len(seq.block_table)
        if missing <= 0:
            return True
        if missing > self.num_free:
            return False
        seq.block_table += self._take(missing)
        return True

    def publish(self, seq: Sequence, start: int, end: int) -> None:
        """Make the blocks that became full when tokens `[start, end)` were computed findable by others."""
        if not self.prefix_caching:
            return
        first, last = start // self.block_size, end // self.block_size
        if last == first:
            return
        block_of, key_of, known = self._block_of, self._key_of, self._known
        for block, key in zip(seq.block_table[first:last], seq.block_keys(self.block_size)[first:last], strict=True):
            # Two sequences may compute the same text side by side; the first one's block is the one that is kept.
            if not known[block] and block_of.setdefault(key, block) == block:
                key_of[block] = key
                known[block] = 1

    def release(self, seq: Sequence) -> None:
        """Take all blocks from `seq`, the last one first: the end of a text is forgotten before its start."""
        counts, known = self._ref_counts, self._known
        plain, idle = self._plain, self._idle
        for block in reversed(seq.block_table):
            counts[block] -= 1
            if counts[block] == 0:
                (idle if known[block] else plain).append(block)
        seq.block_table.clear()
        seq.num_computed = 0

    def forget(self) -> None:
        """Empty the prefix cache (new weights make old keys and values wrong)."""
        self._block_of.clear()
        self._key_of = [None] * self.num_blocks
        self._known = bytearray(self.num_blocks)
        self._drop_stale()
        self._plain[:0] = reversed(self._idle)
        self._idle.clear()

    def _take(self, count: int) -> list[int]:
        """Take `count` blocks, which must be there: plain ones first, then those whose content was used longest ago."""
        plain = self._plain
        taken = plain[: -count - 1 : -1]
        del plain[-count:]
        if len(taken) < count:
            taken += self._evict(count - len(taken))
        for block in taken:
            self._ref_counts[block] = 1
        return taken

    def _evict(self, count: int) -> list[int]:
        idle, stale, key_of, block_of = self._idle, self._stale, self._key_of, self._block_of
        evicted: list[int] = []
        while len(evicted) < count:
            block = idle.popleft()
            if block in stale:
                self._pass_over(block)
                continue
            key = key_of[block]
            assert key is not None, "an idle block has a key"
            del block_of[key]
            key_of[block] = None
            self._known[block] = 0
            evicted.append(block)
        self.evictions += count
        return evicted

    def _pass_over(self, block: int) -> None:
        self._num_stale -= 1
        self._stale[block] -= 1
        if not self._stale[block]:
            del self._stale[block]

    def _drop_stale(self) -> None:
        for _ in range(len(self._idle)):
            block = self._idle.popleft()
            if block in self._stale:  # of several entries of a block only the last counts
                self._pass_over(block)
            else:
                self._idle.append(block)

    # --- many decode steps at once (see `Scheduler.steady_steps`)

    def decode_steps_served(self, seqs: Seq[Sequence], steps: int) -> int:
        """Return how many steps, `steps` at most, can add a token to each of `seqs` before blocks are lacking.

        The first of them is planned already. Changes nothing.
        """
        if len(seqs) * (steps // self.block_size + 1) <= self.num_free:
            return steps  # as is clear without counting
        full_after = Counter(-seq.num_computed % self.block_size for seq in seqs)
        free = self.num_free
        for step in range(1, steps):
            free -= full_after[step % self.block_size]
            if free < 0:
                return step
        return steps

    def may_fill_for(self, waiting: Sequence, running: Seq[Sequence]) -> bool:
        """Say whether one of `running`, if it only decodes, might fill the first block that `waiting` lacks."""
        if not self.prefix_caching:
            return False
        hits, wanted = len(self.cached_prefix(waiting)), waiting.block_keys(self.block_size)
        for seq in running:
            full = seq.num_computed // self.block_size
            if full == 0 or (full <= hits and seq.block_keys(self.block_size)[full - 1] == wanted[full - 1]):
                return True  # it has written the same text so far, and not yet beyond that block
        return False

    def decode(self, seqs: Seq[Sequence], steps: int, plan_next: bool) -> None:
        """Do what `publish` and `grow` would have done in the last `steps` steps, a token of each of `seqs` in each.

        A sequence whose block becomes full with a step publishes it then, and takes another before the next step:
        within the `steps`, and after the last of them if the next is planned already.
        """
        size = self.block_size
        full_after: dict[int, list[Sequence]] = defaultdict(list)
        for seq in seqs:
            first = size - (seq.num_computed - steps) % size
            if first <= steps:
                full_after[first % size].append(seq)
        if not full_after:
            return
        for step in range(1, steps + 1):
            full = full_after.get(step % size, ())
            for seq in full:
                end = seq.num_computed - steps + step
                self.publish(seq, end - 1, end)
            if step < steps or plan_next:
                for seq in full:
                    seq.block_table += self._take(1)

    # --- proof

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        """Raise AssertionError if the books do not balance against the block tables of all live `sequences`."""
        owners = Counter(block for seq in sequences for block in seq.block_table)
        plain, entries = set(self._plain), Counter(self._idle)
        assert len(plain) == len(self._plain), "a block is free twice"
        assert self._stale.total() == self._num_stale
        for block in range(self.num_blocks):
            count = self._ref_counts[block]
            assert count == owners[block], f"block {block}: count {count}, owners {owners[block]}"
            key = self._key_of[block]
            assert key is None or self._block_of.get(key) == block, f"block {block}: its key names another block"
            assert self._known[block] == (key is not None)
            assert (block in plain) == (count == 0 and key is None), f"block {block}: count {count}, key {key!r}, plain"
            idle = entries[block] - self._stale[block]
            assert idle == (count == 0 and key is not None), f"block {block}: count {count}, key {key!r}, idle {idle}"
        assert self.num_free + self.num_used == self.num_blocks
        assert len(self._block_of) == sum(key is not None for key in self._key_of)
