"""A run's result: a table that a person can read, and figures with labels and units on all axes."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simpy
from rich.console import Console

from miniserve.config import CacheConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.hardware.spec import ReplicaSpec
from miniserve.observe import plots
from miniserve.observe.compare import compare
from miniserve.observe.goodput import SLO
from miniserve.observe.outcomes import OutcomeLog
from miniserve.policies.bundle import Policies
from miniserve.policies.dispatch import dispatch
from miniserve.policies.routing.balancer import LeastOutstanding
from miniserve.sim import drive
from miniserve.sim.fleet import SimFleet
from miniserve.sim.result import SimResult
from miniserve.types import Request, SamplingParams


def result(seed: int = 1, n: int = 300, slow: float = 1.0, **fields: object) -> SimResult:
    rng = np.random.default_rng(seed)
    log = OutcomeLog()
    for i, arrived_s in enumerate(np.cumsum(rng.exponential(0.1, n))):
        ttft_s, tokens = slow * rng.lognormal(-2, 0.7), int(rng.integers(1, 100))
        if i % 50 == 7:
            log.record(i, arrived_s, arrived_s, status=503, attempts=0)
        else:
            first_s = arrived_s + ttft_s
            log.record(i, arrived_s, first_s + 0.02 * tokens, first_token_s=first_s, output_tokens=tokens)
    series = {"waiting": ([0.0, 5.0], [0, 3]), "running": ([0.0], [1]), "kv_used_fraction/r0": ([0.0], [0.5])}
    return SimResult(log.outcomes(), series, {"scenario": "test", "seed": seed}, SLO(ttft_s=0.3), **fields)


def printed(renderable: object) -> str:
    console = Console(width=110, file=io.StringIO(), record=True)
    console.print(renderable)
    return console.export_text()


def test_the_table_holds_latencies_and_what_became_of_the_rest() -> None:
    text = printed(result().table())

    for part in (
        "scenario test, seed 1",
        "TTFT",
        "p99",
        "300 requests",
        "200: 294, 503: 6",
        "goodput",
        "TTFT <= 0.3 s",
    ):
        assert part in text
    assert "stopped" not in text


def test_a_run_that_ended_early_says_why() -> None:
    text = printed(result(stopped="Mine.choose raised KeyError for request q17").table())

    assert "stopped early: Mine.choose raised KeyError for request q17" in text


def test_figures_are_plain_numbers_by_name() -> None:
    figures = result().figures()

    assert figures["failed_fraction"] == pytest.approx(0.02)
    assert 0 < figures["slo_attainment"] < 1
    assert {"ttft_p99_s", "e2e_mean_s", "goodput_per_s", "output_tokens_per_s", "cached_fraction"} <= set(figures)
    assert all(isinstance(value, int | float) for value in figures.values())


def test_a_run_of_nothing_has_a_table_and_a_figure(tmp_path: Path) -> None:
    empty = SimResult(OutcomeLog().outcomes())

    assert "0 requests" in printed(empty.table())
    assert empty.plot(tmp_path / "empty.png").stat().st_size > 0


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_figure_is_a_file_of_the_kind_asked_for(tmp_path: Path, suffix: str) -> None:
    path = result().plot(tmp_path / "new folder" / f"run.{suffix}")

    assert path.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml"}[suffix])


def test_every_panel_names_its_axes_and_their_units(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure) or path)
    result().plot(tmp_path / "run.png")
    axes = drawn[0].axes

    assert [ax.get_ylabel() for ax in axes] == [
        "share of served requests",
        "requests/s",
        "requests in the replicas",
        "KV blocks in use",
    ]
    assert [ax.get_xlabel() for ax in axes] == ["latency", "time (s)", "time (s)", "time (s)"]
    assert [text.get_text() for text in axes[2].get_legend().get_texts()] == ["waiting", "running"]
    assert len({ax.get_xlim()[1] for ax in axes[2:]}) == 1, "every series is drawn until the run's end"


def test_peaks_survive_thinning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    times = np.arange(100_000) / 1000
    waiting = np.zeros(100_000)
    waiting[54_321] = 99
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure) or path)
    SimResult(result().outcomes, {"waiting": (times, waiting)}).plot(tmp_path / "run.png")
    line = drawn[0].axes[2].lines[0]

    assert max(line.get_ydata()) == 99
    assert len(line.get_xdata()) < 3000


def test_differences_are_drawn_with_their_intervals(tmp_path: Path) -> None:
    runs = {name: [result(seed, slow=slow).figures() for seed in range(3)] for name, slow in (("a", 1), ("b", 1.2))}
    figure = plots.differences(compare(runs))

    assert "difference from a" in figure.axes[0].get_xlabel()
    assert "TTFT p99, b" in [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert plots.save_figure(figure, tmp_path / "differences.png").exists()


def test_figures_need_no_pyplot_and_so_no_global_state() -> None:
    check = "import sys, miniserve.sim.result; sys.exit('matplotlib.pyplot' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_what_the_prefix_cache_held_reaches_the_outcomes() -> None:
    """A chat's second turn finds the blocks of its first: three of four full blocks, the last one is recomputed."""
    env = simpy.Environment()
    fleet = SimFleet(env, probe_interval_s=1e9)
    spec = ReplicaSpec(StepTimeModel(0.01, 0.001, 0.001, 0.0, 0.0), cache=CacheConfig(64, 16))
    fleet.add(spec, ready=True)
    log = OutcomeLog()

    def chat() -> Generator[simpy.Event, Any, None]:
        for turn, prompt in enumerate((range(50), range(64))):
            request = Request(f"turn {turn}", "m", prompt, SamplingParams(max_tokens=2), arrived_s=env.now)
            story = dispatch(request, fleet.view, lambda: env.now, Policies(LeastOutstanding()))
            outcome = yield from drive.run(env, story, fleet)
            log.record_outcome(turn, request, outcome, env.now)

    env.run(env.process(chat()))
    outcomes = log.outcomes()

    assert outcomes.cached_tokens.tolist() == [0, 48]
    assert outcomes.summary().cached_fraction == 48 / 114
