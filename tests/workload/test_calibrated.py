"""Synthetic demand against the published figures of two services: lengths, rate, and how uneven the arrivals are."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from miniserve.errors import SetupError
from miniserve.scenario import load
from miniserve.seeds import generator
from miniserve.workload import HeavyClients, Mix, Noisy, Quantiles, Workload, code, conversation
from miniserve.workload.lengths import CODE_OUTPUT, CODE_PROMPT, CONVERSATION_OUTPUT, CONVERSATION_PROMPT

HOUR_S = 3600.0


@dataclass(frozen=True)
class Published:
    arrivals: Noisy
    rate_per_s: float
    dispersion: dict[int, float]
    prompt: Quantiles
    output: Quantiles


SERVICES = {
    "conversation": Published(
        conversation(), 5.530, {1: 1.39, 10: 3.86, 60: 16.1}, CONVERSATION_PROMPT, CONVERSATION_OUTPUT
    ),
    "code": Published(code(), 2.567, {1: 13.0, 10: 72.0, 60: 164.0}, CODE_PROMPT, CODE_OUTPUT),
}


def hour(arrivals: Noisy, seed: int, seconds: float = HOUR_S) -> npt.NDArray[np.float64]:
    times = itertools.takewhile(lambda t: t < seconds, arrivals.times(generator(seed, "arrivals")))
    return np.fromiter(times, float)


def counts(times: npt.NDArray[np.float64], window_s: int) -> npt.NDArray[np.int64]:
    return np.bincount((times // window_s).astype(int), minlength=int(HOUR_S) // window_s)


def dispersion(times: npt.NDArray[np.float64], window_s: int) -> float:
    seen = counts(times, window_s)
    return float(seen.var(ddof=1) / seen.mean())


def neighbours(values: npt.NDArray[np.int64]) -> float:
    away = values - values.mean()
    return float((away[1:] * away[:-1]).sum() / (away * away).sum())


@pytest.fixture(scope="module", params=SERVICES)
def service(request: pytest.FixtureRequest) -> Published:
    return SERVICES[request.param]


def check_dispersion(service: Published, seeds: int, tolerance: float) -> dict[int, float]:
    hours = [hour(service.arrivals, seed) for seed in range(seeds)]
    measured = {window: float(np.mean([dispersion(each, window) for each in hours])) for window in service.dispersion}
    assert measured == {window: pytest.approx(want, rel=tolerance) for window, want in service.dispersion.items()}
    return measured


def test_arrivals_are_as_uneven_as_published_in_a_few_hours(service: Published) -> None:
    """Four hours instead of twenty, so 40 % instead of 25 %."""
    check_dispersion(service, seeds=4, tolerance=0.4)


@pytest.mark.full
def test_arrivals_are_as_uneven_as_published(
    service: Published, record_property: Callable[[str, object], None]
) -> None:
    measured = check_dispersion(service, seeds=20, tolerance=0.25)
    record_property("hours", 20)
    for window, value in measured.items():
        record_property(f"dispersion_{window}s", round(value, 2))


def test_every_hour_of_conversation_has_the_published_rate() -> None:
    """Within four standard deviations of a Poisson count of 20,000; and 2 % for the mean of four."""
    rates = [len(hour(conversation(), seed)) / HOUR_S for seed in range(4)]
    assert rates == [pytest.approx(5.530, rel=0.03)] * 4
    assert np.mean(rates) == pytest.approx(5.530, rel=0.02)


@pytest.mark.full
def test_the_rate_is_the_published_one(service: Published, record_property: Callable[[str, object], None]) -> None:
    """Code needs many hours: with an index of dispersion of 164, even 20 hours' mean has an error of 3 %."""
    hours = 20 if service is SERVICES["conversation"] else 500
    rate = len(hour(service.arrivals, 1, hours * HOUR_S)) / (hours * HOUR_S)
    record_property("hours", hours)
    record_property("rate_per_s", round(rate, 4))
    assert rate == pytest.approx(service.rate_per_s, rel=0.02)


def test_neighbouring_minutes_of_conversation_are_alike() -> None:
    alike = [neighbours(counts(hour(conversation(), seed), 60)) for seed in range(4)]
    assert np.mean(alike) == pytest.approx(0.85, abs=0.06)


def test_gaps_of_conversation_are_nearly_exponential_and_those_of_code_are_not() -> None:
    published = {"conversation": (conversation(), 1.094), "code": (code(), 13.15)}
    for arrivals, cv in published.values():
        gaps = [np.diff(hour(arrivals, seed)) for seed in range(4)]
        assert np.mean([each.std() / each.mean() for each in gaps]) == pytest.approx(cv, rel=0.15)


def test_code_falls_silent_as_often_as_published_and_has_sharp_peaks() -> None:
    hours = [hour(code(), seed) for seed in range(4)]
    assert np.mean([(np.diff(each) > 10).sum() for each in hours]) == pytest.approx(45, rel=0.2)
    assert np.mean([counts(each, 1).max() / counts(each, 1).mean() for each in hours]) > 15


def ks_to_knots(lengths: list[int], curve: Quantiles) -> float:
    """Return the largest distance at the knots; where several have one value, the last tells the share up to it."""
    lengths = sorted(lengths)
    knots = {value: share for share, value in curve.knots}
    return max(abs(bisect_right(lengths, value) / len(lengths) - share) for value, share in knots.items())


def check_lengths(service: Published, hours: int) -> tuple[float, float]:
    workload = Workload(service.arrivals, service.prompt, service.output)
    requests = [request for seed in range(hours) for request in workload.requests(seed, duration_s=HOUR_S)]
    distances = (
        ks_to_knots([len(request.prompt_ids) for request in requests], service.prompt),
        ks_to_knots([request.sampling.max_tokens for request in requests], service.output),
    )
    assert max(distances) <= 0.05
    return distances


def test_lengths_of_an_hour_are_within_5_percent_of_the_published_knots(service: Published) -> None:
    check_lengths(service, hours=1)


@pytest.mark.full
def test_lengths_are_within_5_percent_of_the_published_knots(
    service: Published, record_property: Callable[[str, object], None]
) -> None:
    prompt, output = check_lengths(service, hours=20)
    record_property("ks_prompt", round(prompt, 4))
    record_property("ks_output", round(output, 4))


# --- clients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "load"), [(0.03, 0.5), (0.1, 0.9), (0.2, 0.2)])
def test_the_named_few_carry_the_named_load(fraction: float, load: float) -> None:
    shares = list(HeavyClients(1000, fraction, load).mix().shares.values())
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True) or load == fraction
    assert sum(shares[: round(fraction * 1000)]) == pytest.approx(load)


def test_a_service_with_heavy_clients_has_them() -> None:
    workload = Workload(conversation(), tenants=HeavyClients().mix())
    tenants = [request.tenant for request in workload.requests(1, count=20_000)]
    heavy = {f"client-{i}" for i in range(30)}
    assert sum(tenant in heavy for tenant in tenants) / len(tenants) == pytest.approx(0.5, abs=0.02)
    assert len(set(tenants)) > 500


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"clients": 0}, r"clients \(0\)"),
        ({"top_fraction": 0.0}, r"top_fraction \(0\)"),
        ({"top_load": 0.01}, r"top_load \(0.01\) must be at least top_fraction \(0.03\)"),
    ],
)
def test_clients_that_make_no_sense_are_refused(settings: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        HeavyClients(**settings)  # type: ignore[arg-type]


def demand(folder: Path, workload: str) -> Path:
    path = folder / "demand.toml"
    path.write_text(f"[run]\nrequests = 10\n[workload]\narrivals = 'conversation'\n{workload}\n")
    return path


def test_a_file_names_calibrated_arrivals_and_heavy_clients(tmp_path: Path) -> None:
    workload = load(demand(tmp_path, "heavy_clients = { clients = 50 }")).workload
    assert workload.arrivals == conversation()
    assert workload.tenants == HeavyClients(50).mix()
    assert isinstance(workload.tenants, Mix)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("heavy_clients = { top_load = 2 }", "demand.toml:5: workload.heavy_clients.top_load: top_load"),
        ("heavy_clients = { client = 2 }", "heavy_clients.client: unknown key; did you mean `clients`"),
        ("heavy_clients = {}\ntenants = { a = 1 }", "demand.toml:5: workload.heavy_clients: .*either"),
    ],
)
def test_bad_clients_in_a_file_are_refused_by_line_and_key(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SetupError, match=problem):
        load(demand(tmp_path, text))
