"""`vllm serve` as a supervised process: a program between the two that speaks as a replica of ours does.

The supervisor expects one ready line on stdout, an end when stdin closes, and draining at SIGTERM. vLLM knows none of
these, so this program starts it on a free port, asks `/health` until it answers, and prints the line; it passes SIGTERM
on, and ends as vLLM ends. However it dies itself, it takes vLLM with it, and all that vLLM has started: its engine is a
process of its own, which would keep the GPU's memory. They are one process group, and a shell waits for our end.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from types import FrameType

from miniserve.processes.http_server import LOOPBACK, bind

PROGRAM = "miniserve.processes.vllm_child"
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}  # it downloads and reports nothing
_LOOK_AGAIN_S = 0.25
_PROBE_S = 2.0
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_KEEPER = 'read -r _; kill -s KILL -- "-$1"'  # the first line never comes: the end of the pipe does


def main(arguments: Sequence[str]) -> int:
    """Run vLLM until it ends; return its exit code."""
    parser = argparse.ArgumentParser(prog=PROGRAM)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-name", required=True)
    parser.add_argument("more", nargs="*", help="further arguments of vllm serve, after --")
    args = parser.parse_args(arguments)
    started_s, port = time.monotonic(), _free_port()
    address = ["--host", LOOPBACK, "--port", str(port)]
    command = [args.bin, "serve", args.model, "--served-model-name", args.served_name, *address, *args.more]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        env={**os.environ, **QUIET},
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )
    _end_group_after_us(process.pid)
    signal.signal(signal.SIGTERM, _passing_on(process))
    threading.Thread(target=_end_with_stdin, args=(process,), name="parent watch", daemon=True).start()
    if _is_up(process, port):
        load_s = round(time.monotonic() - started_s, 3)
        print(json.dumps({"ready": True, "port": port, "pid": process.pid, "load_s": load_s}), flush=True)
    return process.wait()


def _free_port() -> int:
    with bind(0) as sock:
        port: int = sock.getsockname()[1]
    return port  # should another program take it meanwhile, vLLM ends, and the next try gets another one


def _passing_on(process: subprocess.Popen[bytes]) -> signal._HANDLER:
    def handle(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    return handle


def _end_with_stdin(process: subprocess.Popen[bytes]) -> None:
    """Kill vLLM when stdin ends: our parent holds the other end, so it is gone, and nobody is left to serve."""
    while os.read(0, 4096):
        pass
    process.kill()


def _is_up(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until vLLM's health answers; false once it has ended."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while process.poll() is None:
        with contextlib.suppress(OSError), opener.open(f"http://{LOOPBACK}:{port}/health", timeout=_PROBE_S) as answer:
            if answer.status == 200:
                return True
        time.sleep(_LOOK_AGAIN_S)
    return False


def _end_group_after_us(group: int) -> None:
    """Have all of vLLM's processes killed when we end, also by a SIGKILL: the kernel then closes our end of a pipe."""
    subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, "keeper", str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _die_with_parent() -> None:
    """In the child: have the kernel kill it when we die, also by a SIGKILL, which nobody can pass on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
