"""Ask a running gateway one question over HTTP and print the answer as it comes (`miniserve --once`).

Knows only the public API, like any client.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx

from miniserve.errors import UpstreamError
from miniserve.sse import SSEDecoder

TIMEOUT_S = 120.0  # between two pieces of the answer; on a busy small machine the first may take long


async def ask_once(url: str, model: str, prompt: str, max_tokens: int, write: Callable[[str], None]) -> None:
    """Stream the answer to `prompt` through `write`.

    Raises: UpstreamError with the gateway's message, or if the answer does not end properly.
    """
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
    }
    try:
        async with (
            httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise UpstreamError(_message(await response.aread()))
            await _print_events(response, write)
    except httpx.HTTPError as error:
        raise UpstreamError(f"the connection to the gateway failed ({type(error).__name__})") from None


async def _print_events(response: httpx.Response, write: Callable[[str], None]) -> None:
    decoder = SSEDecoder()
    async for chunk in response.aiter_raw():
        for data in decoder.feed(chunk):
            if data == "[DONE]":
                return
            try:
                event = json.loads(data)
            except (ValueError, RecursionError):
                raise UpstreamError(f"the gateway sent an event that is not JSON: {data[:100]}") from None
            if "error" in event:
                raise UpstreamError(_message(data))
            for choice in event["choices"]:
                write(choice["delta"].get("content") or "")
    raise UpstreamError("the answer broke off")


def _message(body: str | bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "the gateway refused the request without a reason"
