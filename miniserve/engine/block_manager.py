"""The KV cache as pages: who owns which block, and which freed blocks are worth keeping.

Memory for keys and values is cut into blocks of `block_size` tokens. A sequence owns a *block table*, the list of its
blocks in order; they may lie anywhere, so nothing is ever moved and at most one block per sequence is partly empty.

A full block is known by a key that covers all text before it too (`sequence.next_key`): sequences that begin alike
share the blocks of their common beginning. Only full blocks are shared and they are never written again, so no copy on
write is needed. Each block is in one of three places:

    used     {9: 2, 4: 1, 7: 1}     in a table, with the number of its users: 2 tables hold block 9
    idle     [10 8 1 12]            free, but known: the one used longest ago is evicted first, from the left
    plain    [2 13]                 free, with nothing known in it: taken before any idle one, from the right

Pure Python: it hands out numbers; `model` and `attention` own the memory. The simulator runs a subclass with faster
books (`sim/run_blocks.py`), held to this class block number by block number in `tests/properties/test_prefix_runs.py`.
Sources: PagedAttention (Kwon et al. 2023, arXiv:2309.06180); least recently used first, and the end of a text before
its start, as in vLLM's v1 block pool. A key that says all that came before makes a dict do for a tree of texts.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable

from miniserve.engine.sequence import BlockKey, Sequence


class BlockManager:
    """Block tables and prefix cache. Invariants: see `check_integrity`."""

    def __init__(self, num_blocks: int, block_size: int, prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.evictions = 0  # cached blocks overwritten for lack of plain ones
        self._users: dict[int, int] = {}  # of each used block
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._plain = list(range(num_blocks - 1, -1, -1))
        self._block_of: dict[BlockKey, int] = {}  # the known blocks, used and idle
        self._key_of: dict[int, BlockKey] = {}  # the same, the other way round

    # --- what is there

    @property
    def num_free(self) -> int:
        return len(self._plain) + len(self._idle)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_free

    @property
    def num_cached(self) -> int:
        """Blocks, used or free, whose content can be found again."""
        return len(self._block_of)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def cached_prefix(self, seq: Sequence) -> list[int]:
        """Return the blocks that already hold the start of `seq`; changes nothing.

        At most `num_tokens - 1` tokens are reported: the last one must be computed again, since its *output* is what
        the next token is sampled from.
        """
        hits: list[int] = []
        if self.prefix_caching:
            for key in seq.block_keys(self.block_size)[: (seq.num_tokens - 1) // self.block_size]:
                if (block := self._block_of.get(key)) is None:
                    break
                hits.append(block)
        return hits

    def blocks_missing(self, seq: Sequence, hits: list[int]) -> int:
        """Return how many free blocks would be lost by admitting `seq` with `hits`, its cached prefix as it is now."""
        return self.blocks_for(seq.num_tokens) - len(hits) + sum(block in self._idle for block in hits)

    # --- changes

    def admit(self, seq: Sequence, hits: list[int]) -> None:
        """Give `seq` its cached prefix, as it is now, and blocks for all its tokens. Ask `blocks_missing` before."""
        assert not seq.block_table
        assert seq.num_computed == 0
        self._share(seq, hits)
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
        seq.block_table += self.take(missing)
        return True

    def publish(self, seq: Sequence, start: int, end: int) -> None:
        """Make the blocks that became full when tokens `[start, end)` were computed findable by others.

        Two sequences may compute the same text side by side; the first one's blocks are those that are kept.
        """
        first, last = start // self.block_size, end // self.block_size
        if last == first or not self.prefix_caching:
            return
        keys, table = seq.block_keys(self.block_size), seq.block_table
        # Nobody finds blocks behind a beginning that has been evicted. That the block before these is known and its own
        # says in one look-up that all is well; behind another's copy of the text every key has to be asked for.
        behind_own = first == 0 or self._block_of.get(keys[first - 1]) == table[first - 1]
        if not behind_own and any(key not in self._block_of for key in keys[:first]):
            return
        for key, block in zip(keys[first:last], table[first:last], strict=True):
            if key not in self._block_of:
                self._block_of[key] = block
                self._key_of[block] = key

    def release(self, seq: Sequence) -> None:
        """Take all blocks from `seq`, the last one first: the end of a text is forgotten before its start."""
        for block in reversed(seq.block_table):
            self._users[block] -= 1
            if self._users[block] == 0:
                del self._users[block]
                if block in self._key_of:
                    self._idle[block] = None
                else:
                    self._plain.append(block)
        seq.block_table.clear()
        seq.num_computed = 0

    def forget(self) -> None:
        """Empty the prefix cache (new weights make old keys and values wrong). No sequence may be here."""
        assert self.num_used == 0, f"{self.num_used} blocks are used: release their sequences before forgetting"
        self._plain[:0] = reversed(self._idle)
        self._idle.clear()
        self._block_of.clear()
        self._key_of.clear()

    def take(self, count: int) -> list[int]:
        """Take `count` blocks, at least 1, which are there: plain ones first, then those that were used longest ago."""
        taken = [self._plain.pop() if self._plain else self._evict() for _ in range(count)]
        self._users.update(dict.fromkeys(taken, 1))
        return taken

    def _share(self, seq: Sequence, hits: list[int]) -> None:
        for block in hits:
            self._idle.pop(block, None)
            self._users[block] = self._users.get(block, 0) + 1

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)
        del self._block_of[self._key_of.pop(block)]
        self.evictions += 1
        return block

    # --- proof

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        """Raise AssertionError if the books do not balance against the block tables of all live `sequences`."""
        owners = Counter(block for seq in sequences for block in seq.block_table)
        assert owners == self._users, f"owners of blocks: {dict(owners)}, and not {self._users}"
        places = [*self._users, *self._idle, *self._plain]
        assert sorted(places) == list(range(self.num_blocks)), "a block is in two places, or in none"
        assert {block: key for key, block in self._block_of.items()} == self._key_of
        assert len(self._block_of) == len(self._key_of), "a block has two keys"
        assert self._idle.keys() <= self._key_of.keys(), "an idle block that nobody can find"
        assert self._key_of.keys().isdisjoint(self._plain), "a plain block that is known"
