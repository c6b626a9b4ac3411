"""Other people's programs in front of us, unmodified, each in an environment of its own: clients, routers, load.

The environments come from package registries; where one cannot be made, its test is skipped with what was said.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from miniserve.processes.http_server import bind

pytestmark = pytest.mark.full

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SMALL = ROOT / "data" / "models" / "small"
QUESTION = "What is 2 + 3?"
CLEAN = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=CLEAN | variables, capture_output=True, text=True, check=False, timeout=1800
    )


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`environment(package)`: the `bin` of a new environment with it; skips the test if it cannot be installed."""

    def make(package: str) -> Path:
        venv.create(tmp_path / "env", with_pip=True)
        programs = tmp_path / "env" / "bin"
        done = run([str(programs / "python"), "-m", "pip", "install", "-q", package], tmp_path)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason"])[-1]
            pytest.skip(f"{package} cannot be installed here: {last}")
        return programs

    yield make
    shutil.rmtree(tmp_path / "env", ignore_errors=True)  # up to 1.2 GB, which pytest would keep


def output_of(command: list[str], folder: Path, **variables: str) -> str:
    done = run(command, folder, **variables)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@contextmanager
def started(*arguments: str) -> Iterator[str]:
    """Run our program until its first line, which is yielded."""
    command = [sys.executable, "-m", "miniserve", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline()
        finally:
            process.terminate()
            process.communicate(timeout=90)


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """The address of the demo's API."""
    options = ["--model", str(SMALL), "--replicas", "2", "--offline", "--port", "0", "--no-table", "--no-load"]
    with started(*options) as line:
        assert line.startswith("ready: "), line
        yield f"{line.split()[1]}/v1"


@pytest.fixture(scope="module")
def answer(demo: str) -> str:
    """What our API says to the question, which no program between may change."""
    body = {"model": "small", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 16}
    response = httpx.post(f"{demo}/chat/completions", json=body, timeout=300, trust_env=False)
    return str(response.raise_for_status().json()["choices"][0]["message"]["content"])


def test_langchain(demo: str, answer: str, tmp_path: Path, environment: Callable[[str], Path]) -> None:
    programs = environment("langchain-openai==1.7.4")
    said = json.loads(output_of([str(programs / "python"), str(HERE / "langchain_calls.py"), demo, "small"], tmp_path))
    assert (said["plain"], said["streamed"]) == (answer, answer)
    assert said["tokens"] > 0


def test_the_llm_command(demo: str, answer: str, tmp_path: Path, environment: Callable[[str], Path]) -> None:
    programs = environment("llm==0.36")
    settings = f'- model_id: mini\n  model_name: small\n  api_base: "{demo}"\n'
    (tmp_path / "extra-openai-models.yaml").write_text(settings, encoding="utf-8")
    command = [str(programs / "llm"), "-m", "mini", QUESTION, "-o", "temperature", "0", "-o", "max_tokens", "16"]
    for more in ([], ["--no-stream"]):
        assert output_of([*command, *more], tmp_path, LLM_USER_PATH=str(tmp_path)).strip() == answer.strip()


def test_openais_client_for_javascript(demo: str, answer: str, tmp_path: Path, record_property: Any) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node.js here")
    shutil.copy(HERE / "openai_calls.mjs", tmp_path)
    done = run([npm, "install", "--silent", "openai"], tmp_path)
    if done.returncode:
        pytest.skip(f"npm cannot install openai here: {done.stderr[-200:]}")
    said = json.loads(output_of([node, "openai_calls.mjs", demo, "small"], tmp_path))
    assert (said["plain"], said["streamed"]) == (answer, answer)
    package = json.loads((tmp_path / "node_modules" / "openai" / "package.json").read_text(encoding="utf-8"))
    record_property("version", package["version"])


def test_aiperf(demo: str, tmp_path: Path, environment: Callable[[str], Path], record_property: Any) -> None:
    """NVIDIA's load generator: 20 streams, two at a time, prompts made with our tokenizer."""
    programs, out = environment("aiperf==0.13.0"), tmp_path / "out"
    target = ["-m", "small", "--url", demo.removesuffix("/v1"), "--endpoint-type", "chat", "--streaming"]
    load = ["--request-count", "20", "--concurrency", "2", "--random-seed", "1"]
    lengths = ["--synthetic-input-tokens-mean", "20", "--output-tokens-mean", "8"]
    files = ["--tokenizer", str(SMALL), "--ui", "none", "--output-artifact-dir", str(out)]
    output_of([str(programs / "aiperf"), "profile", *target, *load, *lengths, *files], tmp_path)
    result = json.loads((out / "profile_export_aiperf.json").read_text(encoding="utf-8"))
    assert (result["completed_request_count"]["avg"], result["error_summary"]) == (20, [])
    record_property("requests", 20)


@contextmanager
def router(programs: Path, workers: list[str], folder: Path) -> Iterator[str]:
    """SGLang's router in front of `workers`; yields its address when it has found them."""
    with bind(0) as one, bind(0) as other:
        port, metrics = (str(sock.getsockname()[1]) for sock in (one, other))
    address = ["--host", "127.0.0.1", "--port", port, "--prometheus-port", metrics]
    command = [str(programs / "smg"), "launch", *address, "--policy", "round_robin", "--worker-urls", *workers]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log, env=CLEAN) as process:
        try:
            transport = httpx.HTTPTransport(retries=8)  # it listens at once; httpx waits up to a minute in all
            with httpx.Client(transport=transport, trust_env=False, timeout=60) as client:
                client.get(f"http://127.0.0.1:{port}/readiness")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def served(url: str) -> float:
    """Return how many generations a replica has finished."""
    text = httpx.get(f"{url}/metrics", timeout=60, trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith("miniserve_generations_finished_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_sglangs_router_in_front_of_two_replicas(tmp_path: Path, environment: Callable[[str], Path]) -> None:
    programs = environment("sglang-router==0.3.2")
    options = ["replica", "--model", str(SMALL), "--port", "0", "--offline", "--vllm-metrics"]
    with ExitStack() as stack:
        lines = [stack.enter_context(started(*options)) for _ in range(2)]
        workers = [f"http://127.0.0.1:{json.loads(line)['port']}" for line in lines]
        url = stack.enter_context(router(programs, workers, tmp_path))

        def ask(i: int) -> httpx.Response:
            messages = [{"role": "user", "content": f"What is {i} + 3?"}]
            body = {"model": "small", "messages": messages, "max_tokens": 16, "stream": i % 2 == 0}
            return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=300, trust_env=False)

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(ask, range(20)))
        assert [answer.status_code for answer in answers] == [200] * 20
        assert all(answer.text.rstrip().endswith("data: [DONE]") for answer in answers[::2])
        assert min(map(served, workers)) >= 5, "both have worked"
