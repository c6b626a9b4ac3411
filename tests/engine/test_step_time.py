"""The step-time model finds coefficients that it was given, stays monotone, and survives a round trip to disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import pytest

from miniserve.engine.step_time import StepTimeModel, fit, load_step_time
from miniserve.errors import SetupError


@dataclass
class Step:
    decode_rows: int
    prefill_tokens: int
    context_tokens: int
    prefill_pairs: int
    seconds: float = 0.0


TRUTH = StepTimeModel(0.015, 0.003, 0.0015, 2e-6, 1e-8)


def steps(count: int, noise: float, seed: int = 0) -> list[Step]:
    rng = Random(seed)
    made = []
    for _ in range(count):
        rows, tokens = rng.randrange(17), rng.choice([0, 0, 30, 64, 100])
        step = Step(rows, tokens, rows * rng.randrange(1, 800), tokens * rng.randrange(1, 800))
        step.seconds = TRUTH.seconds(step) * (1 + rng.gauss(0, noise))
        made.append(step)
    return made


def test_known_coefficients_are_found_again() -> None:
    model = fit(steps(200, noise=0.0))
    for name in ("base_s", "per_decode_row_s", "per_prefill_token_s", "per_context_token_s", "per_prefill_pair_s"):
        assert getattr(model, name) == pytest.approx(getattr(TRUTH, name), rel=1e-6)
    assert abs(model.relative_errors(steps(50, 0.0, seed=1))).max() < 1e-6


def test_noise_shows_in_the_residuals_and_hardly_in_the_prediction() -> None:
    model = fit(steps(1000, noise=0.1), {"model": "m"})
    assert 0.05 < model.fitted_on["relative_residuals"]["median_abs"] < 0.09
    assert model.fitted_on["model"] == "m"
    assert abs(model.relative_errors(steps(200, 0.0, seed=1))).max() < 0.05


def test_more_work_never_takes_less_time() -> None:
    """Even when the measurements say so: here they fall with the number of rows."""
    model = fit([Step(n, 0, 0, 0, 0.05 - 0.001 * n) for n in range(30)])
    assert model.per_decode_row_s >= 0
    assert model.seconds(Step(10, 0, 0, 0)) <= model.seconds(Step(20, 0, 0, 0))


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="19 steps are too few"):
        fit(steps(19, 0.0))


def test_a_saved_model_is_the_same_model(tmp_path: Path) -> None:
    model = fit(steps(50, 0.02))
    model.save(tmp_path / "x" / "steps.json")
    assert load_step_time(tmp_path / "x" / "steps.json") == model


def test_an_absent_or_foreign_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="bench steps"):
        load_step_time(tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(SetupError, match="not a step-time model"):
        load_step_time(tmp_path / "other.json")


@pytest.mark.parametrize("value", [-0.01, 13.3e3, float("nan"), "13 ms"])
def test_a_file_in_another_unit_is_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "steps.json"
    path.write_text(json.dumps(asdict(StepTimeModel(0.01, 0, 0, 0, 0)) | {"base_s": value}))
    with pytest.raises(SetupError, match="not a step-time model"):
        load_step_time(path)
