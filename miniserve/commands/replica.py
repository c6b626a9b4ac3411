"""`miniserve replica`: one engine behind HTTP, in its own process.

Exactly one line is printed on stdout, as soon as requests can be sent:

    {"ready": true, "port": 8001, "pid": 4711, "import_s": 2.1, "load_s": 3.2, "warm_up_s": 0.1}

The seconds are the stages of its cold start. Everything else goes to stderr. SIGTERM and SIGINT drain; a second one
stops at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from miniserve.clock import monotonic
from miniserve.commands.options import (
    add_cors_option,
    add_drain_option,
    add_engine_options,
    add_log_option,
    add_model_options,
    add_vllm_option,
    at_least_one,
    log_to_stderr,
    port,
    served_name,
)

if TYPE_CHECKING:
    from miniserve.config import EngineConfig
    from miniserve.engine.engine import Engine
    from miniserve.engine.step_time import StepTimeModel

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_model_options(parser)
    add_engine_options(parser)
    add_cors_option(parser)
    add_log_option(parser)
    parser.add_argument("--port", type=port, default=8001, help="on 127.0.0.1; 0 = any free one (default %(default)s)")
    parser.add_argument("--threads", type=at_least_one, default=1, help="threads for matrix products (default 1)")
    parser.add_argument(
        "--scheduler",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of [engine.scheduler], such as max_batch_tokens=64; repeatable",
    )
    add_drain_option(parser)
    add_vllm_option(parser)
    parser.add_argument("--step-log", type=Path, metavar="FILE", help="append every engine step to FILE, as JSON lines")
    parser.add_argument(
        "--pace",
        nargs="?",
        const="default",
        metavar="SPEC",
        help="let each step last as long as a step-time model says: default (25 ms + 1 ms per running sequence), "
        "or base_s=0.025,per_decode_row_s=0.001,...",
    )
    parser.add_argument("--die-with-parent", action="store_true", help="exit when stdin is closed")


def run(args: argparse.Namespace) -> int:
    """Load the engine and serve it until told to stop."""
    if args.die_with_parent:
        die_with_parent()
    log_to_stderr(args.log_level)
    logging.getLogger("miniserve.access").addFilter(_not_internal)
    from miniserve.processes.http_server import bind
    from miniserve.replica.pace import parse_pace
    from miniserve.replica.step_log import step_log

    pace = None if args.pace is None else parse_pace(args.pace)
    sock = bind(args.port)  # a busy port is noticed before anything is loaded
    began_s = monotonic()
    import miniserve.engine.engine  # noqa: F401 -- importing torch takes seconds that should not count as loading

    imported_s = monotonic()
    engine, folder = load_replica(args)
    stages = {"import_s": round(imported_s - began_s, 3), "load_s": round(monotonic() - imported_s, 3)}
    with nullcontext() if args.step_log is None else step_log(args.step_log) as engine.on_step:
        return asyncio.run(serve_replica(args, engine, folder, sock, stages, pace))


def _not_internal(record: logging.LogRecord) -> bool:
    """Keep a gateway's requests out of our access log: it probes twice a second, and logs what it serves itself."""
    return '"/internal/' not in record.getMessage()


def die_with_parent() -> None:
    """Exit when stdin ends: our parent holds the other end, so its end means the parent is gone, however it died."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)  # no one is left to receive an answer or to wait for us

    threading.Thread(target=wait, name="parent watch", daemon=True).start()


def load_replica(args: argparse.Namespace) -> tuple[Engine, Path]:
    """Return the loaded engine and its model folder."""
    from miniserve.engine.engine import best_device, load_engine
    from miniserve.machine import release_free_memory
    from miniserve.models.store import resolve_model

    folder = resolve_model(args.model, args.cache, offline=args.offline, report=lambda line: log.info("%s", line))
    config = engine_config(args)
    device = best_device() if args.device == "auto" else args.device
    # Load in a thread that ends. OpenMP gives each computing thread its own team; while this thread's team stood idle,
    # the
    # engine thread's would sleep instead of spin between products, which makes a decode step 1.5 times as long.
    with ThreadPoolExecutor(1) as loader:
        loading = loader.submit(
            load_engine, folder, quant=args.quant, config=config, device=device, attention=args.attention
        )
    engine = loading.result()
    release_free_memory()
    return engine, folder


def engine_config(args: argparse.Namespace) -> EngineConfig:
    """Return what the options say about the engine. Raises: SetupError for a wrong setting of the scheduler."""
    from miniserve.config import EngineConfig

    if not args.scheduler:  # reading settings takes more imports than a replica needs
        return EngineConfig(threads=args.threads)
    from miniserve.scenario.live import read_scheduler

    return EngineConfig(read_scheduler(args.scheduler), threads=args.threads)


async def serve_replica(
    args: argparse.Namespace,
    engine: Engine,
    folder: Path,
    sock: socket.socket,
    stages: dict[str, float],
    pace: StepTimeModel | None = None,
) -> int:
    """Serve until a signal (0), or until the engine is broken (1)."""
    from miniserve.api.wiring import api_app, served_model
    from miniserve.config import ApiConfig
    from miniserve.processes.http_server import HttpServer
    from miniserve.processes.signals import StopSignals
    from miniserve.replica.local import LocalReplica
    from miniserve.replica.pace import PacedEngine
    from miniserve.replica.server import add_internal_routes, reporter

    stop = StopSignals(at_once=lambda: os._exit(130))
    stepped = engine if pace is None else PacedEngine(engine, pace, monotonic)
    replica = LocalReplica(stepped, on_broken=stop.first.set)
    model = served_model(served_name(args), folder, engine.max_model_len)
    config = ApiConfig(cors_origins=tuple(args.cors))
    app = api_app(replica, model, config=config, engine_stats=replica.stats, vllm_metrics=args.vllm_metrics)
    report = reporter(replica, monotonic, model=model.name, max_model_len=engine.max_model_len, stages=stages)
    add_internal_routes(app, replica, report)
    await asyncio.to_thread(app.openapi)  # kept: the first to ask for the description would hold up the others
    began_s = monotonic()
    replica.start(engine.warm_up)
    with stop.caught():
        try:
            await replica.warm()
            stages["warm_up_s"] = round(monotonic() - began_s, 3)
            async with HttpServer(app, sock) as server:
                if not replica.broken:
                    print(json.dumps({"ready": True, "port": server.port, "pid": os.getpid(), **stages}), flush=True)
                await stop.first.wait()
                if not await replica.drain(args.drain_timeout):
                    log.warning("stopped with %d requests unfinished", replica.door.inside)
        finally:
            await replica.close()
    return 1 if replica.broken else 0
