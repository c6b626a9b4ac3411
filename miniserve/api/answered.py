"""How a call of a client ended, for those who look at answers and not at bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from miniserve.types import LOCAL_TENANT, Request

TEXT_KEPT = 4_000  # characters of an answer that are shown to `OnCallEnd`


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """A call that asked for a generation, over all its choices. Times are seconds on the edge's clock.

    `request` is the first of those that it asked for. The text is there to be looked at and forgotten: it must not be
    kept, logged or sent anywhere.
    """

    answer_id: str  # ours; the client knows it as "chatcmpl-ID" or "cmpl-ID"
    request: Request
    started_s: float
    ended_s: float
    status: int  # 499: the client left
    model: str = ""  # who answered, or answered last: NAME or NAME@VERSION; "" if nobody began to
    error: str | None = None  # the type of the error object that was sent
    finish_reason: str | None = None
    first_token_s: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    text: str = ""  # the beginning of the first choice
    degraded: tuple[str, ...] = ()

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_token_s is None else self.first_token_s - self.started_s

    @property
    def is_complete(self) -> bool:
        """Whether the client got the whole answer."""
        return self.status == 200 and self.error is None and self.finish_reason in ("stop", "length")

    @property
    def failed(self) -> bool:
        """Whether it failed through our fault: a client's error, or its leaving, is not ours."""
        return self.status >= 500 or (self.status == 200 and not self.is_complete)

    @property
    def user(self) -> str:
        """Who asked, as far as is known: the session, else the tenant, else this call alone."""
        tenant = "" if self.request.tenant == LOCAL_TENANT else self.request.tenant
        return self.request.session_key or tenant or self.answer_id


OnCallEnd = Callable[[AnsweredCall], None]
