"""Shadow traffic: copies of answered requests go to the new version, and their answers are compared and thrown away.

A copy leaves when the client's own answer is complete, straight to a replica of the new version and in the lowest
class. No policy of the gateway hears of it: it spends no retry budget, counts for no admission limit and stands on
nobody's bill. So it can change no client's answer, nor delay one. Of the shown text only a digest is kept while the
copy runs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from statistics import median
from typing import Any

from miniserve.api.answered import TEXT_KEPT, AnsweredCall
from miniserve.api.backend import ServedModel
from miniserve.errors import RequestError, no_first_token
from miniserve.gateway.fleet import Fleet
from miniserve.seeds import uniform
from miniserve.text import Detokenizer
from miniserve.types import Priority, Request, Send

SHADOW_TENANT = "shadow"
AT_ONCE = 8  # copies; more are skipped, so that a slow version is not buried under them
LIMIT_S = 60.0  # for the whole answer to a copy
_KEPT = 200  # times to first token of either side

OnCopy = Callable[[str, float | None, Exception | None], None]  # (version, time to first token, error)


@dataclass(slots=True)
class ShadowCounts:
    """What the new version answered where the old one's answer was shown."""

    copies: int = 0
    same: int = 0  # texts, as far as they are looked at
    errors: int = 0
    skipped: int = 0  # too many at once, or no replica was ready
    shown_characters: int = 0  # over the copies without error
    copied_characters: int = 0
    shown_ttft_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    copied_ttft_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def as_json(self) -> dict[str, Any]:
        """Return it for a person: shares, means and medians."""
        good = self.copies - self.errors
        characters = {"shown": self.shown_characters, "copy": self.copied_characters}
        return {
            "copies": self.copies,
            "skipped": self.skipped,
            "errors": self.errors,
            "same_text_share": round(self.same / good, 4) if good else None,
            "mean_characters": {name: round(n / good, 1) if good else None for name, n in characters.items()},
            "median_ttft_s": {"shown": _middle(self.shown_ttft_s), "copy": _middle(self.copied_ttft_s)},
        }

    def state(self) -> dict[str, Any]:
        """Return all of it, in JSON's types."""
        values = {name: getattr(self, name) for name in _COUNTS}
        return {**values, "ttft_s": [list(self.shown_ttft_s), list(self.copied_ttft_s)]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        for name in _COUNTS:
            setattr(self, name, int(state[name]))
        shown, copied = state["ttft_s"]
        self.shown_ttft_s.extend(map(float, shown))
        self.copied_ttft_s.extend(map(float, copied))


_COUNTS = ("copies", "same", "errors", "skipped", "shown_characters", "copied_characters")


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is remembered of the answer that was shown, while its copy runs."""

    digest: bytes
    characters: int
    ttft_s: float | None


class Mirror:
    """Copies a share of the requests for `model` that `old` answers."""

    def __init__(self, fleet: Fleet, model: ServedModel, old: str, new: str, on_copy: OnCopy) -> None:
        self.counts = ShadowCounts()
        self.fraction = 0.0
        self._fleet = fleet
        self._model = model
        self._old, self._new = old, new
        self._on_copy = on_copy
        self._running: set[asyncio.Task[None]] = set()

    def answered(self, call: AnsweredCall) -> None:
        """Copy the request of an answer that is complete, if it is one of those to copy."""
        request = call.request
        if self.fraction <= 0 or request.model != self._model.name or call.model != self._old or not call.is_complete:
            return
        if uniform("mirror", request.request_id) >= self.fraction:
            return
        replica_id = self._replica()
        if replica_id is None or len(self._running) >= AT_ONCE:
            self.counts.skipped += 1
            return
        shown = _Shown(_digest(call.text), len(call.text), call.ttft_s)
        task = asyncio.create_task(self._copy(Send(replica_id, _copied(request), 0), shown), name="shadow request")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _replica(self) -> str | None:
        ready = [view for view in self._fleet.view().ready() if view.version == self._new]
        return min(ready, key=lambda view: view.outstanding).replica_id if ready else None

    async def _copy(self, send: Send, shown: _Shown) -> None:
        started_s = self._fleet.clock()
        error: RequestError | None = None
        answer = _CopiedAnswer(self._model, send.request, self._fleet.clock)
        try:
            async with asyncio.timeout(LIMIT_S), aclosing(self._fleet.attempt(send)) as events:
                async for event in events:
                    if answer.take(event.token_ids, event.text, event.finish_reason is not None):
                        break
        except TimeoutError:
            error = no_first_token(LIMIT_S)
        except RequestError as broke:
            error = broke
        ttft_s = None if answer.first_s is None else answer.first_s - started_s
        self._on_copy(self._new, ttft_s, error)
        self._compare(shown, answer.text, ttft_s, error)

    def _compare(self, shown: _Shown, text: str, ttft_s: float | None, error: Exception | None) -> None:
        to = self.counts
        to.copies += 1
        if error is not None:
            to.errors += 1
            return
        text = text[:TEXT_KEPT]
        to.same += _digest(text) == shown.digest
        to.shown_characters += shown.characters
        to.copied_characters += len(text)
        if ttft_s is not None and shown.ttft_s is not None:
            to.shown_ttft_s.append(round(shown.ttft_s, 4))
            to.copied_ttft_s.append(round(ttft_s, 4))

    async def close(self) -> None:
        """Give up the copies that still run."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


class _CopiedAnswer:
    """The text of a copy's answer, as the edge would have made it."""

    def __init__(self, model: ServedModel, request: Request, clock: Callable[[], float]) -> None:
        sampling = request.sampling
        self.text = ""
        self.first_s: float | None = None
        self._detokenizer = Detokenizer(model.tokenizer.token_bytes, sampling.stop, sampling.min_tokens)
        self._unseen = frozenset(sampling.stop_token_ids)
        self._clock = clock

    def take(self, token_ids: tuple[int, ...], text: str | None, is_last: bool) -> bool:
        """Add what has come; return whether the answer is complete."""
        if self.first_s is None and (token_ids or text):
            self.first_s = self._clock()
        if text is not None:
            self.text += self._detokenizer.push_text(text)
        else:
            self.text += "".join(self._detokenizer.push(one) for one in token_ids if one not in self._unseen)
        if is_last and not self._detokenizer.stopped:
            self.text += self._detokenizer.flush()
        return is_last or self._detokenizer.stopped


def _copied(request: Request) -> Request:
    """Return the request as nobody's: without its client, its deadline and its place in a conversation."""
    name = f"shadow-{request.request_id}"
    shadow = replace(request, request_id=name, tenant=SHADOW_TENANT, priority=Priority.BATCH, session_key=None)
    return replace(shadow, deadline_s=None, resume_ids=(), seen=None)


def _digest(text: str) -> bytes:
    return blake2b(text[:TEXT_KEPT].encode("utf-8", "replace"), digest_size=16).digest()


def _middle(values: deque[float]) -> float | None:
    return round(median(values), 4) if values else None
