"""Chapter 6, percentiles, not averages: its questions, their answers, and what each wrong answer means."""

from __future__ import annotations

import math
from random import Random

from miniserve.course.chapters.ch06_percentiles.lab import COUNTS, OPTIONS, UPPER_S, larkspur_day
from miniserve.course.chapters.ch06_percentiles.lab import PROMISES as TEXTS
from miniserve.course.check.ask import Json
from miniserve.course.check.kinds import Classify, FreeText, Kill, Predict, Trace, Witness, locked_all
from miniserve.course.check.numbers import Formula, Misconception, Number, Params, round_between
from miniserve.course.check.verdict import Problem
from miniserve.observe.percentiles import percentile, rank

# --- 6.1 a witness -------------------------------------------------------------------------------------------------

FEWEST, MOST, MEAN_S, P99_S = 100, 1000, 1.0, 20.0


def _judge_latencies(told: Json) -> Problem | None:
    if not isinstance(told, list) or not all(type(value) in (int, float) for value in told):
        others = [value for value in told if type(value) not in (int, float)] if isinstance(told, list) else [told]
        seen = f"{'it holds ' if isinstance(told, list) else ''}{others[0]!r}"
        return Problem("no-list", seen[:80], "Give a list of numbers.", "For example [0.3] * 50 + [9].")
    if not FEWEST <= len(told) <= MOST:
        why = f"Between {FEWEST} and {MOST} are needed; with fewer, the p99 is simply the slowest."
        return Problem("how-many", f"{len(told)} latencies", why, "Repeat values: [0.3] * 80 is eighty of them.")
    if min(told) <= 0:
        return Problem("no-time", f"the smallest is {min(told):g} s", "Every answer takes some time.", "Stay above 0.")
    mean, tail, slow = sum(told) / len(told), percentile(told, 99), sum(value > P99_S for value in told)
    seen = f"mean {mean:.4g} s, p99 {tail:.4g} s; {slow} of {len(told)} values are above {P99_S:g} s"
    if tail <= P99_S and slow:
        place = rank(99, len(told))
        why = (
            f"The p99 of {len(told)} values is number {place} in order, and {len(told) - place} may be slower than "
            "that."
        )
        return Problem("one-too-few", seen, why, "How many slow ones does it take to reach down to that place?")
    if tail <= P99_S:
        return Problem("no-tail", seen, "No value is slow enough.", f"Let more than 1 % take over {P99_S:g} s.")
    if mean >= MEAN_S:
        why = "The slow ones use up the mean: for a mean below 1 s the sum must stay below the number of values."
        return Problem("mean-too-high", seen, why, "Make them fewer or less slow, or the others faster.")
    return None


LATENCIES = Witness(
    id="6.1",
    name="latencies_s",
    title="A mean below 1 s, a p99 above 20 s",
    minutes=6,
    judge_value=_judge_latencies,
    hints=(
        "The mean is a sum in disguise: what can 100 values with a mean below 1 s add up to at most? How much of "
        "that may go to a few?",
        "By nearest rank, the p99 of n values is at place ceil(0.99 n). All values from that place on must be above "
        "20 s; how many are there?",
        "With other numbers: 40 values with a mean below 2 s and a p95 above 10 s. The p95 is at place ceil(38) = "
        "38, so it takes three slow ones: [0.5] * 37 + [11] * 3 has a mean of 1.29 s and a p95 of 11 s.",
    ),
)

# --- 6.2 a kill ----------------------------------------------------------------------------------------------------


def _admissible(told: Json) -> Problem | None:
    if not (isinstance(told, dict) and set(told) == {"values", "p"}):
        return Problem("no-input", repr(told)[:80], "The keys are values and p.", 'Write {"values": [...], "p": ...}.')
    values, p = told["values"], told["p"]
    if not (isinstance(values, list) and 1 <= len(values) <= 20 and all(type(v) in (int, float) for v in values)):
        return Problem("no-values", repr(values)[:80], "values holds 1 to 20 numbers.", "A short list will do.")
    if not (type(p) in (int, float) and 0 < p <= 100):
        return Problem("no-p", repr(p)[:80], "p is a number above 0 and at most 100.", "Such as 50, 90 or 99.")
    return None


def _at(values: list[float], place: float) -> float:
    return values[max(1, math.ceil(place)) - 1]


def _unsorted(told: Json) -> Json:
    return _at(told["values"], rank(told["p"], len(told["values"])))


def _rounds(told: Json) -> Json:
    values = sorted(told["values"])
    return _at(values, math.floor(told["p"] * len(values) / 100))


def _drops_equals(told: Json) -> Json:
    values = sorted(set(told["values"]))
    return _at(values, rank(told["p"], len(values)))


BUGS = Kill(
    id="6.2",
    name="test_input",
    title="One test that finds three bugs",
    minutes=8,
    difficulty=3,
    admissible=_admissible,
    correct=lambda told: percentile(told["values"], told["p"]),
    buggy={
        "never-sorts": (_unsorted, "It never sorts: which order of the values would show that?"),
        "rounds-down": (
            _rounds,
            "It takes the place floor(p/100 n), but at least 1: do that place and ceil(p/100 n) hold different values?",
        ),
        "equals-once": (_drops_equals, "It makes a set first: do repeated values matter in your list?"),
    },
    hints=(
        "Each bug needs one property of the input: an order, a number of values, a repeated value. Put all three in "
        "one list.",
        "p/100 n should lie between two whole numbers, the places on either side should hold different values, and "
        "the p-th percentile of the set should differ from that of the list.",
        "With other bugs: to catch one that takes the largest for p = 50 and one that fails on negative numbers, "
        "[-3, 5, 9] will do: the p50 is 5, the first gives 9, the second raises.",
    ),
)

# --- 6.3 a prediction ----------------------------------------------------------------------------------------------

TAIL = Predict(
    id="6.3",
    name="p99_between_s",
    title="The p99 of a day with one slow lunch",
    minutes=6,
    unit="s",
    experiment=lambda: percentile(larkspur_day().ttft_s, 99),
    widest=3.0,
    too_low="What share of the day's requests met the slow GPU? If it is above 1 %, the p99 is one of theirs.",
    too_high="Only the slowest requests that met the slow GPU waited out the 30 s. Where in that group is the p99?",
    hints=(
        "The p99 is one request's time. First ask whose: one from an ordinary hour, or one that met the slow GPU?",
        "Share that met it = (share of the day's requests in that hour) x (part of the hour) x (one GPU of three).",
        "With other numbers: if an hour has 6 % of the requests, and half of them meet a fault, 3 % do, so the p99 "
        "lies a third of the way into that group, counted from its slowest end. With 0.5 %, the p99 would be an "
        "ordinary one.",
    ),
)

# --- 6.4 a formula -------------------------------------------------------------------------------------------------


def _draw_session(rng: Random) -> Params:
    return {"p": round_between(rng, 0.005, 0.2), "k": rng.randrange(2, 41)}


SESSION = Formula(
    id="6.4",
    name="sees_the_tail",
    title="How many sessions meet the tail",
    minutes=6,
    truth=lambda p, k: 1 - (1 - p) ** k,
    draw=_draw_session,
    misconceptions=(
        Misconception(
            "added",
            "You added the probabilities: with p = 0.2 and ten requests, that would be 200 %.",
            lambda p, k: k * p,
            "Turn it round: what is the chance that none is slow?",
        ),
        Misconception(
            "none-slow",
            "This is the chance that no request is slow.",
            lambda p, k: (1 - p) ** k,
            "The question is about at least one.",
        ),
        Misconception(
            "all-slow",
            "This is the chance that every request is slow.",
            lambda p, k: p**k,
            "One slow request is enough to spoil a session.",
        ),
        Misconception(
            "not-all-slow",
            "This is the chance that they are not all slow: you negated the wrong event.",
            lambda p, k: 1 - p**k,
            'The opposite of "at least one is slow" is "all are fast".',
        ),
        Misconception(
            "exactly-one",
            "This is the chance of exactly one slow request.",
            lambda p, k: k * p * (1 - p) ** (k - 1),
            "A session with two slow ones counts as well.",
        ),
        Misconception(
            "one-fewer",
            "You counted one request too few.",
            lambda p, k: 1 - (1 - p) ** (k - 1),
            "For k = 1 the answer must be p.",
        ),
    ),
    hints=(
        '"At least one" is many cases: one, two, three. Its opposite is a single case.',
        "The probability of a fast one is (1 - p). Independent probabilities multiply: all k requests are fast with "
        "probability ___ ** ___. What is left of 1?",
        "With other numbers: if half of all requests were slow, a session of three would be all fast with "
        "probability 0.5 x 0.5 x 0.5 = 0.125, and meet a slow one with probability 0.875.",
    ),
)

# --- 6.5 a trace ---------------------------------------------------------------------------------------------------

_HELD = (50, 95, 99)


def _merged_rows() -> list[tuple[float, int, int, str]]:
    merged = [sum(counts) for counts in zip(*COUNTS.values(), strict=True)]
    rows, before = [], 0
    for upper_s, count in zip(UPPER_S, merged, strict=True):
        held = [f"p{p}" for p in _HELD if before < rank(p, sum(merged)) <= before + count]
        before += count
        rows.append((upper_s, count, before, held[0] if held else "-"))
    return rows


def _explain_merging(row: int, column: str, seen: Json, right: Json) -> tuple[str, str]:
    _, merged, cumulative, _ = _merged_rows()[row + 2]
    if column == "upper_s":
        return "bound", "The bounds are those of the buckets, in order; yours begin with 2.0."
    if column == "merged" and type(seen) in (int, float) and abs(seen - merged / len(COUNTS)) < 1:
        return "averaged", "You averaged the counts. All three replicas' requests happened, so their counts add up."
    if column == "merged":
        return "not-the-sum", "It should be the sum of the three replicas' counts in this bucket."
    if column == "cumulative" and seen == merged:
        return "not-running", "This is the bucket's own count; the running total adds all buckets before it."
    if column == "cumulative":
        return "running-total", "It should be the previous row's total plus this bucket's merged count."
    if seen not in ("-", *(f"p{p}" for p in _HELD)):
        return "no-mark", 'This column holds "p50", "p95", "p99" or, if none of them lies in this bucket, "-".'
    total = _merged_rows()[-1][2]
    first = cumulative - merged + 1
    why = f"This bucket holds places {first} to {cumulative} of {total}. At which place are p50, p95 and p99?"
    return ("bucket-of-nobody" if right == "-" else "bucket-not-seen"), why


MERGE = Trace(
    id="6.5",
    name="rows",
    title="Three replicas, one p99",
    minutes=10,
    difficulty=3,
    truth=lambda: _merged_rows()[2:],
    columns=("upper_s", "merged", "cumulative", "holds"),
    explain=_explain_merging,
    hints=(
        "You can add up counts of the same bucket, whichever replica they come from. That leaves one list of "
        "buckets, and you know how to find a place in a list.",
        "merged = A + B + C; cumulative = cumulative of the previous row + merged; a bucket holds p99 if the place "
        "ceil(0.99 x total) comes after the previous row's total but not after this row's.",
        "With other numbers: buckets of 6, 3 and 1 requests have totals 6, 9 and 10. The p50 is place 5, in the "
        "first bucket; the p90 is place 9, in the second; the p99 is place 10, in the third.",
    ),
)

# --- 6.6 a number --------------------------------------------------------------------------------------------------


def _draw_percentile(rng: Random) -> Params:
    return {"p": rng.choice((97, 98, 99, 99.5, 99.8, 99.9)), "confidence": rng.choice((0.8, 0.9, 0.95))}


SAMPLES = Number(
    id="6.6",
    name="requests_needed",
    title="How many requests a percentile needs",
    minutes=8,
    difficulty=3,
    draw=_draw_percentile,
    truth=lambda p, confidence: math.ceil(math.log(1 - confidence) / math.log(p / 100)),
    rtol=0.0,
    misconceptions=(
        Misconception(
            "one-expected",
            "With this many, one is slower than the percentile on average, but in more than a third of all cases "
            "none is.",
            lambda p, confidence: round(100 / (100 - p)),
            "What is the chance that all of them lie below it?",
        ),
        Misconception(
            "rounded-down",
            "This many don't quite reach the confidence.",
            lambda p, confidence: math.floor(math.log(1 - confidence) / math.log(p / 100)),
            "Take the next whole number.",
        ),
        Misconception(
            "not-whole",
            "A request is either measured or not, so this must be a whole number, and one fewer isn't enough.",
            lambda p, confidence: math.log(1 - confidence) / math.log(p / 100),
            "Take the next whole number above.",
        ),
        Misconception(
            "chances-swapped",
            "You gave the case that all lie below the probability that belongs to at least one above.",
            lambda p, confidence: math.ceil(math.log(confidence) / math.log(p / 100)),
            "All may lie below with probability 1 - confidence.",
        ),
        Misconception(
            "wrong-base",
            "You multiplied the probability of lying above the percentile.",
            lambda p, confidence: math.ceil(math.log(1 - confidence) / math.log(1 - p / 100)),
            "Each request lies below it with probability p/100.",
        ),
        Misconception(
            "two-sided",
            "You kept half of the doubt for the other side, but there is only one side here.",
            lambda p, confidence: math.ceil(math.log((1 - confidence) / 2) / math.log(p / 100)),
            "All of 1 - confidence may go to the case that all lie below.",
        ),
    ),
    hints=(
        "A sample says nothing about how large the percentile may be if all of it lies below. How likely is that?",
        "One request lies below with probability p/100, n of them with (p/100) ** n. Find the smallest n for which "
        "that is at most 1 - confidence; logarithms bring n down.",
        "With other numbers: for the p70 and a confidence of nine in ten, 0.7 ** n must be at most 0.1. 0.7 ** 6 is "
        "0.118 and 0.7 ** 7 is 0.082, so seven.",
    ),
)

# --- 6.7 classify --------------------------------------------------------------------------------------------------

PROMISES = Classify(
    id="6.7",
    name="promises",
    title="What is wrong with this promise?",
    minutes=8,
    options=tuple(OPTIONS),
    items=TEXTS,
    keys=locked_all(
        "6.7",
        a="sound",
        b="hides the tail",
        c="names no limit",
        d="names no window",
        e="averages percentiles",
        f="can never be kept",
        g="rests on too few",
        h="leaves out failures",
        i="sound",
    ),
    because={
        "a": "A percentage, a limit, a window, a place to measure, and what counts as a failure: nothing is missing.",
        "b": "You can keep a mean while one request in a hundred waits for half a minute.",
        "c": "A percentile without a number of seconds can be neither kept nor broken.",
        "d": "The p95 over what period: a minute, a month? Over a month a bad day disappears; over a minute one "
        "spike breaks it.",
        "e": "A mean of percentiles isn't a percentile: 29 quiet days dilute one dreadful day, however busy it was.",
        "f": "100 % of all requests, for ever, includes those during a crash. Anyone who signs this will break it.",
        "g": "The p99 of 20 values is the largest of them, so one slow request breaks the promise, by chance alone.",
        "h": "A service that refuses half of its requests keeps this promise easily. Failures must count as too slow.",
        "i": "Another percentage, another window and another place to measure, and all of them are stated.",
    },
    hints=(
        "For each promise, be the lawyer: how could Larkspur keep it to the letter and still leave customers "
        "unhappy? Or could anyone keep it at all?",
        "A promise has to say which requests (and what of failures), which percentage, which limit, and over what "
        "period. What is missing, or turned into a mean?",
        'With another promise: "p90 of the time to first token below 3 s, over each day, of requests under 200 tokens" '
        "says all four. Without the last part, nobody could tell whether a 10,000-token prompt counts.",
    ),
)

# --- 6.8 free text -------------------------------------------------------------------------------------------------

REPORT = FreeText(
    id="6.8",
    name="report",
    title="The line in the weekly report",
    minutes=8,
    difficulty=3,
    at_least_words=40,
    rubric=(
        "Replaces the average with a percentile, its limit and its window, and gives the day's number.",
        "Says what the average hid: that about one request in thirty waited many seconds, and when.",
        "Counts people, not only requests: sessions that meet the tail, or that the slow answers came together.",
        "Says how the number was computed: from all replicas' requests together, not as a mean of three p99s, and "
        "from how many.",
    ),
    model_answer=(
        "On Tuesday the p99 of the time to first token, over all 4,300 requests of the day and all three GPUs "
        "together, was 16 s; we promise 4 s. The average of 1.4 s hid that: between 13:00 and 13:40 one GPU was "
        "slow, and about one in thirty of the day's requests waited longer than 4 s, up to half a minute. They came "
        "together, so customers during that lunch hour met several in one session while most others saw none. I "
        "propose to report the daily p99 against 4 s, with failures counted as slow, and never the mean of the "
        "GPUs' own p99s."
    ),
    hints=(
        "Your manager will repeat one sentence of yours in a meeting. Which number should be in that sentence?",
        "Which figure, against which limit, over what period, of how many requests? Who waited, when, and how long?",
        'About another service: "On Monday 97 % of the 12,000 uploads finished within our 30 s; the other 3 % all fell '
        'in the hour of the backup, so every shop that uploaded at that time was hit."',
    ),
)

QUESTIONS = (LATENCIES, BUGS, TAIL, SESSION, MERGE, SAMPLES, PROMISES, REPORT)
