"""The KV cache as pages: who owns which block, and which freed blocks are worth keeping.

Memory for keys and values is cut into blocks of `block_size` tokens. A sequence owns a *block table*, the list of its
blocks in order; they may lie anywhere, so nothing is ever moved and at most one block per sequence is partly empty.

A full block is known by a key that covers all text before it too (`sequence.next_key`). Known blocks that follow each
other in a text form a *run*, filed under its first key: the longest cached prefix is found in a step or two per run,
however long the runs are. Whoever uses one block of a run uses all of it; where a text leaves another in the middle of
a run, the run is cut in two. Only full blocks are ever shared and they are never written again, so no copy on write is
needed.

    runs     [9 4 6] -+- [7 5]      two texts that begin alike: the first run has two users
                      +- [3]
    idle     [10 8] [1] [12 11]     runs without users; the one that was used longest ago is taken first, and of a run
                 ^                  the last block first
    plain    [2 13]                 blocks that hold nothing known; taken before any idle one, from the right
    table    9 4 6 7 5 0            a sequence's blocks: those of its runs, then what is not known, or not yet

Pure Python: it hands out numbers; `model` and `attention` own the memory.
Sources: PagedAttention (Kwon et al. 2023, arXiv:2309.06180); least recently used first, and the end of a text before
its start, as in vLLM's v1 block pool, which keeps single blocks; the runs of SGLang's radix tree (Zheng et al. 2024,
arXiv:2312.07104). A key that says all that came before makes a dict do for the tree.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import lru_cache

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


class BlockManager:
    """Block tables and prefix cache.

    Invariants (see `check_integrity`): a known block is in one run, any other in one table or plain; a run has as many
    users as there are tables that hold its blocks, and is idle if it has none; a key is in one run only.
    """

    def __init__(self, num_blocks: int, block_size: int, prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.evictions = 0  # cached blocks overwritten for lack of plain ones
        self.num_cached = 0  # blocks, used or free, whose content could be found again
        self._num_idle = 0  # the free ones among them
        self._plain = list(_numbers(num_blocks))
        self._runs: dict[BlockKey, Run] = {}  # by their first keys
        self._idle: OrderedDict[Run, None] = OrderedDict()  # least recently used first
        self._last_run: dict[Sequence, Run] = {}  # of each sequence: what it computes next may go on there

    # --- what is there

    @property
    def num_free(self) -> int:
        return len(self._plain) + self._num_idle

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_free

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
        for run, end in self._walk(seq.block_keys(self.block_size), (seq.num_tokens - 1) // self.block_size):
            hits += run.blocks[: end - run.start]
        return hits

    def blocks_missing(self, seq: Sequence, hits: list[int]) -> int:
        """Return how many free blocks would be lost by admitting `seq` with `hits`, its cached prefix as it is now."""
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

    def admit(self, seq: Sequence, hits: list[int]) -> None:
        """Give `seq` its cached prefix, as it is now, and blocks for all its tokens. Ask `blocks_missing` before."""
        assert not seq.block_table
        assert seq.num_computed == 0
        if hits:
            for run, end in list(self._walk(seq.block_keys(self.block_size), len(hits))):
                used = run if end == run.end else self._cut(run, end)
                self._use(used)
                self._last_run[seq] = used
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
        """Make the blocks that became full when tokens `[start, end)` were computed findable by others.

        Two sequences may compute the same text side by side; the first one's blocks are those that are kept.
        """
        first, last = start // self.block_size, end // self.block_size
        if last == first or not self.prefix_caching:
            return
        keys, own = seq.block_keys(self.block_size), self._last_run.get(seq)
        # Right behind its own last run all before is known. Else some of it is another's, and may be gone by now.
        at = first if own is not None and own.end == first else 0
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
        self.num_cached += len(blocks)
        if run is not None and run.end == start and run.users == 1:
            run.keys = keys[run.start : end]
            run.blocks += blocks
        else:
            self._last_run[seq] = self._runs[keys[start]] = Run(keys[start:end], start, blocks, users=1)
        return end

    def release(self, seq: Sequence) -> None:
        """Take all blocks from `seq`, the last one first: the end of a text is forgotten before its start."""
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
        """Empty the prefix cache (new weights make old keys and values wrong). No sequence may be here."""
        assert self.num_used == 0, f"{self.num_used} blocks are used: release their sequences before forgetting"
        idle = [block for run in self._idle for block in reversed(run.blocks)]
        self._plain[:0] = reversed(idle)
        self._runs.clear()
        self._idle.clear()
        self.num_cached = self._num_idle = 0

    def _take(self, count: int) -> list[int]:
        """Take `count` blocks, at least 1, which are there: plain ones first, then those that were used longest ago."""
        taken = self._plain[: -count - 1 : -1]
        del self._plain[-count:]
        return taken if len(taken) == count else taken + self._evict(count - len(taken))

    # --- runs

    def _use(self, run: Run) -> None:
        if run.users == 0:
            self._idle.pop(run, None)  # a part that was just cut off is in no queue
            self._num_idle -= len(run.blocks)
        run.users += 1

    def _leave(self, run: Run) -> None:
        run.users -= 1
        if run.users == 0:
            self._idle[run] = None
            self._num_idle += len(run.blocks)

    def _cut(self, run: Run, place: int) -> Run:
        """Cut `run` in two; return the first part. The second is `run` itself and keeps its place in the queue."""
        size = place - run.start
        first = self._runs[run.keys[0]] = Run(run.keys[:size], run.start, run.blocks[:size], run.users)
        run.keys, run.start, run.blocks = run.keys[size:], place, run.blocks[size:]
        self._runs[run.keys[0]] = run
        return first

    def _evict(self, count: int) -> list[int]:
        evicted: list[int] = []
        while (missing := count - len(evicted)) > 0:
            run = next(iter(self._idle))
            evicted += run.blocks[: -missing - 1 : -1]
            del run.blocks[-missing:]
            if not run.blocks:
                del self._idle[run], self._runs[run.keys[0]]
        self._num_idle -= count
        self.num_cached -= count
        self.evictions += count
        return evicted

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
        full_at: dict[int, list[Sequence]] = defaultdict(list)
        for seq in seqs:
            for step in range(size - (seq.num_computed - steps) % size, steps + 1, size):
                full_at[step].append(seq)
        for step in sorted(full_at):
            full = full_at[step]
            for seq in full:
                end = seq.num_computed - steps + step
                self.publish(seq, end - 1, end)
            if step < steps or plan_next:
                for seq, block in zip(full, self._take(len(full)), strict=True):
                    seq.block_table.append(block)

    # --- proof

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        """Raise AssertionError if the books do not balance against the block tables of all live `sequences`."""
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
        assert len(run_of) == keys.total() == self.num_cached
        for key, run in self._runs.items():
            assert run.blocks, "an empty run"
            assert key == run.keys[0], "a run is filed under another key"
            assert (run in self._idle) == (run.users == 0), f"a run of {run.users} users is in the wrong place"
        assert len(self._idle) == sum(run.users == 0 for run in self._runs.values())
        for seq, run in self._last_run.items():
            assert seq.block_table[run.start : run.end] == run.blocks, f"the last run of {seq} is not in its table"
        assert self._num_idle == sum(len(run.blocks) for run in self._idle)
        assert self.num_free + self.num_used == self.num_blocks
