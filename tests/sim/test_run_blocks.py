"""What runs of blocks promise beyond what every block manager does (`tests/engine/test_block_manager.py`)."""

from __future__ import annotations

import pytest

from miniserve.engine.sequence import Sequence
from miniserve.sim.run_blocks import RunBlocks
from miniserve.types import Request


def admit(blocks: RunBlocks, tokens: list[int]) -> Sequence:
    seq = Sequence(Request("r", "m", tuple(tokens)))
    blocks.admit(seq, blocks.cached_prefix(seq))
    return seq


def finish(blocks: RunBlocks, tokens: list[int]) -> None:
    """Serve a prompt from beginning to end."""
    seq = admit(blocks, tokens)
    start, seq.num_computed = seq.num_computed, len(tokens)
    blocks.publish(seq, start, seq.num_computed)
    blocks.release(seq)


def test_a_text_behind_a_long_shared_beginning_keeps_its_own_keys_only() -> None:
    blocks, size = RunBlocks(100, 2), 2
    shared = list(range(40))
    for i in range(50):
        finish(blocks, [*shared, 100 + i, 100 + i, 0])
    assert blocks.num_cached == len(shared) // size + 50
    assert sum(len(run.keys) for run in blocks._runs.values()) == blocks.num_cached


def test_a_long_text_is_one_run_until_another_leaves_it() -> None:
    blocks = RunBlocks(100, 2)
    finish(blocks, list(range(81)))
    assert [len(run.blocks) for run in blocks._runs.values()] == [40]
    seq = admit(blocks, [*range(20), 7, 7, 7])
    assert sorted((len(run.blocks), run.users) for run in blocks._runs.values()) == [(10, 1), (30, 0)]
    blocks.check_integrity([seq])


def test_the_books_of_single_blocks_stay_empty() -> None:
    blocks = RunBlocks(20, 2)
    seq = admit(blocks, list(range(9)))
    blocks.publish(seq, 0, 8)
    blocks.release(seq)
    assert [len(each) for each in (blocks._users, blocks._idle, blocks._block_of, blocks._key_of)] == [0] * 4


def test_the_books_notice_a_run_in_the_wrong_place() -> None:
    blocks = RunBlocks(20, 2)
    finish(blocks, list(range(9)))
    blocks._idle_runs.clear()
    with pytest.raises(AssertionError, match="wrong place"):
        blocks.check_integrity([])
