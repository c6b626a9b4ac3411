"""A uvicorn server that runs inside an existing event loop and leaves signals to its owner.

The port is bound before anything slow happens, so that a busy port is noticed at once; listening begins only when the
application can answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import uvicorn

from miniserve.errors import SetupError
from miniserve.processes.http_protocol import HttpProtocol

LOOPBACK = "127.0.0.1"  # all servers here listen only to this machine
KEEP_ALIVE_S = 120.0  # longer than our own clients keep an idle connection, so they never find it just closed


def bind(port: int) -> socket.socket:
    """Return a loopback socket bound to `port` (0 = any). Raises: SetupError if it is taken, naming a free one."""
    try:
        return _bound(port)
    except OSError as error:
        raise SetupError(_taken(port, error)) from None


def url_of(sock: socket.socket) -> str:
    """Return the URL of a bound socket."""
    return f"http://{LOOPBACK}:{sock.getsockname()[1]}"


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or asyncio leaves Nagle on
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a restart waits for old connections
        sock.bind((LOOPBACK, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _taken(port: int, error: OSError) -> str:
    reason = f"cannot listen on {LOOPBACK}:{port} ({error.strerror})"
    free = next((p for p in range(port + 1, min(port + 50, 65536)) if _is_free(p)), 0)
    return f"{reason}; choose another port, for example --port {free}"


def _is_free(port: int) -> bool:
    try:
        _bound(port).close()
    except OSError:
        return False
    return True


class HttpServer:
    """`async with HttpServer(app, sock)`: serves inside the block; leaving it finishes the current answers.

    After `graceful_s` seconds, answers that are still being sent are cut off.
    """

    def __init__(self, app: Any, sock: socket.socket, *, graceful_s: float = 5.0) -> None:
        self.port: int = sock.getsockname()[1]
        self.url = url_of(sock)
        self._sock = sock
        self._server = _Server(
            uvicorn.Config(
                app,
                http=HttpProtocol,  # named: else it depends on what else is installed
                log_config=None,
                log_level="warning",
                access_log=False,
                ws="none",
                lifespan="off",  # the code that enters `async with` manages the application's lifetime
                timeout_keep_alive=int(KEEP_ALIVE_S),
                timeout_graceful_shutdown=max(1, round(graceful_s)),
            )
        )

    async def __aenter__(self) -> HttpServer:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._sock]), name="http server")
        up = asyncio.create_task(self._server.up.wait())
        try:
            await asyncio.wait({self._task, up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        if self._task.done():
            self._sock.close()
            self._why_not()
        return self

    def _why_not(self) -> None:
        try:
            self._task.result()
        except OSError as error:  # bound by us, but another process listened first
            raise SetupError(_taken(self.port, error)) from None
        raise SetupError(f"the HTTP server on port {self.port} stopped during its start")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._server.force_exit = kind is not None  # leaving by an exception: wait for no one
        await self._task


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the command that runs us handles Ctrl-C
