"""Arrivals like those of published services, and clients with very different shares of the load.

The figures are from two hours of two Azure services, 2023 (Patel et al., Splitwise, ISCA 2024; the `AzurePublicDataset`
traces). The index of dispersion is the variance of the counts in windows of one length, divided by their mean; it is 1
for a Poisson process at every length. Neither service is Poisson, nor a renewal process with any gap distribution: what
matters is that the rate changes. At another `rate_per_s` the changes stay as large in proportion, so (index - 1) grows
with it.

| index of dispersion at | 1 s | 10 s | 60 s | and |
|---|---|---|---|---|
| conversation, published | 1.39 | 3.86 | 16.1 | correlation of neighbouring minutes .85, cv of gaps 1.09 |
| here, mean of 20 hours | 1.42 | 4.09 | 16.8 | .83, 1.08 |
| code, published | 13 | 72 | 164 | 45 gaps above 10 s in an hour, their cv 13.2, busiest second 26 times the mean |
| here, mean of 40 hours | 14.2 | 70.4 | 158 | 48, 13.3, 22 |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from miniserve.workload.arrivals import Bursts
from miniserve.workload.curves import Noisy, Waves
from miniserve.workload.requests import Mix

CONVERSATION_PER_S = 5.530  # published: 19,366 requests in 3501.7 s
CODE_PER_S = 2.567  # published: 8,819 requests in 3435.9 s


def conversation(rate_per_s: float = CONVERSATION_PER_S) -> Noisy:
    """Return arrivals like the conversation service's: a slowly changing rate times gamma noise.

    The slow part's variance sets the index at 60 s, its spectrum the correlation of minutes, and the noise the rest.
    """
    return Noisy(Waves(rate_per_s, cv=0.211), cv=0.174, every_s=3.5)


def code(rate_per_s: float = CODE_PER_S) -> Noisy:
    """Return arrivals like the code service's: bursts of 14 s with 46 s of silence in between, times gamma noise."""
    burst_s, calm_s = 14.0, 46.0
    peak_per_s = rate_per_s * (burst_s + calm_s) / burst_s
    return Noisy(Bursts(rate_per_s, peak_per_s, burst_s, calm_s), cv=0.894, every_s=0.75)


@dataclass(frozen=True, slots=True)
class HeavyClients:
    """Many clients, a few of whom send most: the heaviest share q of them makes q**a of the requests.

    In large services a few per cent of the clients are said to make half of the load; the default takes that as 3 %.
    The number of clients is our choice.
    """

    clients: int = 1000
    top_fraction: float = 0.03
    top_load: float = 0.5

    def __post_init__(self) -> None:
        if self.clients < 1:
            raise ValueError(f"clients ({self.clients}) must be at least 1")
        if not 0 < self.top_fraction < 1:
            raise ValueError(f"top_fraction ({self.top_fraction:g}) must be above 0 and below 1")
        if not self.top_fraction <= self.top_load < 1:
            raise ValueError(
                f"top_load ({self.top_load:g}) must be at least top_fraction ({self.top_fraction:g}) and below 1"
            )

    def mix(self) -> Mix[str]:
        """Return the clients as tenants, heaviest first: client-0, client-1, ..."""
        power = math.log(self.top_load) / math.log(self.top_fraction)
        carried = [(i / self.clients) ** power for i in range(self.clients + 1)]
        return Mix({f"client-{i}": carried[i + 1] - carried[i] for i in range(self.clients)})
