"""Which load the demo sends, and the command that sends it as a process."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from miniserve.__main__ import main
from miniserve.commands.demo_load import DEFAULT_RATE, add_load_options, load_command
from miniserve.commands.pool_options import default_pools, demo_routing
from miniserve.errors import SetupError
from miniserve.policies.routing.model_names import ModelRouting
from miniserve.processes.pools import Pool


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_load_options(parser)
    return parser.parse_args(words)


def test_the_demos_own_pools_get_a_load_that_spares_the_model_for_people(tiny_folder: Path) -> None:
    pools = default_pools("smollm2", tiny_folder)
    args = options()
    args.live = argparse.Namespace(routing=ModelRouting())
    command = load_command(args, pools, demo_routing(args, pools), by_itself=True)
    assert command is not None
    assert command[3:] == [
        *("demo-load", "--load-rate", str(DEFAULT_RATE)),
        *("--ask", "small=1", "--ask", "large=3", "--ask", "auto=1", "--url"),
    ]
    slower = load_command(options("--load-rate", "2.5"), pools, ModelRouting(), by_itself=True)
    assert slower is not None
    assert slower[4:-1] == ["--load-rate", "2.5", "--ask", "small=1", "--ask", "large=3"]
    assert load_command(options("--no-load"), pools, ModelRouting(), by_itself=True) is None


def test_other_pools_get_one_only_if_somebody_asks(tiny_folder: Path) -> None:
    paced = [Pool("large", tiny_folder, "2", 1, "default"), Pool("small", tiny_folder)]
    assert load_command(options(), paced, ModelRouting(), by_itself=False) is None
    asked = load_command(options("--load-rate", "1"), paced, ModelRouting(), by_itself=False)
    assert asked is not None
    assert asked[-3:-1] == ["--ask", "large=3"]
    with pytest.raises(SetupError, match="goes to paced replicas of small or large; start some"):
        load_command(options("--load-rate", "1"), paced[1:], ModelRouting(), by_itself=False)


@pytest.mark.parametrize("words", [["--load-rate", "0"], ["--load-rate", "201"], ["--no-load", "--load-rate", "1"]])
def test_rates_that_are_none_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(*words)
    assert "load-rate" in capsys.readouterr().err


@pytest.mark.parametrize("ask", ["large", "=1", "large=0", "large=nan", "large=many"])
def test_a_model_without_a_share_is_one_line(ask: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo-load", "--ask", ask]) == 2
    assert f"--ask {ask}: give a model and a number above 0" in capsys.readouterr().err


def test_the_process_obeys_its_input_and_ends_with_it() -> None:
    """Nobody listens on port 9, so whatever is sent fails, which must end nothing."""
    command = [sys.executable, "-m", "miniserve", "demo-load", "--url", "http://127.0.0.1:9", "--load-rate", "200"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["failed"] <= first["sent"]
        process.stdin.write('{"factor": 0}\nfour\n')
        process.stdin.flush()
        said = iter(process.stdout.readline, "")
        assert next(one for one in map(json.loads, said) if one["rate_per_s"] == 0)
        rest, errors = process.communicate(timeout=60)
    last = json.loads(rest.splitlines()[-1])
    assert last["failed"] == last["sent"] > 0
    assert process.returncode == 0
    assert errors == "this is no factor: b'four'\n"
