"""Assignment: sticky, in the stated shares, independent between experiments; flags that only grow."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniserve.abtest.assignment import Flag, SplitExperiment
from miniserve.abtest.srm import srm_p_value
from miniserve.errors import SetupError

USERS = [f"user-{n}" for n in range(20_000)]
HALVES = {"control": 0.5, "treatment": 0.5}


def test_a_user_always_gets_the_same_variant() -> None:
    first, second = SplitExperiment("tone", HALVES), SplitExperiment("tone", HALVES)
    assert [first.variant_of(user) for user in USERS[:500]] == [second.variant_of(user) for user in USERS[:500]]


def test_the_place_of_a_user_is_the_same_on_every_machine() -> None:
    assert [SplitExperiment("tone", HALVES).bucket_of(user) for user in ("ann", "bob", "eve")] == [962, 9944, 8923]


@pytest.mark.parametrize("shares", [{"a": 0.5, "b": 0.5}, {"a": 0.8, "b": 0.1, "c": 0.1}])
def test_variants_get_their_shares(shares: dict[str, float]) -> None:
    experiment = SplitExperiment("tone", shares)
    counts = Counter(experiment.variant_of(user) for user in USERS)
    assert srm_p_value([counts[name] for name in shares], list(shares.values())) > 0.0005


@pytest.mark.parametrize(
    "shares",
    [
        {"canary": 0.0001, "base": 0.9999},
        {"base": 0.9999, "canary": 0.0001},
        {"a": 0.00015, "b": 0.0001, "c": 0.99975},  # both edges lie half-way between two buckets
        {f"v{i}": 0.1 for i in range(10)},
        {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3},
    ],
)
def test_every_share_that_is_accepted_has_users(shares: dict[str, float]) -> None:
    experiment = SplitExperiment("x", shares)
    users = (f"u{i}" for i in range(10**9))
    seen: set[str | None] = set()
    while seen != set(shares):
        seen.add(experiment.variant_of(next(users)))
    assert None not in {experiment.variant_of(user) for user in USERS} or sum(shares.values()) < 1


@pytest.mark.parametrize(
    "shares",
    [{"canary": 0.00004, "base": 0.99996}, {"a": 0.5, "b": math.inf}, {"a": math.nan, "b": 0.5}, {"a": math.inf}],
)
def test_shares_that_would_reach_nobody_or_are_no_numbers_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(SetupError, match=r"to nobody: the smallest share is 0\.0001|add up to at most 1"):
        SplitExperiment("x", shares)


def test_what_the_shares_leave_stays_outside() -> None:
    counts = Counter(SplitExperiment("tone", {"a": 0.05, "b": 0.05}).variant_of(user) for user in USERS)
    assert counts[None] == pytest.approx(18_000, abs=5 * 42)


def test_two_experiments_split_the_same_users_independently() -> None:
    first, second = SplitExperiment("tone", HALVES), SplitExperiment("length", HALVES)
    cells = Counter((first.variant_of(user), second.variant_of(user)) for user in USERS)
    assert srm_p_value(list(cells.values())) > 0.0005


def test_the_same_salt_gives_the_same_split() -> None:
    first, second = SplitExperiment("tone", HALVES, salt="s"), SplitExperiment("length", HALVES, salt="s")
    assert all(first.variant_of(user) == second.variant_of(user) for user in USERS[:200])


def test_only_named_cohorts_take_part() -> None:
    experiment = SplitExperiment("tone", HALVES, cohorts=["beta"])
    assert experiment.variant_of("ann") is None
    assert experiment.variant_of("ann", "beta") in HALVES


def test_thirds_lose_no_bucket() -> None:
    experiment = SplitExperiment("tone", {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert None not in {experiment.variant_of(user) for user in USERS}


@settings(deadline=None)
@given(low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_growing_flag_takes_nobody_back(low: float, high: float) -> None:
    low, high = sorted((low, high))
    before, after = Flag("summary", low), Flag("summary", high)
    assert all(after.is_on(user) for user in USERS[:200] if before.is_on(user))


def test_a_flag_is_on_for_its_share() -> None:
    assert sum(map(Flag("summary", 0.1).is_on, USERS)) == pytest.approx(2000, abs=5 * 43)
    assert not any(map(Flag("summary", 0.0).is_on, USERS[:1000]))
    assert all(map(Flag("summary", 1.0).is_on, USERS[:1000]))


def test_a_users_own_entry_wins_over_the_cohort_and_that_over_the_share() -> None:
    flag = Flag("summary", 0.0, on=["ann"], off=["bob"], cohorts={"staff": 1.0})
    assert flag.is_on("ann")
    assert not flag.is_on("bob", "staff")
    assert flag.is_on("eve", "staff")
    assert not flag.is_on("eve", "public")


@pytest.mark.parametrize("shares", [{}, {"a": -0.1, "b": 0.5}, {"a": 0.0}, {"a": 0.7, "b": 0.7}])
def test_impossible_shares_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(SetupError, match="add up to at most 1"):
        SplitExperiment("tone", shares)


def test_a_nameless_experiment_is_refused() -> None:
    with pytest.raises(SetupError, match="needs a name"):
        SplitExperiment("", HALVES)


def test_impossible_flags_are_refused() -> None:
    with pytest.raises(SetupError, match=r"share of all users \(1.5\)"):
        Flag("summary", 1.5)
    with pytest.raises(SetupError, match=r"share of staff \(-1\)"):
        Flag("summary", cohorts={"staff": -1})
    with pytest.raises(SetupError, match="both on and off"):
        Flag("summary", on=["ann"], off=["ann"])
