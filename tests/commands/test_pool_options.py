"""Which pools the demo's options describe, and what is said of options that describe none."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import pytest

from miniserve.commands import pool_options
from miniserve.commands.demo import add_arguments
from miniserve.commands.demo_output import described, welcome
from miniserve.commands.live_table import GatewayNumbers, Remarks, ReplicaRow, live_table
from miniserve.commands.pool_options import (
    DEMO_PACE,
    default_pools,
    demo_autoscaling,
    demo_pools,
    demo_scaling,
    read_latencies,
)
from miniserve.control.autoscaler import Autoscaler, Scheduled
from miniserve.errors import SetupError
from miniserve.processes.pools import Pool
from miniserve.scenario.model import Autoscaling
from miniserve.toml.reader import Recipe
from miniserve.types import FleetView, ReplicaState, ScaleTo


def pools_of(folder: Path, *words: str) -> list[Pool]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--model", str(folder), "--served-name", "tiny", "--offline", *words])
    args.says_nothing = False
    return demo_pools(args, folder)


def test_one_pool_by_default_and_one_replica_for_one_question(tiny_folder: Path) -> None:
    (pool,) = pools_of(tiny_folder)
    assert (pool.served_name, pool.replicas, pool.pace, pool.child("r0").nice) == ("tiny", 2, None, 0)
    assert pool.id_prefix == "r"
    assert [pool.replicas for pool in pools_of(tiny_folder, "--once", "Hi")] == [1]
    assert [pool.replicas for pool in pools_of(tiny_folder, "--replicas", "3")] == [3]


def test_more_pools_have_their_own_settings_and_share_the_cores(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("miniserve.machine.usable_cores", lambda: 8)
    settings = "large@2,replicas=2,pace=base_s=0.02+per_decode_row_s=0.001,region=eu,weight=2,nice=7"
    main, other = pools_of(tiny_folder, "--pool", settings, "--pace", "--region", "us")
    assert (main.id_prefix, main.pace, main.region) == ("tiny-", "default", "us")
    assert (other.served_name, other.replicas, other.region, other.weight, other.nice) == ("large@2", 2, "eu", 2.0, 7)
    assert other.folder.name == "large-v2"
    command = " ".join(other.child("large@2-0").command)
    assert "--pace base_s=0.02,per_decode_row_s=0.001" in command
    assert "--threads 2" in command
    assert "--served-name large@2" in command


def test_a_model_that_is_not_there_is_left_out_and_named(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [pool.served_name for pool in pools_of(tiny_folder, "--pool", "larg@2")] == ["tiny"]
    assert "there is no model 'larg@2'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pool", "small,speed=2"], "'speed=2' is no setting; allowed: replicas, pace, region, weight, nice"),
        (["--pool", "small,replicas"], "'replicas' is no setting"),
        (["--pool", "small,replicas=two"], "--pool small,replicas=two: invalid literal"),
        (["--pool", "small,nice=30"], "nice (30) 0 to 19"),
        (["--pool", "small,pace=base=1"], "there is no 'base'"),
        (["--pool", "small", "--pool", "small"], "two pools serve small; give it once"),
        (["--pace", "fast"], "there is no 'fast'"),
    ],
)
def test_what_describes_no_pool_is_refused(tiny_folder: Path, words: list[str], message: str) -> None:
    with pytest.raises(SetupError) as refused:
        pools_of(tiny_folder, *words)
    assert message in str(refused.value)


def test_when_nothing_is_said_there_are_three_models_as_far_as_memory_goes(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pools = default_pools("smollm2", tiny_folder)
    assert [(pool.served_name, pool.replicas, pool.pace) for pool in pools] == [
        ("smollm2", 1, None),
        ("small@1", 1, DEMO_PACE),
        ("large@1", 2, DEMO_PACE),
    ]
    assert pools[0].nice > 0, "it gives way to those that have a pace to keep"
    assert [pool.served_name for pool in default_pools("large", tiny_folder)] == ["large@1", "small@1"]
    monkeypatch.setattr("miniserve.machine.available_bytes", lambda: 1 << 30)
    assert not pool_options.fits(pools)
    assert "starting smollm2 alone" in capsys.readouterr().err


def test_distances_are_pairs_of_regions() -> None:
    assert read_latencies(["eu:us=0.04", "eu:asia=0.1"]) == {("eu", "us"): 0.04, ("eu", "asia"): 0.1}
    for text in ("eu=0.1", "eu:us", "eu:us=fast", "eu:us=-1", "eu:us=nan", "eu:us=1e300"):
        with pytest.raises(SetupError, match="give two regions and 0 to 10 seconds"):
            read_latencies([text])


def scaling(words: dict[str, Any], pools: list[Pool], **settings: Any) -> Any:
    args = argparse.Namespace(min_replicas=None, max_replicas=None)
    vars(args).update(words)
    policy: Recipe[Autoscaler] = Recipe("scheduled", lambda: Scheduled(plan=[(0, 50)]))
    return demo_scaling(args, Autoscaling(policy, **settings), pools)


def test_the_autoscaler_has_the_largest_paced_pool_unless_it_says_which_and_stays_within_bounds(
    tiny_folder: Path,
) -> None:
    pools = [
        Pool("a", tiny_folder, replicas=3),
        Pool("b", tiny_folder, pace="default"),
        Pool("c", tiny_folder, pace="default", replicas=2),
    ]
    (largest,) = scaling({}, pools, period_s=3.0)
    assert (largest.pool, largest.period_s) == ("c", 3.0)
    assert scaling({}, pools[:1])[0].pool == "a"
    assert largest.autoscaler.tick(0.0, FleetView()) == [ScaleTo(4)], "one machine has room for so many"
    (named,) = scaling({"max_replicas": 6}, pools, group="a")
    assert named.pool == "a"
    assert named.autoscaler.tick(0.0, FleetView()) == [ScaleTo(6)]
    with pytest.raises(SetupError, match="there is no pool 'd'; there are a, b, c"):
        scaling({}, pools, group="d")
    with pytest.raises(SetupError, match=r"min_replicas \(7\) must be"):
        scaling({"min_replicas": 7}, pools)


def test_bounds_without_an_autoscaler_are_refused(tiny_folder: Path) -> None:
    args = argparse.Namespace(min_replicas=None, max_replicas=3)
    with pytest.raises(SetupError, match="name one with --autoscaler"):
        demo_scaling(args, None, [Pool("a", tiny_folder)])
    args.max_replicas = None
    assert demo_scaling(args, None, [Pool("a", tiny_folder)]) == []


def test_the_demos_own_autoscaler_keeps_two_to_three_of_large_unless_there_is_another_or_none(
    tiny_folder: Path,
) -> None:
    no = argparse.Namespace(no_autoscaler=False, min_replicas=None, max_replicas=None)
    own = demo_autoscaling(no, None, by_itself=True)
    assert own is not None
    assert (own.group, own.min_replicas, own.max_replicas) == ("large@1", 2, 3)
    (scaled,) = demo_scaling(no, own, default_pools("smollm2", tiny_folder))
    assert scaled.pool == "large@1"
    policy: Recipe[Autoscaler] = Recipe("scheduled", lambda: Scheduled(plan=[(0, 50)]))
    other = Autoscaling(policy)
    assert demo_autoscaling(no, other, by_itself=True) is other
    assert demo_autoscaling(no, None, by_itself=False) is None
    assert demo_autoscaling(argparse.Namespace(no_autoscaler=True), other, by_itself=True) is None


def test_the_table_says_what_is_paced_how_a_start_went_and_when_figures_mean_nothing() -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=160, record=True)
    load = (3, 1, 0.25, 38.4, 1)
    rows = [
        ReplicaRow("large@1-0", ReplicaState.READY, 42, *load, True, 6.14, (2.4, 3.2, 0.1)),
        ReplicaRow("large@1-1", ReplicaState.STARTING, None, *load),
    ]
    numbers = GatewayNumbers("http://x", 1, 0, 0, None, None, 0.0)
    events = [("warning", "large@1-1 was killed."), ("info", "large@1-1 is starting.")]
    console.print(live_table(numbers, rows, Remarks(["load: 12.0 questions/s"], events, "this machine is too busy")))
    text = console.export_text()
    assert "38.4 paced" in text
    assert "6.1 s (2.4 + 3.2 + 0.1)" in text
    below = [line.rstrip() for line in text.splitlines()[-4:]]
    assert below[0] == "load: 12.0 questions/s"
    assert below[1:3] == ["- large@1-1 was killed.", "- large@1-1 is starting."]
    assert below[3] == "this machine is too busy"


def test_what_is_started_is_said_in_a_line(tiny_folder: Path) -> None:
    pools = [Pool("a", tiny_folder), Pool("b", tiny_folder, "2", 2, "default")]
    assert described(pools) == "1 replica of a, 2 of b@2 (paced)"
    assert "serves a and b@2 (paced)" in welcome("http://x", pools, 1.0)


def test_the_welcome_names_the_page_first_and_commands_that_reach_this_gateway(tiny_folder: Path) -> None:
    large = [Pool("large", tiny_folder, "1", 2, "default")]
    usual = welcome("http://127.0.0.1:8000", large, 1.0, Path("/kept")).splitlines()
    assert usual[0].startswith("ready: http://127.0.0.1:8000 serves large@1")
    assert usual[2].startswith("open http://127.0.0.1:8000/ in a browser")
    assert "  python -m miniserve rollout start large@2 --canary 10,50,100" in usual
    elsewhere = welcome("http://127.0.0.1:9", large, 1.0, Path("/kept"))
    assert "rollout start large@2 --canary 10,50,100 --url http://127.0.0.1:9 --state /kept" in elsewhere
    assert "rollout" not in welcome("http://127.0.0.1:9", large, 1.0), "without a token no command could be given"
    assert "rollout" not in welcome("http://127.0.0.1:8000", [Pool("a", tiny_folder)], 1.0)
