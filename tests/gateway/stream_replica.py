"""A program: a replica that computes nothing and streams tokens at a fixed rate, on a port that it prints.

    python stream_replica.py MODEL TOKENS_PER_S        0 tokens per second: as fast as they are taken

It speaks `/internal/generate` and `/internal/stats`, and is cheap enough to carry hundreds of streams in one process.
Each stream keeps to its own schedule, so that a late wake-up does not add up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

from miniserve.engine.scheduler import Counters
from miniserve.engine.stats import EngineStats
from miniserve.replica.wire import ReplicaReport, encode_report
from miniserve.types import ReplicaState

_OK = b"HTTP/1.1 200 OK\r\ncontent-type: "
CONTEXT = 1 << 20


class StreamReplica:
    """Answers every request with as many tokens as it asks for."""

    def __init__(self, model: str, tokens_per_s: float) -> None:
        self._model = model
        self._period_s = 1 / tokens_per_s if tokens_per_s else 0.0
        self._steps = self._running = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
                if b"/internal/generate" in head.partition(b"\r\n")[0]:
                    await self._generate(json.loads(body), writer)
                else:
                    report = self._report()
                    writer.write(_OK + b"application/json\r\ncontent-length: %d\r\n\r\n" % len(report) + report)
        writer.close()

    async def _generate(self, request: dict[str, object], writer: asyncio.StreamWriter) -> None:
        writer.write(_OK + b"text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        count = int(request["sampling"]["max_tokens"])  # type: ignore[index]
        loop, self._running = asyncio.get_running_loop(), self._running + 1
        start_s = loop.time()
        try:
            for i in range(count):
                await asyncio.sleep(start_s + i * self._period_s - loop.time() if self._period_s else 0)
                event = {"request_id": request["request_id"], "token_ids": [65 + i % 26]}
                if i == count - 1:
                    event["finish_reason"] = "length"
                data = b"data: %s\n\n" % json.dumps(event).encode()
                writer.write(b"%x\r\n%s\r\n" % (len(data), data))
                await writer.drain()
                self._steps += 1
            writer.write(b"0\r\n\r\n")
        finally:
            self._running -= 1

    def _report(self) -> bytes:
        stats = EngineStats(Counters(steps=self._steps, generated_tokens=self._steps), running=self._running)
        report = ReplicaReport(os.getpid(), self._model, ReplicaState.READY, 1.0, 1, CONTEXT, stats)
        return encode_report(report)


async def main(model: str, tokens_per_s: float) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(
        StreamReplica(model, tokens_per_s).serve, "127.0.0.1", 0, limit=1 << 22, backlog=1024
    )
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
