"""A headless Chromium, driven over its DevTools protocol: open a page, ask it things in JavaScript, take its picture.

Synchronous: a test of an event loop calls it in a thread.
"""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websocket import WebSocket, create_connection

DEADLINE_S = 60.0  # far beyond what a browser takes, on a machine that has much else to do
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
    "--no-proxy-server", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip


class Browser:
    """One page of a running browser. `errors` collects what its console has to complain of."""

    def __init__(self, socket: WebSocket) -> None:
        self.errors: list[str] = []
        self._socket = socket
        self._number = 0
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Return a command's result, noting on the way what the page complains of."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message["method"], message["params"]
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def open(self, url: str, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url=url)

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, which may be a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, within_s: float = DEADLINE_S) -> Any:
        """Wait until an expression is true in the page, and return its value."""
        deadline_s = time.monotonic() + within_s
        while not (value := self.ask(expression)):
            if time.monotonic() > deadline_s:
                shown = self.ask("document.body.innerText")
                raise AssertionError(f"not true within {within_s:g} s: {expression}\n{shown}\n{self.errors}")
            time.sleep(0.05)
        return value

    def picture(self, path: Path) -> None:
        """Save what is in the window, with a small palette: these pages are flat colours and text."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def running_browser(program: str, folder: Path) -> Iterator[Browser]:
    """Start a browser that keeps its files in `folder`; it is gone after the block."""
    command = [program, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            socket = create_connection(_page_address(folder, process), timeout=DEADLINE_S, suppress_origin=True)
            try:
                yield Browser(socket)
            finally:
                socket.close()
        finally:
            _end(process)


def _page_address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """Return where the first tab listens; the browser writes its port into a file."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            port = int((folder / "DevToolsActivePort").read_text().split()[0])
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://127.0.0.1:{port}/json/list", timeout=DEADLINE_S) as answer:
                for tab in json.load(answer):
                    if tab["type"] == "page":
                        return str(tab["webSocketDebuggerUrl"])
        except (OSError, ValueError, IndexError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"the browser did not start; it ended with {process.poll()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the browser with all of its helpers: they share its process group."""
    import os

    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(10.0)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return
