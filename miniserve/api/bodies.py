"""Bytes of a request body to a validated object, or one sentence about what is wrong with it.

Parsing and validation happen in one pass over the bytes, so that invalid UTF-8, lone surrogates, numbers out of range
and JSON nested a million deep all end as the same kind of answer: 400, with the field's name.

**A body may not hold up the others.** What is long is parsed and checked in a thread. It is counted before it is
checked, since there is no point in validating a hundred thousand messages for a context of five thousand tokens, and
the check of a list stops at its first wrong entry (`fail_fast` in `requests`).
"""

from __future__ import annotations

import asyncio
import json
import re
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from miniserve.api.encodings import plain_utf8
from miniserve.api.not_served import UNSUPPORTED
from miniserve.api.requests import MAX_PROMPTS
from miniserve.errors import InvalidRequest

SMALL_BYTES = 1 << 14  # parsed and checked on the event loop: a few milliseconds at the very most
_SHOWN_CHARACTERS = 60  # of a wrong value
Body = TypeVar("Body", bound=BaseModel)


async def read_body(request: Request, shape: type[Body], limit_bytes: int, context: int) -> Body:
    """Read the whole body, of at most `limit_bytes` once unpacked, and return it as `shape`.

    `context` is how many tokens the served model takes.

    Raises: InvalidRequest naming the first field that is wrong; ClientDisconnect; what `plain_utf8` and
        `limits.BodyLimits` raise.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise InvalidRequest(f"content-type must be application/json, got {_shown(media_type or None)}")
    body = plain_utf8(await request.body(), request.headers.get("content-encoding", ""), limit_bytes)
    if not body:
        raise InvalidRequest("the body is empty; send a JSON object")
    if len(body) < SMALL_BYTES:
        return _checked(body, shape)
    return await asyncio.to_thread(_counted_and_checked, body, shape, context)


def _counted_and_checked(body: bytes, shape: type[Body], context: int) -> Body:
    try:
        fields = from_json(body)
    except ValueError:  # the full check says what is wrong
        fields = None
    if isinstance(fields, dict):
        for name, count in _counts(fields):
            if count > context:
                raise too_long(f"{name} has {count} entries, of a token each at least", context, name)
    return _checked(body, shape)


def _counts(fields: dict[str, Any]) -> list[tuple[str, int]]:
    """Return how long the lists are of which each entry is at least a token."""
    messages, prompt = fields.get("messages"), fields.get("prompt")
    counts = [("messages", len(messages))] if isinstance(messages, list) else []
    if isinstance(prompt, list):
        counts.append(("prompt", len(prompt) if prompt and not isinstance(prompt[0], str | list) else 0))
        lists = enumerate(islice(prompt, MAX_PROMPTS))
        counts += [(f"prompt[{index}]", len(ids)) for index, ids in lists if isinstance(ids, list)]
    return counts


def too_long(what: str, context: int, param: str) -> InvalidRequest:
    """Return the refusal of a prompt that is too long by a count that is cheaper than tokenizing it."""
    return InvalidRequest(
        f"{what}, but this model's maximum context length is {context} tokens; shorten the prompt",
        param=param,
        code="context_length_exceeded",
    )


def _checked(body: bytes, shape: type[Body]) -> Body:
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
    if isinstance(value, str):
        value = value[: _SHOWN_CHARACTERS + 1]
    pieces, text = json.JSONEncoder(ensure_ascii=False, default=str).iterencode(value), ""
    while len(text) <= _SHOWN_CHARACTERS and (piece := next(pieces, None)) is not None:
        text += piece
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
