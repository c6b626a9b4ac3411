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

BlockKey = bytes | int  # identifies the content of a full block *and* everything before it


class SequenceStatus(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


def root_key(salt: str) -> bytes:
    """Key "before the first block". The tenant's salt goes in here, so two tenants never share a block.

    Otherwise a fast answer would tell one tenant what another has asked (CVE-2025-46570 in vLLM).
    """
    return hashlib.blake2b(salt.encode(), digest_size=16, person=b"miniserve-kv").digest()


def next_key(parent: bytes, token_ids: Seq[int]) -> bytes:
    """Chain one more full block: equal keys mean equal tokens from the very start of the text."""
    return hashlib.blake2b(parent + array("q", token_ids).tobytes(), digest_size=16).digest()


class Sequence:
    """Tokens of one request, and where they stand.

    Invariants: `0 <= num_computed <= num_tokens`; positions `[0, num_computed)` have their keys and values in
    `block_table`.
    """

    __slots__ = (
        "_block_keys",
        "_tokens",
        "block_table",
        "cached_tokens",
        "finish_reason",
        "high_water",
        "max_output_tokens",
        "num_computed",
        "num_prompt",
        "num_tokens",
        "queued_s",
        "rank",
        "request",
        "status",
        "turn_tokens",
    )

    def __init__(self, request: Request, queued_s: float = 0.0, max_output_tokens: int | None = None) -> None:
        self.request = request
        self._tokens = self._read(request)
        self.num_prompt = len(request.prompt_ids)
        self.num_tokens = self.num_prompt + len(request.resume_ids)
        self.max_output_tokens = request.sampling.max_tokens if max_output_tokens is None else max_output_tokens
        self.num_computed = 0
        self.high_water = 0  # most tokens ever computed: what lies below was paid for once already
        self.cached_tokens = 0  # prompt tokens found in the prefix cache at first admission
        self.turn_tokens = 0  # generated since last admitted
        self.queued_s = queued_s
        self.rank = queued_s  # set by the scheduler when it queues the sequence
        self.block_table: list[int] = []
        self._block_keys: list[bytes] = []
        self.status = SequenceStatus.WAITING
        self.finish_reason: FinishReason | None = None

    def _read(self, request: Request) -> list[int]:
        return [*request.prompt_ids, *request.resume_ids]

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def tokens(self) -> Seq[int]:
        """The prompt, what was resumed, and what was generated: to be read only."""
        return self._tokens

    @property
    def num_output(self) -> int:
        """Tokens generated so far; also the index of the next one, which keys its random draw."""
        return self.num_tokens - self.num_prompt

    @property
    def num_uncomputed(self) -> int:
        return self.num_tokens - self.num_computed

    def append(self, token: int) -> None:
        """Add a sampled token."""
        self._tokens.append(token)
        self.num_tokens += 1

    def block_keys(self, block_size: int) -> Seq[BlockKey]:
        """Return the keys of all full blocks of `tokens`, in order; each is computed once."""
        keys = self._block_keys
        for i in range(len(keys), self.num_tokens // block_size):
            parent = keys[-1] if i else root_key(self.request.tenant)
            keys.append(next_key(parent, self._tokens[i * block_size : (i + 1) * block_size]))
        return keys

    def __repr__(self) -> str:
        return f"<Sequence {self.request_id} {self.status.value} {self.num_computed}/{self.num_tokens} tokens>"
