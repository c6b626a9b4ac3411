"""An experiment's books: each user counts once, the split is checked first, and looking often does no harm."""

from __future__ import annotations

import json
from random import Random

import pytest
import scipy.stats

from miniserve.observe.user_outcomes import (
    DECIDES,
    UserOutcomes,
    restored_outcomes,
)

A, B = "large@1", "large@2"


def books(
    users: int = 200, liked: tuple[float, float] = (0.8, 0.8), *, seed: int = 1, answers: int = 10
) -> UserOutcomes:
    """Both variants with so many users; each user's answers are liked with a chance around the variant's."""
    rng, found = Random(seed), UserOutcomes((A, B), (0.5, 0.5))
    for variant, share in zip((A, B), liked, strict=True):
        for number in range(users):
            own = min(1.0, max(0.0, rng.gauss(share, 0.05)))
            sums = found.of(variant, f"{variant} {number}")
            assert sums is not None
            sums.answers = sums.judged = answers
            sums.good = sum(rng.random() < own for _ in range(answers))
            sums.ttft_s, sums.e2e_s, sums.tokens = answers * rng.uniform(0.1, 0.3), answers * 1.0, answers * 8
    return found


def test_a_comparison_is_welchs_over_users() -> None:
    found = books(liked=(0.8, 0.7))
    one, other = found.values(DECIDES)
    compared = found.compared(DECIDES)
    assert compared is not None
    assert compared.p_value == pytest.approx(scipy.stats.ttest_ind(other, one, equal_var=False).pvalue)
    assert compared.difference == pytest.approx(sum(other) / len(other) - sum(one) / len(one))


def test_a_user_who_asks_all_day_decides_nothing() -> None:
    found = books()
    before = found.compared(DECIDES)
    sums = found.of(B, f"{B} 0")
    assert before is not None
    assert sums is not None
    sums.judged, sums.good, sums.answers = sums.judged * 10_000, sums.good * 10_000, sums.answers * 10_000
    assert found.compared(DECIDES) == before


def test_a_better_variant_is_called_better_and_an_equal_one_never_decided_early() -> None:
    better, equal = books(liked=(0.7, 0.85)), books(users=60)
    better.look()
    equal.look()
    assert better.verdict(0.05).startswith("large@2 is better than large@1: ")
    assert equal.verdict(0.05).startswith("cannot tell yet: a difference of 5% needs about")
    many = books(users=2000)
    many.look()
    assert "no difference as large as 5%" in many.verdict(0.05)


def test_nothing_is_said_before_there_are_users() -> None:
    found = UserOutcomes((A, B), (0.5, 0.5))
    assert found.look() == 1.0
    assert found.mismatch_p() is None
    assert found.verdict(0.05).startswith("cannot tell yet: 0 users with a verdict")


def test_a_wrong_split_stands_before_any_other_figure() -> None:
    found = books(liked=(0.5, 0.9))
    for number in range(300):
        found.of(A, f"more {number}")
    found.look()
    assert found.verdict(0.05).startswith("the groups do not have the sizes that the split gives them")


def looked_at_often(seed: int, *, looks: int) -> bool:
    """Whether two equal variants are ever called different, with a look after every few users."""
    whole, growing = books(users=400, seed=seed, answers=4), UserOutcomes((A, B), (0.5, 0.5))
    users = {variant: list(there.items()) for variant, there in whole.users.items()}
    for look in range(1, looks + 1):
        for variant, there in users.items():
            growing.users[variant] = dict(there[: len(there) * look // looks])
        if growing.look() <= 0.05:
            return True
    return False


@pytest.mark.parametrize("runs", [60, pytest.param(1000, marks=pytest.mark.full)])
def test_looking_often_raises_no_more_false_alarms_than_it_may(runs: int, record_property: object) -> None:
    alarms = sum(looked_at_often(seed, looks=20) for seed in range(runs))
    record_property("false alarms of a thousand", 1000 * alarms / runs)  # type: ignore[operator]
    assert alarms <= scipy.stats.binom.ppf(0.999, runs, 0.05)


def test_books_survive_a_restart() -> None:
    found = books(liked=(0.7, 0.85))
    found.look()
    again = restored_outcomes(json.loads(json.dumps(found.state())))
    assert again == found
