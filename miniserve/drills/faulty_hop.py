"""A TCP hop between gateway and replica that can fail as networks do: cut, refuse, delay, swallow.

    gateway ──> hop ──> replica          one connection for each request, so that a fault meets one request

It passes bytes on as they come. It reads only the head of a request, to know where its body ends, and counts the
events of the answer, to know where to cut. Decides nothing: `on_request` says what happens to a request, its owner what
happens to all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Any

from miniserve.errors import Overloaded, RequestError
from miniserve.faults import AttemptFault
from miniserve.processes.http_server import LOOPBACK
from miniserve.sse import SSEDecoder

_CHUNK = 1 << 16
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with 0 s: close() sends RST instead of FIN

OnRequest = Callable[[dict[str, Any]], AttemptFault | None]  # told the body of a generation


class FaultyHop:
    """`async with FaultyHop(port)`: listens at `port` of its own inside the block, and passes on to the target's."""

    def __init__(self, target_port: int, on_request: OnRequest = lambda body: None) -> None:
        self.target_port = target_port
        self.port = 0
        self.delay_s = 0.0  # of each request on its way in
        self.refuses: RequestError | None = None  # the answer to every generation
        self._on_request = on_request
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._streams: set[asyncio.StreamWriter] = set()  # to the gateway, of answers on their way
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    async def __aenter__(self) -> FaultyHop:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0, limit=_CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- faults ----------------------------------------------------------------------------------------------------

    def cut(self) -> int:
        """Reset every connection on which an answer is on its way; return how many there were."""
        for writer in tuple(self._streams):
            _reset(writer)
        return len(self._streams)

    def swallow(self) -> None:
        """Let nothing through in either direction, as in a partition: connections are made, and stay silent."""
        self._is_open.clear()

    def heal(self) -> None:
        """Pass everything on again, what was swallowed included."""
        self._is_open.set()
        self.delay_s, self.refuses = 0.0, None

    # --- one connection --------------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _reset(writer)  # the replica is gone, or the gateway
        except asyncio.CancelledError:
            _reset(writer)  # not raised: the server would report it as an error of its callback
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await reader.readexactly(int(length[1])) if length else b""
        await self._is_open.wait()
        await asyncio.sleep(self.delay_s)
        fault = None
        if head.startswith(b"POST /internal/generate "):
            fault = self._on_request(json.loads(body))
            error = self.refuses or (fault.error() if fault is not None and fault.after_tokens == 0 else None)
            if error is not None:
                writer.write(_answer(error))
                await writer.drain()
                return
        from_replica, to_replica = await asyncio.open_connection(LOOPBACK, self.target_port)
        leaving = asyncio.create_task(_wait_for_end(reader, to_replica))
        self._streams.add(writer)
        try:
            to_replica.write(head[:-2] + b"connection: close\r\n\r\n" + body)
            await self._pass_on(from_replica, writer, None if fault is None else fault.after_tokens)
        finally:
            self._streams.discard(writer)
            leaving.cancel()
            to_replica.close()

    async def _pass_on(
        self, from_replica: asyncio.StreamReader, writer: asyncio.StreamWriter, cut_after: int | None
    ) -> None:
        decoder, events = SSEDecoder(), 0
        while chunk := await from_replica.read(_CHUNK):
            await self._is_open.wait()
            writer.write(chunk)
            await writer.drain()
            if cut_after is not None:
                events += len(decoder.feed(chunk))
                if events >= cut_after:
                    _reset(writer)
                    return


async def _wait_for_end(reader: asyncio.StreamReader, to_replica: asyncio.StreamWriter) -> None:
    """When the gateway leaves, leave the replica."""
    with contextlib.suppress(OSError):
        await reader.read()
    to_replica.transport.abort()


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        peer: socket.socket = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def _answer(error: RequestError) -> bytes:
    told = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    body = json.dumps({"error": {**told, "status": error.status}}).encode()
    retry = b"retry-after: 1\r\n" if isinstance(error, Overloaded) else b""
    head = f"HTTP/1.1 {error.status} Fault\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + retry + b"connection: close\r\n\r\n" + body
