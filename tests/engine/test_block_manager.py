"""The pages: what is shared, what is evicted first, and what two tenants never see of each other.

The simulator's faster books must pass the same tests.
"""

from __future__ import annotations

from collections import OrderedDict
from random import Random

import pytest

from miniserve.engine.block_manager import BlockManager
from miniserve.engine.sequence import Sequence
from miniserve.sim.run_blocks import RunBlocks
from miniserve.types import Request

Kind = type[BlockManager]


@pytest.fixture(params=[BlockManager, RunBlocks], ids=["plain", "runs"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


def sequence(tokens: list[int], tenant: str = "") -> Sequence:
    return Sequence(Request("r", "m", tuple(tokens), tenant=tenant))


def admit(blocks: BlockManager, tokens: list[int], tenant: str = "") -> Sequence:
    seq = sequence(tokens, tenant)
    blocks.admit(seq, blocks.cached_prefix(seq))
    return seq


def compute(blocks: BlockManager, seq: Sequence) -> None:
    """Pretend that the model has computed everything."""
    start, seq.num_computed = seq.num_computed, len(seq.tokens)
    blocks.publish(seq, start, seq.num_computed)


def finish(blocks: BlockManager, tokens: list[int], tenant: str = "") -> int:
    """Serve a prompt from beginning to end; return how many of its tokens were cached."""
    seq = admit(blocks, tokens, tenant)
    cached = seq.num_computed
    compute(blocks, seq)
    blocks.release(seq)
    return cached


def test_blocks_are_counted_in_whole_pages(kind: Kind) -> None:
    blocks = kind(10, 4)
    seq = admit(blocks, list(range(9)))
    assert (blocks.num_used, blocks.num_free, len(seq.block_table)) == (3, 7, 3)
    blocks.release(seq)
    assert (blocks.num_used, blocks.num_free) == (0, 10)


def test_growing_takes_a_block_only_when_the_last_is_full(kind: Kind) -> None:
    blocks = kind(10, 4)
    seq = admit(blocks, list(range(4)))
    assert len(seq.block_table) == 1
    assert blocks.grow(seq, 5)
    assert len(seq.block_table) == 2
    assert blocks.grow(seq, 8)
    assert len(seq.block_table) == 2


def test_growing_beyond_the_pool_is_refused_and_changes_nothing(kind: Kind) -> None:
    blocks = kind(2, 4)
    seq = admit(blocks, list(range(8)))
    assert not blocks.grow(seq, 9)
    assert len(seq.block_table) == 2
    blocks.check_integrity([seq])


def test_the_last_token_is_never_taken_from_the_cache(kind: Kind) -> None:
    blocks = kind(10, 4)
    assert finish(blocks, list(range(8))) == 0
    assert finish(blocks, list(range(8))) == 4  # 8 would leave nothing to sample from
    assert finish(blocks, list(range(9))) == 8


def test_a_running_sequence_shares_its_full_blocks(kind: Kind) -> None:
    blocks = kind(10, 4)
    first = admit(blocks, list(range(9)))
    compute(blocks, first)
    second = admit(blocks, [*range(8), 99, 98])
    assert second.block_table[:2] == first.block_table[:2]
    assert blocks.num_used == 4  # 3 + 1 of its own
    blocks.check_integrity([first, second])
    blocks.release(first)
    blocks.check_integrity([second])
    assert blocks.num_used == 3


def test_a_block_that_is_not_yet_computed_is_not_found(kind: Kind) -> None:
    blocks = kind(10, 4)
    admit(blocks, list(range(9)))
    assert blocks.cached_prefix(sequence(list(range(9)))) == []


def test_the_same_block_after_another_start_is_another_block(kind: Kind) -> None:
    blocks = kind(10, 4)
    finish(blocks, [1, 1, 1, 1, 7, 7, 7, 7, 0])
    assert finish(blocks, [2, 2, 2, 2, 7, 7, 7, 7, 0]) == 0


def test_tenants_do_not_share(kind: Kind) -> None:
    blocks = kind(10, 4)
    finish(blocks, list(range(9)), tenant="alice")
    assert finish(blocks, list(range(9)), tenant="bob") == 0
    assert finish(blocks, list(range(9)), tenant="alice") == 8


def test_the_end_of_a_text_is_forgotten_before_its_start(kind: Kind) -> None:
    blocks = kind(3, 4)
    finish(blocks, list(range(12)))  # three full blocks, all cached, all free
    admit(blocks, [50, 51])  # needs one block: the last of the text goes
    assert blocks.cached_prefix(sequence(list(range(12)))) == blocks.cached_prefix(sequence(list(range(9))))
    assert len(blocks.cached_prefix(sequence(list(range(12))))) == 2
    assert blocks.evictions == 1


def test_blocks_without_a_prefix_are_used_first(kind: Kind) -> None:
    blocks = kind(4, 4)
    finish(blocks, list(range(9)))  # two cached, one plain, one never used
    other = admit(blocks, [70, 71, 72, 73, 74])
    assert blocks.evictions == 0
    blocks.check_integrity([other])


def test_without_prefix_caching_nothing_is_remembered(kind: Kind) -> None:
    blocks = kind(10, 4, prefix_caching=False)
    assert finish(blocks, list(range(9))) == 0
    assert finish(blocks, list(range(9))) == 0
    assert blocks.num_cached == 0


def test_forgetting_empties_the_cache_when_nobody_is_here(kind: Kind) -> None:
    blocks = kind(10, 4)
    seq = admit(blocks, list(range(9)))
    compute(blocks, seq)
    with pytest.raises(AssertionError, match="3 blocks are used"):
        blocks.forget()
    blocks.release(seq)
    assert (blocks.num_cached, len(blocks.cached_prefix(sequence(list(range(9)))))) == (2, 2)
    blocks.forget()
    assert (blocks.num_cached, blocks.num_free) == (0, 10)
    assert blocks.cached_prefix(sequence(list(range(9)))) == []
    blocks.check_integrity([])


@pytest.mark.parametrize("seed", range(5))
def test_hits_equal_an_independent_lru_model(kind: Kind, seed: int) -> None:
    """Serve conversations one after another beside a model that only knows prefixes and recency."""
    rng, size, pool = Random(seed), 4, 24
    blocks = kind(pool, size)
    lru: OrderedDict[tuple[int, ...], None] = OrderedDict()  # full prefixes, least recently used first
    plain = pool  # blocks that hold nothing known
    stems = [[rng.randrange(5) for _ in range(rng.randrange(4, 40))] for _ in range(6)]
    for _ in range(400):
        tokens = rng.choice(stems)[: rng.randrange(2, 40)] + [rng.randrange(5) for _ in range(rng.randrange(1, 9))]
        prefixes = [tuple(tokens[: (i + 1) * size]) for i in range(len(tokens) // size)]
        usable = prefixes[: (len(tokens) - 1) // size]
        hits = next((i for i, prefix in enumerate(usable) if prefix not in lru), len(usable))
        assert finish(blocks, tokens) == hits * size
        held = prefixes[:hits]
        for prefix in held:
            del lru[prefix]
        for _ in range(-(-len(tokens) // size) - hits):  # its other blocks: plain ones first, then the oldest known
            if plain:
                plain -= 1
            else:
                lru.popitem(last=False)
        fresh = [prefix for prefix in prefixes[hits:] if prefix not in lru]
        plain += -(-len(tokens) // size) - hits - len(fresh)
        for prefix in reversed(held + fresh):
            lru[prefix] = None
        assert blocks.num_cached == len(lru)
        blocks.check_integrity([])


def test_texts_found_again_for_ever_keep_their_order_and_take_no_memory(kind: Kind) -> None:
    blocks = kind(4, 2)
    first, second = [1, 2, 3], [7, 8, 9]  # a full block each, and a plain one for the rest
    for _ in range(1000):
        finish(blocks, first)
        finish(blocks, second)
        finish(blocks, first)
        blocks.check_integrity([])
    idle = blocks._idle_runs if isinstance(blocks, RunBlocks) else blocks._idle
    assert len(idle) == 2  # and not an entry per visit
    admit(blocks, [4, 4, 4, 4, 4])  # takes the two plain blocks, and evicts the text that was used longest ago
    assert [blocks.cached_prefix(sequence(text)) != [] for text in (first, second)] == [True, False]


def test_who_leaves_while_waiting_is_not_hashed(kind: Kind) -> None:
    blocks, seq = kind(10, 2), sequence([1, 2, 3, 4])
    blocks.release(seq)
    assert seq._block_keys == []


def test_the_books_notice_a_leak(kind: Kind) -> None:
    blocks = kind(4, 4)
    seq = admit(blocks, [1, 2, 3])
    seq.block_table.clear()  # forgotten without release
    with pytest.raises(AssertionError, match="owners"):
        blocks.check_integrity([seq])
