"""What gateway and replica say to each other: requests, token events, errors and reports as JSON, both ways.

Knows the shapes and checks them; does not know HTTP or SSE. Text never crosses here, only token ids: the side that
talks to the client turns them into text, once.

**No number of another program's is believed unread.** What decides a wait or a route must be finite, not negative and
of a size that arithmetic survives. A report that breaks this is none, and its replica counts as one that did not
answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from miniserve import errors
from miniserve.engine.stats import EngineStats
from miniserve.errors import InvalidRequest, RequestError, UpstreamError
from miniserve.types import ReplicaState, Request, TokenEvent, TokenLogprob


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What a replica says about itself: its process, and its engine as of the last step."""

    pid: int
    model: str
    state: ReplicaState
    uptime_s: float
    rss_bytes: int
    max_model_len: int
    stats: EngineStats
    max_abort_lag_steps: int = 0
    import_s: float = 0.0  # the stages of its cold start
    load_s: float = 0.0
    warm_up_s: float = 0.0


MOST_RETRY_AFTER_S = 60.0  # a replica that wants to be left alone for longer is asked again all the same
_MOST = 1 << 53  # any count beyond is nonsense; up to here floats hold every whole number


@dataclass(frozen=True, slots=True)
class _Sent(Request):
    """A request on its way. No clock of one process means anything in another: a deadline travels as the time left."""

    within_s: Annotated[float | None, Field(ge=0, le=_MOST, allow_inf_nan=False)] = None


_CLOCK_READINGS = {"deadline_s", "arrived_s"}
_OWN = {"seen"}  # a matter of the gateway's
_FIELDS = [field.name for field in fields(Request)]

_request = TypeAdapter(_Sent)
_event = TypeAdapter(TokenEvent)
_report = TypeAdapter(ReplicaReport)
_REPORTED = [field.name for field in fields(ReplicaReport) if field.type in ("int", "float")]
_STATS = [field.name for field in fields(EngineStats) if field.type in ("int", "float")]

_KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RequestError) and kind is not RequestError
]
_BY_CODE = {(kind.status, kind.code): kind for kind in _KINDS}  # one class has the status itself; others add a code
_BY_TYPE = {kind.type: kind for kind in reversed(_KINDS)}  # the first class of those that share a type


def encode_request(request: Request, now_s: float) -> bytes:
    """Return the request as it travels. `now_s`: the time on the clock that its deadline is read on."""
    within_s = None if request.deadline_s is None else max(0.0, request.deadline_s - now_s)
    sent = _Sent(**{name: getattr(request, name) for name in _FIELDS}, within_s=within_s)
    return _request.dump_json(sent, exclude=_CLOCK_READINGS | _OWN)


def decode_request(data: bytes, now_s: float) -> Request:
    """Return the request with a deadline on our own clock, which says `now_s`.

    Raises: InvalidRequest, naming the first field that is wrong.
    """
    _check_ids(data)
    try:
        sent = _request.validate_json(data)
    except ValidationError as error:
        raise InvalidRequest(f"not a request: {_first(error)}") from None
    request = Request(**{name: getattr(sent, name) for name in _FIELDS})
    return replace(
        request,
        prompt_ids=tuple(sent.prompt_ids),
        resume_ids=tuple(sent.resume_ids),
        arrived_s=now_s,
        deadline_s=None if sent.within_s is None else now_s + sent.within_s,
    )


def _check_ids(data: bytes) -> None:
    """Find wrong token ids before the full check, which would write a record about each of them."""
    try:
        fields = from_json(data)
    except ValueError:
        return  # the full check says what is wrong
    for name in ("prompt_ids", "resume_ids") if isinstance(fields, dict) else ():
        ids = fields.get(name, [])
        if not isinstance(ids, list) or not all(type(one) is int for one in ids):
            raise InvalidRequest(f"not a request: {name}: must be a list of integers")


def encode_token_event(event: TokenEvent) -> str:
    return _event.dump_json(event, exclude_defaults=True).decode()


def decode_event(data: str) -> TokenEvent:
    """Raises: the RequestError that the replica sent in the event's place, or UpstreamError if it is neither."""
    try:
        event = _event.validate_json(data, strict=True)
    except ValidationError as error:
        raise _error_in(data) or UpstreamError(f"the replica sent no token event: {_first(error)}") from None
    if not all(map(_is_finite, event.logprobs)):
        raise UpstreamError("the replica sent a log-probability that is no number")
    return event


def encode_error(error: RequestError) -> str:
    """Return the error object of the HTTP edge, plus what it takes to make the same error again."""
    fields = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return json.dumps({"error": {**fields, "status": error.status, "retry_after_s": error.retry_after_s}})


def decode_error(status: int, body: bytes, retry_after: str | None = None) -> RequestError:
    """Return the error that a replica's HTTP answer stands for: its status, body and `retry-after` header (seconds)."""
    retry_after_s = retry_after_in(retry_after)
    found = _error_in(body)
    if found is None:
        return _kind(status, None)(f"the replica answered {status}", retry_after_s=retry_after_s)
    return _kind(status, found.code)(found.message, found.param, found.code, retry_after_s)


def encode_report(report: ReplicaReport) -> bytes:
    return _report.dump_json(report)


def decode_report(data: bytes) -> ReplicaReport:
    """Raises: UpstreamError when it is not a report, or one with impossible numbers."""
    try:
        report = _report.validate_json(data, strict=True)
    except ValidationError as error:
        raise UpstreamError(f"the replica sent no report: {_first(error)}") from None
    numbers = [getattr(report, name) for name in _REPORTED] + [getattr(report.stats, name) for name in _STATS]
    counters = [value for name, value in asdict(report.stats.counters).items() if name != "finished"]
    if report.max_model_len < 1 or not _are_sane([*numbers, *counters, *report.stats.counters.finished.values()]):
        raise UpstreamError("the replica sent a report with impossible numbers")
    return report


def _are_sane(numbers: Iterable[float]) -> bool:
    return all(0 <= number <= _MOST for number in numbers)  # false for nan


def _is_finite(entry: TokenLogprob) -> bool:
    return math.isfinite(entry.logprob) and all(math.isfinite(logprob) for _, logprob in entry.top)


def retry_after_in(value: object) -> float | None:
    """Return the seconds that a `retry-after` names; None for a date, for nonsense, and for what is no wait."""
    try:
        wait_s = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return min(wait_s, MOST_RETRY_AFTER_S) if 0 <= wait_s < math.inf else None


def _kind(status: int, code: str | None) -> type[RequestError]:
    return _BY_CODE.get((status, code)) or _BY_CODE.get((status, None), UpstreamError)


def _error_in(data: str | bytes) -> RequestError | None:
    try:
        fields: Any = json.loads(data)["error"]
        status, code = fields.get("status"), fields["code"]
        if (status, None) not in _BY_CODE:
            status = _BY_TYPE.get(fields["type"], UpstreamError).status
        param = fields["param"] if isinstance(fields["param"], str) else None
        code = code if isinstance(code, str) else None
        return _kind(status, code)(str(fields["message"]), param, code, retry_after_in(fields.get("retry_after_s")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"]) or "body"
    return f"{where}: {problem['msg']}"
