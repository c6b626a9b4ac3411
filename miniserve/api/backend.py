"""What stands behind the edge: something that turns one `Request` into token events.

A single replica in this process, a fleet with its dispatcher, and a script in a test all look the same from here.
Knows no HTTP and no implementation.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from miniserve.types import Request, TokenEvent


class Backend(Protocol):
    """Generates. Contract: whoever iterates `generate` also closes it, once, in the same task."""

    def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Yield the tokens of `request` as they come; the last event carries a `finish_reason`.

        `aclose()`, at any moment, aborts the generation and frees what it holds.

        Raises: RequestError before the first event (the client gets its status) or between events (the client gets it
            inside the stream).
        """
        ...

    def ready(self) -> bool:
        """Whether new requests would be served now; `/health` says so."""
        ...


class TextTokenizer(Protocol):
    """The part of a tokenizer that the edge needs (see `models.tokenizer.Tokenizer`)."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def eos_ids(self) -> tuple[int, ...]: ...

    def encode(self, text: str) -> list[int]: ...

    def encode_chat(self, messages: list[dict[str, str]]) -> list[int]: ...

    def token_bytes(self, token_id: int) -> bytes: ...

    def control_token(self, token_id: int) -> str | None: ...

    def decode(self, ids: list[int]) -> str: ...


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model that the edge offers: its public name, and what is needed to count and to cut its tokens."""

    name: str
    tokenizer: TextTokenizer
    max_model_len: int  # tokens, prompt and answer together
    created: int  # seconds since 1970, for /v1/models
    longest_token_bytes: int | None = None  # no text of so many bytes is less than a token; None: not known
    versions: tuple[str, ...] = ()  # "2" can be asked for as NAME@2; none: there is just one, without a number
