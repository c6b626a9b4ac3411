"""What a drill's clients saw, request by request, and whether that is good enough."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

from miniserve.sse import SSEDecoder

Tokens = tuple[str, ...]


@dataclass
class Seen:
    """One streamed answer as its client saw it, token by token."""

    tokens: list[str] = field(default_factory=list)
    error: str | None = None  # what the client was told instead of an answer, or in the middle of one
    ends: int = 0  # times that the stream said it was complete

    def take(self, data: str) -> None:
        """Read one event of the stream."""
        if data == "[DONE]":
            self.ends += 1
            return
        event = json.loads(data)
        if "error" in event:
            self.error = str(event["error"]["message"])
        for choice in event.get("choices", ()):
            self.tokens += (choice.get("logprobs") or {}).get("tokens", ())

    @property
    def is_lost(self) -> bool:
        """Whether it just stopped: no end, and no word about why."""
        return self.ends == 0 and self.error is None


async def ask_greedily(
    client: httpx.AsyncClient, model: str, prompt: str, max_tokens: int, seen: Seen | None = None
) -> Seen:
    """Ask for exactly so many tokens, the most likely ones, as a stream; what comes is in `seen` at once."""
    seen = Seen() if seen is None else seen
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "min_tokens": max_tokens,
        "temperature": 0,
        "logprobs": 0,
        "stream": True,
    }
    try:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                seen.error = f"{response.status_code}: {(await response.aread()).decode(errors='replace')}"
                return seen
            decoder = SSEDecoder()
            async for chunk in response.aiter_raw():
                for data in decoder.feed(chunk):
                    seen.take(data)
    except (httpx.HTTPError, ValueError) as error:
        seen.error = f"{type(error).__name__}: {error}"
    return seen


@dataclass(frozen=True)
class DrillVerdict:
    """A drill's outcome. `errors`: what clients were told while a replica was ready; `excused`: while none was."""

    requests: int = 0
    answered: int = 0
    lost: int = 0
    altered: int = 0  # answers with doubled, missing or other tokens than without faults
    errors: tuple[str, ...] = ()
    excused: tuple[str, ...] = ()
    resumed: int = 0  # attempts that went on behind the first tokens of an answer
    faults: int = 0

    @property
    def passes(self) -> bool:
        """Whether no client noticed anything that could be helped."""
        return self.requests > 0 and not (self.lost or self.altered or self.errors)

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {**asdict(self), "passes": self.passes}

    def lines(self) -> list[str]:
        """Return it for people."""
        lines = [
            f"{self.faults} faults, {self.requests} requests: {self.answered} answered in full, {self.lost} lost, "
            f"{self.altered} with doubled or missing tokens, {len(self.errors)} errors; "
            f"{self.resumed} times a stream went on elsewhere"
        ]
        lines += [f"error: {error}" for error in sorted(set(self.errors))[:5]]
        if self.excused:
            lines.append(f"{len(self.excused)} more were refused while no replica was ready")
        return [*lines, "passed" if self.passes else "FAILED"]


@dataclass
class Tally:
    """Collects what is seen; `verdict` sums it up."""

    expected: dict[str, Tokens]  # by prompt: the tokens of the longest answer without faults
    requests: int = 0
    answered: int = 0
    lost: int = 0
    altered: int = 0
    errors: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)

    def add(self, prompt: str, max_tokens: int, seen: Seen, *, any_ready: bool) -> None:
        """Count one answer. `any_ready`: whether a replica was ready when it ended."""
        self.requests += 1
        if seen.error is not None:
            (self.errors if any_ready else self.excused).append(seen.error)
        elif seen.is_lost:
            self.lost += 1
        elif seen.ends != 1 or not is_same(seen.tokens, self.expected[prompt], max_tokens):
            self.altered += 1
        else:
            self.answered += 1

    def verdict(self, resumed: int, faults: int) -> DrillVerdict:
        errors, excused = tuple(self.errors), tuple(self.excused)
        return DrillVerdict(self.requests, self.answered, self.lost, self.altered, errors, excused, resumed, faults)


def is_same(tokens: Sequence[str], expected: Tokens, max_tokens: int) -> bool:
    """Whether an answer has exactly the tokens that it has without faults: a shorter one begins as the longest."""
    return tuple(tokens) == expected[:max_tokens] and len(tokens) == max_tokens
