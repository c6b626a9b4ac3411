"""Did answers get worse with the new version? Signs in the answers, compared before and after.

A server is not told when an answer is wrong. It can see that an answer is a refusal, that it repeats itself, that
answers have become longer or shorter, and what feedback users give. None of these is quality, but a sudden change in
any of them after a deployment is a reason to look.

The monitor compares the last answers before a deployment with the first ones after it: once, when it has enough for the
promised power. Because it looks only once, the error rates are those of the tests: `alpha` is the probability of any
alarm at all if nothing changed (shared among the metrics), and a change of `drop` in a rate is detected with `power`.
Before and after are different times of day: if traffic follows a daily rhythm, compare side by side instead
(`control.guardrails`).

Knows answers and the order in which they came; no clock, and no text except the one it is shown.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from miniserve.abtest.checks import check_fraction
from miniserve.abtest.means import welch_t
from miniserve.abtest.power import sample_size_proportions
from miniserve.abtest.proportions import LEAST_EXPECTED, least_expected, two_proportion_z

# How refusals begin in English; a service needs its own list for its model and languages.
_REFUSAL = re.compile(
    r"^\W*(i'?m sorry|sorry,|i apologi[sz]e|i (can'?t|cannot|can not|won'?t|am unable|am not able)|i'm unable"
    r"|as an ai\b|unfortunately, i)",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Return whether an answer begins like a refusal."""
    return _REFUSAL.match(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")) is not None


def repetition(tokens: Sequence[Hashable], n: int = 4) -> float:
    """Return the share of an answer's n-grams (of tokens or words) that occurred earlier in it: 0 none, near 1 a loop.

    Raises: ValueError if n is below 1.
    """
    if n < 1:
        raise ValueError(f"n ({n}) must be at least 1")
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """What is recorded about one answer. `liked`: the user's thumb up or down, if given."""

    output_tokens: int
    refused: bool = False
    looped: bool = False  # `repetition` above a threshold: 0.5 is a loop in any language
    liked: bool | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError for a negative length."""
        if self.output_tokens < 0:
            raise ValueError(f"output_tokens ({self.output_tokens}) must be at least 0")


def quality_note(text: str, *, liked: bool | None = None, loop: float = 0.5) -> ServedAnswer:
    """Return what to record about a text; its words stand in for its tokens."""
    words = text.split()
    return ServedAnswer(len(words), is_refusal(text), repetition(words) >= loop, liked)


@dataclass(frozen=True, slots=True)
class Shift:
    """One metric, before and after."""

    metric: str
    before: float
    after: float
    p_value: float
    alpha: float  # this metric's share

    @property
    def alarm(self) -> bool:
        return self.p_value < self.alpha

    def __str__(self) -> str:
        """Return one readable line."""
        verdict = "changed" if self.alarm else "no change beyond chance"
        return f"{self.metric}: {self.before:.4g} -> {self.after:.4g} (p = {self.p_value:.2g}): {verdict}"


METRICS = ("refused", "looped", "liked", "length")


def answers_needed(
    rate: float, drop: float = 0.03, *, alpha: float = 0.05, power: float = 0.9, metrics: int = len(METRICS)
) -> int:
    """Return how many answers, before and again after, are needed to detect a fall of `drop` in a rate of `rate`.

    Use the rate of the metric that matters, for example the share of liked answers, where only answers with a thumb
    count.
    Raises: ValueError for numbers outside their ranges, or if `rate` minus `drop` is not a rate.
    """
    check_fraction("rate", rate)
    if metrics < 1 or not 0 < drop < rate:
        raise ValueError(f"need metrics >= 1 and 0 < drop < rate ({rate}), not {metrics} and {drop}")
    return math.ceil(sample_size_proportions(rate, rate - drop, alpha=alpha / metrics, power=power))


class QualityMonitor:
    """Keeps the last answers and, after a deployment, the next ones; then reports once what has changed.

    `needed` counts answers on each side (`answers_needed`).
    """

    def __init__(self, needed: int, *, alpha: float = 0.05) -> None:
        """Raises: ValueError for under 100 answers per side (the tests are approximate), or alpha outside (0, 1)."""
        check_fraction("alpha", alpha)
        if needed < 100:
            raise ValueError(f"needed ({needed}) must be at least 100 answers on each side")
        self._needed = needed
        self._alpha = alpha / len(METRICS)
        self._before: deque[ServedAnswer] = deque(maxlen=needed)
        self._after: list[ServedAnswer] | None = None
        self.version = ""

    @property
    def missing(self) -> int | None:
        """Return how many answers the verdict still needs; None if nothing has been deployed since the last verdict."""
        return None if self._after is None else self._needed - len(self._after)

    def deployed(self, version: str) -> None:
        """Start comparing: everything so far counts as before.

        Raises: ValueError if there are too few earlier answers to compare with.
        """
        self._before.extend(self._after or ())  # an earlier deployment without a verdict yet
        if len(self._before) < self._needed:
            raise ValueError(f"{len(self._before)} answers before the deployment of {version!r}; needs {self._needed}")
        self.version = version
        self._after = []

    def record(self, answer: ServedAnswer) -> tuple[Shift, ...]:
        """Record an answer. The one that completes the comparison returns it: one `Shift` per metric with data."""
        if self._after is None:
            self._before.append(answer)
            return ()
        self._after.append(answer)
        if len(self._after) < self._needed:
            return ()
        shifts = compare_versions(tuple(self._before), self._after, alpha=self._alpha)
        self._before.extend(self._after)  # the new normal
        self._after = None
        return shifts


def compare_versions(
    before: Sequence[ServedAnswer], after: Sequence[ServedAnswer], *, alpha: float
) -> tuple[Shift, ...]:
    """Return each metric's shift, tested two-sided at `alpha`; metrics with too few refusals or thumbs are left out.

    Raises: ValueError for fewer than two answers on a side.
    """
    if min(len(before), len(after)) < 2:
        raise ValueError(f"need 2 or more answers on each side, not {len(before)} and {len(after)}")
    found = [_rate_shift(name, _flags(before, name), _flags(after, name), alpha) for name in METRICS[:-1]]
    return (*(shift for shift in found if shift is not None), _length_shift(before, after, alpha))


def _flags(answers: Sequence[ServedAnswer], metric: str) -> list[bool]:
    return [value for answer in answers if (value := getattr(answer, metric)) is not None]


def _rate_shift(metric: str, before: list[bool], after: list[bool], alpha: float) -> Shift | None:
    yes, answers = (sum(before), sum(after)), (len(before), len(after))
    if not before or not after or least_expected(yes, answers) < LEAST_EXPECTED:
        return None
    effect = two_proportion_z(yes, answers)
    return Shift(metric, sum(before) / len(before), sum(after) / len(after), effect.p_value, alpha)


def _length_shift(before: Sequence[ServedAnswer], after: Sequence[ServedAnswer], alpha: float) -> Shift:
    """Compare logarithms, because lengths are skewed and a drift is a factor. The means shown are geometric."""
    lengths = [{answer.output_tokens for answer in side} for side in (before, after)]
    one, other = (np.log1p([answer.output_tokens for answer in side]) for side in (before, after))
    p_value = 1.0 if lengths[0] == lengths[1] else 0.0  # with only one length on each side there is no randomness
    if max(map(len, lengths)) > 1:
        p_value = welch_t(one, other).p_value
    return Shift("length", float(np.expm1(one.mean())), float(np.expm1(other.mean())), p_value, alpha)
