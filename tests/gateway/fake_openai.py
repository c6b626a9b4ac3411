"""A foreign OpenAI-compatible server, made of a socket and a rule: deterministic text, and faults on demand.

With token ids it behaves as vLLM does: prompts of ids, `return_token_ids`, `vllm:` metrics, a context length in its
list of models. Without, it takes and gives text only. The next token is a function of the whole sequence so far, so
an answer that is continued from its middle is the same answer.

As a program it is a stand-in for `vllm` itself: `fake_openai.py serve FOLDER --port N --served-model-name NAME ...`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from miniserve.models.tokenizer import Tokenizer

CONTEXT = 4096
Produce = Callable[[int], Any]  # (tokens so far) -> awaited before each token


class FakeOpenAI:
    """`async with FakeOpenAI(...) as fake:` serves at `fake.url` inside the block."""

    def __init__(self, tokenizer: Tokenizer, name: str = "tiny", *, ids: bool = True) -> None:
        self.name = name
        self.ids = ids
        self.bodies: list[dict[str, Any]] = []  # of every completion that was asked for
        self.running = 0
        self.produced = 0  # tokens, over all requests
        self.missing: set[str] = set()  # paths that it does not have
        self.poison = ""  # a prompt with these words always gets a 500
        self.hangs = False  # takes requests for completions and never answers them; its health is fine
        self.deaths: list[int] = []  # for each stream to come that is cut: after how many tokens
        self.script: bytes | None = None  # sent in place of an answer, HTTP head and all
        self.then_silent = False  # keeps the connection open after the script
        self.before_token: Produce | None = None
        self.port = 0
        self._tokenizer = tokenizer
        self._plain = [i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i).strip().isalpha()]
        self._released = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies that a client sent, without the gateway's first question."""
        return [body for body in self.bodies if body.get("stream")]

    async def __aenter__(self) -> FakeOpenAI:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._released.set()
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await self._server.wait_closed()

    # --- what it says ----------------------------------------------------------------------------------------------

    def answer(self, prompt: list[int] | str, tokens: int) -> list[int] | list[str]:
        """Return the answer to `prompt`, in ids or in words."""
        if isinstance(prompt, str):
            return [f" word{(len(prompt) + i) % 97}" for i in range(tokens)]
        sequence = list(prompt)
        for _ in range(tokens):
            sequence.append(self._plain[(len(sequence) * 7 + sum(sequence[:8])) % len(self._plain)])
        return sequence[len(prompt) :]

    def text(self, answer: list[int] | list[str]) -> str:
        return "".join(one if isinstance(one, str) else self._tokenizer.decode([one]) for one in answer)

    def _choice(self, piece: list[Any], finish_reason: str | None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "text": self.text(piece), "finish_reason": finish_reason}
        return choice if isinstance(piece[0], str) else {**choice, "token_ids": piece, "logprobs": None}

    # --- HTTP ------------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)
        await asyncio.wait({talk})
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split()[1]
            if path in self.missing:
                await _send(writer, 404, {"error": {"message": "Not Found", "code": 404}})
            elif path == "/v1/completions":
                length = int(head.lower().split("content-length:")[1].split("\r\n")[0])
                await self._while_connected(reader, writer, json.loads(await reader.readexactly(length)))
            else:
                await self._tell(path, writer)

    async def _tell(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path == "/v1/models":
            entry = {"id": self.name, "object": "model", **({"max_model_len": CONTEXT} if self.ids else {})}
            await _send(writer, 200, {"object": "list", "data": [entry]})
        elif path == "/metrics" and self.ids:
            label = f'{{model_name="{self.name}",engine="0"}}'
            lines = [
                f"vllm:num_requests_running{label} {float(self.running)}",
                f"vllm:num_requests_waiting{label} 0.0",
                f"vllm:kv_cache_usage_perc{label} {0.125 if self.running else 0.0}",
                f"vllm:generation_tokens_total{label} {float(self.produced)}",
            ]
            await _send(writer, 200, "\n".join(lines) + "\n")
        elif path == "/health":
            await _send(writer, 200, "")
        else:
            await _send(writer, 404, {"detail": "Not Found"})

    async def _while_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: dict[str, Any]
    ) -> None:
        self.bodies.append(body)
        self.running += 1
        work = asyncio.create_task(self._complete(writer, body))
        left = asyncio.create_task(reader.read())
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.running -= 1
            for task in (work, left):
                task.cancel()
            await asyncio.gather(work, left, return_exceptions=True)

    async def _complete(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        prompt, streams = body["prompt"], bool(body.get("stream"))
        if isinstance(prompt, list) and not self.ids:
            message = "prompt: Input should be a valid string"
            await _send(writer, 400, {"error": {"message": message, "type": "invalid", "param": None, "code": 400}})
        elif self.poison and self.poison in (prompt if isinstance(prompt, str) else self._tokenizer.decode(prompt)):
            await _send(writer, 500, {"error": {"message": "the engine broke", "type": "Internal", "code": 500}})
        elif self.hangs:
            await self._released.wait()
        elif streams and self.script is not None:
            await _write(writer, self.script)
            if self.then_silent:
                await self._released.wait()
        elif streams:
            await self._stream(writer, prompt, body)
        else:
            answer = self.answer(prompt, body["max_tokens"])
            await _send(writer, 200, {"object": "text_completion", "choices": [self._choice(answer, "length")]})

    async def _stream(self, writer: asyncio.StreamWriter, prompt: Any, body: dict[str, Any]) -> None:
        answer = self.answer(prompt, body["max_tokens"])
        dies_after = self.deaths.pop() if self.deaths else None
        await _write(
            writer, b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n"
        )
        for i, piece in enumerate(answer):
            if i == dies_after:
                writer.transport.abort()
                return
            if self.before_token is not None:
                await self.before_token(i)
            self.produced += 1
            reason = "length" if i + 1 == len(answer) else None
            await _write(writer, event({"choices": [self._choice([piece], reason)]}))
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": len(prompt), "prompt_tokens_details": {"cached_tokens": 3}}
            await _write(writer, event({"choices": [], "usage": usage}))
        await _write(writer, b"data: [DONE]\n\n")


def event(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _send(writer: asyncio.StreamWriter, status: int, body: dict[str, Any] | str) -> None:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    kind = "text/plain" if isinstance(body, str) else "application/json"
    head = (
        f"HTTP/1.1 {status} So\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
    )
    await _write(writer, head.encode() + content)


async def _serve_for_ever(folder: Path, name: str, port: int) -> None:
    fake = FakeOpenAI(Tokenizer.load(folder), name)
    fake.port = port
    async with fake:
        print("ready", flush=True)
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def two_fakes(tokenizer: Tokenizer, *, ids: bool = True) -> AsyncIterator[tuple[FakeOpenAI, FakeOpenAI]]:
    async with FakeOpenAI(tokenizer, ids=ids) as one, FakeOpenAI(tokenizer, ids=ids) as other:
        yield one, other


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    args, _ = parser.parse_known_args()
    asyncio.run(_serve_for_ever(args.folder, args.served_model_name, args.port))
