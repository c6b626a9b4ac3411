"""The body of a request that changes the stack: a small JSON object."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request as HttpRequest

from miniserve.errors import InvalidRequest, PayloadTooLarge

LONGEST_BODY = 64 * 1024  # bytes: parsed on the event loop


async def admin_body(request: HttpRequest) -> dict[str, Any]:
    """Return the object in a request's body; none at all is an empty one. Raises: InvalidRequest, PayloadTooLarge."""
    raw = await request.body()
    if len(raw) > LONGEST_BODY:
        raise PayloadTooLarge(f"the body is {len(raw)} bytes; at most {LONGEST_BODY} are read here")
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {type(body).__name__}")
    return body
