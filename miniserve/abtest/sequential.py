"""Looking early without fooling yourself: planned looks, with borders whose errors add up to alpha.

If you look five times at 5 %, you find something in 14 of 100 experiments that have no effect. A group-sequential test
plans its looks and raises the borders. It all comes down to one integral: under the null hypothesis the sum of the data
is a random walk, and whatever has not yet crossed a border moves on to the next look (Armitage, McPherson & Rowe 1969).

Two-sided throughout. `borders[k]` is on the z scale: stop at look k if |z| is above it.
Source: Jennison & Turnbull, Group Sequential Methods, ch. 2, 7 and 19; Lan & DeMets 1983.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from miniserve.abtest.checks import Floats, check_fraction, check_positive
from miniserve.abtest.effect import z_quantile

Spending = Callable[[float, float], float]  # (information fraction t, alpha) -> alpha spent by then

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(160)
_STEPS_PER_PANEL = 120  # standard deviations of a step that this many nodes can see
_MOST_PANELS = 24  # about 15 million pairs of nodes for one step: a second


class _Walk:
    """The density of walks that have not crossed yet, on Gauss-Legendre nodes.

    Close to a border the density is as narrow as the narrowest step between two looks, before or after it, so the nodes
    are set that densely: in panels side by side.
    """

    def __init__(self, times: Sequence[float]) -> None:
        """`times`: all the looks. Raises: ValueError if they do not rise within (0, 1], or are too close together."""
        steps = np.diff(np.asarray([0.0, *times], dtype=np.float64)) if len(times) else np.zeros(1)
        if not (steps > 0).all() or times[-1] > 1 + 1e-12:
            raise ValueError(f"information fractions must be rising numbers within (0, 1], not {list(times)}")
        self._narrowest = math.sqrt(float(steps.min()))
        self._at, self._mass, self._time = np.zeros(1), np.ones(1), 0.0

    def crossing(self, border: float, time: float) -> float:
        """Return the probability of crossing for the first time at this look."""
        edge, sd = border * math.sqrt(time), math.sqrt(time - self._time)
        out = ndtr((-edge - self._at) / sd) + ndtr((self._at - edge) / sd)
        return float(self._mass @ out)

    def go_on(self, border: float, time: float) -> None:
        """Keep what lies within the border."""
        edge, sd = border * math.sqrt(time), math.sqrt(time - self._time)
        at, weights = self._nodes(edge)
        step = np.exp(-0.5 * ((at[:, None] - self._at) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))
        self._mass, self._at, self._time = (step @ self._mass) * weights, at, time

    def _nodes(self, edge: float) -> tuple[Floats, Floats]:
        """Return nodes between the borders, and their weights."""
        panels = max(1, math.ceil(2 * edge / (self._narrowest * _STEPS_PER_PANEL)))
        if panels > _MOST_PANELS:
            raise ValueError(
                f"two looks are only {self._narrowest**2:.1g} of the information apart: too close to compute; "
                "leave one of them out"
            )
        half = edge / panels
        centres = half * (2 * np.arange(panels) + 1) - edge
        return (centres[:, None] + half * _NODES).ravel(), np.tile(half * _WEIGHTS, panels)


def crossing_probabilities(borders: Sequence[float], times: Sequence[float] | None = None) -> list[float]:
    """Return, for each look, the probability that a walk without an effect first crosses there.

    `times` are the information fractions of the looks (default: equal steps).
    """
    times = equal_looks(len(borders)) if times is None else times
    if len(times) != len(borders):
        raise ValueError(f"{len(borders)} borders need as many information fractions, not {len(times)}")
    walk, result = _Walk(times), []
    for border, time in zip(borders, times, strict=True):
        check_positive("a border", border)
        result.append(walk.crossing(border, time))
        walk.go_on(border, time)
    return result


def peeking_error(looks: int, alpha: float = 0.05) -> float:
    """Return the probability of finding a non-existent effect when testing `looks` times, each time at `alpha`."""
    return sum(crossing_probabilities([z_quantile(alpha)] * _looks(looks)))


# --- borders of a fixed shape --------------------------------------------------------------------------------------


def pocock(looks: int, alpha: float = 0.05) -> list[float]:
    """Return Pocock's borders: the same at every look."""
    return _of_shape([1.0] * _looks(looks), alpha)


def obrien_fleming(looks: int, alpha: float = 0.05) -> list[float]:
    """Return O'Brien and Fleming's borders, c sqrt(K / k): hard to cross early, nearly the usual one at the end."""
    return _of_shape([math.sqrt(looks / look) for look in range(1, _looks(looks) + 1)], alpha)


def _of_shape(shape: list[float], alpha: float) -> list[float]:
    check_fraction("alpha", alpha)
    highest = -float(ndtri(alpha / (2 * len(shape))))  # Bonferroni is always enough

    def excess(c: float) -> float:
        return sum(crossing_probabilities([c * s for s in shape])) - alpha

    lowest = z_quantile(alpha)
    c = lowest if len(shape) == 1 else float(brentq(excess, lowest, highest + 1, xtol=1e-10))
    return [c * s for s in shape]


# --- borders from alpha spending -----------------------------------------------------------------------------------


def obrien_fleming_spending(t: float, alpha: float) -> float:
    """The usual two-sided O'Brien-Fleming spending: each side spends alpha / 2 by the one-sided rule."""
    return 4 * float(ndtr(float(ndtri(alpha / 4)) / math.sqrt(t)))


def obrien_fleming_total_spending(t: float, alpha: float) -> float:
    """The one-sided rule applied to the whole two-sided alpha; some texts mean this one."""
    return 2 * float(ndtr(float(ndtri(alpha / 2)) / math.sqrt(t)))


def pocock_spending(t: float, alpha: float) -> float:
    """Pocock spending: borders that stay nearly level."""
    return alpha * math.log(1 + (math.e - 1) * t)


def power_spending(phi: float) -> Spending:
    """Return the spending alpha t^phi of the power family; the larger phi, the less is spent early."""
    check_positive("phi", phi)
    return lambda t, alpha: alpha * t**phi


def lan_demets(
    times: Sequence[float], alpha: float = 0.05, spending: Spending = obrien_fleming_spending
) -> list[float]:
    """Return the border of each look at the information fractions `times`.

    The looks need not be planned: a border depends only on the looks so far. But the total amount of information must
    be planned, and the data must not influence when you look.
    Raises: ValueError if the times do not rise within (0, 1], or the spending falls.
    """
    check_fraction("alpha", alpha)
    walk, spent, borders = _Walk(times), 0.0, []
    for time in times:
        now = spending(time, alpha)
        if not spent <= now <= alpha * (1 + 1e-12):
            raise ValueError(f"spending must rise up to alpha ({alpha}), not go from {spent} to {now} at {time}")
        borders.append(_border(walk, time, now - spent))
        walk.go_on(borders[-1], time)
        spent = now
    return borders


def _border(walk: _Walk, time: float, amount: float) -> float:
    """Return the border that is first crossed with probability `amount`; a look may spend nothing."""
    if amount < 1e-15:
        return 8.0  # spends 1e-15
    return float(brentq(lambda c: walk.crossing(c, time) - amount, 1e-3, 9.0, xtol=1e-10))


def first_crossing(z_values: Sequence[float], borders: Sequence[float]) -> int | None:
    """Return the first look (from 0) at which the test stops and declares an effect; None if there is none so far.

    Raises: ValueError if there are more looks than borders.
    """
    if len(z_values) > len(borders):
        raise ValueError(f"{len(z_values)} looks, but only {len(borders)} were planned")
    crossed = (look for look, (z, border) in enumerate(zip(z_values, borders, strict=False)) if abs(z) > border)
    return next(crossed, None)


def equal_looks(looks: int) -> list[float]:
    """Return the information fractions 1/K, 2/K, ..., 1."""
    return [look / _looks(looks) for look in range(1, looks + 1)]


def _looks(looks: int) -> int:
    if looks < 1:
        raise ValueError(f"a test has at least 1 look, not {looks}")
    return looks
