"""CUPED: remove from a user's metric what was already known about the user before the experiment.

A heavy user is heavy in either group. Y' = Y - theta (X - mean X), where X is the same metric from before, has the same
expected difference between the groups but only 1 - rho^2 of the variance: at rho = 0.7, half the users are enough.
X must predate the experiment: nothing that the experiment changed may be subtracted.
Source: Deng, Xu, Kohavi & Walker, WSDM 2013.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from miniserve.abtest.checks import Floats, as_sample, varies
from miniserve.abtest.effect import Estimate
from miniserve.abtest.means import welch_t


def cuped_theta(y: Sequence[float] | Floats, x: Sequence[float] | Floats) -> float:
    """Return cov(Y, X) / var(X); 0 if X does not vary.

    Raises: ValueError if they are not pairs, or fewer than two.
    """
    outcome, before = as_sample("y", y), as_sample("x", x)
    if len(outcome) != len(before):
        raise ValueError(f"each of the {len(outcome)} outcomes needs its own earlier value, not {len(before)}")
    return float(np.cov(outcome, before)[0, 1]) / float(before.var(ddof=1)) if varies(before) else 0.0


def cuped_t(
    first: tuple[Sequence[float] | Floats, Sequence[float] | Floats],
    second: tuple[Sequence[float] | Floats, Sequence[float] | Floats],
    *,
    alpha: float = 0.05,
) -> Estimate:
    """Compare two groups, each given as (outcome, earlier value), with Welch's test on what CUPED leaves.

    Both groups share one theta and one mean of X: separate ones would remove part of the effect.
    """
    groups = [(as_sample("y", y), as_sample("x", x)) for y, x in (first, second)]
    theta = cuped_theta(*(np.concatenate(parts) for parts in zip(*groups, strict=True)))
    centre = float(np.concatenate([x for _, x in groups]).mean())
    adjusted = [y - theta * (x - centre) for y, x in groups]
    return welch_t(adjusted[0], adjusted[1], alpha=alpha)


def variance_factor(rho: float) -> float:
    """Return the share of the variance that is left when X and Y have correlation `rho`.

    Raises: ValueError if rho is not inside [-1, 1].
    """
    if not -1 <= rho <= 1:
        raise ValueError(f"rho ({rho}) must lie between -1 and 1")
    return 1 - rho**2
