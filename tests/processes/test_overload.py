"""More than the stack can serve at once, on the real model: everything is answered, and nothing is done twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

STREAMS, TOKENS, LONG_PROMPT = 200, 60, 5_119
PATIENCE_S = 900.0

pytestmark = pytest.mark.full


@contextmanager
def running(*command: str) -> Iterator[str]:
    """Run a command of miniserve until the block ends; yield the line with which it says that it is ready."""
    with subprocess.Popen(
        [sys.executable, "-m", "miniserve", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        rest = threading.Thread(target=deque, args=(lines, 0))  # or a full pipe would stop it
        try:
            ready = next(line for line in lines if line.startswith(("ready: ", '{"ready"')))
            rest.start()
            yield ready
        finally:
            process.terminate()
            if rest.is_alive():
                rest.join()


async def outcome(client: httpx.AsyncClient, url: str, number: int) -> str:
    """Ask for one stream; return `answered`, `refused` if it said when to come back, or what went wrong."""
    body = {"model": "smollm2", "prompt": f"Question {number}: why?", "max_tokens": TOKENS, "ignore_eos": True}
    async with client.stream("POST", f"{url}/v1/completions", json={**body, "stream": True}) as answer:
        if answer.status_code in (429, 503):
            return "refused" if "retry-after" in answer.headers else f"{answer.status_code} without Retry-After"
        last, tokens = "", 0
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                last = line[6:]
                if last != "[DONE]" and "error" in (event := json.loads(last)):
                    return str(event["error"])
                tokens += last != "[DONE]"
        return "answered" if answer.status_code == 200 and last == "[DONE]" and tokens else f"ended with {last[:80]}"


async def outcomes(url: str) -> list[str]:
    limits = httpx.Limits(max_connections=STREAMS)
    async with httpx.AsyncClient(timeout=PATIENCE_S, limits=limits) as client:
        return await asyncio.gather(*(outcome(client, url, number) for number in range(STREAMS)))


def test_two_hundred_streams_on_two_replicas_are_all_answered(
    smollm2_folder: Path, record_property: Callable[[str, object], None]
) -> None:
    """The queue is longer than this load, so none of them may be refused, and none may fail after it was taken."""
    started_s = time.monotonic()
    options = ("--replicas", "2", "--port", "0", "--no-table", "--offline")
    with running("demo", "--model", str(smollm2_folder), "--served-name", "smollm2", *options) as line:
        found = asyncio.run(outcomes(line.split()[1]))
    record_property("streams", STREAMS)
    record_property("outcomes", {one: found.count(one) for one in sorted(set(found))})
    record_property("seconds", round(time.monotonic() - started_s, 1))
    assert found == ["answered"] * STREAMS


def test_a_long_prompt_takes_no_longer_through_the_gateway(
    smollm2_folder: Path, record_property: Callable[[str, object], None]
) -> None:
    """It is not cut off and begun again. The ratio is recorded; only the answers gate."""
    model = ("--model", str(smollm2_folder), "--served-name", "smollm2", "--offline", "--port", "0")
    with running("replica", *model) as ready:
        replica = f"http://127.0.0.1:{json.loads(ready)['port']}"
        with running("serve", *model, "--replica", replica) as line:
            urls = {"replica": replica, "gateway": line.split()[1]}
            took = {name: _took_s(url, number) for number, (name, url) in enumerate(urls.items())}
    record_property("seconds", took)
    record_property("gateway_over_replica", round(took["gateway"] / took["replica"], 3))


def _took_s(url: str, number: int) -> float:
    """Return how long a prompt of `LONG_PROMPT` tokens takes, none of which is in the prefix cache."""
    prompt = [1_000 + number + i % 5_000 for i in range(LONG_PROMPT)]
    started_s = time.monotonic()
    body = {"model": "smollm2", "prompt": prompt, "max_tokens": 1}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    return round(time.monotonic() - started_s, 2)
