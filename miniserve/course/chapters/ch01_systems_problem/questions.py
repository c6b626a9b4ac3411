"""Chapter 1, serving as a systems problem: the questions, the right answers, and what each wrong answer means."""

from __future__ import annotations

from random import Random

from miniserve.course.chapters.ch01_systems_problem import lab
from miniserve.course.check.ask import Json
from miniserve.course.check.kinds import Classify, FreeText, Predict, Witness, locked_all
from miniserve.course.check.numbers import Formula, Misconception, Number, Params, round_between
from miniserve.course.check.verdict import Problem

# --- 1.1 a formula -------------------------------------------------------------------------------------------------


def _draw_stay(rng: Random) -> Params:
    return {
        "per_hour": rng.randrange(60, 20_000),
        "waits_s": round_between(rng, 0.1, 20),
        "answers_s": round_between(rng, 2, 60),
    }


IN_FLIGHT = Formula(
    id="1.1",
    name="in_flight",
    title="How many are inside at once",
    minutes=7,
    draw=_draw_stay,
    truth=lambda per_hour, waits_s, answers_s: per_hour / 3600 * (waits_s + answers_s),
    misconceptions=(
        Misconception(
            "per-hour",
            "You multiplied requests per hour by seconds: the units do not cancel.",
            lambda per_hour, waits_s, answers_s: per_hour * (waits_s + answers_s),
            "How many arrive in one second?",
        ),
        Misconception(
            "per-minute",
            "You divided by 60: that gives requests per minute, but the times are in seconds.",
            lambda per_hour, waits_s, answers_s: per_hour / 60 * (waits_s + answers_s),
            "How many seconds are there in an hour?",
        ),
        Misconception(
            "answering-only",
            "You left out the waiting requests. They are inside as well: the service has to hold them.",
            lambda per_hour, waits_s, answers_s: per_hour / 3600 * answers_s,
            "W is the whole stay, from arriving to leaving.",
        ),
        Misconception(
            "waiting-only",
            "You counted only the waiting requests. Those being answered are inside as well.",
            lambda per_hour, waits_s, answers_s: per_hour / 3600 * waits_s,
            "W is the whole stay, from arriving to leaving.",
        ),
        Misconception(
            "divided",
            "You divided by the stay, but longer stays mean more requests inside.",
            lambda per_hour, waits_s, answers_s: per_hour / 3600 / (waits_s + answers_s),
            "Twice the stay must give twice as many inside.",
        ),
        Misconception(
            "rate-alone",
            "This is how many arrive per second. How many are inside depends on how long each stays.",
            lambda per_hour, waits_s, answers_s: per_hour / 3600,
            "Multiply by a time.",
        ),
    ),
    hints=(
        "Little's law needs two things: how many arrive per second, and how long each one stays in all.",
        "arrivals per second = per_hour / ___; stay = ___ + ___; inside = arrivals per second x stay.",
        "With other numbers: 7,200 per hour are 2 per second. If each waits 1 s and is answered in 4 s, it stays 5 s: "
        "2 x 5 = 10 are inside.",
    ),
)

# --- 1.2 a number --------------------------------------------------------------------------------------------------


def _draw_fleet(rng: Random) -> Params:
    pairs = ((80, 0.01), (40, 0.02), (120, 0.01), (30, 0.02), (60, 0.02), (150, 0.005), (80, 0.005))
    gpus, fails_per_day = rng.choice(pairs)
    return {"gpus": gpus, "fails_per_day": fails_per_day}


NO_FAILURE = Number(
    id="1.2",
    name="quiet_day",
    title="A day on which nothing breaks",
    minutes=5,
    draw=_draw_fleet,
    truth=lambda gpus, fails_per_day: (1 - fails_per_day) ** gpus,
    misconceptions=(
        Misconception(
            "added",
            "You added up the probabilities of failing, which counts days with two failures twice.",
            lambda gpus, fails_per_day: 1 - gpus * fails_per_day,
            "With enough GPUs this would be below zero, and no probability is.",
        ),
        Misconception(
            "at-least-one",
            "This is the probability that at least one fails: the opposite of what is asked.",
            lambda gpus, fails_per_day: 1 - (1 - fails_per_day) ** gpus,
            "More GPUs must make a quiet day rarer.",
        ),
        Misconception(
            "expected-failures",
            "This is the expected number of failures per day, not a probability: it can be above 1.",
            lambda gpus, fails_per_day: gpus * fails_per_day,
            "What must be true of every single GPU on a quiet day?",
        ),
        Misconception(
            "one-gpu",
            "This is the probability for one GPU. All of them must get through the day.",
            lambda gpus, fails_per_day: 1 - fails_per_day,
            "For two independent GPUs, you multiply the probabilities.",
        ),
        Misconception(
            "all-fail",
            "This is the probability that every one of them fails.",
            lambda gpus, fails_per_day: fails_per_day**gpus,
            "What is the probability that one GPU doesn't fail?",
        ),
    ),
    hints=(
        "On a quiet day the first GPU gets through, and so does the second, and so on to the last.",
        "One gets through with probability 1 - ___. All of them, independently: that number to the power of ___.",
        "With other numbers: three machines that each fail on one day in ten: 0.9 x 0.9 x 0.9 = 0.729.",
    ),
)

# --- 1.3 a witness -------------------------------------------------------------------------------------------------

_KEYS = ("arrivals_per_s", "replicas")
MOST_PER_S, MOST_REPLICAS = 5, 4


def _admissible(told: Json) -> Problem | None:
    if not (isinstance(told, dict) and set(told) == set(_KEYS)):
        why = f"The keys are {' and '.join(_KEYS)}."
        return Problem("no-load", repr(told)[:80], why, "Write a dictionary with these two.", "the answer as a whole")
    rate, replicas = told["arrivals_per_s"], told["replicas"]
    if type(rate) not in (int, float) or not 0.02 <= rate <= MOST_PER_S:
        why = f"arrivals_per_s is a number from 0.02 to {MOST_PER_S}."
        return Problem("no-rate", repr(rate)[:80], why, "Requests per second, all GPUs together.", "arrivals_per_s")
    if type(replicas) is not int or not 1 <= replicas <= MOST_REPLICAS:
        why = f"replicas is a whole number from 1 to {MOST_REPLICAS}."
        return Problem("no-replicas", repr(replicas)[:80], why, "Count GPUs.", "replicas")
    return None


def _judge_load(told: Json) -> Problem | None:
    if (problem := _admissible(told)) is not None:
        return problem
    found = lab.under_load(float(told["arrivals_per_s"]), told["replicas"])
    where = f"{told['arrivals_per_s']:g} requests/s on {told['replicas']} GPU(s)"
    if found.mean_s > lab.FINE_MEAN_S:
        why = f"The mean is above {lab.FINE_MEAN_S:g} s: here even the mean shows that something is wrong."
        return Problem("mean-is-bad", repr(found), why, "Lower the load a little, or add a GPU.", where)
    if found.within_share >= lab.PROMISED_SHARE:
        why = f"{lab.PROMISED_SHARE:.0%} or more are within {lab.PROMISE_S:g} s, so the promise is kept."
        return Problem("promise-kept", repr(found), why, "Raise the load, or remove a GPU.", where)
    if found.within_share >= lab.BROKEN_SHARE:
        why = f"It is only just broken; you need fewer than {lab.BROKEN_SHARE:.0%} within {lab.PROMISE_S:g} s."
        return Problem("broken-by-little", repr(found), why, "Raise the load a little further.", where)
    return None


FINE_MEAN = Witness(
    id="1.3",
    name="load",
    title="A fine mean and a broken promise",
    minutes=8,
    difficulty=3,
    judge_value=_judge_load,
    hints=(
        "Mean and p99 both rise with the load, but not together: which one crosses its limit first?",
        "Start where both are fine. Raise arrivals_per_s until the share within 4 s < ___; stop before mean > ___ s.",
        "For another service, with a limit of 10 s: at 20 requests/s mean 1 s and 99.5 % within it, at 26 mean 3 s "
        "and 93 % (broken, but the mean looks fine), at 30 mean 15 s and 40 % (impossible to miss).",
    ),
)

# --- 1.4 a formula -------------------------------------------------------------------------------------------------


def _draw_update(rng: Random) -> Params:
    return {
        "per_hour": rng.randrange(500, 20_000),
        "exposure": round_between(rng, 0.01, 0.4),
        "hours": round_between(rng, 0.1, 6),
        "bad_before": round_between(rng, 0.001, 0.02),
        "bad_after": round_between(rng, 0.05, 0.5),
    }


BLAST = Formula(
    id="1.4",
    name="hurt",
    title="How many an update hurts",
    minutes=6,
    draw=_draw_update,
    truth=lambda per_hour, exposure, hours, bad_before, bad_after: (
        per_hour * exposure * hours * (bad_after - bad_before)
    ),
    misconceptions=(
        Misconception(
            "everybody-exposed",
            "You counted everyone who met the new version; most of them got a good answer.",
            lambda per_hour, exposure, hours, bad_before, bad_after: per_hour * exposure * hours,
            "What share of them got a bad answer because of the update?",
        ),
        Misconception(
            "whole-service",
            "You let the new version answer all requests.",
            lambda per_hour, exposure, hours, bad_before, bad_after: per_hour * hours * (bad_after - bad_before),
            "Only the share `exposure` goes to it.",
        ),
        Misconception(
            "all-bad-answers",
            "You blame the update for bad answers that the old version would have given anyway.",
            lambda per_hour, exposure, hours, bad_before, bad_after: per_hour * exposure * hours * bad_after,
            "With bad_after = bad_before the answer must be 0.",
        ),
        Misconception(
            "one-hour",
            "This is for one hour only.",
            lambda per_hour, exposure, hours, bad_before, bad_after: per_hour * exposure * (bad_after - bad_before),
            "The update stays until it is rolled back: multiply by the hours.",
        ),
        Misconception(
            "the-others",
            "You counted the requests that kept the old version.",
            lambda per_hour, exposure, hours, bad_before, bad_after: (
                per_hour * (1 - exposure) * hours * (bad_after - bad_before)
            ),
            "With exposure = 0 the answer must be 0.",
        ),
        Misconception(
            "exchanged",
            "You subtracted the new version's share of bad answers from the old one's.",
            lambda per_hour, exposure, hours, bad_before, bad_after: (
                per_hour * exposure * hours * (bad_before - bad_after)
            ),
            "For an update that gives more bad answers, the number must be above 0.",
        ),
    ),
    hints=(
        "First: how many requests meet the new version at all? Then: what share of these is bad only because of it?",
        "requests that meet it = per_hour x ___ x ___; made bad by it = that x (___ - ___).",
        "With other numbers: 100 requests/h, half of them exposed for 4 h: 200 meet it. From 10 % bad to 15 % bad: "
        "5 % of 200 is 10.",
    ),
)

# --- 1.5 a number --------------------------------------------------------------------------------------------------


def _draw_bill(rng: Random) -> Params:
    return {
        "machines": rng.choice((3, 4, 5, 6)),
        "usd_per_hour": lab.machine().usd_per_hour,
        "requests_per_day": rng.choice((4000, 6000, 9000, 12_000)),
        "busy_fraction": rng.choice((0.55, 0.65, 0.7)),
    }


def _cents(machines: int, usd_per_hour: float, requests_per_day: int, busy_fraction: float) -> float:
    return 100 * machines * usd_per_hour * 24 / requests_per_day


PER_ANSWER = Number(
    id="1.5",
    name="cents_per_answer",
    title="What one answer costs",
    minutes=5,
    unit="cent",
    draw=_draw_bill,
    truth=_cents,
    misconceptions=(
        Misconception(
            "busy-only",
            "You paid for the busy hours only. A rented machine costs the same while it idles.",
            lambda **given: _cents(**given) * given["busy_fraction"],
            "Which of the given numbers does the bill not depend on?",
        ),
        Misconception(
            "per-busy-hour",
            "You divided by the busy share, but the day's requests are already counted in full.",
            lambda **given: _cents(**given) / given["busy_fraction"],
            "Which of the given numbers does the bill not depend on?",
        ),
        Misconception(
            "one-hour",
            "You divided one hour's bill by a whole day's requests.",
            lambda **given: _cents(**given) / 24,
            "Take both for a day.",
        ),
        Misconception(
            "one-machine",
            "This is the bill for one machine.",
            lambda **given: _cents(**given) / given["machines"],
            "You pay for all of them.",
        ),
        Misconception(
            "dollars",
            "This is in USD; the answer should be in cents.",
            lambda **given: _cents(**given) / 100,
            'Multiply by 100, or give a string with "USD" after the number.',
        ),
        Misconception(
            "upside-down",
            "This is answers per USD.",
            lambda **given: 100 / _cents(**given),
            "Money on top, answers below.",
        ),
    ),
    hints=(
        "What does a day cost, however busy it is? Then divide that among the day's answers.",
        "a day = machines x USD per hour x ___; one answer = a day / ___; one USD is 100 cents.",
        "With other numbers: two machines at 1.50 USD an hour cost 2 x 1.50 x 24 = 72 USD a day, however busy they "
        "are. Spread over 7,200 answers, that is 1 cent each.",
    ),
)

# --- 1.6 a prediction ----------------------------------------------------------------------------------------------

CROWD = Predict(
    id="1.6",
    name="seconds_between",
    title="Five hundred at once",
    minutes=10,
    difficulty=3,
    unit="s",
    experiment=lambda: lab.at_once(lab.CROWD).ends_s,
    widest=1.5,
    too_low="Sixteen share the base of a step, but each still pays for its own prompt, rows and context.",
    too_high="They don't run one after another: up to sixteen share the base of each step.",
    hints=(
        "Add up what all requests need together: what each pays for alone, and what up to sixteen share.",
        "It pays alone for prompt tokens x ___ and answer tokens x (row + context x ___). Its share of the base "
        "is answer tokens x base / ___. Add up the three, and multiply by 500.",
        "With other numbers: a base of 10 ms shared by 5, 2 ms per row and no context, prompts of 100 ms, answers of "
        "50 tokens: 0.1 + 50 x (0.010 / 5 + 0.002) = 0.3 s each; 200 of them take 60 s.",
    ),
)

# --- 1.7 classify --------------------------------------------------------------------------------------------------

WHOSE = Classify(
    id="1.7",
    name="whose",
    title="A model problem or a systems problem",
    minutes=6,
    items=lab.CLAIMS,
    options=tuple(lab.SIDES),
    keys=locked_all(
        "1.7", a="systems", b="model", c="systems", d="systems", e="model", f="systems", g="model", h="systems"
    ),
    because={
        "a": "The same model answers the same question fast when few ask: what differs is how many ask at once.",
        "b": "It is wrong for every customer at any hour. No number of machines changes what the model believes.",
        "c": "The model plays no part. Large fleets fail often; what counts is what happens to their requests.",
        "d": "Any update may be bad. It met all customers for half an hour because of how it was rolled out.",
        "e": "They are wrong even without hurry or load: better machines would give the same text faster.",
        "f": "What you pay while hardly anyone asks depends on how many machines run at that time.",
        "g": "It happens to one user on one machine, so scale can't be the cause.",
        "h": "Each answer may be excellent. How long customers wait for it depends on load, sharing and machines.",
    },
    hints=(
        "Ask of each claim: would it still be true with a single user, one healthy machine, and no hurry?",
        "If it would, it is a ___ problem. If it wouldn't, it is a ___ problem.",
        "Other claims: it always rhymes badly: the model. It is down on Sundays, when a job fills the disk: systems.",
    ),
)

# --- 1.8 free text -------------------------------------------------------------------------------------------------

LETTER = FreeText(
    id="1.8",
    name="letter",
    title="A better model will not fix it",
    minutes=10,
    difficulty=3,
    at_least_words=50,
    rubric=(
        "Says that the answers themselves are not the complaint, or separates the two kinds of problem.",
        "Explains waiting by how many are inside at once (Little's law, or one against 500), with a number.",
        "Says that failures are routine in a fleet, with a number.",
        "Says that a mean does not show who waits too long, or what a promise must name.",
        "Proposes at least one measure that follows from its reasons (machines, small exposure, alarms), and its cost.",
    ),
    model_answer=(
        "The answers are good; our customers complain that they come late or not at all. Our test machine answers one "
        "question alone in 0.7 s; of 500 at once, it answers the last after about 100 s, with the same model. A "
        "better model is usually a larger one, which makes each step slower. If each GPU fails on one day in a "
        "hundred, eighty GPUs get through fewer than half of all days without a failure, so handling one must be "
        "routine. Our mean waiting time looks fine while the promise is broken, so we have to watch the 99th "
        "percentile. I propose one more GPU, at 17 USD a day, and updates that reach one customer in a hundred first."
    ),
    hints=(
        "Of the five things in sections 3 to 7, which did customers feel, and which one did the manager notice?",
        "One sentence for each: with ___ at once ... ; of ___ GPUs ... ; the mean is ___, but ... ; it costs ___.",
        'About another service: "Our map search is right. On Fridays 90 people are inside at once instead of 6, '
        'and the mean of 0.8 s hides the one in forty who waits for more than ten."',
    ),
)

QUESTIONS = (IN_FLIGHT, NO_FAILURE, FINE_MEAN, BLAST, PER_ANSWER, CROWD, WHOSE, LETTER)
