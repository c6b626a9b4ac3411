"""The small parts of the live world: doors, ports, signals, the need of memory."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import pytest

from miniserve.config import CacheConfig
from miniserve.errors import Overloaded, SetupError
from miniserve.models.model_config import ModelConfig
from miniserve.processes.http_server import HttpServer, bind
from miniserve.processes.memory import ReplicaNeed, replica_need, require_memory
from miniserve.processes.signals import StopSignals
from miniserve.replica.drain import DrainGate

pytestmark = pytest.mark.anyio

SMOLLM2 = ModelConfig(49152, 576, 30, 9, 3, 64, 1536, 1e5, 1e-5, 8192, True, (2,))


async def test_a_door_is_empty_again_only_when_the_last_has_left() -> None:
    door = DrainGate("it")
    with door.enter():
        with door.enter():
            assert door.inside == 2
        assert await door.empty(0.0) is False
    assert await door.empty(0.0) is True


async def test_a_shut_door_names_itself_and_lets_nobody_in() -> None:
    door = DrainGate("the gateway")
    door.shut()
    with pytest.raises(Overloaded, match="the gateway is draining") as refused, door.enter():
        pass
    assert refused.value.retry_after_s == 1.0
    assert door.inside == 0


async def test_a_busy_port_is_named_with_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=rf"127\.0\.0\.1:{port} .*--port \d+") as refused:
            bind(port)
        free = int(str(refused.value).rsplit(" ", 1)[1])
        assert free != port
        bind(free).close()


async def test_a_port_taken_between_binding_and_listening_is_the_same_error() -> None:
    sock = bind(0)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", sock.getsockname()[1]))
        other.listen()
        with pytest.raises(SetupError, match="choose another port"):
            async with HttpServer(lambda *_: None, sock):
                pass


async def test_the_first_signal_asks_and_the_second_insists(until: Any) -> None:
    insisted: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals(at_once=lambda: insisted.append(1)).caught() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        await until(stop.first.is_set)
        assert not stop.second.is_set()
        assert insisted == []
        os.kill(os.getpid(), signal.SIGINT)
        await until(stop.second.is_set)
        assert insisted == [1]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_need_of_a_replica_follows_from_its_files_and_pool() -> None:
    """SmolLM2: 538 MB of fp32 weights, and 46,080 bytes of keys and values for each of 8,192 tokens."""
    need = replica_need(538_000_000, SMOLLM2, CacheConfig(num_blocks=512, block_size=16))
    assert need.weights == 753_200_000
    assert need.kv_pool == 8192 * 46_080
    assert need.total == need.weights + need.kv_pool + need.runtime


def test_too_many_replicas_are_refused_with_the_number_that_fits() -> None:
    need = ReplicaNeed(weights=600_000_000, kv_pool=300_000_000, runtime=100_000_000)
    require_memory(need, 2, 2_000_000_000)
    require_memory(need, 1000, None)  # unknown: try
    with pytest.raises(SetupError, match=r"3 replicas need about 3,000 MB .* only 2,500 MB .* --replicas 2$"):
        require_memory(need, 3, 2_500_000_000)
    with pytest.raises(SetupError, match="smaller model"):
        require_memory(need, 1, 900_000_000)
