"""The client of one replica: its tokens as an async generator, its report, and its failures as our errors.

Knows HTTP and that a connection can be refused, reset, silent, or closed in the middle; all of that becomes
`UpstreamError`, which says that another replica may do better. Does not retry: that is a policy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import httpx

from miniserve.errors import UpstreamError, broke_off, no_connection
from miniserve.replica.wire import ReplicaReport, decode_error, decode_event, decode_report, encode_request
from miniserve.sse import SSEDecoder
from miniserve.types import Request, TokenEvent

CONNECT_TIMEOUT_S = 2.0  # loopback or one rack: a connection that takes longer will not come
SILENCE_TIMEOUT_S = 10.0  # five heartbeats missed: the process is stuck or gone without a word
IDLE_EXPIRY_S = 30.0  # drop idle connections before the replica does (`http_server.KEEP_ALIVE_S`)


class RemoteReplica:
    """One replica behind a URL. Belongs to one event loop; `close` it there."""

    def __init__(self, url: str, *, silence_timeout_s: float = SILENCE_TIMEOUT_S) -> None:
        self.url = url
        self._silence_timeout_s = silence_timeout_s
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(silence_timeout_s, connect=CONNECT_TIMEOUT_S, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=IDLE_EXPIRY_S),
            trust_env=False,  # a proxy meant for the internet has no business here
        )

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Yield the replica's events; closing the generator early closes the connection, which aborts the work there.

        The request's deadline is read on the event loop's clock, as everything here is, and sent as the time left.

        Raises: Unreachable when no connection can be made; UpstreamError when it fails or ends early; the replica's
            own error otherwise.
        """
        content = encode_request(request, asyncio.get_running_loop().time())
        try:
            async with self._client.stream("POST", "/internal/generate", content=content) as response:
                if response.status_code != httpx.codes.OK:
                    retry_after = response.headers.get("retry-after")
                    raise decode_error(response.status_code, await response.aread(), retry_after)
                body, decoder = response.aiter_raw(), SSEDecoder()
                async for chunk in body:
                    for data in decoder.feed(chunk):
                        event = decode_event(data)
                        if event.finish_reason is not None:
                            await _read_to_end(body)
                        yield event
                        if event.finish_reason is not None:
                            return
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise no_connection() from error
        except httpx.TimeoutException:
            raise UpstreamError(f"the replica was silent for {self._silence_timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise broke_off() from error
        raise UpstreamError("the replica ended its answer before it was complete")

    async def report(self, timeout_s: float) -> ReplicaReport:
        """Raises: UpstreamError when the replica does not answer properly within `timeout_s`."""
        try:
            response = await self._client.get("/internal/stats", timeout=timeout_s)
        except httpx.HTTPError as error:
            raise UpstreamError(f"no report from the replica ({type(error).__name__})") from None
        except RuntimeError:  # what httpx says of a closed client
            if not self._client.is_closed:
                raise
            raise UpstreamError("no report from the replica (its place has been taken)") from None
        if response.status_code != httpx.codes.OK:
            raise UpstreamError(f"no report from the replica (it answered {response.status_code})")
        return decode_report(response.content)

    async def close(self) -> None:
        await self._client.aclose()


async def _read_to_end(body: AsyncIterator[bytes]) -> None:
    """Take the end of the body too: only a connection that was read to its end can be used again."""
    with contextlib.suppress(httpx.HTTPError):
        async for _ in body:
            pass
