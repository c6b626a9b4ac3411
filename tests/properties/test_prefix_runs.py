"""Blocks kept in runs are found, shared and forgotten exactly as if each were kept alone.

Two block managers live through the same things: the engine's, with its books of single blocks, and the simulator's,
with runs. After each step they must agree on everything: which text is found in which block, all tables, and which
block is the next to be taken.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import hypothesis.strategies as st
import pytest
from books import books
from hypothesis import given, settings

from miniserve.engine.block_manager import BlockManager
from miniserve.engine.sequence import Sequence
from miniserve.sim.run_blocks import RunBlocks
from miniserve.sim.sequence import make_sequence
from miniserve.types import Request

SIZE = 2


class Twins:
    """Both block managers, and of each text two sequences: one for each."""

    def __init__(self, num_blocks: int) -> None:
        self.alone, self.runs = BlockManager(num_blocks, SIZE), RunBlocks(num_blocks, SIZE)
        self.live: list[tuple[Sequence, Sequence]] = []
        self.hits = 0  # blocks

    def admit(self, make: Callable[[], Sequence]) -> None:
        seq, twin = make(), make()
        hits = self.alone.cached_prefix(seq)
        assert self.runs.cached_prefix(twin) == hits
        lost = self.alone.blocks_missing(seq, hits)
        assert self.runs.blocks_missing(twin, hits) == lost
        if lost > self.alone.num_free:
            return
        self.alone.admit(seq, hits)
        self.runs.admit(twin, hits)
        self.live.append((seq, twin))
        self.hits += len(hits)

    def compute(self, which: int, num_tokens: int) -> None:
        for blocks, seq in zip((self.alone, self.runs), self.live[which], strict=True):
            start, seq.num_computed = seq.num_computed, min(seq.num_tokens, seq.num_computed + num_tokens)
            blocks.publish(seq, start, seq.num_computed)

    def say(self, which: int, token: int) -> None:
        """Add a token to a sequence whose others are computed, if there is room."""
        seq, twin = self.live[which]
        if seq.num_computed < seq.num_tokens:
            return
        grown = self.alone.grow(seq, seq.num_tokens + 1)
        assert self.runs.grow(twin, seq.num_tokens + 1) == grown
        if grown:
            seq.append(token)
            twin.append(token)

    def release(self, which: int) -> None:
        seq, twin = self.live.pop(which)
        self.alone.release(seq)
        self.runs.release(twin)

    def forget(self) -> None:
        self.alone.forget()
        self.runs.forget()

    def check(self) -> None:
        self.alone.check_integrity([seq for seq, _ in self.live])
        self.runs.check_integrity([twin for _, twin in self.live])
        assert books(self.runs) == books(self.alone)
        for seq, twin in self.live:
            assert twin.block_table == seq.block_table


def live(rng: Random, num_blocks: int, steps: int, variety: int, ranges: bool) -> Twins:
    """Do anything to both. `variety`: how many tokens there are; with few of them most texts begin alike."""
    twins = Twins(num_blocks)
    for step in range(steps):
        what = rng.choice(("admit", "compute", "compute", "say", "release")) if twins.live else "admit"
        which = rng.randrange(len(twins.live)) if twins.live else 0
        match what:
            case "admit":
                twins.admit(text(rng, str(step), rng.randint(1, 2 * num_blocks), variety, ranges))
            case "compute":
                twins.compute(which, rng.randint(1, 12))
            case "say":
                twins.say(which, rng.randrange(variety))
            case "release":
                twins.release(which)
        if not twins.live and rng.random() < 0.1:
            twins.forget()
        twins.check()
    return twins


def text(rng: Random, name: str, length: int, variety: int, ranges: bool) -> Callable[[], Sequence]:
    if ranges:
        first = 1000 * rng.randrange(variety)
        return partial(make_sequence, Request(name, "m", range(first, first + length)), 0.0)
    tokens = tuple(rng.randrange(variety) for _ in range(length))
    return partial(Sequence, Request(name, "m", tokens))


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 24), st.integers(1, 3), st.booleans())
def test_runs_equal_single_blocks(rng: Random, num_blocks: int, variety: int, ranges: bool) -> None:
    live(rng, num_blocks, 60, variety, ranges)


@pytest.mark.parametrize("ranges", [False, True], ids=["tokens", "ranges"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("steps", [2000, pytest.param(10_000, marks=pytest.mark.full)])
def test_runs_equal_single_blocks_for_long(
    steps: int, seed: int, ranges: bool, record_property: Callable[[str, object], None]
) -> None:
    twins = live(Random(seed), 40, steps, 2, ranges)

    counts = {"steps": steps, "evictions": twins.alone.evictions, "found_blocks": twins.hits}
    for name, count in counts.items():
        record_property(name, count)
    assert twins.alone.evictions > steps / 20
    assert twins.hits > steps / 20
    while twins.live:
        twins.release(0)
    assert twins.alone.num_used == twins.runs.num_used == 0


def test_behind_its_own_known_block_a_sequence_goes_on_though_the_beginning_is_forgotten() -> None:
    """Too rare to be drawn. The block can't be found until the beginning is computed again; both books must say so."""
    twins = Twins(8)
    for name in "xy":
        twins.admit(partial(Sequence, Request(name, "m", (1, 1, 1, 1, 1, 1))))
    for which, num_tokens in ((0, 2), (1, 4)):  # side by side: known are the first block of x and the second of y
        twins.compute(which, num_tokens)
    twins.release(0)
    twins.admit(partial(Sequence, Request("z", "m", tuple(range(10, 20)))))  # takes all that is free
    assert (twins.alone.evictions, twins.alone.num_cached) == (1, 1)
    twins.compute(0, 2)
    twins.check()
    assert twins.alone.num_cached == 2
    assert twins.alone.cached_prefix(twins.live[0][0]) == []


def test_behind_anothers_forgotten_copy_nothing_is_made_known() -> None:
    twins = Twins(8)
    for name in "xy":
        twins.admit(partial(Sequence, Request(name, "m", (1, 1, 1, 1, 1, 1))))
    for which, num_tokens in ((0, 4), (1, 4)):  # both of the known blocks are those of x
        twins.compute(which, num_tokens)
    twins.release(0)
    twins.admit(partial(Sequence, Request("z", "m", tuple(range(10, 18)))))
    assert (twins.alone.evictions, twins.alone.num_cached) == (1, 1)  # the beginning of the beginning is left
    twins.compute(0, 2)
    twins.check()
    assert twins.alone.num_cached == 1
