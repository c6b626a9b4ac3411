"""What gateway and replica say to each other: requests, token events, errors and reports as JSON, both ways.

Knows the shapes and checks them; does not know HTTP or SSE. Text never crosses here, only token ids: the side that
talks to the client turns them into text, once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from miniserve import errors
from miniserve.engine.stats import EngineStats
from miniserve.errors import InvalidRequest, RequestError, UpstreamError
from miniserve.types import ReplicaState, Request, TokenEvent


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


_request = TypeAdapter(Request)
_event = TypeAdapter(TokenEvent)
_report = TypeAdapter(ReplicaReport)

_KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RequestError) and kind is not RequestError
]
_BY_CODE = {(kind.status, kind.code): kind for kind in _KINDS}  # one class has the status itself; others add a code
_BY_TYPE = {kind.type: kind for kind in reversed(_KINDS)}  # the first class of those that share a type


def encode_request(request: Request) -> bytes:
    return _request.dump_json(request, exclude={"seen"})  # a matter of the gateway's


def decode_request(data: bytes) -> Request:
    """Raises: InvalidRequest, naming the first field that is wrong."""
    try:
        request = _request.validate_json(data)
    except ValidationError as error:
        raise InvalidRequest(f"not a request: {_first(error)}") from None
    return replace(request, prompt_ids=tuple(request.prompt_ids), resume_ids=tuple(request.resume_ids))


def encode_token_event(event: TokenEvent) -> str:
    return _event.dump_json(event, exclude_defaults=True).decode()


def decode_event(data: str) -> TokenEvent:
    """Raises: the RequestError that the replica sent in the event's place, or UpstreamError if it is neither."""
    try:
        return _event.validate_json(data)
    except ValidationError as error:
        raise _error_in(data) or UpstreamError(f"the replica sent no token event: {_first(error)}") from None


def encode_error(error: RequestError) -> str:
    """Return the error object of the HTTP edge, plus what it takes to make the same error again."""
    fields = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return json.dumps({"error": {**fields, "status": error.status, "retry_after_s": error.retry_after_s}})


def decode_error(status: int, body: bytes, retry_after: str | None = None) -> RequestError:
    """Return the error that a replica's HTTP answer stands for: its status, body and `retry-after` header (seconds)."""
    try:
        retry_after_s = float(retry_after) if retry_after else None
    except ValueError:
        retry_after_s = None
    found = _error_in(body)
    if found is None:
        return _kind(status, None)(f"the replica answered {status}", retry_after_s=retry_after_s)
    return _kind(status, found.code)(found.message, found.param, found.code, retry_after_s)


def encode_report(report: ReplicaReport) -> bytes:
    return _report.dump_json(report)


def decode_report(data: bytes) -> ReplicaReport:
    """Raises: UpstreamError when it is not a report."""
    try:
        return _report.validate_json(data)
    except ValidationError as error:
        raise UpstreamError(f"the replica sent no report: {_first(error)}") from None


def _kind(status: int, code: str | None) -> type[RequestError]:
    return _BY_CODE.get((status, code)) or _BY_CODE.get((status, None), UpstreamError)


def _error_in(data: str | bytes) -> RequestError | None:
    try:
        fields: Any = json.loads(data)["error"]
        status, code = fields.get("status"), fields["code"]
        if (status, None) not in _BY_CODE:
            status = _BY_TYPE.get(fields["type"], UpstreamError).status
        return _kind(status, code)(str(fields["message"]), fields["param"], code, fields.get("retry_after_s"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"]) or "body"
    return f"{where}: {problem['msg']}"
