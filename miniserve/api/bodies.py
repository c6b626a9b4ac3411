"""Bytes of a request body to a validated object, or one sentence about what is wrong with it.

Parsing and validation happen in one pass over the bytes, so that invalid UTF-8, lone surrogates, numbers out of range
and JSON nested a million deep all end as the same kind of answer: 400, with the field's name.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from miniserve.api.encodings import plain_utf8
from miniserve.api.not_served import UNSUPPORTED
from miniserve.errors import InvalidRequest

_SHOWN_CHARACTERS = 60  # of a wrong value
Body = TypeVar("Body", bound=BaseModel)


async def read_body(request: Request, shape: type[Body], limit_bytes: int) -> Body:
    """Read the whole body, of at most `limit_bytes` once unpacked, and return it as `shape`.

    Raises: InvalidRequest naming the first field that is wrong; ClientDisconnect; what `plain_utf8` and
        `limits.BodyLimits` raise.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise InvalidRequest(f"content-type must be application/json, got {_shown(media_type or None)}")
    body = plain_utf8(await request.body(), request.headers.get("content-encoding", ""), limit_bytes)
    if not body:
        raise InvalidRequest("the body is empty; send a JSON object")
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        raise as_invalid_request(error) from None


def as_invalid_request(error: ValidationError) -> InvalidRequest:
    """Flatten the errors that pydantic found into one sentence about the first."""
    errors = error.errors(include_url=False)
    first = errors[0]
    path = _path(first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return InvalidRequest(_sentence(path, first["type"], first["msg"], first["input"]) + more, param=path or None)


def _path(location: tuple[int | str, ...]) -> str:
    """Return e.g. `messages[0].content`; names in angle brackets are ours, for the branches of a union."""
    location = location[:1] if location[:1] == ("logit_bias",) else location  # what follows is the client's own text
    parts = [f"[{p}]" if isinstance(p, int) else f".{p}" for p in location if not str(p).startswith("<")]
    return "".join(parts).removeprefix(".")


def _sentence(path: str, kind: str, message: str, value: Any) -> str:
    names = re.split(r"[\[\].]+", path)
    reason = UNSUPPORTED.get(names[0]) or UNSUPPORTED.get(names[-1])
    if kind == "json_invalid":
        return f"the body is not valid JSON: {message.removeprefix('Invalid JSON: ')}"
    if not path:
        return f"the body must be a JSON object, got {_shown(value)}"
    if kind == "missing":
        return f"{path} is required"
    if names[-1] == "role" and value in ("tool", "function"):
        reason = UNSUPPORTED["tools"]
    if reason:
        return f"{path}={_shown(value)} is not supported here: {reason}"
    if kind == "literal_error":
        return f"{path}={_shown(value)} is not supported here: {message.replace('Input should be', 'it must be')}"
    if message.startswith("Input should"):
        return f"{path} {message.replace('Input should', 'must', 1)}, got {_shown(value)}"
    return f"{path}: {message[:1].lower()}{message[1:]}, got {_shown(value)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
