"""Exact results of queueing theory: the numbers a correct simulator must match, and a planner's first estimate.

Notation: `lam` arrivals per second (Poisson unless said), `mu` services per second of one server, `rho` = lam / mu its
load. A *sojourn* is waiting plus service. Means are over the long run, so every formula needs a stable queue: one that
is offered less than it can serve. `A/S/c` names arrivals, service, servers; M is exponential (memoryless), G general.

Raises (all functions): ValueError naming the numbers, when a rate is not positive or the queue is not stable.
Source: Kleinrock, Queueing Systems I (1975); Harchol-Balter, Performance Modeling and Design of Computer Systems
(2013); others where named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

# --- one server, first come first served


def mm1_sojourn_s(lam: float, mu: float) -> float:
    """Return the mean time in an M/M/1 queue."""
    _check_load(lam, mu)
    return 1 / (mu - lam)


def mm1_in_system(lam: float, mu: float) -> float:
    """Return the mean number of requests in an M/M/1 queue; by Little's law lam times the sojourn."""
    return lam * mm1_sojourn_s(lam, mu)


def mm1_sojourn_percentile_s(lam: float, mu: float, p: float) -> float:
    """Return the p-th percentile (0 <= p < 100) of the sojourn, which is exponential with rate mu - lam."""
    _check_load(lam, mu)
    return -math.log(_tail(p)) / (mu - lam)


def mm1_waiting_tail(lam: float, mu: float, t_s: float) -> float:
    """Return the probability of waiting longer than `t_s` before service begins."""
    return mmc_waiting_tail(lam, mu, 1, t_s)


def mm1_waiting_percentile_s(lam: float, mu: float, p: float) -> float:
    """Return the p-th percentile of the waiting time; 0 if at least p % find the server idle."""
    _check_load(lam, mu)
    return max(0.0, math.log((lam / mu) / _tail(p)) / (mu - lam))


def mm1k_blocking(lam: float, mu: float, places: int) -> float:
    """Return the share of requests refused if at most `places` may be present (M/M/1/K). Stable at any load."""
    _check_rates(lam=lam, mu=mu)
    _check_counts(places=places)
    return _mm1k(lam / mu, places)[-1]


def mm1k_in_system(lam: float, mu: float, places: int) -> float:
    """Return the mean number present in M/M/1/K."""
    _check_rates(lam=lam, mu=mu)
    _check_counts(places=places)
    return _mean(_mm1k(lam / mu, places))


def _mm1k(rho: float, places: int) -> list[float]:
    largest = places if rho > 1 else 0  # powers relative to the largest do not overflow
    return _normalized([rho ** (n - largest) for n in range(places + 1)])


def mg1_waiting_s(lam: float, service_s: float, service_cv2: float) -> float:
    """Return the mean waiting time in M/G/1 (Pollaczek-Khinchine).

    `service_cv2` is the squared coefficient of variation of the service time: 0 constant, 1 exponential. Waiting grows
    with it: a few long requests make everyone else wait.
    """
    _check_load(lam, 1 / service_s if service_s > 0 else 0.0)
    if service_cv2 < 0:
        raise ValueError(f"service_cv2 ({service_cv2}) is a variance divided by a square: it cannot be negative")
    rho = lam * service_s
    return rho / (1 - rho) * (1 + service_cv2) / 2 * service_s


def ps_sojourn_s(lam: float, mean_service_s: float, service_s: float) -> float:
    """Return the mean sojourn of a request that needs `service_s` by itself, when all present share the server equally.

    Only the mean service matters, not its distribution: with processor sharing, long requests do not block short ones.
    """
    _check_load(lam, 1 / mean_service_s if mean_service_s > 0 else 0.0)
    _check_rates(service_s=service_s)
    return service_s / (1 - lam * mean_service_s)


def gim1_sojourn_s(gap_transform: Callable[[float], float], lam: float, mu: float) -> float:
    """Return the mean sojourn in GI/M/1: any independent gaps between arrivals, exponential service.

    `gap_transform` is the Laplace transform of the gap, E[exp(-s gap)]. An arrival finds the server busy with
    probability sigma, the root in (0, 1) of sigma = transform(mu (1 - sigma)).
    """
    _check_load(lam, mu)
    sigma = _root(lambda x: gap_transform(mu * (1 - x)) - x, 0.0, 1 - 1e-12)
    return 1 / (mu * (1 - sigma))


def gamma_gap_transform(lam: float, cv: float) -> Callable[[float], float]:
    """Return the Laplace transform of gamma-distributed gaps with mean 1/lam and coefficient of variation `cv`."""
    _check_rates(lam=lam, cv=cv)
    shape = 1 / cv**2
    return lambda s: (1 + s / (lam * shape)) ** -shape


# --- several servers, one queue


def erlang_b(load: float, servers: int) -> float:
    """Return the share of requests lost when there is no queue (M/G/c/c). `load` is lam / mu, in servers."""
    _check_rates(load=load)
    _check_counts(servers=servers)
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    return blocked


def erlang_c(load: float, servers: int) -> float:
    """Return the share of requests that must wait in M/M/c."""
    _check_load(load, servers, "load", "servers")
    blocked = erlang_b(load, servers)
    return blocked / (1 - load / servers * (1 - blocked))


def mmc_waiting_s(lam: float, mu: float, servers: int) -> float:
    """Return the mean waiting time in M/M/c."""
    _check_rates(lam=lam, mu=mu)
    return erlang_c(lam / mu, servers) / (servers * mu - lam)


def mmc_waiting_tail(lam: float, mu: float, servers: int, t_s: float) -> float:
    """Return the probability of waiting longer than `t_s` in M/M/c."""
    _check_rates(lam=lam, mu=mu)
    return erlang_c(lam / mu, servers) * math.exp(-(servers * mu - lam) * t_s)


def halfin_whitt_c(beta: float) -> float:
    """Return the share of requests that must wait in a large M/M/c with load + beta sqrt(load) servers.

    "Square-root staffing": the spare servers a fleet needs grow only as the square root of its load.
    Source: Halfin & Whitt, Operations Research 29 (1981).
    """
    _check_rates(beta=beta)
    density = math.exp(-(beta**2) / 2) / math.sqrt(2 * math.pi)
    below = (1 + math.erf(beta / math.sqrt(2))) / 2
    return 1 / (1 + beta * below / density)


def power_of_d_sojourn_s(lam: float, mu: float, choices: int) -> float:
    """Return the mean sojourn when each request joins the shortest of `choices` random queues out of very many.

    A second choice brings almost all there is to gain: the tail falls doubly exponentially.
    Source: Mitzenmacher, IEEE TPDS 12 (2001); Vvedenskaya, Dobrushin, Karpelevich (1996).
    """
    _check_load(lam, mu)
    _check_counts(choices=choices)
    if choices == 1:
        return mm1_sojourn_s(lam, mu)
    rho, total, k = lam / mu, 0.0, 1
    while (at_least_k := rho ** ((choices**k - choices) / (choices - 1))) > 1e-16:
        total += at_least_k
        k += 1
    return total / mu


# --- priority classes (index 0 is served first), exponential service at one rate


def priority_waiting_s(lams: Sequence[float], mu: float) -> tuple[float, ...]:
    """Return each class's mean waiting time if a service, once begun, is finished (non-preemptive M/M/1)."""
    loads = _loads_up_to(lams, mu)
    residual_s = loads[-1] / mu
    return tuple(residual_s / ((1 - above) * (1 - own)) for above, own in zip((0.0, *loads), loads, strict=False))


def priority_preemptive_sojourn_s(lams: Sequence[float], mu: float) -> tuple[float, ...]:
    """Return each class's mean sojourn if a higher class interrupts and finished work is kept (preemptive-resume)."""
    loads = _loads_up_to(lams, mu)
    return tuple(
        (1 / mu) / (1 - above) + (own / mu) / ((1 - above) * (1 - own))
        for above, own in zip((0.0, *loads), loads, strict=False)
    )


def _loads_up_to(lams: Sequence[float], mu: float) -> list[float]:
    """Return the load of classes 0, 0..1, 0..2, ..."""
    for i, lam in enumerate(lams):
        _check_rates(**{f"lams[{i}]": lam})
    _check_load(sum(lams), mu)
    return [sum(lams[: i + 1]) / mu for i in range(len(lams))]


# --- batches


def batch_arrivals_in_system(rho: float, size: int) -> float:
    """Return the mean number present if requests arrive `size` at a time (M^[b]/M/1); `rho` counts them all."""
    _check_load(rho, 1.0, "rho", "capacity")
    _check_counts(size=size)
    return rho * (1 + size) / (2 * (1 - rho))


def bulk_service_root(lam: float, mu: float, size: int) -> float:
    """Return r of p_n = (1 - r) r^n, if the server takes up to `size` requests each time (rate mu, memoryless)."""
    _check_counts(size=size)
    _check_load(lam, mu * size, "lam", "mu * size")
    # mu r^(size+1) - (lam + mu) r + lam = 0, divided by (r - 1): r = 1 is always a root
    return _root(lambda r: mu * sum(r**k for k in range(1, size + 1)) - lam, 0.0, 1.0)


def bulk_service_in_system(lam: float, mu: float, size: int) -> float:
    """Return the mean number present with bulk service."""
    r = bulk_service_root(lam, mu, size)
    return r / (1 - r)


# --- continuous batching


def batching_capacity_per_s(mean_output_tokens: float, alpha_s: float, beta_s: float, max_running: int) -> float:
    """Return the most requests per second a replica can serve: B / tau(B) tokens per second over tokens per request.

    One step over b sequences takes tau(b) = alpha + beta b and gives each of them a token.
    """
    _check_rates(mean_output_tokens=mean_output_tokens)
    _check_step(alpha_s, beta_s, max_running)
    return max_running / (alpha_s + beta_s * max_running) / mean_output_tokens


def batching_in_system(lam: float, mean_output_tokens: float, alpha_s: float, beta_s: float, max_running: int) -> float:
    """Return the mean number of requests in a replica with continuous batching: waiting and running.

    A birth-death chain: with n present, min(n, B) run, and each ends at rate 1 / (m tau(min(n, B))). It is exact in the
    limit of short steps: for any length distribution while the batch has room (processor sharing at a speed that
    depends on the load), and for geometric lengths even when it is full.
    """
    _check_load(lam, batching_capacity_per_s(mean_output_tokens, alpha_s, beta_s, max_running), "lam", "capacity")

    growth = [lam * mean_output_tokens * (alpha_s + beta_s * n) / n for n in range(1, max_running + 1)]  # p_n / p_(n-1)
    logs = [0.0, *accumulate(math.log(step) for step in growth)]
    *weights, full = (math.exp(log - max(logs)) for log in logs)
    # from B on the weights are full * r^k: sum a geometric series, and its mean
    r = growth[-1]
    total = sum(weights) + full / (1 - r)
    first_moment = sum(n * w for n, w in enumerate(weights)) + full * (max_running / (1 - r) + r / (1 - r) ** 2)
    return first_moment / total


def batching_sojourn_s(lam: float, mean_output_tokens: float, alpha_s: float, beta_s: float, max_running: int) -> float:
    """Return the mean sojourn under continuous batching, by Little's law."""
    return batching_in_system(lam, mean_output_tokens, alpha_s, beta_s, max_running) / lam


def kaufman_roberts(capacity: int, loads: Sequence[float], sizes: Sequence[int]) -> tuple[float, ...]:
    """Return each class's share of lost requests if class k takes `sizes[k]` of `capacity` blocks, or is refused.

    This is what a pool of KV blocks refuses if nothing queues. `loads` are lam / mu per class.
    Source: Kaufman, IEEE Trans. Comm. 29 (1981); Roberts (1981).
    """
    _check_counts(capacity=capacity, **{f"sizes[{k}]": size for k, size in enumerate(sizes)})
    _check_rates(**{f"loads[{k}]": load for k, load in enumerate(loads)})
    used = [1.0]
    for n in range(1, capacity + 1):
        used.append(sum(a * b * used[n - b] for a, b in zip(loads, sizes, strict=True) if b <= n) / n)
        if used[-1] > 1e200:  # only ratios matter
            used = [weight * 1e-200 for weight in used]
    used = _normalized(used)
    return tuple(sum(used[max(0, capacity - size + 1) :]) for size in sizes)


# --- checks and small arithmetic


def _check_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0 < rate < math.inf:
            raise ValueError(f"{name} ({rate}) must be a positive number")


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1 or count != int(count):
            raise ValueError(f"{name} ({count}) must be a whole number of at least 1")


def _check_load(offered: float, capacity: float, name: str = "lam", of: str = "mu") -> None:
    _check_rates(**{name: offered, of: capacity})
    if offered >= capacity:
        raise ValueError(f"not stable: {name} ({offered:g}) must be below {of} ({capacity:g}), or the queue only grows")


def _check_step(alpha_s: float, beta_s: float, max_running: int) -> None:
    _check_counts(max_running=max_running)
    if alpha_s < 0 or beta_s < 0 or alpha_s + beta_s == 0:
        raise ValueError(f"alpha_s ({alpha_s}) and beta_s ({beta_s}) must be at least 0, and one of them positive")


def _tail(p: float) -> float:
    if not 0 <= p < 100:
        raise ValueError(f"a percentile of an unbounded quantity lies in [0, 100), not at {p}")
    return 1 - p / 100


def _normalized(weights: Sequence[float]) -> list[float]:
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _mean(probabilities: Sequence[float]) -> float:
    return sum(n * p for n, p in enumerate(probabilities))


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    """Return where `f` changes sign between `low` and `high`, by bisection to the last bit."""
    rising = f(high) > 0
    while low < (middle := (low + high) / 2) < high:
        if (f(middle) > 0) == rising:
            high = middle
        else:
            low = middle
    return middle
