"""What users show without being asked: they ask again, ask differently, leave, or come back.

    retry      the same prompt again within a minute: the answer did not help
    rephrase   a similar prompt within a minute: at least half of all words of both are in both
    abandon    the client left before the end of the answer
    return     a request after a break of ten minutes or more: the service was worth coming back to

A signal is about the user's last answer, and only as good as the habit behind it: a program that polls retries all day.
Of a prompt only hashes are kept, for the last users that asked.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from miniserve.types import TokenIds

Signal = Literal["retry", "rephrase", "abandon", "return"]
SOON_S = 60.0
BREAK_S = 600.0
SIMILAR = 0.5  # Jaccard's index of the sets of tokens
USERS = 20_000
TOKENS = 512  # of a prompt's end: the question stands there, and a chat's beginning is always the same


@dataclass(frozen=True, slots=True)
class _Asked:
    at_s: float
    whole: int  # hash of the prompt
    tokens: frozenset[int]


class SignalWatch:
    """Remembers each user's last prompt. Told of calls in the order of their ends."""

    def __init__(self, *, users: int = USERS) -> None:
        self._users = users
        self._last: OrderedDict[str, _Asked] = OrderedDict()

    def signals(self, user: str, prompt_ids: TokenIds, began_s: float, *, left: bool) -> tuple[Signal, ...]:
        """Return what this call shows about `user`'s answers; `left`: the client did not wait for its end."""
        asked = _Asked(began_s, hash(tuple(prompt_ids)), frozenset(prompt_ids[-TOKENS:]))
        before = self._last.pop(user, None)
        self._last[user] = asked
        if len(self._last) > self._users:
            self._last.popitem(last=False)
        found: list[Signal] = [] if before is None else list(_about(before, asked))
        return (*found, "abandon") if left else tuple(found)


def similarity(one: frozenset[int], other: frozenset[int]) -> float:
    """Return Jaccard's index: the share of all tokens of both that both have; 1 for two empty ones."""
    return len(one & other) / len(one | other) if one or other else 1.0


def _about(before: _Asked, now: _Asked) -> tuple[Signal, ...]:
    passed_s = now.at_s - before.at_s
    if passed_s >= BREAK_S:
        return ("return",)
    if passed_s > SOON_S:
        return ()
    if now.whole == before.whole:
        return ("retry",)
    return ("rephrase",) if similarity(now.tokens, before.tokens) >= SIMILAR else ()
