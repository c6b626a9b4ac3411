"""A gateway with all standard parts over replicas in this process, and waiting for a condition."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from parity.paced import PacedReplica
from replica_fixtures import anyio_backend, until

from miniserve.clock import monotonic
from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.gateway.fleet import Fleet
from miniserve.operations.page.part import PagePart
from miniserve.operations.replicas import ReplicasPart
from miniserve.processes.http_server import bind
from miniserve.processes.stack import Gateway, GatewayOptions, running_gateway

__all__ = ["anyio_backend", "until"]

GatewayOf = Callable[..., AbstractAsyncContextManager[tuple[httpx.AsyncClient, Gateway]]]


@pytest.fixture
def gateway_of(tiny_folder: Path) -> GatewayOf:
    """`async with gateway_of(**options of the gateway, hands=...)`: a client of it, and the gateway."""

    @asynccontextmanager
    async def running(hands: Any = None, **options: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Gateway]]:
        instant = StepTimeModel(0.0, 0.0, 0.0, 0.0, 0.0)
        async with Fleet(monotonic, tick_interval_s=0.02) as fleet:
            replica = PacedReplica(SchedulerConfig(), CacheConfig(), instant, max_model_len=512, version="tiny")
            await fleet.put("tiny-0", replica)
            chosen = GatewayOptions("tiny", tiny_folder, **{"parts": (ReplicasPart, PagePart), **options})
            async with (
                running_gateway(chosen, fleet, bind(0), hands=hands) as gateway,
                httpx.AsyncClient(base_url=gateway.url, timeout=20.0, trust_env=False) as client,
            ):
                yield client, gateway
            await replica.close()

    return running
