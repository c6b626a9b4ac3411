"""`miniserve demo` and its parts as a person meets them: as processes, with signals, ports and exit codes."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

import httpx
import psutil
import pytest

DEADLINE_S = 60.0
OFFLINE = ["--offline", "--served-name", "tiny"]


def until(condition: Callable[[], object]) -> None:
    """Come back when `condition()` is true; fail when it is not within the deadline."""
    give_up_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < give_up_s, "this did not come true in time"
        time.sleep(0.01)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "miniserve", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=DEADLINE_S)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command(*arguments), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            for child in psutil.Process(process.pid).children() if process.poll() is None else []:
                child.kill()  # a test that failed may have left it suspended, and then it sees no closing pipe
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def post(url: str, json: object) -> httpx.Response:
    return httpx.post(url, json=json, timeout=DEADLINE_S, trust_env=False)


def stream(url: str, json: object) -> AbstractContextManager[httpx.Response]:
    return httpx.stream("POST", url, json=json, timeout=DEADLINE_S, trust_env=False)


def ready_url(process: subprocess.Popen[str]) -> str:
    """Return the gateway's URL from the demo's ready line."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("ready: "), (line, process.stderr.read() if process.stderr else "")
    return line.split()[1]


def read_until(stream: IO[str] | None, text: str) -> None:
    """Read lines up to the one with `text`; fail with all of them when the stream ends without it."""
    assert stream is not None
    lines = []
    for line in stream:
        if text in line:
            return
        lines.append(line)
    pytest.fail(f"{text!r} is not in\n{''.join(lines)}")


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with room for a long answer."""
    from miniserve.models.tiny import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("long"), context=8192)


def test_once_prints_the_answer_and_nothing_else(tiny_folder: Path) -> None:
    arguments = ("--model", str(tiny_folder), *OFFLINE, "--replicas", "1", "--once", "Hello", "--max-tokens", "6")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "starting 1 replica of tiny" in done.stderr
    assert done.stdout.endswith("\n")
    assert "ready" not in done.stdout
    assert len(done.stdout.encode()) < 6 * 40, "six tokens at most"
    assert run(*arguments).stdout == done.stdout, "greedy: the same question has the same answer"


def test_a_policies_file_reaches_the_replica_and_every_decision_a_file(tiny_folder: Path, tmp_path: Path) -> None:
    """The cap on standard answers is the replica's; the decisions are the gateway's."""
    policies, decisions = tmp_path / "policies.toml", tmp_path / "decisions.jsonl"
    policies.write_text('[policies]\nbalancer = "p2c"\n[engine.scheduler]\nmax_output_tokens = [9, 2, 9]\n')
    done = run(
        *("--model", str(tiny_folder), *OFFLINE, "--replicas", "1", "--once", "Hello", "--max-tokens", "6"),
        *("--policies", str(policies), "--decisions", str(decisions)),
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in decisions.read_text().splitlines()]
    assert [one["what"] for one in told] == ["send", "result", "end"]
    assert told[1]["tokens"] == 2
    assert len({one["request"] for one in told}) == 1


def test_a_wrong_policies_file_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    policies = tmp_path / "policies.toml"
    policies.write_text('[policies]\nbalancr = "p2c"\n')
    for name, more in (("demo", ()), ("serve", ("--replica", "http://127.0.0.1:1"))):
        done = run(name, "--model", "/no/such/model", "--policies", str(policies), *more)
        assert done.returncode == 2
        assert f"{policies}:2: policies.balancr: unknown key; did you mean `balancer`?" in done.stderr


def test_once_says_in_one_line_why_there_is_no_answer(tiny_folder: Path) -> None:
    """The prompt is longer than the model's 512 tokens."""
    done = run("--model", str(tiny_folder), *OFFLINE, "--replicas", "1", "--once", "word " * 2000)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"miniserve: .*512 tokens.*10018 tokens.*", done.stderr.splitlines()[-1])


def test_a_busy_port_is_found_out_before_anything_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name in ("demo", "replica"):
            done = run(name, "--port", str(port), "--model", "/no/such/model")
            assert done.returncode == 2
            assert done.stdout == ""
            assert done.stderr.startswith(f"miniserve: cannot listen on 127.0.0.1:{port}")
            assert "--port " in done.stderr
            assert done.stderr.count("\n") == 1


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = run("--model", str(tmp_path / "absent"), "--port", "0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("miniserve: ")
    assert "absent" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_more_replicas_than_memory_are_refused_with_a_number_that_fits(tiny_folder: Path) -> None:
    done = run("--model", str(tiny_folder), *OFFLINE, "--port", "0", "--replicas", "100000")
    assert done.returncode == 2
    assert "100000 replicas need about" in done.stderr
    assert "--replicas " in done.stderr
    assert done.stderr.count("\n") == 1


def test_ctrl_c_finishes_the_stream_in_flight_and_leaves_nothing(long_folder: Path) -> None:
    """The replicas stand still while the signal arrives, so the stream is certainly unfinished at that moment."""
    with running("--model", str(long_folder), *OFFLINE, "--replicas", "2", "--port", "0", "--no-table") as process:
        url = ready_url(process)
        gateway = psutil.Process(process.pid)
        replicas = gateway.children()
        assert len(replicas) == 2
        body = {"model": "tiny", "prompt": "Once", "max_tokens": 400, "ignore_eos": True, "stream": True}
        with stream(f"{url}/v1/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            for replica in replicas:
                replica.suspend()
            process.send_signal(signal.SIGINT)
            read_until(process.stderr, "draining 1 requests")
            refused = post(f"{url}/v1/completions", json={**body, "stream": False})
            assert refused.status_code == 503
            assert "retry-after" in refused.headers
            for replica in replicas:
                replica.resume()
            rest = [line.removeprefix("data: ") for line in lines if line]
        assert rest[-1] == "[DONE]"
        assert json.loads(rest[-2])["choices"][0]["finish_reason"] == "length"
        assert process.wait(DEADLINE_S) == 0
        assert not any(alive(replica) for replica in replicas)


def test_the_demos_own_load_is_graded_can_be_turned_and_loses_nothing_at_ctrl_c(tmp_path: Path) -> None:
    """Also: the page is there, and `--state` is where the command line finds the token."""
    words = ("--model", "large", "--offline", "--replicas", "1", "--pace", "--port", "0", "--no-table")
    with running(*words, "--load-rate", "8", "--state", str(tmp_path)) as process:
        url = ready_url(process)

        def load() -> dict[str, float]:
            status: dict[str, dict[str, float]] = httpx.get(f"{url}/status", trust_env=False).json()
            return status["load"]

        until(lambda: load()["answered"] >= 5)
        assert load()["good_fraction"] > 0
        turned = run("demo-load", "--times", "2", "--url", url, "--state", str(tmp_path))
        assert turned.stdout == "the demo's load is 2 times what it was at first\n", turned.stderr
        until(lambda: load()["rate_per_s"] > 1.35 * 8)  # more than the waves make of 8
        assert httpx.get(f"{url}/", trust_env=False).status_code == 200
        processes = psutil.Process(process.pid).children()
        assert len(processes) == 2, "a replica and the load"
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(DEADLINE_S) == 0
        assert ", 0 failed\nstopped\n" in said, said[-2000:]
        assert not any(alive(one) for one in processes)


def test_a_second_ctrl_c_stops_at_once(long_folder: Path) -> None:
    with running("--model", str(long_folder), *OFFLINE, "--replicas", "1", "--port", "0", "--no-table") as process:
        url = ready_url(process)
        replicas = psutil.Process(process.pid).children()
        body = {"model": "tiny", "prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "stream": True}
        with stream(f"{url}/v1/completions", json=body) as response:
            lines = response.iter_lines()  # kept: an iterator that is dropped closes the response
            next(lines)
            replicas[0].suspend()  # it will never finish by itself
            process.send_signal(signal.SIGINT)
            read_until(process.stderr, "draining 1 requests")
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_S) == 130
        until(lambda: not any(alive(replica) for replica in replicas))


def test_ctrl_c_while_starting_leaves_nothing(tiny_folder: Path) -> None:
    with running("--model", str(tiny_folder), *OFFLINE, "--replicas", "1", "--port", "0", "--no-table") as process:
        parent = psutil.Process(process.pid)
        until(parent.children)
        replicas = parent.children()
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        until(lambda: not any(alive(replica) for replica in replicas))


def test_replicas_do_not_outlive_a_killed_gateway(tiny_folder: Path) -> None:
    with running("--model", str(tiny_folder), *OFFLINE, "--replicas", "2", "--port", "0", "--no-table") as process:
        ready_url(process)
        replicas = psutil.Process(process.pid).children()
        assert len(replicas) == 2
        process.kill()
        until(lambda: not any(alive(replica) for replica in replicas))


def test_a_replica_and_a_gateway_started_by_hand(tiny_folder: Path) -> None:
    """`replica` says one line when it is ready; `serve` finds it and answers through it; SIGTERM ends both well."""
    model = ("--model", str(tiny_folder), *OFFLINE)
    with running("replica", *model, "--port", "0") as replica:
        assert replica.stdout is not None
        ready = json.loads(replica.stdout.readline())
        assert ready["ready"] is True
        assert ready["pid"] == replica.pid
        assert ready["load_s"] > 0
        url = f"http://127.0.0.1:{ready['port']}"
        body = {"model": "tiny", "prompt": "Hi", "temperature": 0}
        own = post(f"{url}/v1/completions", json=body)
        port = free_port()
        with running("serve", *model, "--replica", url, "--port", str(port)) as gateway:
            read_until(gateway.stderr, "ready: ")
            through = post(f"http://127.0.0.1:{port}/v1/completions", json=body)
            assert through.status_code == 200
            assert through.json()["choices"] == own.json()["choices"]
            gateway.terminate()
            assert gateway.wait(DEADLINE_S) == 0
        replica.terminate()
        assert replica.wait(DEADLINE_S) == 0
        assert replica.stdout.read() == "", "one line, no more"


def test_a_gateway_refuses_replicas_of_another_model(tiny_folder: Path) -> None:
    with running("replica", "--model", str(tiny_folder), *OFFLINE, "--port", "0") as replica:
        assert replica.stdout is not None
        url = f"http://127.0.0.1:{json.loads(replica.stdout.readline())['port']}"
        done = run("serve", "--model", str(tiny_folder), "--served-name", "other", "--replica", url, "--port", "0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "miniserve: the gateway was told to serve other, but a replica serves tiny"
    assert "Traceback" not in done.stderr


def test_without_network_and_cache_the_shipped_model_answers(tmp_path: Path) -> None:
    done = run("--cache", str(tmp_path), "--offline", "--once", "What is the capital of France?")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Paris"
    assert "smollm2 is not in the cache" in done.stderr
    assert "continuing with large" in done.stderr


def test_a_model_that_was_asked_for_by_name_is_not_replaced(tmp_path: Path) -> None:
    done = run("--cache", str(tmp_path), "--offline", "--model", "smollm2", "--once", "Hi")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "weights fetch" in done.stderr
