"""Look whenever you like: p-values and intervals that are valid at all times simultaneously.

Average the likelihood ratio over the effects you consider possible, N(0, tau^2). Under the null hypothesis this mixture
is a martingale that starts at 1, so the probability that it *ever* reaches 1/alpha is at most alpha (Ville). That is
the whole proof: the minimum so far of 1/Lambda is a p-value at every moment. The price is a wider interval, about 1.5
times that of a single look.

In terms of S, the sum of n differences whose variance has grown to V: |S| stays below
sqrt((V + rho) ln((V + rho) / (rho alpha^2))), with rho = V_1^2 / tau^2. mSPRT chooses tau; GAVI ("generally always
valid") chooses rho so that the interval is narrowest at a sample size that you name.
The variance is treated as known but is in fact estimated, so do not look before about a hundred values.
Source: Johari, Koomen, Pekelis & Walsh 2017 (mSPRT); Howard, Ramdas, McAuliffe & Sekhon 2021, sec. 3.2 (the mixture).
"""

from __future__ import annotations

import math

from miniserve.abtest.checks import check_finite, check_fraction, check_positive


def mixture_ratio(n: float, difference: float, variance: float, tau2: float) -> float:
    """Return Lambda after `n` pairs: `difference` of means, `variance` of one pair (2 sigma^2 for two equal groups)."""
    spread = _spread(n, variance, tau2)
    check_finite("difference", difference)
    exponent = n**2 * tau2 * difference**2 / (2 * variance * spread)
    return math.sqrt(variance / spread) * math.exp(min(exponent, 700.0))  # e^700 is close to the largest float


def msprt_half_width(n: float, variance: float, tau2: float, alpha: float = 0.05) -> float:
    """Return the half-width of the always-valid interval around the difference after `n` pairs."""
    check_fraction("alpha", alpha)
    _spread(n, variance, tau2)
    return mixture_border(n * variance, variance**2 / tau2, alpha) / n


class AlwaysValid:
    """A test that may be looked at after every pair of values.

    `p_value` is the smallest 1/Lambda so far: evidence that was once sufficient is never lost.
    """

    def __init__(self, tau2: float) -> None:
        check_positive("tau2", tau2)
        self._tau2 = tau2
        self.p_value = 1.0

    def look(self, n: float, difference: float, variance: float) -> float:
        """Look after `n` pairs and return the p-value."""
        self.p_value = min(self.p_value, 1 / mixture_ratio(n, difference, variance, self._tau2))
        return self.p_value


def gavi_half_width(n: float, variance: float, alpha: float = 0.05, best_at: float = 5000.0) -> float:
    """Return the half-width of the GAVI interval around a mean of `n` values of this `variance`.

    `best_at`: the n at which it is narrowest (5,000 is GrowthBook's default).
    """
    check_positive("n", n)
    check_positive("variance", variance)
    check_positive("best_at", best_at)
    return mixture_border(n * variance, gavi_rho(best_at * variance, alpha), alpha) / n


def gavi_rho(best_at_variance: float, alpha: float = 0.05) -> float:
    """Return the rho for which the border is narrowest, relative to V, at this V (a close approximation)."""
    check_fraction("alpha", alpha)
    ln = -2 * math.log(alpha)
    return best_at_variance / (ln + math.log(ln + 1))


def mixture_border(variance_so_far: float, rho: float, alpha: float = 0.05) -> float:
    """Return the border that |S| ever crosses with probability at most alpha, at the point where S has this variance.

    Some sources print ln((V + rho) / (rho + alpha^2)). That border is crossed far too often.
    """
    check_fraction("alpha", alpha)
    total = variance_so_far + rho
    return math.sqrt(total * math.log(total / (rho * alpha**2)))


def _spread(n: float, variance: float, tau2: float) -> float:
    check_positive("n", n)
    check_positive("variance", variance)
    check_positive("tau2", tau2)
    return variance + n * tau2
