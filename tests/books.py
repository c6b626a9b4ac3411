"""What a block manager's books say, in one form for single blocks and for runs of them."""

from __future__ import annotations

from typing import Any

from miniserve.engine.block_manager import BlockManager
from miniserve.sim.run_blocks import RunBlocks


def books(blocks: BlockManager) -> dict[str, Any]:
    """Return which text is found in which block, and the free blocks in the order in which they will be taken."""
    if isinstance(blocks, RunBlocks):
        runs = blocks._runs.values()
        known = {key: block for run in runs for key, block in zip(run.keys, run.blocks, strict=False)}
        idle = [block for run in blocks._idle_runs for block in reversed(run.blocks)]
    else:
        known, idle = dict(blocks._block_of), list(blocks._idle)
    return {
        "known": known,
        "plain": blocks._plain[::-1],
        "idle": idle,
        "free": blocks.num_free,
        "cached": blocks.num_cached,
        "evictions": blocks.evictions,
    }
