"""Goodput: how many requests per second were served *well enough*.

Throughput rewards a server even for answers that came too late to be useful. Goodput counts a request only if it kept
every limit of its SLO (time to first token, time per output token, time to the end) and its own deadline.
Source: the definition in DistServe (Zhong et al., OSDI 2024, arXiv:2401.09670).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from miniserve.observe.outcomes import Floats, Mask, Outcomes
from miniserve.observe.percentiles import percentiles_of_sorted


@dataclass(frozen=True, slots=True)
class SLO:
    """The limits that one request must keep; None: no such limit. (For goals over many requests: `slo.Objective`.)"""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError for a limit that is not positive."""
        for item in fields(self):
            limit = getattr(self, item.name)
            if limit is not None and not limit > 0:
                raise ValueError(f"{item.name} ({limit}) must be positive, or None for no limit")

    def __str__(self) -> str:
        limits = [(item.name.removesuffix("_s").upper(), getattr(self, item.name)) for item in fields(self)]
        return ", ".join(f"{name} <= {limit:g} s" for name, limit in limits if limit is not None) or "served at all"


def missed_limits(outcomes: Outcomes, slo: SLO, share: float) -> list[str]:
    """Return a line for each limit that fewer than `share` of the requests kept: by how much it was missed.

    A request that was not served, or too late for its own deadline, keeps no limit.
    """
    lines = []
    for item in fields(slo):
        limit = getattr(slo, item.name)
        if limit is None:
            continue
        one = SLO(**{item.name: limit})
        got = attainment(outcomes, one) if len(outcomes) else 0.0
        if got < share:
            lines.append(
                f"{one}: {got:.1%} of requests kept it, {share:.1%} are wanted; {_excess(outcomes, one, share)}"
            )
    return lines


def _excess(outcomes: Outcomes, one: SLO, share: float) -> str:
    """Say how far the served requests' percentile is from the limit, the reason perhaps being the others."""
    [(name, limit)] = [(item.name, v) for item in fields(one) if (v := getattr(one, item.name)) is not None]
    values = getattr(outcomes, name)[outcomes.served]
    values = np.sort(values[~np.isnan(values)])
    if not len(values):
        return "none was served"
    at = percentiles_of_sorted(values, (100 * share,))[0]
    beyond = f"{at - limit:.3g} s beyond the limit" if at > limit else "within the limit: the others were not served"
    return f"p{100 * share:g} of those served was {at:.3g} s, {beyond}"


def kept(outcomes: Outcomes, slo: SLO) -> Mask:
    """Return, for each request, whether it was served within `slo` and its own deadline."""
    good = outcomes.served & (outcomes.ended_s <= outcomes.deadline_s)
    for limit, value in (
        (slo.ttft_s, outcomes.ttft_s),
        (slo.tpot_s, outcomes.tpot_s),
        (slo.e2e_s, outcomes.e2e_s),
    ):
        if limit is not None:
            good &= ~(value > limit)  # nan (an answer of one token) breaks no limit per further token
    return good


def attainment(outcomes: Outcomes, slo: SLO) -> float:
    """Return the share of requests that kept the SLO; nan if there are none."""
    return float(kept(outcomes, slo).mean()) if len(outcomes) else float("nan")


def goodput_per_s(outcomes: Outcomes, slo: SLO) -> float:
    """Return the requests per second that kept the SLO, from the first arrival to the last end."""
    return float(kept(outcomes, slo).sum()) / outcomes.duration_s if outcomes.duration_s > 0 else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """Requests per second in equal windows of time; `times_s` are the windows' middles."""

    times_s: Floats
    offered_per_s: Floats  # by time of arrival
    served_per_s: Floats  # by time of completion
    good_per_s: Floats  # the served ones that kept the SLO


def over_time(
    outcomes: Outcomes, slo: SLO, window_s: float, *, start_s: float | None = None, end_s: float | None = None
) -> Rates:
    """Return offered load, throughput and goodput per window; by default from the first arrival to the last end.

    An incomplete last window is left out, unless it is the only one: it would look like a drop.
    Raises: ValueError if `window_s` is not positive.
    """
    if not window_s > 0:
        raise ValueError(f"window_s ({window_s}) must be positive")
    if not len(outcomes):
        return Rates(*(np.empty(0) for _ in range(4)))
    start = float(outcomes.arrived_s.min()) if start_s is None else start_s
    end = float(outcomes.ended_s.max()) if end_s is None else end_s
    edges = start + window_s * np.arange(max(1, int((end - start) / window_s)) + 1)

    def per_s(times: Floats) -> Floats:
        return np.histogram(times, edges)[0] / window_s

    good = kept(outcomes, slo)
    ended = outcomes.ended_s
    return Rates(
        (edges[:-1] + edges[1:]) / 2, per_s(outcomes.arrived_s), per_s(ended[outcomes.served]), per_s(ended[good])
    )
