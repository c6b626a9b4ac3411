"""What is known of one HTTP exchange so far: written by every station that it passes, read once by the request log.

Holds counts, times and names; of the answer only the beginning, for who judges answers, and never in a log.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.types import Scope

from miniserve.api.answered import TEXT_KEPT, AnsweredCall
from miniserve.api.hints import HINT_HEADERS
from miniserve.types import Request

MODEL_HEADER = "x-miniserve-model"  # who answered: NAME or NAME@VERSION
FLAGS_HEADER = "x-miniserve-flags"  # the feature flags that are on for this user
DEGRADED_HEADER = "x-miniserve-degraded"  # what an overloaded gateway took away: small-model, short-answer
_SANE_ID = re.compile(r"[!-~]{1,128}")  # printable, no spaces, and short enough for a log line and a header


@dataclass(slots=True)
class Exchange:
    """One request and its answer. Times are seconds on the injected clock."""

    request_id: str  # ours, and unique: everything inside, and the answer's body, calls it so
    client_request_id: str  # the client's `x-request-id`, else ours: for header and log
    started_s: float
    hints: Mapping[str, str] = field(default_factory=dict)  # of the headers that `hints` reads, those that were sent
    status: int | None = None  # of the response, once it has started
    error: str | None = None  # the type of the error object that was sent
    begun: bool = False  # something of the answer itself has been sent, more than headers and heartbeats
    gone: bool = False  # the client left, or stopped reading, before the end
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    discarded_tokens: int = 0  # of a first model's answer, which a second model's has replaced: not the client's bill
    first_token_s: float | None = None
    finish_reason: str | None = None
    answered_by: list[str] = field(default_factory=list)  # the models, as far as they have begun; mostly one
    degraded: list[str] = field(default_factory=list)  # what was taken away from it under overload
    headers: dict[str, str] = field(default_factory=dict)  # of the response, beside its own; read when it starts
    request: Request | None = None  # the first of those that the call asks for; None: it asks for no generation
    text: str = ""  # the beginning of the first choice

    def note_model(self, name: str) -> None:
        """Note that `name` answers, or answers a part."""
        if name not in self.answered_by:
            self.answered_by.append(name)
            self.headers[MODEL_HEADER] = ",".join(quote(each, safe="@/:+ ") for each in self.answered_by)

    def note_degraded(self, measure: str) -> None:
        """Note that `measure` was taken, for one of its choices at least."""
        if measure not in self.degraded:
            self.degraded.append(measure)
            self.headers[DEGRADED_HEADER] = ",".join(self.degraded)

    def note_text(self, text: str) -> None:
        """Keep the beginning of the first choice."""
        if len(self.text) < TEXT_KEPT:
            self.text = (self.text + text)[:TEXT_KEPT]

    def answered(self, status: int, ended_s: float) -> AnsweredCall | None:
        """Return how the call ended; None if it asked for no generation."""
        if self.request is None:
            return None
        return AnsweredCall(
            self.request_id,
            self.request,
            self.started_s,
            ended_s,
            status,
            self.answered_by[-1] if self.answered_by else "",
            self.error,
            self.finish_reason,
            self.first_token_s,
            self.prompt_tokens,
            self.cached_tokens,
            self.completion_tokens,
            self.text,
            tuple(self.degraded),
        )


def exchange_of(scope: Scope) -> Exchange:
    """Return the exchange that `access.AccessLog` put there."""
    exchange = scope["state"]["exchange"]
    assert isinstance(exchange, Exchange)
    return exchange


def new_exchange(headers: Headers, started_s: float) -> Exchange:
    """Begin one. The client's `x-request-id` is kept where it is sane; two clients may send the same."""
    offered_id = headers.get("x-request-id")
    hints = {name: ", ".join(headers.getlist(name)) for name in HINT_HEADERS if name in headers}
    request_id = uuid.uuid4().hex
    client_id = offered_id if offered_id and _SANE_ID.fullmatch(offered_id) else request_id
    return Exchange(request_id, client_id, started_s, hints)
