"""What a client says about its request beside the body: who asks, from where, how urgent, and by when.

    x-tenant-id  x-session-id  x-region  x-feature      short words, for routers, quotas and the bill
    x-cohort                                            a group of users, for feature flags
    x-priority                                          interactive, standard or batch, or 0, 1, 2
    x-request-timeout-s                                 seconds, from the arrival, after which no answer is wanted

Nobody checks who a client says it is: while the gateway asks for no keys, a tenant is what its clients call it. What
cannot be understood is refused by the header's name: a deadline or a class that is silently ignored is worse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from miniserve.errors import InvalidRequest
from miniserve.types import LOCAL_TENANT, Priority

TENANT, SESSION, REGION, FEATURE = "x-tenant-id", "x-session-id", "x-region", "x-feature"
COHORT, PRIORITY, TIMEOUT = "x-cohort", "x-priority", "x-request-timeout-s"
HINT_HEADERS = (TENANT, SESSION, REGION, FEATURE, COHORT, PRIORITY, TIMEOUT)
MOST_TIMEOUT_S = 86_400.0  # a day: nobody waits longer, and a clock still counts it to the microsecond
WORD_PATTERN = r"[A-Za-z0-9._:@/+=~|-]{1,128}"
_WORD = re.compile(WORD_PATTERN)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SHOWN = 60  # characters of a wrong value


@dataclass(frozen=True, slots=True)
class Hints:
    """The headers, understood. `timeout_s` None: an answer is welcome whenever it comes."""

    tenant: str = LOCAL_TENANT
    session_key: str | None = None
    region: str | None = None
    feature: str = ""
    priority: Priority | None = None
    timeout_s: float | None = None
    cohort: str = ""


def read_hints(headers: Mapping[str, str]) -> Hints:
    """Return what the headers say; an empty one says nothing. Raises: InvalidRequest naming the header."""
    priority, timeout_s = headers.get(PRIORITY), headers.get(TIMEOUT)
    return Hints(
        _word(headers, TENANT) or LOCAL_TENANT,
        _word(headers, SESSION),
        _word(headers, REGION),
        _word(headers, FEATURE) or "",
        _priority(priority.strip()) if priority else None,
        _timeout_s(timeout_s.strip()) if timeout_s else None,
        _word(headers, COHORT) or "",
    )


def _word(headers: Mapping[str, str], name: str) -> str | None:
    text = headers.get(name, "").strip()
    if text and not _WORD.fullmatch(text):
        raise _refusal(name, "must be 1 to 128 letters, digits or any of . _ : @ / + = ~ | -", text)
    return text or None


def _priority(text: str) -> Priority:
    for priority in Priority:
        if text.lower() in (priority.name.lower(), str(priority.value)):
            return priority
    names = ", ".join(f"{priority.name.lower()} ({priority.value})" for priority in Priority)
    raise _refusal(PRIORITY, f"must be one of {names}", text)


def _timeout_s(text: str) -> float:
    seconds = float(text) if _NUMBER.fullmatch(text) else 0.0
    if not 0 < seconds <= MOST_TIMEOUT_S:
        raise _refusal(TIMEOUT, f"must be a number of seconds above 0 and at most {MOST_TIMEOUT_S:g}", text)
    return seconds


def _refusal(name: str, must: str, text: str) -> InvalidRequest:
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return InvalidRequest(f"{name} {must}, got {shown!r}", param=name)
