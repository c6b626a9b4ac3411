"""Chapter 9, A/B tests and benchmarks: its questions, their answers, and what each wrong answer means."""

from __future__ import annotations

import functools
import math
from random import Random
from typing import Any

from miniserve.abtest.sequential import equal_looks, lan_demets, pocock, power_spending
from miniserve.course.chapters.ch09_ab_tests import lab, stopping
from miniserve.course.check.ask import Json
from miniserve.course.check.kinds import Classify, FreeText, Kill, Predict, Witness, locked_all
from miniserve.course.check.numbers import Formula, Misconception, Number, Params
from miniserve.course.check.open_problem import Bar, OpenProblem
from miniserve.course.check.verdict import Problem

# --- 9.1 a witness -------------------------------------------------------------------------------------------------

MOST_SHARE, LEAST_HARD, LEAD = 0.35, 0.5, 0.10


def _judge_mix(told: Json) -> Problem | None:
    if (problem := _no_mix(told)) is not None:
        return problem
    mix: dict[str, float] = told
    largest = max(mix, key=lambda kind: mix[kind])
    if mix[largest] > MOST_SHARE + 1e-9:
        why = f"No kind may have more than {MOST_SHARE:.0%}."
        return Problem("one-kind", f"{largest}: {mix[largest]:.0%}", why, "Give the rest to other kinds.", largest)
    hard = sum(share for kind, share in mix.items() if kind.startswith("hard"))
    if hard < LEAST_HARD - 1e-9:
        why = f"At least {LEAST_HARD:.0%} must be hard: with easy ones alone it would be no surprise."
        return Problem("too-easy", f"{hard:.0%} are hard", why, "Which kind of hard question is the candidate bad at?")
    current, candidate = lab.score(lab.CURRENT, mix), lab.score(lab.CANDIDATE, mix)
    seen = f"current {current:.1%}, candidate {candidate:.1%}"
    if current <= candidate:
        why = "On your mix the candidate is at least as good, as it is in the benchmark."
        return Problem("same-winner", seen, why, "In which rows of the table is the current model ahead?")
    if current - candidate < LEAD - 1e-9:
        why = f"The current model leads, but by less than {100 * LEAD:.0f} points."
        return Problem("too-close", seen, why, "Move shares from kinds that the candidate is better at.")
    return None


def _no_mix(told: Json) -> Problem | None:
    """Return why this isn't a mix at all."""
    if not isinstance(told, dict) or not told:
        why = "The answer is a dictionary from kinds of questions to shares."
        return Problem("no-mix", repr(told)[:80], why, 'Begin with {"easy fact": 0.3, ...}.')
    if unknown := [kind for kind in told if kind not in lab.KINDS]:
        why = f"The kinds are {', '.join(lab.KINDS)}."
        return Problem("no-kind", repr(unknown[0])[:80], why, "Write the kind as in the table.")
    if bad := [kind for kind, share in told.items() if type(share) not in (int, float) or share < 0]:
        seen = f"{bad[0]}: {told[bad[0]]!r}"[:80]
        return Problem("no-share", seen, "A share is a number of at least 0.", "Write 0.2 for 20 %.", bad[0])
    if abs(sum(told.values()) - 1) > 1e-3:
        seen = f"the shares add up to {sum(told.values()):.6g}"
        percent = sum(told.values()) > 50
        next_ = "Divide each of them by 100." if percent else "Kinds that you leave out count as 0."
        return Problem("not-one", seen, "All questions together are 1.", next_)
    return None


MIX = Witness(
    id="9.1",
    name="mix",
    title="A mix that turns the benchmark round",
    minutes=8,
    difficulty=3,
    judge_value=_judge_mix,
    hints=(
        "A benchmark's score is a mean of the table's rows, weighted by how many items each has. You choose the "
        "weights: where is the current model far ahead, and where far behind?",
        "lead = sum of share x (current's accuracy - candidate's accuracy). Work out the six differences, largest "
        "first. Fill the largest up to its limit, then the next, and check how much is hard.",
        "With another table: two models score 90 % and 50 % on translations, 40 % and 80 % on sums. With 70 % "
        "translations the first leads by 0.7 x 40 - 0.3 x 40 = 16 points; with 30 % it trails by as much.",
    ),
)

# --- 9.2 classify --------------------------------------------------------------------------------------------------

EVIDENCE = Classify(
    id="9.2",
    name="evidence",
    title="Which evidence for which question?",
    minutes=8,
    items=lab.PROPOSALS,
    options=tuple(lab.WAYS),
    keys=locked_all(
        "9.2",
        a="A/B by user",
        b="benchmark",
        c="A/B by period",
        d="A/B by group",
        e="no test",
        f="benchmark",
        g="A/B by user",
        h="A/B by group",
    ),
    because={
        "a": "Taste is the customers' to judge, and one customer's page changes nothing for another.",
        "b": "The answers have a known truth, and it's asked every night: no customer needs to see a broken model.",
        "c": "Both variants wait in the same queues: a better half would shorten the worse half's waits as well.",
        "d": "Colleagues work on one list. If they see different assistants, each group gets some of both.",
        "e": "There's nothing to learn that could justify showing half of the customers the old answer.",
        "f": "Eleven variants would need weeks of customers each. Let most of them fail before anyone meets them.",
        "g": "What builds up over visits shows only in those who keep one variant through all of them.",
        "h": "A poster is seen by everyone in the shop, so only whole garden centres can be with or without it.",
    },
    hints=(
        "Who would be touched by variant B: one customer alone, a group that shares something, or everyone at once? "
        "And is there a right answer that a program can check?",
        "One customer alone: by user. People who share a place or a document: by group. A shared queue or cache: take "
        "turns, by period. Known answers and many variants: offline. Nothing to weigh up: don't test.",
        "With another proposal: a carpool app wants to raise drivers' pay. Passengers choose among all drivers of a "
        "city, so the paid half takes trips from the other half. Whole cities, or weeks, have to be compared.",
    ),
)

# --- 9.3 a number --------------------------------------------------------------------------------------------------


def _draw_plan(rng: Random) -> Params:
    rate, points = rng.choice((0.75, 0.85, 0.80)), rng.choice((1.0, 1.5, 2.0, 2.5))
    return {"rate": rate, "lift": points / 100, "z_alpha": 1.96, "z_power": 0.84}


def _users(rate: float, lift: float, z: float, effect: float | None = None) -> float:
    """Return the users per group for quantiles that add up to z."""
    spread = rate * (1 - rate) + (rate + lift) * (1 - rate - lift)
    return z**2 * spread / (lift if effect is None else effect) ** 2


PLAN = Number(
    id="9.3",
    name="users_per_group",
    title="How many users a test needs",
    minutes=8,
    difficulty=3,
    draw=_draw_plan,
    truth=lambda rate, lift, z_alpha, z_power: _users(rate, lift, z_alpha + z_power),
    misconceptions=(
        Misconception(
            "both-groups",
            "That is for both groups together.",
            lambda rate, lift, z_alpha, z_power: 2 * _users(rate, lift, z_alpha + z_power),
            "The question asks for one group.",
        ),
        Misconception(
            "no-power",
            "With this many users a lift of just this size is found in only half of all tests.",
            lambda rate, lift, z_alpha, z_power: _users(rate, lift, z_alpha),
            "Where does the power of 80 % come in?",
        ),
        Misconception(
            "squares-added",
            "You squared the two z and added them.",
            lambda rate, lift, z_alpha, z_power: _users(rate, lift, math.hypot(z_alpha, z_power)),
            "The two distances lie one behind the other: add them, then square the sum.",
        ),
        Misconception(
            "one-sided",
            "You took 1.645, the z of a test that looks at one side only.",
            lambda rate, lift, z_alpha, z_power: _users(rate, lift, 1.645 + z_power),
            "The candidate may be worse: take the z that is given.",
        ),
        Misconception(
            "not-squared",
            "You divided by the lift; the standard error shrinks only with the square root of n.",
            lambda rate, lift, z_alpha, z_power: _users(rate, lift, z_alpha + z_power) * lift,
            "Halving the lift takes four times the users.",
        ),
        Misconception(
            "relative",
            "You multiplied the lift by the rate, as if it were relative.",
            lambda rate, lift, z_alpha, z_power: _users(rate, lift, z_alpha + z_power, rate * lift),
            "It is given in absolute terms: rate + lift.",
        ),
    ),
    hints=(
        "Two bells side by side: the difference you'd see without a lift, and with it. They have to be narrow enough "
        "that a border fits between them, far enough from both centres.",
        "The standard error of the difference is sqrt((p1 (1 - p1) + p2 (1 - p2)) / n). The lift has to be "
        "(z_alpha + z_power) of those. Solve ___ = (___ + ___) x ___ for n.",
        "With other numbers: from 0.50 to 0.60, the variances add up to 0.25 + 0.24 = 0.49, and n = 2.8^2 x 0.49 / "
        "0.1^2 = 384 in each group.",
    ),
)

# --- 9.4 a prediction ----------------------------------------------------------------------------------------------

PEEK = Predict(
    id="9.4",
    name="false_positives_between",
    title="Ten looks at nothing",
    minutes=5,
    difficulty=3,
    unit="%",
    experiment=lambda: lab.false_positive_percent(10),
    widest=1.5,
    too_low="Ten looks are ten chances to be fooled, and each new batch of users is a fresh draw.",
    too_high="The looks aren't independent: the tenth holds all users of the ninth, so z moves only a little.",
    hints=(
        "It lies between two cases that you can work out: all ten looks say the same, or each look is a new "
        "experiment. What are those two numbers?",
        "One look: 5 %. Ten independent looks: 1 - 0.95^10. Neighbouring looks share most of their users, above all "
        "the later ones; so how many independent looks are ten of these worth?",
        "With two looks: 5 % if they were the same, 9.75 % if they were independent. The second look's users are half "
        "old and half new; the truth is 8.3 %.",
    ),
)

# --- 9.5 a formula -------------------------------------------------------------------------------------------------


def _draw_split(rng: Random) -> Params:
    share, total = rng.choice((0.1, 0.2, 0.5, 0.8, 0.9)), rng.choice((1_000, 4_000, 10_000, 50_000))
    n_a = round(total * share + rng.choice((-1, 1)) * rng.uniform(0.8, 5) * math.sqrt(total * share * (1 - share)))
    return {"n_a": n_a, "n_b": total - n_a, "share_a": share}


def _sd(n: float, share: float) -> float:
    return math.sqrt(n * share * (1 - share))


SPLIT = Formula(
    id="9.5",
    name="split_z",
    title="Are the groups of the right size?",
    minutes=8,
    difficulty=3,
    truth=lambda n_a, n_b, share_a: (n_a - (n_a + n_b) * share_a) / _sd(n_a + n_b, share_a),
    draw=_draw_split,
    misconceptions=(
        Misconception(
            "always-half",
            "You compare with a split of half and half.",
            lambda n_a, n_b, share_a: (n_a - (n_a + n_b) / 2) / _sd(n_a + n_b, 0.5),
            "A's planned share is an argument.",
        ),
        Misconception(
            "variance",
            "You divided by the variance.",
            lambda n_a, n_b, share_a: (n_a - (n_a + n_b) * share_a) / _sd(n_a + n_b, share_a) ** 2,
            "A z counts standard deviations: take the square root.",
        ),
        Misconception(
            "one-coin",
            "You divided by the standard deviation of a single user's coin.",
            lambda n_a, n_b, share_a: (n_a - (n_a + n_b) * share_a) / _sd(1, share_a),
            "There are n_a + n_b coins: how does the standard deviation of their sum grow?",
        ),
        Misconception(
            "share-over-count",
            "You divided a difference of shares by a standard deviation of counts.",
            lambda n_a, n_b, share_a: (n_a / (n_a + n_b) - share_a) / _sd(n_a + n_b, share_a),
            "Stay with counts above and below the line, or with shares in both places.",
        ),
        Misconception(
            "poisson",
            "You took the square root of the expected count, as if A's size had no limit.",
            lambda n_a, n_b, share_a: (n_a - (n_a + n_b) * share_a) / math.sqrt((n_a + n_b) * share_a),
            "A user who isn't in A is in B: the variance of a coin has two factors.",
        ),
        Misconception(
            "other-way",
            "The sign is the other way round.",
            lambda n_a, n_b, share_a: ((n_a + n_b) * share_a - n_a) / _sd(n_a + n_b, share_a),
            "Above 0 should mean that A got more users than planned.",
        ),
        Misconception(
            "unsigned",
            "The sign is lost: too many and too few look the same.",
            lambda n_a, n_b, share_a: abs(n_a - (n_a + n_b) * share_a) / _sd(n_a + n_b, share_a),
            "Above 0 should mean that A got more users than planned, below 0 fewer.",
        ),
        Misconception(
            "chi-square",
            "This is the chi-squared value, the square of what is asked for.",
            lambda n_a, n_b, share_a: ((n_a - (n_a + n_b) * share_a) / _sd(n_a + n_b, share_a)) ** 2,
            "How many standard deviations, and on which side?",
        ),
    ),
    hints=(
        "Each user is a coin that falls on A with probability share_a. How many A do you expect among all users, and "
        "how far from that is normal?",
        "n coins: expected n x share, standard deviation sqrt(n x share x ___). z = (seen - expected) / ___.",
        "With other numbers: 100 coins, half and half: 50 expected, standard deviation sqrt(100 x 0.5 x 0.5) = 5. If "
        "60 fall on A, z = (60 - 50) / 5 = 2.",
    ),
)

# --- 9.6 a kill ----------------------------------------------------------------------------------------------------

MOST_USERS, MOST_EXPERIMENTS, MOST_VISITS = 300, 5, 5


def _admissible(told: Json) -> Problem | None:
    if not (isinstance(told, dict) and set(told) == {"experiments", "users", "visits"}):
        why, next_ = "The keys are experiments, users and visits.", 'Write {"experiments": [...], "users": [...], ...}.'
        return Problem("no-log", repr(told)[:80], why, next_)
    for key, most in (("experiments", MOST_EXPERIMENTS), ("users", MOST_USERS)):
        if (problem := _no_names(key, told[key], most)) is not None:
            return problem
    if type(told["visits"]) is not int or not 1 <= told["visits"] <= MOST_VISITS:
        why = f"visits is a whole number from 1 to {MOST_VISITS}."
        return Problem("no-visits", repr(told["visits"])[:80], why, "How often does each user come?", "visits")
    if broken := lab.audit(lab.fair, told):
        seen = f"the fair assignment fails as well: {', '.join(broken)}"
        why = "By chance, or because your list is lopsided, even a fair split looks biased here."
        return Problem("fair-fails", seen, why, "Change the names, or take more users.")
    return None


def _no_names(key: str, names: Json, most: int) -> Problem | None:
    if not isinstance(names, list) or not 1 <= len(names) <= most or not all(type(name) is str for name in names):
        held = f"{len(names)} of them" if isinstance(names, list) else repr(names)[:60]
        why = f"{key} is a list of 1 to {most} names."
        example = '[f"centre-{i}" for i in range(20)]' if key == "users" else '["tone", "length"]'
        return Problem(f"no-{key}", f"{key}: {held}", why, f"Such as {example}.", key)
    if len(set(names)) < len(names):
        seen = f"{len(names)} names, {len(set(names))} different ones"
        return Problem("twice", seen, "Each name may stand there once.", "Remove the repetitions.", key)
    return None


def _audited(assign: lab.Assign) -> Any:
    return lambda told: lab.audit(assign, told)


BIASED = Kill(
    id="9.6",
    name="log",
    title="A log that convicts three assignments",
    minutes=10,
    difficulty=4,
    admissible=_admissible,
    correct=_audited(lab.fair),
    buggy={
        "per-visit": (_audited(lab.per_visit), "It draws anew at each visit: does anyone come twice in your log?"),
        "unsalted": (
            _audited(lab.unsalted),
            "It knows no experiment's name: are there two experiments, and users enough that equal splits can't be "
            "chance?",
        ),
        "truncated": (
            _audited(lab.truncated),
            "It reads the first 8 characters of a name: do many of your users share theirs?",
        ),
    },
    hints=(
        "Each version forgets something, or uses something that it shouldn't. What must vary in a log, or stay equal, "
        "so that this shows?",
        "One shows if users come ___ once. One shows between two ___. One shows if names begin with the same ___ "
        "characters. And chance must be ruled out: the alarm is at p < 0.0005, so how many users does that take?",
        "With another bug: an assignment that gives odd hours to A shows only in a log with visits in even and odd "
        "hours. Twelve coins that all fall alike have p = 2 x 0.5^12 = 0.0005; five such coins prove nothing.",
    ),
)

# --- 9.7 free text -------------------------------------------------------------------------------------------------

MEMO = FreeText(
    id="9.7",
    name="memo",
    title="Ship it?",
    minutes=10,
    difficulty=3,
    at_least_words=60,
    rubric=(
        "Decides: not to ship the candidate, on the A/B test's difference and interval.",
        "Explains the benchmark's opposite sign: its mix of questions isn't Larkspur's (easy facts), so its score is "
        "right about something else.",
        "Says why the A/B test can be trusted: assigned by user at random, group sizes as planned, size and end fixed "
        "beforehand, one look.",
        "Keeps the benchmark in its place: reweighted to Larkspur's mix, as a gate before any customer meets a model.",
        "Names a limit: thumbs aren't everything, 12 days aren't long, or the simulated customers are an assumption.",
    ),
    model_answer=(
        "Don't ship the candidate. Among 24,000 customers, assigned at random by user, it got 1.9 points fewer thumbs "
        "up (95 % interval 1.0 to 2.9 fewer). The groups had the planned sizes, and we looked once, at the end that we "
        "had fixed. The benchmark isn't wrong: the candidate answers 8 points more of its items. But half of those are "
        "hard, and nine in ten of our customers' questions are easy, among them facts, where the candidate is right "
        "less than half of the time. Weighted by our own mix the benchmark would have warned us in seconds, so that "
        "becomes the gate before the next test. What neither tells us: whether customers with hard questions would "
        "stay longer. For those alone a router to another model is worth a test of its own."
    ),
    hints=(
        "Your reader has two numbers with opposite signs and one minute. Say first what to do, then why the numbers "
        "don't contradict each other.",
        "Decision; difference with its interval; why this test can be trusted (unit, sizes, looks); what the benchmark "
        "measured instead; what you'd change in how the benchmark is used; one thing that you still don't know.",
        'About another service: "Keep the old search. It lost 0.8 points of orders (0.2 to 1.4) over two weeks, in '
        "equal groups. The offline score rose because its queries are those of power users; ours mostly type one "
        "word. We now weight it by last month's log.\"",
    ),
)

# --- 9.8 an open problem -------------------------------------------------------------------------------------------

HIGHEST, PAR = 10.0, 1.10  # the highest border; par is this times the best of `_best`


def _keeps_rules(told: Json) -> Problem | None:
    if (problem := _no_rule(told)) is not None:
        return problem
    if (wrong := stopping.false_positives(told)) > stopping.MOST_FALSE + 2e-4:
        why = f"A test of nothing may cross win in at most {stopping.MOST_FALSE:.0%} of all cases, over all looks."
        return Problem("too-many-false", f"{wrong:.1%} false positives", why, "Raise win: where does it cost least?")
    if (found := stopping.power(told)) < stopping.LEAST_POWER:
        why = f"A lift of {100 * stopping.LIFT:g} points must be found in at least {stopping.LEAST_POWER:.0%} of tests."
        patient = stopping.power([(0.0, win) for _, win in told]) >= stopping.LEAST_POWER
        next_ = (
            "You give up too early, before such a lift can show." if patient else "Lower win, where 5 % still allow it."
        )
        return Problem("too-little-power", f"{found:.1%} of them are found", why, next_)
    return None


def _no_rule(told: Json) -> Problem | None:
    looks = stopping.LOOKS
    if not isinstance(told, list) or len(told) != looks or not all(isinstance(row, list) for row in told):
        held = f"{len(told)} items" if isinstance(told, list) else repr(told)[:60]
        return Problem(
            "no-rule", held, f"A rule is a list of {looks} pairs (give_up, win).", "Write one pair per look."
        )
    for i, row in enumerate(told, 1):
        if len(row) != 2 or not all(type(value) in (int, float) for value in row):
            why, next_ = "Each look has two numbers: give_up and win.", "Write (0, 3), for example."
            return Problem("no-pair", repr(row)[:80], why, next_, f"look {i}")
        if not 0 <= row[0] <= row[1] <= HIGHEST or row[1] == 0:
            why = f"They are borders of |z|: 0 <= give_up <= win <= {HIGHEST:g}, and win is above 0."
            return Problem(
                "no-border", f"({row[0]:g}, {row[1]:g})", why, "Use give_up 0 for never giving up.", f"look {i}"
            )
    return None


@functools.cache
def _best() -> tuple[tuple[float, float], ...]:
    """Return the cheapest rule of a family: borders from power spending, and a straight line for giving up."""
    found: list[tuple[float, tuple[tuple[float, float], ...]]] = []
    for phi in (0.5, 1.0, 2.0, 3.0):
        wins = lan_demets(equal_looks(stopping.LOOKS), stopping.MOST_FALSE, power_spending(phi))
        for start in (-0.5, -0.4, -0.3, -0.2, -0.1):
            for slope in (0.15, 0.175, 0.20, 0.225, 0.25):
                rule = tuple((min(max(0.0, start + slope * k), win), win) for k, win in enumerate(wins, 1))
                if stopping.power(rule) >= stopping.LEAST_POWER:
                    found.append((stopping.mean_users(rule), rule))
    return min(found)[1]


def _one_look(seed: int) -> float:
    rule = [(0.0, HIGHEST)] * (stopping.LOOKS - 1) + [(0.0, lab.Z)]
    return stopping.mean_users(rule, seed)


def _pocock(seed: int) -> float:
    return stopping.mean_users([(0.0, win) for win in pocock(stopping.LOOKS)], seed)


STOPPING = OpenProblem(
    id="9.8",
    name="rule",
    title="Stop sooner",
    minutes=20,
    difficulty=4,
    keeps_rules=_keeps_rules,
    score=stopping.mean_users,
    unit="users per test",
    bars=(
        Bar("one look", _one_look, "Which tests are decided long before the last look?"),
        Bar(
            "Pocock",
            _pocock,
            "Half of all ideas do nothing, and their tests run to the end. How could they end sooner?",
        ),
        Bar(
            "par",
            lambda seed: PAR * stopping.mean_users(_best(), seed),
            "Give up where a 2-point lift would show by now.",
        ),
    ),
    hints=(
        "Two kinds of tests waste users: those of large lifts, which win could end, and those of nothing, which only "
        "give_up can end. Which are more?",
        "At look k a lift of 2 points has a mean |z| of about ___ x sqrt(k / 10), and it varies by 1. So |z| below "
        "___ at look k makes such a lift unlikely. Begin with give_up 0 and let it rise; win from "
        "lan_demets(equal_looks(10), 0.05, power_spending(___)).",
        "With three looks: win (3.0, 2.4, 2.0) alone ends tests of nothing at look 3. With give_up (0, 0.7, 2.0) half "
        "of them end at look 2. Lower give_up until the power is back above its limit.",
    ),
)

QUESTIONS = (MIX, EVIDENCE, PLAN, PEEK, SPLIT, BIASED, MEMO, STOPPING)
