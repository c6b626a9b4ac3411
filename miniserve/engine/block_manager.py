"""The KV cache as pages: who owns which block, and which freed blocks are worth keeping.

Memory for keys and values is cut into blocks of `block_size` tokens. A sequence owns a *block table*, the list of its
blocks in order; they may lie anywhere, so nothing is ever moved and at most one block per sequence is partly empty.

    free list:   [ 7, 2 | 9, 4, 11 ]      taken from the left
                   ^^^^   ^^^^^^^^
                   plain  still hold a known prefix, least recently used first

A full block is known by a key that covers all text before it too (`sequence.next_key`), so finding the longest cached
prefix is a walk from block 0 until the first miss. A hit takes a block out of the free list, or shares it when
somebody else is using it (reference counts). Only full blocks are ever shared and full blocks are never written again,
so no copy on write is needed.

Pure Python: it hands out numbers; `model` and `attention` own the memory. Every operation is O(blocks touched).
Source: PagedAttention (Kwon et al. 2023, arXiv:2309.06180); the free list as in vLLM's v1 block pool.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable

from miniserve.engine.sequence import BlockKey, Sequence


class BlockManager:
    """Block tables, reference counts, prefix cache.

    Invariants (see `check_integrity`): free + used = total; a block's count is the number of tables it is in; a block
    is in the free list exactly when its count is 0; a key names one block.
    """

    def __init__(self, num_blocks: int, block_size: int, prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.evictions = 0  # cached blocks overwritten for lack of plain ones
        self._ref_counts = [0] * num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._key_of: list[BlockKey | None] = [None] * num_blocks
        self._block_of: dict[BlockKey, int] = {}

    # --- what is there

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    @property
    def num_cached(self) -> int:
        """Blocks, used or free, whose content could be found again."""
        return len(self._block_of)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def cached_prefix(self, seq: Sequence) -> list[int]:
        """Return the blocks that already hold the start of `seq`; changes nothing.

        At most `len(tokens) - 1` tokens are reported: the last one must be computed again, since its *output* is what
        the next token is sampled from.
        """
        if not self.prefix_caching:
            return []
        seq.extend_keys(self.block_size)
        hits: list[int] = []
        for key in seq.block_keys[: (len(seq.tokens) - 1) // self.block_size]:
            block = self._block_of.get(key)
            if block is None:
                break
            hits.append(block)
        return hits

    def blocks_missing(self, seq: Sequence, hits: list[int]) -> int:
        """Return how many blocks the free list would lose if `seq` were admitted with these `hits`."""
        idle_hits = sum(1 for block in hits if self._ref_counts[block] == 0)
        return self.blocks_for(len(seq.tokens)) - len(hits) + idle_hits

    # --- changes

    def admit(self, seq: Sequence, hits: list[int]) -> None:
        """Give `seq` its cached prefix and blocks for all its tokens. The caller has checked `blocks_missing`."""
        assert not seq.block_table
        assert seq.num_computed == 0
        for block in hits:
            if self._ref_counts[block] == 0:
                del self._free[block]
            self._ref_counts[block] += 1
        seq.block_table.extend(hits)
        seq.num_computed = len(hits) * self.block_size
        grown = self.grow(seq, len(seq.tokens))
        assert grown, "admit() without checking blocks_missing()"

    def grow(self, seq: Sequence, num_tokens: int) -> bool:
        """Make room for `num_tokens` tokens in total. Return False, changing nothing, if the pool is too empty."""
        missing = self.blocks_for(num_tokens) - len(seq.block_table)
        if missing > len(self._free):
            return False
        for _ in range(missing):
            seq.block_table.append(self._take())
        return True

    def publish(self, seq: Sequence, start: int, end: int) -> None:
        """Make the blocks that became full when tokens `[start, end)` were computed findable by others."""
        if not self.prefix_caching:
            return
        first, last = start // self.block_size, end // self.block_size
        if last > first:
            seq.extend_keys(self.block_size)
        for i in range(first, last):
            block, key = seq.block_table[i], seq.block_keys[i]
            # Two sequences may compute the same text side by side; the first one's block is the one that is kept.
            if key not in self._block_of and self._key_of[block] is None:
                self._block_of[key] = block
                self._key_of[block] = key

    def release(self, seq: Sequence) -> None:
        """Take all blocks from `seq`, the last one first: the end of a text is forgotten before its start."""
        for block in reversed(seq.block_table):
            self._ref_counts[block] -= 1
            if self._ref_counts[block] == 0:
                self._free[block] = None
                if self._key_of[block] is None:
                    self._free.move_to_end(block, last=False)
        seq.block_table.clear()
        seq.num_computed = 0

    def forget(self) -> None:
        """Empty the prefix cache (new weights make old keys and values wrong)."""
        self._block_of.clear()
        self._key_of = [None] * self.num_blocks

    def _take(self) -> int:
        block, _ = self._free.popitem(last=False)
        key = self._key_of[block]
        if key is not None:
            del self._block_of[key]
            self._key_of[block] = None
            self.evictions += 1
        self._ref_counts[block] = 1
        return block

    # --- proof

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        """Raise AssertionError if the books do not balance against the block tables of all live `sequences`."""
        owners = Counter(block for seq in sequences for block in seq.block_table)
        for block in range(self.num_blocks):
            count = self._ref_counts[block]
            assert count == owners[block], f"block {block}: count {count}, owners {owners[block]}"
            assert (count == 0) == (block in self._free), f"block {block}: count {count} and the free list disagree"
            key = self._key_of[block]
            assert key is None or self._block_of.get(key) == block, f"block {block}: its key names another block"
        assert self.num_free + self.num_used == self.num_blocks
        assert len(self._block_of) == sum(key is not None for key in self._key_of)
