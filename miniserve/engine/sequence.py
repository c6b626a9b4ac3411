"""A sequence: one request's life inside the engine.

Outside the engine we say *request* (what somebody asked for); inside, *sequence* (the tokens so far, and how many of
them the KV cache holds). Pure Python: no torch, no clock.

    WAITING --admit--> RUNNING --eos, length--> FINISHED
       ^                  |
       +--preempt, yield--+          abort: from anywhere to FINISHED
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence as Seq
from enum import StrEnum

from miniserve.types import FinishReason, Request

BlockKey = bytes  # identifies the content of a full block *and* everything before it


class SequenceStatus(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


def root_key(salt: str) -> BlockKey:
    """Key "before the first block". The tenant's salt goes in here, so two tenants never share a block.

    Otherwise a fast answer would tell one tenant what another has asked (CVE-2025-46570 in vLLM).
    """
    return hashlib.blake2b(salt.encode(), digest_size=16, person=b"miniserve-kv").digest()


def next_key(parent: BlockKey, token_ids: Seq[int]) -> BlockKey:
    """Chain one more full block: equal keys mean equal tokens from the very start of the text."""
    return hashlib.blake2b(parent + array("q", token_ids).tobytes(), digest_size=16).digest()


class Sequence:
    """Tokens of one request, and where they stand.

    Invariants: `0 <= num_computed <= len(tokens)`; positions `[0, num_computed)` have their keys and values in
    `block_table`; `block_keys[i]` belongs to the i-th *full* block.
    """

    __slots__ = (
        "block_keys",
        "block_table",
        "cached_tokens",
        "finish_reason",
        "high_water",
        "max_output_tokens",
        "num_computed",
        "num_prompt",
        "queued_s",
        "request",
        "status",
        "tokens",
        "turn_tokens",
    )

    def __init__(self, request: Request, queued_s: float = 0.0, max_output_tokens: int | None = None) -> None:
        self.request = request
        self.tokens = [*request.prompt_ids, *request.resume_ids]
        self.num_prompt = len(request.prompt_ids)
        self.max_output_tokens = request.sampling.max_tokens if max_output_tokens is None else max_output_tokens
        self.num_computed = 0
        self.high_water = 0  # most tokens ever computed: what lies below was paid for once already
        self.cached_tokens = 0  # prompt tokens found in the prefix cache at first admission
        self.turn_tokens = 0  # generated since last admitted
        self.queued_s = queued_s
        self.block_table: list[int] = []
        self.block_keys: list[BlockKey] = []
        self.status = SequenceStatus.WAITING
        self.finish_reason: FinishReason | None = None

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def num_output(self) -> int:
        """Tokens generated so far; also the index of the next one, which keys its random draw."""
        return len(self.tokens) - self.num_prompt

    @property
    def num_uncomputed(self) -> int:
        return len(self.tokens) - self.num_computed

    def extend_keys(self, block_size: int) -> None:
        """Make `block_keys` cover every full block of `tokens` (keys a workload brought along are kept)."""
        for i in range(len(self.block_keys), len(self.tokens) // block_size):
            parent = self.block_keys[-1] if i else root_key(self.request.tenant)
            self.block_keys.append(next_key(parent, self.tokens[i * block_size : (i + 1) * block_size]))

    def __repr__(self) -> str:
        return f"<Sequence {self.request_id} {self.status.value} {self.num_computed}/{len(self.tokens)} tokens>"
