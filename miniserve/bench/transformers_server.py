"""`transformers.generate` behind HTTP, a peer for the race.

    python -m miniserve.bench.transformers_server DIR PORT THREADS

What a first server looks like: waiting requests go into one static batch, padded to the longest, which is computed
until all have their tokens; requests that arrive in the meantime wait for the next batch. Streams tokens in the format
of `/v1/completions`. Greedy, with always exactly `max_tokens` new tokens.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from miniserve.models.tokenizer import Tokenizer

MAX_BATCH = 16


@dataclass(eq=False)
class Job:
    """One request: what to compute, and where its tokens go."""

    ids: list[int]
    max_tokens: int
    tokens: asyncio.Queue[int] = field(default_factory=asyncio.Queue)


class TokenSink:
    """The streamer that `generate` calls after each step: it hands every job its token."""

    def __init__(self, jobs: list[Job], loop: asyncio.AbstractEventLoop) -> None:
        self._jobs, self._loop = jobs, loop
        self._steps = -1  # the first call brings the prompts

    def put(self, value: torch.Tensor) -> None:
        self._steps += 1
        if self._steps == 0:
            return
        for job, token in zip(self._jobs, value.tolist(), strict=True):
            if self._steps <= job.max_tokens:
                self._loop.call_soon_threadsafe(job.tokens.put_nowait, token)

    def end(self) -> None:
        """Called by `generate` when it is done; nothing to do, since every job counts its tokens."""


class StaticBatchServer:
    """Takes all waiting requests, computes them to the end, and repeats."""

    def __init__(self, folder: Path, threads: int) -> None:
        from transformers import LlamaForCausalLM

        torch.set_num_threads(threads)
        self.tokenizer = Tokenizer.load(folder)
        model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model = model.eval()
        self.waiting: asyncio.Queue[Job] = asyncio.Queue()

    async def serve(self) -> None:
        while True:
            jobs = [await self.waiting.get()]
            await asyncio.sleep(0.01)  # requests that arrive together are served together
            while not self.waiting.empty() and len(jobs) < MAX_BATCH:
                jobs.append(self.waiting.get_nowait())
            await asyncio.to_thread(self._generate, jobs, asyncio.get_running_loop())

    def _generate(self, jobs: list[Job], loop: asyncio.AbstractEventLoop) -> None:
        longest, new = max(len(job.ids) for job in jobs), max(job.max_tokens for job in jobs)
        padding = [longest - len(job.ids) for job in jobs]
        self.model.generate(
            torch.tensor([[0] * pad + job.ids for pad, job in zip(padding, jobs, strict=True)]),
            attention_mask=torch.tensor([[0] * pad + [1] * (longest - pad) for pad in padding]),
            do_sample=False,
            min_new_tokens=new,
            max_new_tokens=new,
            pad_token_id=0,
            streamer=TokenSink(jobs, loop),
        )

    async def complete(self, http: HttpRequest) -> Response:
        body = await http.json()
        job = Job(self.tokenizer.encode(body["prompt"]), body["max_tokens"])
        self.waiting.put_nowait(job)
        return StreamingResponse(self._events(job), media_type="text/event-stream")

    async def _events(self, job: Job) -> AsyncGenerator[str, None]:
        for _ in range(job.max_tokens):
            text = self.tokenizer.decode([await job.tokens.get()])
            yield f"data: {json.dumps({'choices': [{'text': text}]})}\n\n"
        usage = {"prompt_tokens": len(job.ids), "completion_tokens": job.max_tokens}
        yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"


async def main(folder: Path, port: int, threads: int) -> None:
    """Serve until killed."""
    server = StaticBatchServer(folder, threads)

    async def models(_: HttpRequest) -> Response:
        return JSONResponse({"data": [{"id": "race"}]})

    routes = [Route("/v1/models", models), Route("/v1/completions", server.complete, methods=["POST"])]
    config = uvicorn.Config(Starlette(routes=routes), port=port, log_level="error")
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        group.create_task(uvicorn.Server(config).serve())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
