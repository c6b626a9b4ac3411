"""Blocks kept in runs are found, shared and forgotten exactly as if each were kept alone.

`Alone` keeps books of single blocks: for each known text its users, and an order of those that nobody uses. It is slow
and short. Whatever happens to both, they must agree on what is free, cached, evicted, and found.
"""

from __future__ import annotations

from collections import OrderedDict
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from miniserve.engine.block_manager import BlockManager
from miniserve.engine.sequence import Sequence
from miniserve.sim.sequence import make_sequence
from miniserve.types import Request

SIZE = 2
Text = tuple[int, ...]  # from its first token to the end of a block


class Alone:
    """What a cache of single blocks holds, by the texts that end with them."""

    def __init__(self, num_blocks: int) -> None:
        self.plain = num_blocks
        self.evictions = 0
        self.users: dict[Text, int] = {}  # of each known block
        self.idle: OrderedDict[Text, None] = OrderedDict()

    def found(self, texts: list[Text]) -> int:
        return next((i for i, text in enumerate(texts) if text not in self.users), len(texts))

    def use(self, text: Text) -> None:
        self.users[text] += 1
        self.idle.pop(text, None)

    def take(self, count: int) -> None:
        for _ in range(count):
            if self.plain:
                self.plain -= 1
            else:
                text, _ = self.idle.popitem(last=False)
                del self.users[text]
                self.evictions += 1

    def publish(self, texts: list[Text], held: list[Text | None], place: int) -> None:
        """Of equal blocks the first is kept; and none behind a beginning that has been forgotten."""
        follows = place == 0 or held[place - 1] is not None or self.found(texts) >= place
        if texts[place] not in self.users and follows:
            self.users[texts[place]] = 1
            held[place] = texts[place]

    def release(self, held: list[Text | None]) -> None:
        for text in reversed(held):
            if text is None:
                self.plain += 1
            else:
                self.users[text] -= 1
                if self.users[text] == 0:
                    self.idle[text] = None


class Twins:
    """A block manager beside `Alone`."""

    def __init__(self, num_blocks: int) -> None:
        self.blocks = BlockManager(num_blocks, SIZE)
        self.alone = Alone(num_blocks)
        self.live: list[tuple[Sequence, list[Text | None]]] = []  # with the known text of each of its blocks

    def admit(self, seq: Sequence) -> None:
        texts = texts_of(seq)[: (seq.num_tokens - 1) // SIZE]
        hits = self.blocks.cached_prefix(seq)
        assert len(hits) == self.alone.found(texts)
        lost = -(-seq.num_tokens // SIZE) - len(hits) + sum(not self.alone.users[text] for text in texts[: len(hits)])
        assert self.blocks.blocks_missing(seq, hits) == lost
        if lost > self.blocks.num_free:
            return
        self.blocks.admit(seq, hits)
        held: list[Text | None] = [*texts[: len(hits)]]
        for text in texts[: len(hits)]:
            self.alone.use(text)
        self.live.append((seq, held))
        self._took(seq, held)
        self.check()

    def compute(self, which: int, num_tokens: int) -> None:
        seq, held = self.live[which]
        start, seq.num_computed = seq.num_computed, min(seq.num_tokens, seq.num_computed + num_tokens)
        self.blocks.publish(seq, start, seq.num_computed)
        for place in range(start // SIZE, seq.num_computed // SIZE):
            self.alone.publish(texts_of(seq), held, place)
        self.check()

    def say(self, which: int, token: int) -> None:
        """Add a token to a sequence whose others are computed, if there is room."""
        seq, held = self.live[which]
        if seq.num_computed == seq.num_tokens and self.blocks.grow(seq, seq.num_tokens + 1):
            self._took(seq, held)
            seq.append(token)
            self.check()

    def release(self, which: int) -> None:
        seq, held = self.live.pop(which)
        self.blocks.release(seq)
        self.alone.release(held)
        self.check()

    def _took(self, seq: Sequence, held: list[Text | None]) -> None:
        self.alone.take(len(seq.block_table) - len(held))
        held += [None] * (len(seq.block_table) - len(held))

    def check(self) -> None:
        self.blocks.check_integrity([seq for seq, _ in self.live])
        alone = self.alone
        assert self.blocks.num_free == alone.plain + len(alone.idle)
        assert self.blocks.num_cached == len(alone.users)
        assert self.blocks.evictions == alone.evictions


def texts_of(seq: Sequence) -> list[Text]:
    return [tuple(seq.tokens[: (place + 1) * SIZE]) for place in range(seq.num_tokens // SIZE)]


def live(rng: Random, num_blocks: int, steps: int, variety: int, ranges: bool) -> Twins:
    """Do anything to both. `variety`: how many tokens there are; with few of them most texts begin alike."""
    twins = Twins(num_blocks)
    for step in range(steps):
        what = rng.choice(("admit", "compute", "compute", "say", "release")) if twins.live else "admit"
        which = rng.randrange(len(twins.live)) if twins.live else 0
        match what:
            case "admit":
                length = rng.randint(1, 2 * num_blocks)
                if ranges:
                    prompt = range(first := 1000 * rng.randrange(variety), first + length)
                    twins.admit(make_sequence(Request(str(step), "m", prompt), 0.0))
                else:
                    tokens = tuple(rng.randrange(variety) for _ in range(length))
                    twins.admit(Sequence(Request(str(step), "m", tokens)))
            case "compute":
                twins.compute(which, rng.randint(1, 12))
            case "say":
                twins.say(which, rng.randrange(variety))
            case "release":
                twins.release(which)
    return twins


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 24), st.integers(1, 3), st.booleans())
def test_runs_equal_single_blocks(rng: Random, num_blocks: int, variety: int, ranges: bool) -> None:
    live(rng, num_blocks, 60, variety, ranges)


@pytest.mark.parametrize("ranges", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_runs_equal_single_blocks_for_long(seed: int, ranges: bool) -> None:
    twins = live(Random(seed), 40, 2000, 2, ranges)
    assert twins.blocks.evictions > 100
    while twins.live:
        twins.release(0)
    assert twins.blocks.num_used == 0
