"""How long does a step take? Five numbers, fitted to steps that this machine really made.

    seconds = base + a * decode rows + b * prefill tokens + c * context tokens + d * prefill pairs

`base` is reading the weights and calling a thousand operators; a and b are arithmetic per row; c and d are attention,
which grows with what a row looks back on. All are at least zero, so the model never says that more work takes less
time.

The fit minimises *relative* error: a 20 ms decode step happens a thousand times more often than a 200 ms prefill, and
an error of 5 ms matters to it more. The simulator and paced replicas use `seconds` in place of the model's step. Knows
no torch: anything with the counts of `batch.Batch` will do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy.optimize import nnls

from miniserve.errors import SetupError


class StepCounts(Protocol):
    """What a step's time depends on; `batch.Batch` and `engine.StepRecord` both have it."""

    @property
    def decode_rows(self) -> int: ...
    @property
    def prefill_tokens(self) -> int: ...
    @property
    def context_tokens(self) -> int: ...
    @property
    def prefill_pairs(self) -> int: ...


class TimedStep(StepCounts, Protocol):
    """A step that was measured."""

    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class StepTimeModel:
    """Seconds per step. Coefficients are seconds per unit, all >= 0."""

    base_s: float
    per_decode_row_s: float
    per_prefill_token_s: float
    per_context_token_s: float
    per_prefill_pair_s: float
    fitted_on: dict[str, Any] = field(default_factory=dict)  # model, precision, threads, machine, residuals

    def seconds(self, step: StepCounts) -> float:
        """Return the expected duration of one step."""
        seconds = self.base_s + self.per_decode_row_s * step.decode_rows
        seconds += self.per_prefill_token_s * step.prefill_tokens
        seconds += self.per_context_token_s * step.context_tokens
        return seconds + self.per_prefill_pair_s * step.prefill_pairs

    def decode_seconds(self, rows: int, context_tokens: int, steps: int) -> list[float]:
        """Return the durations of `steps` successive steps of the same decode rows, each of which makes `rows` tokens.

        The same additions in the same order as in `seconds`, so the same bits.
        """
        alike_s, contexts = self.base_s + self.per_decode_row_s * rows, range(context_tokens, 1 << 62, rows)
        return [alike_s + self.per_context_token_s * context for context in contexts[:steps]]

    def relative_errors(self, steps: Iterable[TimedStep]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return (predicted - measured) / measured for each step."""
        return np.array([self.seconds(step) / step.seconds - 1.0 for step in steps])

    def save(self, path: Path) -> None:
        """Write the model as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def load_step_time(path: Path) -> StepTimeModel:
    """Read a model that `save` wrote.

    Raises: SetupError if the file is absent or holds something else.
    """
    try:
        model = StepTimeModel(**json.loads(path.read_text()))
        for name, value in asdict(model).items():
            if name != "fitted_on" and not 0 <= value <= 60:
                raise ValueError(f"{name} is {value!r}; it must be seconds, from 0 to 60")
        return model
    except FileNotFoundError:
        raise SetupError(f"{path} does not exist: measure it with `python -m miniserve bench steps`") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise SetupError(f"{path} is not a step-time model ({error})") from None


def fit(steps: Iterable[TimedStep], fitted_on: dict[str, Any] | None = None) -> StepTimeModel:
    """Fit by non-negative least squares on relative error.

    Raises: ValueError for fewer than 20 steps, which say nothing about five numbers.
    """
    measured = list(steps)
    if len(measured) < 20:
        raise ValueError(f"{len(measured)} steps are too few to fit five coefficients; measure at least 20")
    seconds = np.array([step.seconds for step in measured])
    rows = np.array([_features(step) for step in measured]) / seconds[:, None]
    scale = rows.max(axis=0).clip(1e-12)  # pairs are counted in ten thousands, rows in ones
    coefficients = nnls(rows / scale, np.ones(len(measured)))[0] / scale
    base, per_row, per_token, per_context, per_pair = (float(value) for value in coefficients)
    model = StepTimeModel(base, per_row, per_token, per_context, per_pair)
    errors = model.relative_errors(measured)
    residuals = {f"p{q}": round(float(np.percentile(errors, q)), 4) for q in (5, 25, 50, 75, 95)}
    residuals["median_abs"] = round(float(np.median(np.abs(errors))), 4)
    notes = {**(fitted_on or {}), "steps": len(measured), "relative_residuals": residuals}
    return replace(model, fitted_on=notes)


def _features(step: StepCounts) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(
        [1.0, step.decode_rows, step.prefill_tokens, step.context_tokens, step.prefill_pairs], dtype=np.float64
    )
