"""A ledger adds up, keeps idle time apart from everybody's work, and names what costs most."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from miniserve.commands.cost_report import cost_figure, cost_table
from miniserve.observe import plots
from miniserve.observe.cost import ACCOUNTS, DIMENSIONS, Entry, Labels, Ledger, merge_entries

ACME = Labels("interactive", "acme", "chat", "large", "r0")
BETA = Labels("batch", "beta", "search", "large", "r1")


def ledger() -> Ledger:
    """Ten dollars: 4 for acme, 1 for beta, 1 lost with an attempt of beta's, 4 for nobody."""
    entries = (
        Entry("prompt", ACME, 100, 1.0, tokens=1000),
        Entry("output", ACME, 300, 3.0, tokens=200, answers=10),
        Entry("cached", ACME, 0, 0.0, tokens=500),
        Entry("output", BETA, 100, 1.0, tokens=50, answers=5),
        Entry("failed", BETA, 100, 1.0, tokens=30),
        Entry("idle", Labels(model="large", replica="r0"), 100, 1.0),
        Entry("idle", Labels(model="large", replica="r1"), 200, 2.0),
        Entry("starting", Labels(model="large", replica="r1"), 100, 1.0),
    )
    return Ledger(entries, billed_s=1000, billed_usd=10.0)


def test_lines_by_tenant_have_idle_time_of_their_own() -> None:
    lines = {line.name: line.usd for line in ledger().by("tenant")}
    assert lines == {"acme": 4.0, "beta": 2.0, "(idle)": 3.0, "(starting)": 1.0}
    by_replica = {line.name: (line.usd, line.idle_usd) for line in ledger().by("replica")}
    assert by_replica == {"r0": (5.0, 1.0), "r1": (5.0, 3.0)}


def test_ratios_are_of_sums_and_not_means_of_ratios() -> None:
    """acme's answers cost 0.40 each, beta's 0.40 as well; with everybody's idle time it is 10 / 15."""
    costs = {line.name: line for line in ledger().by("tenant")}
    assert costs["acme"].usd_per_answer == pytest.approx(0.4)
    assert costs["beta"].usd_per_answer == pytest.approx(0.4)
    assert ledger().total.usd_per_answer == pytest.approx(10 / 15)
    assert ledger().total.usd_per_million_tokens == pytest.approx(10 / 250 * 1e6), "failed tokens are no answer's"
    assert math.isnan(costs["(idle)"].usd_per_answer)


def test_cached_tokens_are_worth_what_computed_ones_cost() -> None:
    assert ledger().cached_tokens == 500
    assert ledger().cached_worth_usd == pytest.approx(500 * 1.0 / 1000)
    assert ledger().usd == pytest.approx(10.0), "and are not counted in the sum"


def test_the_biggest_driver_is_named_with_whom() -> None:
    driver = ledger().biggest_driver()
    assert str(driver) == "biggest driver: output, 4.0000 USD = 40.0% of the bill, most of it by tenant acme (75%)"
    idle = Ledger(tuple(entry for entry in ledger().entries if entry.account == "idle"), 300, 3.0)
    assert str(idle.biggest_driver()).endswith("100.0% of the bill, most of it by replica r1 (67%)")
    assert Ledger((), 0, 0).biggest_driver() is None


LABELS = st.builds(Labels, *(st.sampled_from(("", "a", "b")) for _ in range(5)))
ENTRIES = st.builds(
    Entry,
    st.sampled_from(ACCOUNTS),
    LABELS,
    st.floats(0, 1e6),
    st.floats(0, 1e4),
    st.integers(0, 99),
    st.integers(0, 9),
)


@given(st.lists(ENTRIES, max_size=30))
def test_every_dimension_adds_up_to_the_same(entries: list[Entry]) -> None:
    whole = Ledger(merge_entries(entries), 0, 0)
    assert whole.usd == pytest.approx(math.fsum(entry.usd for entry in entries))
    for dimension in DIMENSIONS:
        lines = whole.by(dimension)
        assert math.fsum(line.usd for line in lines) == pytest.approx(whole.usd)
        assert sum(line.answers for line in lines) == sum(entry.answers for entry in entries)
        assert [line.usd for line in lines] == sorted((line.usd for line in lines), reverse=True)


def test_an_unknown_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="no dimension 'team'; there are account, request type"):
        ledger().by("team")  # type: ignore[arg-type]


def test_tables_and_bars(tmp_path: Path) -> None:
    console = Console(width=80, record=True)
    for dimension in DIMENSIONS:
        console.print(cost_table(ledger(), dimension))
    text = console.export_text()
    assert text.count("biggest driver: output") == 1
    assert "500 prompt tokens came from caches; computing them would have cost about 0.5000 USD" in " ".join(
        text.split()
    )
    assert "(starting)" in text
    assert "…" not in text, "it fits into 80 columns"
    assert plots.save_figure(cost_figure(ledger()), tmp_path / "cost.png").stat().st_size > 5000
    console.print(cost_table(Ledger((), 0, 0)))
    assert "nothing was paid" in console.export_text()
