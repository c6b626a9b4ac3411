"""The open problem's world: a year of ideas, each tested until a rule stops the test. Contains no answers.

A rule has a pair (give_up, win) for each of ten looks. At a look the test ends as a winner (or a loser) if |z| is above
`win`, as "nothing there" if |z| is below `give_up`, and otherwise goes on to the next 2,000 users; the tenth look ends
it anyway.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miniserve.abtest.sequential import crossing_probabilities
from miniserve.course.chapters.ch09_ab_tests.lab import CURRENT, up_rate
from miniserve.course.figures import line_style, new_figure, show
from miniserve.course.tables import table
from miniserve.seeds import number

LOOKS, USERS_PER_LOOK = 10, 2_000
LIFT = 0.02  # worth finding, and the spread of the lifts of those ideas that do something
MOST_FALSE, LEAST_POWER = 0.05, 0.90
IDEAS, TESTS = 4_000, 20_000
Rule = Sequence[Sequence[float]]
Floats = NDArray[np.float64]


def _walks(lifts: Floats, name: str) -> Floats:
    """Return z at each look for tests of ideas with these lifts."""
    rng = np.random.default_rng(number(9, "open", name))
    rate, at = up_rate(CURRENT), np.arange(1, LOOKS + 1) / LOOKS
    error = np.sqrt(2 * rate * (1 - rate) / (LOOKS * USERS_PER_LOOK / 2))
    steps = rng.normal(size=(len(lifts), LOOKS)) / np.sqrt(LOOKS)
    z: Floats = (steps.cumsum(axis=1) + (lifts / error)[:, None] * at) / np.sqrt(at)
    return z


@functools.lru_cache(maxsize=8)
def year(seed: int) -> Floats:
    """Return z at each look for the year's ideas: half of them do nothing, the others' lifts vary around zero."""
    rng = np.random.default_rng(number(9, "ideas", seed))
    lifts = rng.normal(0, LIFT, IDEAS) * (np.arange(IDEAS) % 2)
    return _walks(lifts, f"year {seed}")


@functools.cache
def _real_lift() -> Floats:
    return _walks(np.full(TESTS, LIFT), "power")


def _ends(rule: Rule, z: Floats) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return at which look (from 1) each test ends, and whether it ends with a winner or loser."""
    give_up, win = np.asarray(rule, dtype=np.float64).T
    decided = np.abs(z) > win
    over = decided | (np.abs(z) < give_up)
    over[:, -1] = True
    end = over.argmax(axis=1)
    return end + 1, decided[np.arange(len(z)), end]


def mean_users(rule: Rule, seed: int = 0) -> float:
    """Return how many users a test of the year needs on average."""
    return float(_ends(rule, year(seed))[0].mean()) * USERS_PER_LOOK


def power(rule: Rule) -> float:
    """Return the share of tests of a lift of `LIFT` that end with a winner."""
    return float(_ends(rule, _real_lift())[1].mean())


def false_positives(rule: Rule) -> float:
    """Return how often a test of nothing crosses `win`, even if nobody ever gives up."""
    return sum(crossing_probabilities([win for _, win in rule]))


def show_rules(rules: dict[str, Rule]) -> None:
    """Show what each rule costs and keeps."""
    table(
        {
            "rule": list(rules),
            "users per test": [f"{mean_users(rule):,.0f}" for rule in rules.values()],
            "false positives": [f"{false_positives(rule):.1%}" for rule in rules.values()],
            f"finds {100 * LIFT:g} points": [f"{power(rule):.1%}" for rule in rules.values()],
        },
        f"A year of {IDEAS:,} ideas",
    )


def draw_rule(rule: Rule) -> None:
    """Draw a rule's borders, and where the year's tests of it end."""
    ends = np.bincount(_ends(rule, year(0))[0], minlength=LOOKS + 1)[1:] / IDEAS
    figure, ax = new_figure("When does a test end?", x="users so far", y="|z|")
    at = USERS_PER_LOOK * np.arange(1, LOOKS + 1)
    give_up, win = (np.minimum(column, 6.0) for column in np.asarray(rule, dtype=np.float64).T)
    ax.plot(at, win, **line_style(0, markers=True), label="above: decided")
    ax.plot(at, give_up, **line_style(1, markers=True), label="below: given up")
    for x, share in zip(at, ends, strict=True):
        ax.annotate(f"{share:.0%}", (x, 0), (0, -2), textcoords="offset points", ha="center", va="top", fontsize=8)
    ax.set_ylim(-0.6, 6)
    ax.set_xticks(at[1::2], [f"{x:,}" for x in at[1::2]])
    ax.legend()
    shares = ", ".join(f"{x:,} users {share:.0%}" for x, share in zip(at, ends, strict=True))
    show(
        figure,
        alt=f"Two borders over the number of users: one for deciding, from {win[0]:.1f} at first to {win[-1]:.1f}, "
        f"and one for giving up, from {give_up[0]:.1f} to {give_up[-1]:.1f}. Tests that end there: {shares}.",
        data={
            "users": [f"{x:,}" for x in at],
            "win": [f"{v:.2f}" for v in win],
            "give up": [f"{v:.2f}" for v in give_up],
            "end here": [f"{share:.0%}" for share in ends],
        },
    )
