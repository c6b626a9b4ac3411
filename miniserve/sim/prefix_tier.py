"""One prefix cache behind all replicas: what one has computed, another can fetch instead of recomputing it.

    admission:  | own cache | fetched from the tier | computed |     fetching takes bytes / bandwidth
    the tier:   prompt blocks once they are computed, the answer's once the sequence leaves; LRU

Without it, a conversation's cache is where its last turn ran: a balancer must send the next turn back there (affinity)
or pay for the whole prompt again. With it, any replica will do, at the price of moving the blocks.

A step that admits a sequence waits until its blocks have arrived, and so does everything else in the batch: the engine
loads them before it launches the step. Writing goes on in the background and costs nothing here; each replica has its
own bandwidth. Tenants never share: their blocks have different keys, in the tier as in the cache.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Seq

from miniserve.config import CacheConfig
from miniserve.engine.sequence import BlockKey, Sequence
from miniserve.hardware.spec import TierSpec
from miniserve.sim.run_blocks import RunBlocks


class PrefixTier:
    """The shared store: the least recently used block leaves first."""

    def __init__(self, spec: TierSpec) -> None:
        self.spec = spec
        self.asked_blocks = 0  # not found in a replica's own cache
        self.fetched_blocks = 0
        self.evicted_blocks = 0
        self._blocks: OrderedDict[BlockKey, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def fetch(self, keys: Seq[BlockKey]) -> int:
        """Return how many leading `keys` are present, and count those as used."""
        found = 0
        while found < len(keys) and keys[found] in self._blocks:
            found += 1
        self.asked_blocks += len(keys)
        self.fetched_blocks += found
        self._touch(keys[:found])
        return found

    def put(self, keys: Seq[BlockKey]) -> None:
        """Keep these blocks; those already present count as used."""
        for key in keys:
            self._blocks[key] = None
        self._touch(keys)
        while len(self._blocks) > self.spec.capacity_blocks:
            self._blocks.popitem(last=False)
            self.evicted_blocks += 1

    def seconds(self, blocks: int) -> float:
        """Return how long it takes to fetch so many blocks."""
        spec = self.spec
        return spec.latency_s + blocks * spec.block_bytes / spec.bandwidth_bytes_per_s if blocks else 0.0

    def _touch(self, keys: Seq[BlockKey]) -> None:
        for key in reversed(keys):  # the end of a text is forgotten before its start, which others may share
            self._blocks.move_to_end(key)


class TieredBlocks(RunBlocks):
    """A replica's blocks with the tier behind them; to the scheduler a block manager with a better hit rate."""

    def __init__(self, tier: PrefixTier, cache: CacheConfig) -> None:
        super().__init__(cache.num_blocks, cache.block_size, cache.prefix_caching)
        self._tier = tier
        self._wait_s = 0.0

    def take_wait_s(self) -> float:
        """Return how long the step just scheduled must wait for blocks; called once per step."""
        wait_s, self._wait_s = self._wait_s, 0.0
        return wait_s

    def admit(self, seq: Sequence, hits: list[int]) -> None:
        super().admit(seq, hits)
        if not self.prefix_caching:
            return
        last = (len(seq.tokens) - 1) // self.block_size  # the last token is always computed
        found = self._tier.fetch(seq.block_keys(self.block_size)[len(hits) : last])
        if found:
            start = seq.num_computed
            seq.num_computed += found * self.block_size
            super().publish(seq, start, seq.num_computed)
            self._wait_s += self._tier.seconds(found)

    def publish(self, seq: Sequence, start: int, end: int) -> None:
        super().publish(seq, start, end)
        self._write_back(seq, start, min(end, seq.num_prompt))

    def release(self, seq: Sequence) -> None:
        # A jump over decode steps records them late, but a sequence leaves at the same moment with and without jumps.
        self._write_back(seq, 0, seq.num_computed)
        super().release(seq)

    def _write_back(self, seq: Sequence, start: int, end: int) -> None:
        first, last = start // self.block_size, end // self.block_size
        if self.prefix_caching and last > first:
            self._tier.put(seq.block_keys(self.block_size)[first:last])
