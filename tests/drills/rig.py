"""A stack of real, paced replica processes that a test can kill at an exact token, and its answers as values."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from miniserve.gateway.fleet import Upstream
from miniserve.processes.http_server import bind
from miniserve.processes.stack import GatewayOptions, Stack, running_stack
from miniserve.types import Send, TokenEvent

DEADLINE_S = 180.0  # far beyond what a start takes on a busy machine
PACE = "base_s=0.02"  # slow enough that a kill comes before the next token
TOKENS = 60
SMALL = Path(__file__).parents[2] / "data" / "models" / "small"


async def until(condition: Callable[[], object]) -> None:
    """Come back when `condition()` is true; fail when it is not within the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 -- the condition is another process's
            await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Answer:
    """What a client got, streaming or not."""

    text: str
    finish_reason: str | None
    usage: dict[str, Any]
    tokens: tuple[str, ...] = ()  # by the logprobs, if they were asked for
    ids: frozenset[str] = frozenset()
    ends: int = 1  # how often the stream said [DONE], and nothing may come after it
    errors: tuple[Any, ...] = ()

    def same_as(self, other: Answer) -> bool:
        return (self.text, self.finish_reason, self.tokens) == (other.text, other.finish_reason, other.tokens)


@dataclass
class Kill:
    """One kill, as it went: which replica, and after how many tokens of the request that was watched."""

    at_token: int
    victim: str = ""
    broke_after: int | None = None  # tokens that the first attempt had brought
    resumed_after: list[int] = field(default_factory=list)  # of each later attempt: the tokens it was given


class Rig:
    """A running stack, a client, and the means to kill a replica at a given token."""

    def __init__(self, stack: Stack, client: httpx.AsyncClient, model: str) -> None:
        self.stack, self.client, self.model = stack, client, model
        self._fleet: Any = stack.gateway.fleet
        self._plain = self._fleet._stream

    def pid(self, replica_id: str) -> int:
        (pid,) = [child.pid for child in self.stack.supervisor.children if child.replica_id == replica_id]
        assert pid is not None, f"{replica_id} does not run"
        return pid

    def living(self) -> list[str]:
        """Return the replicas that are ready and whose process runs."""
        ready = {view.replica_id for view in self.stack.gateway.fleet.view().ready()}
        return [child.replica_id for child in self.stack.supervisor.children if child.pid and child.replica_id in ready]

    async def ready(self, replicas: int) -> None:
        await until(lambda: len(self.living()) >= replicas)

    async def ask(self, path: str, body: dict[str, Any]) -> Answer:
        """Send a request and read the whole answer."""
        body = {"model": self.model, "max_tokens": TOKENS, "min_tokens": TOKENS, **body}  # no end token comes earlier
        if not body.get("stream"):
            return whole(await self.client.post(path, json=body))
        body["stream_options"] = {"include_usage": True}
        async with self.client.stream("POST", path, json=body) as response:
            return streamed([line async for line in response.aiter_lines()])

    async def ask_and_kill(self, at_token: int, path: str, body: dict[str, Any]) -> tuple[Answer, Kill]:
        """Ask, and kill the replica that answers once it has brought `at_token` tokens."""
        kill = Kill(at_token)
        self.kill_next(kill)
        return await self.ask(path, body), kill

    def kill_next(self, kill: Kill) -> None:
        """Kill the replica of the next attempt that begins, as `kill` says, and write there how it goes on."""
        self._fleet._stream = lambda upstream, send: self._watched(kill, upstream, send)

    async def _watched(self, kill: Kill, upstream: Upstream, send: Send) -> AsyncGenerator[TokenEvent, None]:
        if kill.victim:
            kill.resumed_after.append(len(send.request.resume_ids))
            async with aclosing(self._plain(upstream, send)) as events:
                async for event in events:
                    yield event
            return
        kill.victim, kill.broke_after = send.replica_id, 0
        async with aclosing(self._plain(upstream, send)) as events:
            if kill.at_token == 0:
                await self._kill_before_the_first(send.replica_id)
            async for event in events:
                kill.broke_after += len(event.token_ids)
                if kill.broke_after >= kill.at_token > 0 and self._runs(send.replica_id):
                    os.kill(self.pid(send.replica_id), signal.SIGKILL)
                yield event

    def _runs(self, replica_id: str) -> bool:
        return any(child.replica_id == replica_id and child.pid for child in self.stack.supervisor.children)

    async def _kill_before_the_first(self, replica_id: str) -> None:
        """Stop it, so that it cannot answer; it is killed when the request has left."""
        pid = self.pid(replica_id)
        os.kill(pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(0.05, os.kill, pid, signal.SIGKILL)


def whole(response: httpx.Response) -> Answer:
    """Read an answer without streaming."""
    told = response.json()
    if response.status_code != 200:
        return Answer("", None, {}, errors=(told,))
    (choice,) = told["choices"]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    return Answer(text, choice["finish_reason"], told["usage"], tokens_of(choice), frozenset({told["id"]}))


def streamed(lines: list[str]) -> Answer:
    """Read a stream's lines."""
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    events = [json.loads(one) for one in data if one != "[DONE]"]
    errors = tuple(event for event in events if "error" in event)
    events = [event for event in events if "error" not in event]
    choices = [choice for event in events for choice in event["choices"]]
    usages = [event["usage"] for event in events if event.get("usage")]
    assert len(usages) <= 1, "usage comes once"
    assert "[DONE]" not in data[:-1], "nothing comes after the end"
    text = "".join(choice["delta"].get("content", "") if "delta" in choice else choice["text"] for choice in choices)
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(reasons) + len(errors) == 1, "there is one end"
    tokens = tuple(token for choice in choices for token in tokens_of(choice))
    ids = frozenset(event["id"] for event in events)
    reason, usage = next(iter(reasons), None), next(iter(usages), {})
    return Answer(text, reason, usage, tokens, ids, data.count("[DONE]"), errors)


def tokens_of(choice: dict[str, Any]) -> tuple[str, ...]:
    logprobs = choice.get("logprobs") or {}
    if "content" in logprobs:
        return tuple(entry["token"] for entry in logprobs["content"])
    return tuple(logprobs.get("tokens", ()))


@asynccontextmanager
async def rig(folder: Path, replicas: int, *more: str, pace: str = PACE) -> AsyncIterator[Rig]:
    """Run `replicas` paced replicas of the model in `folder`, in fp32, behind a gateway with its defaults."""
    options = GatewayOptions(folder.name, folder, drain_timeout_s=20.0)
    arguments = ["--offline", "--threads", "1", "--quant", "fp32", "--pace", pace, *more]
    async with (
        running_stack(options, bind(0), replicas=replicas, replica_arguments=arguments) as stack,
        httpx.AsyncClient(base_url=stack.url, timeout=DEADLINE_S, trust_env=False) as client,
    ):
        yield Rig(stack, client, folder.name)
