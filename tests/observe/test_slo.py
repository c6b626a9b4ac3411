"""Burn-rate alerts: the workbook's table to its digits, detection and reset as computed, and what must not fire."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from miniserve.errors import SetupError
from miniserve.observe.agreement import Agreement
from miniserve.observe.goodput import SLO
from miniserve.observe.outcomes import OutcomeLog, Outcomes
from miniserve.observe.slo import (
    HOUR_S,
    MINUTE_S,
    WORKBOOK,
    BudgetMonitor,
    BurnAlert,
    Objective,
    alert_table,
    downtime,
    failures,
    replay,
    slowness,
)

THREE_NINES = Objective(0.999)


@pytest.mark.parametrize(
    ("row", "severity", "long_h", "short_min", "burn", "spent", "threshold", "minutes_999", "minutes_99"),
    [
        (0, "page", 1, 5, 14.4, 0.02, 0.0144, 0.864, 8.64),
        (1, "page", 6, 30, 6, 0.05, 0.0060, 2.16, 21.6),
        (2, "ticket", 72, 360, 1, 0.10, 0.0010, 4.32, 43.2),
    ],
)
def test_the_workbooks_table(
    row: int,
    severity: str,
    long_h: float,
    short_min: float,
    burn: float,
    spent: float,
    threshold: float,
    minutes_999: float,
    minutes_99: float,
) -> None:
    alert = WORKBOOK[row]
    assert (alert.severity, alert.long_s / HOUR_S, alert.short_s / MINUTE_S, alert.burn) == (
        severity,
        long_h,
        short_min,
        burn,
    )
    assert alert.short_s == pytest.approx(alert.long_s / 12)
    assert alert.budget_fraction(THREE_NINES) == pytest.approx(spent)
    assert alert.threshold(THREE_NINES) == pytest.approx(threshold)
    assert alert.detection_s(THREE_NINES) / MINUTE_S == pytest.approx(minutes_999)
    assert alert.detection_s(Objective(0.99)) / MINUTE_S == pytest.approx(minutes_99)
    assert alert.detection_s(THREE_NINES, threshold) == math.inf, "exactly at the rate is not above it"


def run_outage(ratio: float, *, before_s: float, outage_s: float, after_s: float) -> BudgetMonitor:
    """1,000 events every 2 s at a target of 99 %: good, then `ratio` of them bad for `outage_s`, then good again."""
    monitor = BudgetMonitor(Objective(0.99))
    for i in range(int((before_s + outage_s + after_s) / 2)):
        now_s = 2.0 * i
        monitor.add(now_s, 1000, round(1000 * ratio) if before_s <= now_s < before_s + outage_s else 0)
        monitor.check(now_s)
    return monitor


def times_of(monitor: BudgetMonitor, alert: BurnAlert, since_s: float) -> list[float]:
    return [change.at_s - since_s for change in monitor.log if change.alert is alert]


def test_an_outage_is_seen_and_over_as_computed() -> None:
    """Cells are 1/720 of a window: 0.4 s of the short one, 5 s of the long one."""
    objective, page = Objective(0.99), WORKBOOK[0]
    monitor = run_outage(1.0, before_s=HOUR_S, outage_s=1200, after_s=400)
    began_s, ended_s = times_of(monitor, page, HOUR_S)
    assert began_s == pytest.approx(page.detection_s(objective), abs=7)
    assert ended_s - 1200 == pytest.approx(page.reset_s(objective), abs=3)
    assert page.reset_s(objective) < page.short_s


def test_a_tenth_of_failures_is_no_matter_for_the_fast_page() -> None:
    """At 99 %, 10 % of failures burn ten times too fast: below 14.4, above 6."""
    monitor = run_outage(0.1, before_s=6 * HOUR_S, outage_s=4 * HOUR_S, after_s=0)
    assert times_of(monitor, WORKBOOK[0], 0) == []
    assert times_of(monitor, WORKBOOK[1], 6 * HOUR_S) == [
        pytest.approx(WORKBOOK[1].detection_s(Objective(0.99), 0.1), abs=32)
    ]


def test_both_windows_must_burn() -> None:
    """A blip fills the short window only; an hour after an outage only the long one still remembers."""
    page, objective = BurnAlert("page", HOUR_S, 300, 14.4), Objective(0.999)
    monitor = BudgetMonitor(objective, [page])
    for second in range(0, 3600, 10):
        monitor.add(second, 1000, 0)
    monitor.add(3600, 1000, 1000)
    assert monitor.burn(300) > 14.4
    assert monitor.burn(HOUR_S) < 14.4
    assert monitor.check(3600) == ()
    for second in range(3610, 3700, 10):
        monitor.add(second, 1000, 1000)
    assert monitor.check(3700) == (page,)
    for second in range(3700, 4300, 10):
        monitor.add(second, 1000, 0)
    assert monitor.burn(HOUR_S) > 14.4
    assert monitor.check(4300) == ()


@pytest.mark.parametrize(("target", "burn"), [(0.93, 14.4), (0.9, 10), (0.5, 2)])
def test_an_alert_that_can_never_fire_is_refused(target: float, burn: float) -> None:
    with pytest.raises(SetupError, match="can never be reached"):
        BudgetMonitor(Objective(target), [BurnAlert("page", HOUR_S, 300, burn)])
    BudgetMonitor(Objective(target), [BurnAlert("page", HOUR_S, 300, burn * 0.9)])


def test_few_events_do_not_page() -> None:
    for events, fires in ((10, False), (100, True)):
        monitor = BudgetMonitor(THREE_NINES, min_events=100)
        monitor.add(0.0, events, events // 10)
        assert bool(monitor.check(0.0)) is fires


@given(seed=st.integers(0, 10_000), target=st.sampled_from((0.9, 0.99, 0.999)))
def test_windows_count_what_a_recount_counts(seed: int, target: float) -> None:
    """Incremental counts equal those of a fresh look at all events, but for one cell at the window's far edge."""
    rng, now_s, seen = Random(seed), 0.0, []
    monitor = BudgetMonitor(Objective(target, period_s=1000), [BurnAlert("page", 120, 10, 1.01)], min_events=1)
    for _ in range(200):
        now_s += rng.expovariate(0.2)
        bad = int(rng.random() < 0.2)
        seen.append((now_s, bad))
        monitor.add(now_s, 1, bad)
        for length_s in (10, 120, 1000):
            window = monitor._windows[length_s]
            inside = [b for t, b in seen if t > now_s - length_s]
            nearly = [b for t, b in seen if t > now_s - length_s * (1 + 1 / 720) - 1e-6]
            assert len(inside) <= window.events <= len(nearly)
            assert sum(inside) <= window.bad <= sum(nearly)


def test_a_months_budget_is_spent_at_its_rate() -> None:
    monitor = BudgetMonitor(THREE_NINES)
    for hour in range(720):
        monitor.add(hour * HOUR_S, 10_000, 5)
    assert monitor.budget_left() == pytest.approx(0.5)
    monitor.add(720 * HOUR_S, 100_000, 100_000)
    assert monitor.budget_left() < -10


def outcomes() -> Outcomes:
    """Twelve requests, one per 20 s: 200 200 200 | 503 200 200 | 404 499 429 | 500 502 504; TTFT 0.1 s, of two 3 s."""
    log = OutcomeLog()
    statuses = (200, 200, 200, 503, 200, 200, 404, 499, 429, 500, 502, 504)
    for i, status in enumerate(statuses):
        first_s = i * 20 + (3.0 if i in (0, 4) else 0.1)
        log.record(i, i * 20.0, i * 20.0 + 5, first_token_s=first_s, output_tokens=10, status=status)
    return log.outcomes()


def test_indicators() -> None:
    seen = failures(outcomes())
    assert seen.bad.tolist() == [False] * 3 + [True] + [False] * 2 + [True] * 3, "4xx is no event"
    assert slowness(outcomes(), SLO(ttft_s=2)).bad.tolist() == [True, False, False, True, False]
    minutes = downtime(outcomes(), down_fraction=0.5)
    assert minutes.times_s.tolist() == [60, 120, 240], "in the third minute only clients failed"
    assert minutes.bad.tolist() == [False, False, True]
    assert downtime(outcomes(), down_fraction=0.3).bad.tolist() == [False, True, True]


def test_a_recorded_run_can_be_replayed() -> None:
    monitor = replay(failures(outcomes()), BudgetMonitor(Objective(0.9), [BurnAlert("page", 240, 60, 3)], min_events=5))
    assert [(change.at_s, change.firing) for change in monitor.log] == [(205.0, True)]
    assert len(replay(failures(outcomes().arrived_between(999, 9999)), BudgetMonitor(THREE_NINES)).log) == 0


@pytest.mark.parametrize(
    ("good", "owed"),
    [(1.0, 0), (0.999, 0), (0.99899, 100), (0.99, 100), (0.98, 250), (0.94, 1000), (0.0, 1000)],
)
def test_credit_for_a_bad_month(good: float, owed: float) -> None:
    agreement = Agreement(((0.999, 0.1), (0.99, 0.25), (0.95, 1.0)))
    assert agreement.credit_usd(good, 1000.0) == pytest.approx(owed)
    agreement.check(Objective(0.9995))
    with pytest.raises(SetupError, match="promise less"):
        agreement.check(THREE_NINES)


def test_bad_input_is_refused() -> None:
    for target in (0.0, 1.0, 99.9, math.nan):
        with pytest.raises(SetupError, match="target"):
            Objective(target)
    with pytest.raises(SetupError, match="short_s"):
        BurnAlert("page", 300, 3600, 14.4)
    with pytest.raises(SetupError, match="falling bounds"):
        Agreement(((0.99, 0.1), (0.999, 0.2)))
    with pytest.raises(ValueError, match="a share"):
        Agreement(((0.99, 0.1),)).credit_usd(99.0, 1)
    monitor = BudgetMonitor(THREE_NINES)
    monitor.add(10.0)
    with pytest.raises(ValueError, match="backwards, from 10 s to 9 s"):
        monitor.add(9.0)
    with pytest.raises(ValueError, match=r"bad \(2\).*number of events \(1\)"):
        monitor.add(11.0, 1, 2)


def test_the_table_can_be_read() -> None:
    console = Console(width=140, record=True)
    console.print(alert_table(THREE_NINES))
    assert "0.86 min" in console.export_text()
