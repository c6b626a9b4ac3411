"""Chapter 9's experiments: recorded evaluations of two real models, and simulated customers who meet them.

The accuracies are measured: each model answered the project's evaluation set, and `data/results` has the counts. The
customers are simulated: which questions they ask, and when they press "thumbs up". Contains no answers.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from miniserve.abtest.always_valid import msprt_half_width
from miniserve.abtest.assignment import SplitExperiment
from miniserve.abtest.effect import Estimate
from miniserve.abtest.proportions import two_proportion_z
from miniserve.abtest.sequential import obrien_fleming, peeking_error, pocock
from miniserve.abtest.srm import ALARM_P, srm_p_value
from miniserve.course.figures import line_style, new_figure, show
from miniserve.course.tables import as_text, table
from miniserve.seeds import bucket, number

ROOT = Path(__file__).resolve().parents[4]
CURRENT, CANDIDATE = "small-distilled", "large-bad"
KINDS = ("easy arithmetic", "easy string", "easy fact", "hard arithmetic", "hard string", "hard fact")
LARKSPUR = dict(zip(KINDS, (0.40, 0.35, 0.15, 0.04, 0.04, 0.02), strict=True))  # what customers ask
USERS_PER_DAY = 2_000
THUMBS_UP = {True: 0.9, False: 0.3}  # how likely after a right answer, and after a wrong one: an assumption
PROPOSALS = {
    "a": "Customers may prefer answers as lists of points. Each customer sees their own chat only.",
    "b": "Last night's build packs the weights into 4 bits. Does it still do sums and facts?",
    "c": "A new balancer promises shorter waits. All requests share the same three replicas and their queues.",
    "d": "The assistant may edit the order list that all staff of a garden centre work on together.",
    "e": "The assistant recommends a weedkiller that has been banned since Monday. The fix is ready.",
    "f": "A training run has left eleven checkpoints. One of them may be shown to customers.",
    "g": "The assistant would remember a customer's garden from visit to visit. Do they come back more often?",
    "h": "A poster at the till would explain the assistant. Does that bring more customers to it?",
}
WAYS = {
    "benchmark": "known questions with known answers, before any customer is involved",
    "A/B by user": "each user keeps one variant, drawn at random",
    "A/B by group": "everyone in a garden centre gets the same variant, drawn at random",
    "A/B by period": "the whole service takes turns, hour by hour in random order (a switchback)",
    "no test": "just do it",
}
ALPHA, Z = 0.05, 1.959964
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Assign = Callable[[str, str, int], str]  # (experiment, user, visit) -> variant


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(number(9, name))


# --- the benchmark -------------------------------------------------------------------------------------------------


@functools.cache
def evaluation(model: str) -> dict[str, Any]:
    """Return what was recorded when this model answered the evaluation set."""
    path = ROOT / f"data/results/2026-11-23-eval-{model}.json"
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["result"]
    return result


def counted(model: str) -> dict[str, tuple[int, int]]:
    """Return (right, items) for each kind of question."""
    scores = {f"{s['difficulty']} {s['task']}": (s["right"], s["items"]) for s in evaluation(model)["scores"]}
    return {kind: scores[kind] for kind in KINDS}


def accuracy(model: str) -> dict[str, float]:
    """Return the share of right answers for each kind of question."""
    return {kind: right / items for kind, (right, items) in counted(model).items()}


def benchmark_mix() -> dict[str, float]:
    """Return what share of the evaluation set each kind of question is."""
    items = {kind: items for kind, (_, items) in counted(CURRENT).items()}
    return {kind: count / sum(items.values()) for kind, count in items.items()}


def score(model: str, mix: Mapping[str, float]) -> float:
    """Return the share of right answers if questions come in this mix."""
    return sum(share * accuracy(model)[kind] for kind, share in mix.items())


def benchmark() -> Estimate:
    """Compare the candidate with the current model on the evaluation set, as two independent samples."""
    right = tuple(sum(r for r, _ in counted(model).values()) for model in (CURRENT, CANDIDATE))
    items = tuple(sum(n for _, n in counted(model).values()) for model in (CURRENT, CANDIDATE))
    return two_proportion_z((right[0], right[1]), (items[0], items[1]))


def mix_table() -> None:
    """Show accuracy and weight of each kind of question."""
    table(
        {
            "question": KINDS,
            "current": [f"{accuracy(CURRENT)[kind]:.1%}" for kind in KINDS],
            "candidate": [f"{accuracy(CANDIDATE)[kind]:.1%}" for kind in KINDS],
            "in the benchmark": [f"{benchmark_mix()[kind]:.1%}" for kind in KINDS],
            "at Larkspur": [f"{LARKSPUR[kind]:.0%}" for kind in KINDS],
        },
        "Right answers, and how much each kind of question counts",
    )


# --- simulated customers -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Groups:
    """What an A/B test counted: customers and thumbs up, the current model's group first."""

    users: tuple[int, int]
    ups: tuple[int, int]

    def __repr__(self) -> str:
        rates = " and ".join(f"{up / n:.1%} of {n:,}" for up, n in zip(self.ups, self.users, strict=True))
        return f"thumbs up: {rates}"

    def estimate(self) -> Estimate:
        """Return the candidate's rate minus the current model's."""
        return two_proportion_z(self.ups, self.users)


def up_rate(model: str, mix: Mapping[str, float] = LARKSPUR) -> float:
    """Return the simulated customers' true rate of thumbs up."""
    right = score(model, mix)
    return right * THUMBS_UP[True] + (1 - right) * THUMBS_UP[False]


@functools.cache
def ab_test(users: int = 24_000, gave_up: float = 0.0) -> Groups:
    """Simulate an A/B test: each customer asks one question of Larkspur's mix and judges the answer.

    `gave_up`: the share of hard questions whose answers come too late for the app with the candidate. It shows an error
    and logs nothing, neither the customer nor a thumb.
    """
    split = SplitExperiment("larger-model", {CURRENT: 0.5, CANDIDATE: 0.5})
    variants = np.array([split.variant_of(f"customer-{i}") == CANDIDATE for i in range(users)])
    rng = _rng("customers")
    kinds = rng.choice(len(KINDS), size=users, p=list(LARKSPUR.values()))
    of_model = np.array([[accuracy(model)[kind] for kind in KINDS] for model in (CURRENT, CANDIDATE)])
    right = rng.random(users) < of_model[variants.astype(int), kinds]
    up = rng.random(users) < np.where(right, THUMBS_UP[True], THUMBS_UP[False])
    logged = ~(variants & (kinds >= 3) & (rng.random(users) < gave_up))
    sides = (logged & ~variants, logged & variants)
    return Groups(
        (int(sides[0].sum()), int(sides[1].sum())),
        (int((up & sides[0]).sum()), int((up & sides[1]).sum())),
    )


def draw_bite(offline: Estimate, online: Groups) -> None:
    """Draw the candidate's lead over the current model, in points: by the benchmark, and by customers."""
    found = {"benchmark (right answers)": offline, "A/B test (thumbs up)": online.estimate()}
    figure, ax = new_figure(
        "Is the candidate better?", x="candidate minus current (percentage points)", y="evidence", size=(7.2, 2.4)
    )
    for i, one in enumerate(found.values()):
        points = [100 * value for value in (one.difference, one.low, one.high)]
        reach = [[points[0] - points[1]], [points[2] - points[0]]]
        style = {**line_style(i, markers=True), "linestyle": ""}
        ax.errorbar([points[0]], [1 - i], xerr=reach, capsize=5, **style)
        ax.annotate(f"{points[0]:+.1f}", (points[0], 1 - i), (0, 8), textcoords="offset points", ha="center")
    ax.axvline(0, color="#1a1a1a", linewidth=1)
    ax.set_yticks([1, 0], list(found))
    ax.set_ylim(-0.6, 1.6)
    texts = [f"{n}: {100 * e.difference:+.1f} ({100 * e.low:+.1f} to {100 * e.high:+.1f})" for n, e in found.items()]
    show(
        figure,
        alt=f"Two estimates with 95 % intervals on one axis, on opposite sides of zero. Points: {'; '.join(texts)}.",
    )


# --- how many users ------------------------------------------------------------------------------------------------


def found_share(rate: float, lift: float, per_group: float, runs: int = 4_000) -> float:
    """Simulate A/B tests of a real lift, and return the share of them that find it significant."""
    rng = _rng(f"power {per_group:.0f}")
    n = round(per_group)
    first, second = rng.binomial(n, rate, runs), rng.binomial(n, rate + lift, runs)
    return float((np.abs(_z_values(first, second, n)) > Z).mean())


def _z_values(first: Counts, second: Counts, n: int | Counts) -> Floats:
    """Return the pooled z of two groups of n users each, element by element."""
    pooled = (first + second) / (2 * n)
    z: Floats = (second - first) / n / np.sqrt(2 * pooled * (1 - pooled) / n)
    return z


# --- looking early -------------------------------------------------------------------------------------------------


@functools.cache
def looked_at(looks: int, lift: float = 0.0, users: int = 10_000, runs: int = 20_000) -> tuple[Counts, Counts]:
    """Simulate A/B tests with `users` per group and equal looks; return the thumbs up so far, run by run."""
    rng = _rng(f"{looks} looks, lift {lift}")
    each = users // looks
    rate = up_rate(CURRENT)
    shape = (runs, looks)
    first, second = rng.binomial(each, rate, shape), rng.binomial(each, rate + lift, shape)
    return first.cumsum(axis=1), second.cumsum(axis=1)


def z_at_looks(looks: int, lift: float = 0.0, users: int = 10_000) -> Floats:
    """Return the z of each run at each look."""
    first, second = looked_at(looks, lift, users)
    return _z_values(first, second, (users // looks) * np.arange(1, looks + 1))


def false_positive_percent(looks: int) -> float:
    """Return in how many of 100 A/A tests a team that stops at the first p < 5 % announces a winner."""
    return 100 * float((np.abs(z_at_looks(looks)) > Z).any(axis=1).mean())


def draw_walks(looks: int = 10, runs: int = 24) -> None:
    """Draw z over the looks of some A/A tests; a marker shows where a peeking team stops."""
    walks = z_at_looks(looks)[:runs]
    figure, ax = new_figure(f"{runs} tests of the model against itself", x="look", y="z")
    at = np.arange(1, looks + 1)
    stopped = 0
    for walk in walks:
        crossed = np.flatnonzero(np.abs(walk) > Z)
        if len(crossed):
            end = crossed[0] + 1
            ax.plot(at[:end], walk[:end], **{**line_style(1), "linestyle": "-"})
            ax.plot([end], [walk[end - 1]], **{**line_style(1, markers=True), "linestyle": ""})
            stopped += 1
        else:
            ax.plot(at, walk, color="#8a8a8a", linewidth=0.9)
    for edge in (-Z, Z):
        ax.axhline(edge, color="#1a1a1a", linewidth=1, linestyle="--")
    ax.set_xticks(at)
    show(
        figure,
        alt=f"{runs} wandering lines of z over {looks} looks, between dashed borders at plus and minus {Z:.2f}. "
        f"{stopped} lines cross a border at some look and stop there, at a square; the others are grey.",
    )


def draw_peeking(looks: Sequence[int] = (1, 2, 3, 5, 10, 20, 50)) -> None:
    """Draw the false-positive rate over the number of looks: simulated, computed, and if looks were independent."""
    curves = {
        "simulated A/A tests": [false_positive_percent(k) for k in looks],
        "computed": [100 * peeking_error(k) for k in looks],
        "if looks were independent": [100 * (1 - (1 - ALPHA) ** k) for k in looks],
    }
    figure, ax = new_figure("Looks at an A/A test", x="looks", y="false positives (%)")
    for i, (name, values) in enumerate(curves.items()):
        style = {**line_style(0, markers=True), "linestyle": "", "zorder": 3} if i == 0 else line_style(i)
        ax.plot(list(looks), values, **style, label=name)
    ax.axhline(100 * ALPHA, color="#1a1a1a", linewidth=1)
    ax.set_xscale("log")
    ax.set_xticks(list(looks), [str(k) for k in looks])
    ax.minorticks_off()
    ax.set_ylim(0, 100)
    ax.legend()
    pairs = ", ".join(f"{k} looks {as_text(v)} %" for k, v in zip(looks, curves["simulated A/A tests"], strict=True))
    show(
        figure,
        alt=f"False positives rise with the number of looks, from the promised 5 %: {pairs}. The computed curve runs "
        "through these points; a curve for independent looks lies far above it.",
        data={"looks": list(looks), **{name: [f"{v:.1f}" for v in values] for name, values in curves.items()}},
    )


def stopping_rules(lift: float, looks: int = 10, users: int = 10_000) -> None:
    """Compare five ways to stop on false positives, on power for a real lift, and on users needed."""
    rate = up_rate(CURRENT)
    tau2 = lift**2
    seen = (users // looks) * np.arange(1, looks + 1)
    always = [msprt_half_width(float(n), 2 * rate * (1 - rate), tau2) * math.sqrt(n) for n in seen]
    always_z = np.array(always) / math.sqrt(2 * rate * (1 - rate))
    never = np.full(looks - 1, np.inf)
    rules = {
        "one look, at the end": np.append(never, Z),
        "ten looks, p < 5 % each": np.full(looks, Z),
        "ten planned looks, Pocock": np.array(pocock(looks)),
        "... O'Brien and Fleming": np.array(obrien_fleming(looks)),
        "always valid": always_z,
    }
    rows = [(_stops(borders, 0.0, looks, users), _stops(borders, lift, looks, users)) for borders in rules.values()]
    table(
        {
            "rule": list(rules),
            "false positives": [f"{none[0]:.1%}" for none, _ in rows],
            f"finds {100 * lift:g} points": [f"{some[0]:.0%}" for _, some in rows],
            "users needed then": [f"{2 * some[1]:,.0f}" for _, some in rows],
        },
        f"Rules for stopping, with at most {2 * users:,} users",
    )


def _stops(borders: Floats, lift: float, looks: int, users: int) -> tuple[float, float]:
    """Return the share of runs that cross, and the mean users per group until a run stops."""
    crossed = np.abs(z_at_looks(looks, lift, users)) > borders
    ever = crossed.any(axis=1)
    stop = np.where(ever, crossed.argmax(axis=1) + 1, looks)
    return float(ever.mean()), float(stop.mean() * users / looks)


# --- groups of the wrong size --------------------------------------------------------------------------------------

SPLITS = {  # (users in A, users in B, A's planned share)
    "greeting": (6_103, 5_897, 0.5),
    "shorter answers": (9_046, 954, 0.9),
    "new app": (50_702, 49_298, 0.5),
}


def srm_table(z_of: Callable[[int, int, float], float] | None) -> None:
    """Show three experiments' group sizes, the library's p-value, and your z if there is one."""
    columns: dict[str, list[object]] = {
        "experiment": list(SPLITS),
        "A": [a for a, _, _ in SPLITS.values()],
        "B": [b for _, b, _ in SPLITS.values()],
        "planned for A": [f"{share:.0%}" for _, _, share in SPLITS.values()],
    }
    if z_of is not None:
        columns["your z"] = [f"{z_of(*split):+.2f}" for split in SPLITS.values()]
    p_values = [srm_p_value((a, b), (share, 1 - share)) for a, b, share in SPLITS.values()]
    columns["p"] = [f"{p:.2g}" for p in p_values]
    columns["verdict"] = ["throw it away" if p < ALARM_P else "go on" for p in p_values]
    table(columns, f"Sample ratio, alarm below p = {ALARM_P:g}")


def compared(tests: Mapping[str, Groups]) -> None:
    """Show group sizes, the mismatch test and the difference of each A/B test."""
    found = [one.estimate() for one in tests.values()]
    table(
        {
            "log": list(tests),
            "current": [one.users[0] for one in tests.values()],
            "candidate": [one.users[1] for one in tests.values()],
            "p of this split": [f"{srm_p_value(one.users):.1g}" for one in tests.values()],
            "difference (points)": [f"{100 * one.difference:+.1f}" for one in found],
            "95 % interval": [f"{100 * one.low:+.1f} to {100 * one.high:+.1f}" for one in found],
        },
        "The same customers, logged in two ways",
    )


# --- assignment ----------------------------------------------------------------------------------------------------


def fair(experiment: str, user: str, visit: int) -> str:
    """The framework's assignment: by a hash of experiment and user."""
    return str(SplitExperiment(experiment, {"A": 0.5, "B": 0.5}).variant_of(user))


def per_visit(experiment: str, user: str, visit: int) -> str:
    return "AB"[bucket(experiment, user, visit, buckets=2)]


def unsalted(experiment: str, user: str, visit: int) -> str:
    return "AB"[bucket(user, buckets=2)]


def truncated(experiment: str, user: str, visit: int) -> str:
    return "AB"[bucket(experiment, user[:8], buckets=2)]


def audit(assign: Assign, log: Mapping[str, Any]) -> list[str]:
    """Return which of three rules an assignment breaks on a log: sticky, balanced, independent."""
    first = {e: [assign(e, user, 1) for user in log["users"]] for e in log["experiments"]}
    later = {
        (e, visit): [assign(e, user, visit) for user in log["users"]]
        for e in log["experiments"]
        for visit in range(2, log["visits"] + 1)
    }
    broken = []
    if any(variants != first[e] for (e, _), variants in later.items()):
        broken.append("sticky")
    if any(_unlikely(variants.count("A"), len(variants)) for variants in first.values()):
        broken.append("balanced")
    same = [sum(x == y for x, y in zip(one, other, strict=True)) for one, other in combinations(first.values(), 2)]
    if any(_unlikely(count, len(log["users"])) for count in same):
        broken.append("independent")
    return broken


def _unlikely(count: int, of: int) -> bool:
    return of > 0 and float(binomtest(count, of, 0.5).pvalue) < ALARM_P


# --- novelty, and what evidence costs ------------------------------------------------------------------------------


def novelty(weeks: int = 6, per_week: int = USERS_PER_DAY * 7 // 2) -> None:
    """Show a change that people like because it is new, week by week, and the test that adds all weeks up."""
    rng = _rng("novelty")
    rate, ups = up_rate(CURRENT), []
    for week in range(weeks):
        ups.append((int(rng.binomial(per_week, rate)), int(rng.binomial(per_week, rate + 0.05 * 0.4**week))))
    parts = {f"week {i + 1}": one for i, one in enumerate(ups)}
    total = (sum(a for a, _ in ups), sum(b for _, b in ups))
    found = [two_proportion_z(one, (per_week, per_week)) for one in parts.values()]
    found.append(two_proportion_z(total, (weeks * per_week, weeks * per_week)))
    table(
        {
            "": [*parts, f"all {weeks} weeks"],
            "difference (points)": [_points(e.difference) for e in found],
            "95 % interval": [f"{_points(e.low)} to {_points(e.high)}" for e in found],
        },
        "A new avatar (simulated)",
    )


def _points(difference: float) -> str:
    return f"{round(100 * difference, 1) + 0.0:+.1f}"  # + 0.0: no minus before zero


def evidence_table(offline: Estimate, online: Groups) -> None:
    """Show what the benchmark and the A/B test cost, and how exact they are."""
    seconds = sum(evaluation(model)["seconds"] for model in (CURRENT, CANDIDATE))
    items = sum(n for _, n in counted(CURRENT).values())
    users = sum(online.users)
    margins = [100 * (one.high - one.low) / 2 for one in (offline, online.estimate())]
    table(
        {
            "": ["benchmark", "A/B test"],
            "answers judged": [2 * items, users],
            "takes": [f"{seconds:.0f} s", f"{users / USERS_PER_DAY:.0f} days"],
            "margin (points)": [f"±{margin:.1f}" for margin in margins],
            "customers who met the candidate": [0, online.users[1]],
            "can be repeated": ["on every commit", "not with the same customers"],
        },
        "Two kinds of evidence",
    )
