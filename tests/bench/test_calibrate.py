"""The calibration finds what it should on runs that are known exactly, and runs from end to end with a tiny model."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from random import Random

import numpy as np
import pytest
from rich.console import Console

from miniserve.bench.calibrate import bench_calibrate, calibrate_table
from miniserve.bench.prediction import (
    Overhead,
    by_index,
    compare_predictions,
    fit_overhead,
    fit_steps,
    simulate_replica,
    step_turns,
)
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import SetupError
from miniserve.observe.outcomes import OutcomeLog, Outcomes
from miniserve.replica.step_log import LoggedStep, read_steps, step_log

TRUE = StepTimeModel(0.02, 0.002, 0.001, 1e-6, 1e-7)
OVERHEAD = Overhead(request_s=0.004, token_s=0.0005)


def demand(count: int, seed: int = 1) -> Outcomes:
    """Return requests of which only arrivals and lengths matter."""
    rng, log, now_s = Random(seed), OutcomeLog(), 0.0
    for index in range(count):
        now_s += rng.expovariate(3.0)
        prompt, output = rng.randrange(4, 200), rng.randrange(1, 30)
        log.record(index, now_s, now_s, first_token_s=now_s, prompt_tokens=prompt, output_tokens=output)
    return log.outcomes()


def steps_of(model: StepTimeModel, count: int, pause_s: float = 0.0, running: int = 1) -> list[LoggedStep]:
    rng, steps, now_s = Random(2), [], 5.0
    for _ in range(count):
        counts = (rng.randrange(16), rng.choice([0, 0, 30, 100]), rng.randrange(2000), rng.randrange(5000))
        step = LoggedStep(now_s, 1.0, *counts, running, 0)
        steps.append(replace(step, seconds=model.seconds(step)))
        now_s += steps[-1].seconds + pause_s
    return steps


@pytest.fixture(scope="module")
def live() -> Outcomes:
    """What clients of a replica would see whose every step and overhead is known."""
    return simulate_replica(demand(300), TRUE, OVERHEAD)


def test_a_step_is_as_long_as_it_kept_the_next_one_waiting() -> None:
    busy, idle = steps_of(TRUE, 50, pause_s=0.003), steps_of(TRUE, 50, pause_s=0.003, running=0)
    assert [turn.seconds for turn in step_turns(busy)] == pytest.approx([step.seconds + 0.003 for step in busy[:-1]])
    assert [turn.seconds for turn in step_turns(idle)] == pytest.approx([step.seconds for step in idle[:-1]])


def test_steps_of_a_known_machine_give_back_its_model() -> None:
    fitted = fit_steps(steps_of(TRUE, 400, pause_s=0.003), {"model": "known"})
    assert fitted.base_s == pytest.approx(0.023, rel=1e-6)
    assert fitted.per_prefill_token_s == pytest.approx(0.001, rel=1e-6)
    assert fitted.fitted_on["scaled_by"] == pytest.approx(1.0)


def test_all_steps_together_take_as_long_as_they_did_even_if_one_was_very_slow() -> None:
    steps = steps_of(TRUE, 400, running=0)
    steps[7] = replace(steps[7], seconds=steps[7].seconds + 2.0)
    fitted, measured = fit_steps(steps, {}), step_turns(steps)
    assert sum(fitted.seconds(step) for step in measured) == pytest.approx(sum(step.seconds for step in measured))


def test_what_clients_waited_for_beyond_the_steps_is_found_per_request_and_per_token(live: Outcomes) -> None:
    """Not to the last digit: a later start also changes who shares a step with whom."""
    found = fit_overhead(live, TRUE)
    assert found.request_s == pytest.approx(OVERHEAD.request_s, rel=0.1)
    assert found.token_s == pytest.approx(OVERHEAD.token_s, rel=0.1)


def test_the_right_model_is_right_and_a_slow_one_is_caught(live: Outcomes) -> None:
    right = compare_predictions(live, TRUE, OVERHEAD)
    assert all(
        right[what][p]["error"] == 0 and right[what][p]["met"] for what in ("ttft", "e2e") for p in ("p50", "p95")
    )
    slow = replace(TRUE, base_s=0.03, per_prefill_token_s=0.0015)
    assert not any(compare_predictions(live, slow, OVERHEAD)[what]["p50"]["met"] for what in ("ttft", "e2e"))


def test_the_p99_of_a_thousand_has_an_interval_and_no_verdict() -> None:
    row = compare_predictions(simulate_replica(demand(1000), TRUE, OVERHEAD), TRUE, OVERHEAD)["e2e"]["p99"]
    low, high = row["interval_95_s"]
    assert low < row["live_s"] == row["simulated_s"] < high
    assert "met" not in row


def test_the_simulated_requests_are_the_live_ones(live: Outcomes) -> None:
    ours, theirs = by_index(live), by_index(simulate_replica(live, TRUE, Overhead()))
    for name in ("index", "arrived_s", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name))


def test_a_step_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be written"), step_log(tmp_path / "no folder" / "steps.jsonl"):
        pass


def test_a_tiny_model_is_calibrated_over_http(tiny_folder: Path) -> None:
    """Two live runs of a real replica. How near the prediction is says nothing on a busy machine at this size."""
    console = Console(file=StringIO(), width=160)
    result = bench_calibrate(tiny_folder, "fp16", threads=1, requests=60, seed=0, console=console, scale=0.25)
    first, second = result["first_run"], result["second_run"]
    assert (first["requests"], second["requests"]) == (20, 60)
    assert result["fit"]["fitted_on"]["steps"] >= 20
    assert first["prompt_tokens_mean"] != second["prompt_tokens_mean"]
    assert second["generator_cpu_fraction"] > 0
    for what in ("ttft", "e2e"):
        assert all(second["comparison"][what][p]["live_s"] > 0 for p in ("p50", "p95", "p99"))
    console.print(calibrate_table(result))
    assert isinstance(console.file, StringIO)
    assert "predicted from another run" in console.file.getvalue()


def test_every_step_of_an_engine_is_logged(tiny_folder: Path, tmp_path: Path) -> None:
    from miniserve.engine.engine import load_engine
    from miniserve.types import Request, SamplingParams

    engine = load_engine(tiny_folder, quant="fp32")
    with step_log(tmp_path / "steps.jsonl") as engine.on_step:
        engine.run([Request("a", "m", (1, 2, 3), SamplingParams(max_tokens=5, ignore_eos=True))])
    steps = read_steps(tmp_path / "steps.jsonl")
    assert [(step.prefill_tokens, step.decode_rows) for step in steps] == [(3, 0), *[(0, 1)] * 4]
    assert [step.running for step in steps] == [1, 1, 1, 1, 0]
    assert len(read_steps(tmp_path / "steps.jsonl", skip=2)) == 3
