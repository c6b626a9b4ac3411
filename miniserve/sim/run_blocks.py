"""The engine's block manager with faster books: known blocks that follow each other in a text are kept as one *run*.

With an entry per block, a request costs more the longer its text is. Here a run is filed under its first key: the
longest cached prefix is found in a step or two per run, however long the runs are. A sequence that uses one block of a
run uses all of it; where a text leaves another in the middle of a run, the run is cut in two.

    runs     [9 4 6] -+- [7 5]      two texts that begin alike: the first run has two users
                      +- [3]
    idle     [10 8] [1] [12 11]     runs without users; the one that was used longest ago is taken first, and of a run
                 ^                  the last block first
    plain    [2 13]                 blocks that hold nothing known; taken before any idle one, from the right
    table    9 4 6 7 5 0            a sequence's blocks: those of its runs, then what is not known, or not yet

`BlockManager` says what is found, shared and forgotten; this class must agree with it to the block number
(`tests/properties/test_prefix_runs.py`).
Source: the runs of SGLang's radix tree (Zheng et al. 2024, arXiv:2312.07104).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import lru_cache

from miniserve.engine.block_manager import BlockManager
from miniserve.engine.sequence import BlockKey, Sequence


@lru_cache(maxsize=8)
def _numbers(num_blocks: int) -> tuple[int, ...]:
    """Return the blocks' numbers, the last first. All pools of a simulated fleet share them: 32 bytes a number."""
    return tuple(range(num_blocks - 1, -1, -1))


@dataclass(slots=True, eq=False)
class Run:
    """Known blocks that follow each other in a text."""

    keys: Seq[BlockKey]  # of these blocks, and of evicted ones that came after them
    start: int  # place of the first of `blocks` in the text
    blocks: list[int]
    users: int  # sequences that have these blocks in their tables

    @property
    def end(self) -> int:
        return self.start + len(self.blocks)

    def common_end(self, keys: Seq[BlockKey], end: int) -> int:
        """Return up to which place, at most `end`, `keys` are this text. At `start` they are.

        Where a key is equal, so are all before it.
        """
        end = min(end, self.end)
        if self.keys[end - 1 - self.start] == keys[end - 1]:
            return end
        return bisect_left(range(end), True, lo=self.start, key=lambda at: self.keys[at - self.start] != keys[at])


class RunBlocks(BlockManager):
    """A `BlockManager` whose books of single blocks stay empty, all but the plain ones.

    Invariants (see `check_integrity`): a known block is in one run, any other in one table or plain; a run has as many
    users as there are tables that hold its blocks, and is idle if it has none; a key is in one run only.
    """

    def __init__(self, num_blocks: int, block_size: int, prefix_caching: bool = True) -> None:
        super().__init__(num_blocks, block_size, prefix_caching)
        self._num_known = 0
        self._num_idle = 0  # the free ones among them
        self._plain = list(_numbers(num_blocks))
        self._runs: dict[BlockKey, Run] = {}  # by their first keys
        self._idle_runs: OrderedDict[Run, None] = OrderedDict()  # least recently used first
        self._last_run: dict[Sequence, Run] = {}  # of each sequence: what it computes next may go on there

    # --- what is there

    @property
    def num_free(self) -> int:
        return len(self._plain) + self._num_idle

    @property
    def num_cached(self) -> int:
        return self._num_known

    def cached_prefix(self, seq: Sequence) -> list[int]:
        if not self.prefix_caching:
            return []
        hits: list[int] = []
        for run, end in self._walk(seq.block_keys(self.block_size), (seq.num_tokens - 1) // self.block_size):
            hits += run.blocks[: end - run.start]
        return hits

    def blocks_missing(self, seq: Sequence, hits: list[int]) -> int:
        missing = self.blocks_for(seq.num_tokens) - len(hits)
        if hits:  # those that nobody uses are free
            runs = self._walk(seq.block_keys(self.block_size), len(hits))
            missing += sum(end - run.start for run, end in runs if run.users == 0)
        return missing

    def _walk(self, keys: Seq[BlockKey], end: int) -> Iterator[tuple[Run, int]]:
        """Yield the runs that hold the first `end` blocks of a text, each with the place up to which it does."""
        at = 0
        while at < end and (run := self._runs.get(keys[at])) is not None:
            at = run.common_end(keys, end)
            yield run, at

    # --- changes

    def publish(self, seq: Sequence, start: int, end: int) -> None:
        first, last = start // self.block_size, end // self.block_size
        if last == first or not self.prefix_caching:
            return
        keys, own = seq.block_keys(self.block_size), self._last_run.get(seq)
        at = first if own is not None and own.end == first else 0  # its last run ends with its last known block
        while at < last:
            if (run := self._runs.get(keys[at])) is not None:
                at = run.common_end(keys, last)
            elif at < first:
                return  # the beginning has been forgotten: nobody would find what follows
            else:
                at = self._extend(seq, keys, at, last)

    def _extend(self, seq: Sequence, keys: Seq[BlockKey], start: int, last: int) -> int:
        """Make unknown blocks of `seq` known, from `start` on, and return where they end.

        They go on with its last run, if that ends there and nobody else uses it.
        """
        end = start + 1
        while end < last and keys[end] not in self._runs:  # the next known block is the first of a run
            end += 1
        run, blocks = self._last_run.get(seq), seq.block_table[start:end]
        self._num_known += len(blocks)
        if run is not None and run.end == start and run.users == 1:
            run.keys = keys[run.start : end]
            run.blocks += blocks
        else:
            self._last_run[seq] = self._runs[keys[start]] = Run(keys[start:end], start, blocks, users=1)
        return end

    def release(self, seq: Sequence) -> None:
        table = seq.block_table
        if not table:
            return  # it still waits: its keys need not be known
        keys = seq.block_keys(self.block_size)[: len(table)] if self.prefix_caching else ()
        runs: list[Run] = []
        unknown: list[int] = []  # not computed yet, or another's block of the same text is the known one
        at = 0
        while at < len(keys):
            run = self._runs.get(keys[at])
            if run is not None and run.blocks[0] == table[at]:  # the table may also hold a second copy of the text
                runs.append(run)
                at = run.end
            else:
                unknown.append(table[at])
                at += 1
        self._plain.extend(reversed(unknown + table[len(keys) :]))
        for run in reversed(runs):
            self._leave(run)
        self._last_run.pop(seq, None)
        table.clear()
        seq.num_computed = 0

    def forget(self) -> None:
        assert self.num_used == 0, f"{self.num_used} blocks are used: release their sequences before forgetting"
        idle = [block for run in self._idle_runs for block in reversed(run.blocks)]
        self._plain[:0] = reversed(idle)
        self._runs.clear()
        self._idle_runs.clear()
        self._num_known = self._num_idle = 0

    def take(self, count: int) -> list[int]:
        taken = self._plain[: -count - 1 : -1]
        del self._plain[-count:]
        return taken if len(taken) == count else taken + self._evict_ends(count - len(taken))

    # --- runs

    def _share(self, seq: Sequence, hits: list[int]) -> None:
        if not hits:
            return
        for run, end in list(self._walk(seq.block_keys(self.block_size), len(hits))):
            used = run if end == run.end else self._cut(run, end)
            self._use(used)
            self._last_run[seq] = used

    def _use(self, run: Run) -> None:
        if run.users == 0:
            self._idle_runs.pop(run, None)  # a part that was just cut off is in no queue
            self._num_idle -= len(run.blocks)
        run.users += 1

    def _leave(self, run: Run) -> None:
        run.users -= 1
        if run.users == 0:
            self._idle_runs[run] = None
            self._num_idle += len(run.blocks)

    def _cut(self, run: Run, place: int) -> Run:
        """Cut `run` in two; return the first part. The second is `run` itself and keeps its place in the queue."""
        size = place - run.start
        first = self._runs[run.keys[0]] = Run(run.keys[:size], run.start, run.blocks[:size], run.users)
        run.keys, run.start, run.blocks = run.keys[size:], place, run.blocks[size:]
        self._runs[run.keys[0]] = run
        return first

    def _evict_ends(self, count: int) -> list[int]:
        evicted: list[int] = []
        while (missing := count - len(evicted)) > 0:
            run = next(iter(self._idle_runs))
            evicted += run.blocks[: -missing - 1 : -1]
            del run.blocks[-missing:]
            if not run.blocks:
                del self._idle_runs[run], self._runs[run.keys[0]]
        self._num_idle -= count
        self._num_known -= count
        self.evictions += count
        return evicted

    # --- proof

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        owners = Counter(block for seq in sequences for block in seq.block_table)
        run_of = {block: run for run in self._runs.values() for block in run.blocks}
        plain = set(self._plain)
        assert len(plain) == len(self._plain), "a block is free twice"
        for block in range(self.num_blocks):
            run = run_of.get(block)
            users = 1 - (block in plain) if run is None else run.users
            assert owners[block] == users, f"block {block}: owners {owners[block]}, and not {users}; its run is {run}"
            assert run is None or block not in plain, f"block {block}: known, and plain"
        keys = Counter(key for run in self._runs.values() for key in run.keys[: len(run.blocks)])
        assert set(keys.values()) <= {1}, "a key is in two runs"
        assert len(run_of) == keys.total() == self._num_known
        self._check_runs()

    def _check_runs(self) -> None:
        for key, run in self._runs.items():
            assert run.blocks, "an empty run"
            assert key == run.keys[0], "a run is filed under another key"
            assert (run in self._idle_runs) == (run.users == 0), f"a run of {run.users} users is in the wrong place"
        assert len(self._idle_runs) == sum(run.users == 0 for run in self._runs.values())
        for seq, run in self._last_run.items():
            assert seq.block_table[run.start : run.end] == run.blocks, f"the last run of {seq} is not in its table"
        assert self._num_idle == sum(len(run.blocks) for run in self._idle_runs)
        assert self.num_free + self.num_used == self.num_blocks
