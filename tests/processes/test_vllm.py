"""vLLM's program under our supervisor, and `serve` in front of backends: real processes, and a stand-in for vLLM."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from miniserve.errors import SetupError
from miniserve.processes.backends import VllmOptions
from miniserve.processes.http_server import bind
from miniserve.processes.pools import Pool
from miniserve.processes.stack import Gateway, GatewayOptions, running_pools
from miniserve.processes.supervisor import Supervisor

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with the one that started it"),
]

FAKE = Path(__file__).resolve().parents[1] / "gateway" / "fake_openai.py"
PROMPT = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 6, "temperature": 0}


def program(folder: Path, line: str) -> str:
    path = folder / "vllm"
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def fake_vllm(tmp_path: Path) -> str:
    return program(tmp_path, f'exec {sys.executable} {FAKE} "$@"')


@asynccontextmanager
async def vllm_behind_a_gateway(folder: Path, vllm: str) -> AsyncIterator[tuple[Gateway, Supervisor]]:
    pool = Pool("tiny", folder, vllm=VllmOptions(vllm, ("--max-num-seqs", "32")))
    options = GatewayOptions("tiny", folder, drain_timeout_s=5.0)
    with bind(0) as sock:
        async with running_pools(options, [pool], sock) as stack:
            yield stack.gateway, stack.supervisor


def vllm_of(supervisor: Supervisor) -> psutil.Process:
    pid = supervisor.children[0].pid
    assert pid is not None
    (vllm,) = (child for child in psutil.Process(pid).children() if "serve" in child.cmdline())
    return vllm


async def test_vllm_is_started_asked_replaced_when_it_dies_and_ended(
    tiny_folder: Path, fake_vllm: str, until: Any
) -> None:
    async with vllm_behind_a_gateway(tiny_folder, fake_vllm) as (gateway, supervisor):
        first = vllm_of(supervisor)
        command = " ".join(first.cmdline())
        assert f"serve {tiny_folder} --served-model-name tiny --host 127.0.0.1 --port" in command
        assert command.endswith("--max-num-seqs 32")
        await until(gateway.backend.ready)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60.0, trust_env=False) as client:
            answers = [(await client.post("/v1/completions", json=PROMPT)).json()]
            first.kill()
            await until(lambda: supervisor.children[0].restarts == 1 and gateway.backend.ready())
            answers.append((await client.post("/v1/completions", json=PROMPT)).json())
        assert answers[0]["choices"] == answers[1]["choices"]
        second = vllm_of(supervisor)
    await until(lambda: not first.is_running() and not second.is_running())


@pytest.mark.parametrize("killed", ["the program between", "vllm"])
async def test_neither_vllm_nor_its_engine_outlives_the_program_that_started_them(
    killed: str, tiny_folder: Path, tmp_path: Path, until: Any
) -> None:
    vllm_with_an_engine = program(tmp_path, f'sleep 1000 & exec {sys.executable} {FAKE} "$@"')
    async with vllm_behind_a_gateway(tiny_folder, vllm_with_an_engine) as (_, supervisor):
        vllm, between = vllm_of(supervisor), supervisor.children[0].pid
        (engine,) = vllm.children()
        assert engine.cmdline() == ["sleep", "1000"]
        assert between is not None
        os.kill(between if killed == "the program between" else vllm.pid, signal.SIGKILL)
        await until(lambda: not vllm.is_running() and not engine.is_running())


async def test_what_a_vllm_says_that_does_not_start_is_in_the_error(tiny_folder: Path, tmp_path: Path) -> None:
    broken = program(tmp_path, 'echo "this CPU cannot run me" >&2; exit 3')
    with pytest.raises(SetupError, match="exited with code 3 before it was ready; it said: this CPU cannot run me"):
        async with vllm_behind_a_gateway(tiny_folder, broken):
            pass


def test_serve_takes_backends_and_says_what_it_lacks(tiny_folder: Path, fake_vllm: str) -> None:
    def serve(*options: str) -> str:
        command = [sys.executable, "-m", "miniserve", "serve", "--model", str(tiny_folder), "--port", "0", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stderr

    assert "needs at least one --replica URL or --backend URL" in serve()
    assert "--backend-key-file /nowhere: " in serve("--backend", "http://127.0.0.1:1", "--backend-key-file", "/nowhere")
    assert "no backend can be used: http://127.0.0.1:1: no report" in serve("--backend", "http://127.0.0.1:1")


def fake_backend(folder: Path) -> tuple[list[str], list[str]]:
    """Return the command line of a backend that calls the model "there", and the options that find it."""
    with bind(0) as sock:
        free = str(sock.getsockname()[1])
    fake = [sys.executable, str(FAKE), "serve", str(folder), "--served-model-name", "there", "--port", free]
    return fake, ["--served-name", "here", "--backend-model", "there", "--backend", f"http://127.0.0.1:{free}/v1"]


def test_the_demo_starts_vllm_or_takes_a_backend(tiny_folder: Path, fake_vllm: str) -> None:
    def ask(*options: str) -> subprocess.CompletedProcess[str]:
        question = ["--offline", "--once", "Hello", "--max-tokens", "3"]
        command = [sys.executable, "-m", "miniserve", "--model", str(tiny_folder), *question, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    vllm = ask("--engine", "vllm", "--vllm-bin", fake_vllm, "--served-name", "here")
    assert (vllm.returncode, "starting 1 replica of here" in vllm.stderr) == (0, True), vllm.stderr
    fake, options = fake_backend(tiny_folder)
    with subprocess.Popen(fake, stdout=subprocess.PIPE) as backend:
        assert backend.stdout is not None
        backend.stdout.readline()
        there = ask(*options)
        backend.kill()
    assert (there.returncode, "starting a gateway" in there.stderr) == (0, True), there.stderr
    assert there.stdout == vllm.stdout != "\n", "the same prompt of the same template"
    missing = ask("--engine", "vllm", "--vllm-bin", "/nowhere/vllm")
    assert "there is no program /nowhere/vllm; say where it is with --vllm-bin" in missing.stderr


async def test_serve_answers_from_a_backend(tiny_folder: Path) -> None:
    fake, more = fake_backend(tiny_folder)
    serve = [sys.executable, "-m", "miniserve", "serve", "--model", str(tiny_folder), "--port", "0", *more]
    backend = await asyncio.create_subprocess_exec(*fake, stdout=subprocess.PIPE)
    gateway = None
    try:
        assert backend.stdout is not None
        assert await backend.stdout.readline() == b"ready\n"
        gateway = await asyncio.create_subprocess_exec(*serve, stderr=subprocess.PIPE)
        assert gateway.stderr is not None
        while b"ready: " not in (line := await gateway.stderr.readline()):
            assert line, "it ended"
        url = line.split(b"ready: ")[1].split()[0].decode()
        assert line.strip().endswith(b"serves here from 1 backend")
        async with httpx.AsyncClient(base_url=url, timeout=60.0, trust_env=False) as client:
            answer = await client.post("/v1/completions", json={**PROMPT, "model": "here"})
        assert (answer.status_code, answer.json()["usage"]["completion_tokens"]) == (200, 6)
        gateway.send_signal(signal.SIGTERM)
        assert await gateway.wait() == 0
    finally:
        for process in (backend, gateway):
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()
