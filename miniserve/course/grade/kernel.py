"""A kernel as nbval runs it, but one that we don't trust.

Unlike nbval's own, it notices at once when the kernel has died, reads the execute reply and not only the errors that
the cell shows, ends a cell that never stops printing, and throws away excessive output. It asks for values as JSON and
nothing else.
"""

from __future__ import annotations

import ast
import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from queue import Empty
from subprocess import DEVNULL
from typing import Any, NoReturn

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager
from nbval.kernel import RunningKernel  # type: ignore[import-untyped]

from miniserve.course.check.ask import Json, NotPlain, plain

OUTPUT_BYTES = 10_000_000  # from one cell; the rest is thrown away, and far more ends the kernel
SHOWN_CHARACTERS = 10_000
VALUE_CHARACTERS = 5_000_000
INTERRUPT_S = 4.0
START_S = 240.0
LEAVING_S = 5.0
_LEAVING = "__import__('json').dumps(get_ipython().exit_now is True)"


class KernelGone(Exception):
    """The kernel died, or had to be ended; it can't answer any more. The message is half a sentence."""


class GradedKernel(RunningKernel):  # type: ignore[misc]  # nbval has no types
    """A kernel that a job of the supervisor describes. `reply` is its reply to the last cell."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.reply: dict[str, Any] = {}
        self.shown_error = False
        self.gone = ""  # why the kernel is gone
        self.died = False  # by itself
        self.limit_s: float = job["cell_s"]
        self._until_s = time.monotonic() + START_S
        self._output = 0
        self._start(list(job["command"]), Path(job["connection"]), job)
        self.kc = self.km.client()
        self.kc.start_channels()
        self.kc.wait_for_ready(timeout=START_S)
        self._ensure_iopub_up()

    def _start(self, command: list[str], connection: Path, job: Mapping[str, Any]) -> None:
        """Start the kernel, with sockets that we made: it needs no folder that both can write to."""
        self.km = KernelManager(
            kernel_name="graded",
            kernel_spec_manager=_OneSpec(command),
            transport="ipc",
            connection_file=str(connection),
            ip=str(connection),
        )
        self.km.write_connection_file()
        os.chown(connection, job["user"], -1)
        with ExitStack() as ours:
            sockets = {port: ours.enter_context(_listening(f"{connection}-{port}")) for port in self.km.ports}
            command += [f"{port}={one.fileno()}" for port, one in sockets.items()]
            self.km.start_kernel(
                cwd=job["cwd"],
                env=job["environment"],
                stdout=DEVNULL,
                stderr=DEVNULL,
                pass_fds=[one.fileno() for one in sockets.values()],
            )

    def execute_cell_input(self, cell_input: str, allow_stdin: bool | None = None) -> Any:
        """Send a cell, without stdin: there is nobody to answer `input()`."""
        self.reply, self.shown_error, self._output = {}, False, 0
        self._until_s = time.monotonic() + self.limit_s + 2 * INTERRUPT_S
        return super().execute_cell_input(cell_input, allow_stdin=False)

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        """Wait for a reply to `msg_id`. Raises: Empty after `timeout`, KernelGone."""
        self.reply = self._reply(msg_id, self.limit_s if timeout is None else timeout)

    def _reply(self, msg_id: str, timeout_s: float) -> dict[str, Any]:
        until_s = time.monotonic() + timeout_s
        while (left_s := until_s - time.monotonic()) > 0:
            try:
                message = self.kc.get_shell_msg(timeout=min(left_s, 0.5))
            except Empty:
                if not self.is_alive():
                    self.died = True
                    self._leave("the kernel died")
                continue
            if message["parent_header"].get("msg_id") == msg_id:
                content = dict(message["content"])
                self._refuse_exit(content)
                return content
        raise Empty

    def end_if_leaving(self) -> None:
        """End a kernel that is about to stop by itself, in a moment: what came next would get the blame."""
        try:
            leaving = self.is_alive() and self.value(_LEAVING, LEAVING_S) is True
        except (Empty, NotPlain, KernelGone):
            return
        if leaving:
            self.gone, self.died = "it told its kernel to stop", True
            self.end()

    def _refuse_exit(self, content: dict[str, Any]) -> None:
        """End a kernel that was told to exit: it would go after this reply, and the next cell would get the blame."""
        payload = content.get("payload")
        asked = [one for one in payload if isinstance(one, dict)] if isinstance(payload, list) else []
        if any(one.get("source") == "ask_exit" and not one.get("keepkernel") for one in asked):
            self.died = True
            self._leave("it called exit() or quit()")

    def get_message(self, stream: str, timeout: float | None = None) -> dict[str, Any]:
        """Return the next message, with its output cut. Raises: Empty, KernelGone."""
        if time.monotonic() > self._until_s:
            self._leave("it did not stop printing")
        message: dict[str, Any] = super().get_message(stream, timeout)
        if message["msg_type"] == "error":
            self.shown_error = True
        if message["msg_type"] in ("stream", "display_data", "execute_result"):
            self._cut(message)
        return message

    def _cut(self, message: dict[str, Any]) -> None:
        content = message["content"]
        texts = [content["text"]] if "text" in content else [str(value) for value in content.get("data", {}).values()]
        self._output += sum(map(len, texts))
        if self._output > 10 * OUTPUT_BYTES:
            self._leave(f"it printed more than {10 * OUTPUT_BYTES:,} characters")
        if "text" in content:
            content["text"] = content["text"][:SHOWN_CHARACTERS] if self._output < OUTPUT_BYTES else ""
        elif "data" in content:
            content["data"] = {}

    def value(self, expression: str, timeout_s: float) -> Json:
        """Return the plain value of an expression that returns JSON text.

        Raises: Empty if nothing came in time, KernelGone, NotPlain if something else came.
        """
        asked = self.kc.execute("", silent=True, store_history=False, user_expressions={"v": expression})
        return _plain_value(self._reply(asked, timeout_s))

    def interrupt(self) -> None:
        """Interrupt the kernel: nbval calls this when a cell's time is up. Raises: KernelGone if it goes on."""
        if not self.settle():
            raise KernelGone(self.gone)

    def settle(self) -> bool:
        """Interrupt, and return whether the kernel soon answers again; if not, end it."""
        self.km.interrupt_kernel()
        try:
            self._reply(self.kc.kernel_info(), INTERRUPT_S)
        except (Empty, KernelGone):
            self.gone = self.gone or "it ignored the interrupt"
            self.end()
            return False
        return True

    def is_alive(self) -> bool:
        return hasattr(self, "km") and bool(self.km.is_alive())

    def _leave(self, why: str) -> NoReturn:
        self.gone = why
        self.end()
        raise KernelGone(why)

    def end(self) -> None:
        """Kill it now."""
        if hasattr(self, "km"):
            self.stop()


def _listening(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    made.listen()
    return made


def _plain_value(content: dict[str, Any]) -> Json:
    """Read one user expression's answer: a quoted string of JSON. It never evaluates text from the kernel."""
    answer = content.get("user_expressions", {}).get("v", {})
    if answer.get("status") != "ok":
        raise NotPlain(f"{answer.get('ename', 'no answer')}: {str(answer.get('evalue', ''))[:200]}")
    text = answer.get("data", {}).get("text/plain", "")
    if not isinstance(text, str) or len(text) > VALUE_CHARACTERS:
        raise NotPlain("the answer is larger than a check allows")
    try:
        inner = ast.literal_eval(text) if text[:1] in "'\"" else None
        if not isinstance(inner, str):
            raise NotPlain("no JSON came back")
        return plain(json.loads(inner))
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise NotPlain(f"no JSON came back: {type(error).__name__}") from None


class _OneSpec(KernelSpecManager):
    """Knows one kernel: the given command."""

    def __init__(self, command: list[str]) -> None:
        super().__init__()
        self._command = command

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(argv=self._command, display_name="graded", language="python", interrupt_mode="message")
