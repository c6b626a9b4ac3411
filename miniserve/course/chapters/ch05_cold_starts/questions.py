"""Chapter 5, cold starts and prediction: its questions, their answers, and what each wrong answer means."""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from random import Random

from miniserve.course.chapters.ch05_cold_starts import lab
from miniserve.course.check.ask import Json
from miniserve.course.check.kinds import Classify, FreeText, Predict, Trace, Witness, locked_all
from miniserve.course.check.numbers import Formula, Misconception, Number, Params, round_between
from miniserve.course.check.verdict import Problem

# --- 5.1 a formula -------------------------------------------------------------------------------------------------


def _draw_start(rng: Random) -> Params:
    return {
        "provision_s": round_between(rng, 20, 120),
        "parameters": round_between(rng, 1e9, 70e9),
        "bytes_per_weight": rng.choice((0.5, 2.0, 4.0)),
        "bytes_per_s": round_between(rng, 0.2e9, 5e9),
        "warm_up_s": round_between(rng, 5, 60),
    }


def _cold_start_s(
    provision_s: float, parameters: float, bytes_per_weight: float, bytes_per_s: float, warm_up_s: float
) -> float:
    return provision_s + parameters * bytes_per_weight / bytes_per_s + warm_up_s


COLD_START = Formula(
    id="5.1",
    name="cold_start_s",
    title="From asking to the first answer",
    minutes=6,
    draw=_draw_start,
    truth=_cold_start_s,
    misconceptions=(
        Misconception(
            "weights-for-bytes",
            "You divided the number of weights by bytes per second, but a weight isn't one byte.",
            lambda provision_s, parameters, bytes_per_weight, bytes_per_s, warm_up_s: (
                provision_s + parameters / bytes_per_s + warm_up_s
            ),
            "How many bytes do all weights take up?",
        ),
        Misconception(
            "bits",
            "You counted bits. The bandwidth is in bytes per second.",
            lambda provision_s, parameters, bytes_per_weight, bytes_per_s, warm_up_s: (
                provision_s + 8 * parameters * bytes_per_weight / bytes_per_s + warm_up_s
            ),
            "Leave out the factor of 8.",
        ),
        Misconception(
            "load-only",
            "This is the loading alone. Nothing can be loaded before the machine is there.",
            lambda provision_s, parameters, bytes_per_weight, bytes_per_s, warm_up_s: (
                parameters * bytes_per_weight / bytes_per_s
            ),
            "Three stages follow one another.",
        ),
        Misconception(
            "no-warm-up",
            "You let the replica answer before it has warmed up.",
            lambda provision_s, parameters, bytes_per_weight, bytes_per_s, warm_up_s: (
                provision_s + parameters * bytes_per_weight / bytes_per_s
            ),
            "Three stages follow one another.",
        ),
        Misconception(
            "no-provision",
            "You started the clock when the machine was there; it starts when you ask for the machine.",
            lambda provision_s, parameters, bytes_per_weight, bytes_per_s, warm_up_s: (
                parameters * bytes_per_weight / bytes_per_s + warm_up_s
            ),
            "Three stages follow one another.",
        ),
        Misconception(
            "overlap",
            "You let the weights load while the machine is still being provided. There is nothing yet to load them.",
            lambda provision_s, parameters, bytes_per_weight, bytes_per_s, warm_up_s: (
                max(provision_s, parameters * bytes_per_weight / bytes_per_s) + warm_up_s
            ),
            "Three stages follow one another.",
        ),
        Misconception(
            "upside-down",
            "You divided the speed by the amount of data. The more bytes there are, the longer loading takes.",
            lambda provision_s, parameters, bytes_per_weight, bytes_per_s, warm_up_s: (
                provision_s + bytes_per_s / (parameters * bytes_per_weight) + warm_up_s
            ),
            "Bytes divided by bytes per second are seconds.",
        ),
        Misconception(
            "at-the-same-time",
            "You took the longest stage, as if all three ran at the same time. Each needs the one before it.",
            lambda provision_s, parameters, bytes_per_weight, bytes_per_s, warm_up_s: max(
                provision_s, parameters * bytes_per_weight / bytes_per_s, warm_up_s
            ),
            "Three stages follow one another.",
        ),
    ),
    hints=(
        "Three stages, one after the other. Two are given as times; the third is an amount of data and a speed.",
        "bytes = parameters x ___; loading takes bytes / ___; the answer is the sum of three times.",
        "With other numbers: 4e9 weights of 1 byte are 4e9 bytes, which take 16 s at 0.25e9 bytes per second. With "
        "10 s before and 5 s after, the cold start is 31 s.",
    ),
)

# --- 5.2 a number --------------------------------------------------------------------------------------------------


def _draw_jump(rng: Random) -> Params:
    choices = ((3.5, 4, 0.5, 112), (2.6, 3, 0.6, 90), (5.0, 6, 0.5, 112), (4.5, 5, 0.6, 120), (3.5, 4, 0.6, 100))
    arrivals_per_s, replicas, each_per_s, cold_start_s = rng.choice(choices)
    return {
        "arrivals_per_s": arrivals_per_s,
        "replicas": replicas,
        "each_per_s": each_per_s,
        "cold_start_s": cold_start_s,
    }


BACKLOG = Number(
    id="5.2",
    name="backlog",
    title="Who waits when help arrives",
    minutes=6,
    draw=_draw_jump,
    truth=lambda arrivals_per_s, replicas, each_per_s, cold_start_s: (
        (arrivals_per_s - replicas * each_per_s) * cold_start_s
    ),
    misconceptions=(
        Misconception(
            "nobody-served",
            "You let the queue grow by every request that comes. The replicas that are ready go on serving.",
            lambda arrivals_per_s, replicas, each_per_s, cold_start_s: arrivals_per_s * cold_start_s,
            "How many leave in a second?",
        ),
        Misconception(
            "one-replica",
            "You let only one replica serve.",
            lambda arrivals_per_s, replicas, each_per_s, cold_start_s: (arrivals_per_s - each_per_s) * cold_start_s,
            "How many do they all serve together in a second?",
        ),
        Misconception(
            "those-served",
            "This is how many requests are served in the meantime, not how many wait.",
            lambda arrivals_per_s, replicas, each_per_s, cold_start_s: replicas * each_per_s * cold_start_s,
            "Waiting = came - served.",
        ),
        Misconception(
            "per-second",
            "This is the growth of the queue in one second. It grows for the whole cold start.",
            lambda arrivals_per_s, replicas, each_per_s, cold_start_s: arrivals_per_s - replicas * each_per_s,
            "Multiply by a time.",
        ),
        Misconception(
            "a-time",
            "You divided by what the replicas serve, which gives how long the last request waits, in seconds.",
            lambda arrivals_per_s, replicas, each_per_s, cold_start_s: (
                (arrivals_per_s - replicas * each_per_s) * cold_start_s / (replicas * each_per_s)
            ),
            "The question asks for requests, not seconds.",
        ),
    ),
    hints=(
        "Each second some requests come and some leave. The difference piles up, second after second.",
        "(arrivals_per_s - ___ x ___) x cold_start_s.",
        "With other numbers: 10 requests come per second, two replicas serve 4 each, and a cold start takes 30 s: "
        "(10 - 8) x 30 = 60.",
    ),
)

# --- 5.3 a formula -------------------------------------------------------------------------------------------------


def _draw_growth(rng: Random) -> Params:
    """Return a set in which the division clearly leaves something over, or, in every fourth one, comes out whole.

    The numbers of whole ones are sums of few powers of two: in any order of the factors nothing is lost to rounding.
    """
    if rng.random() < 0.25:
        names = ("growth_per_min", "each_per_s", "cold_start_s")
        return dict(zip(names, rng.choice(((3.75, 0.5, 240.0), (3.75, 0.25, 120.0), (1.875, 0.5, 240.0))), strict=True))
    while True:
        given = {
            "growth_per_min": round_between(rng, 0.3, 3),
            "each_per_s": round_between(rng, 0.2, 0.9),
            "cold_start_s": round_between(rng, 80, 400),
        }
        if all(0.01 < share % 1 < 0.99 for share in _before_rounding(**given)):
            return given


def _before_rounding(growth_per_min: float, each_per_s: float, cold_start_s: float) -> tuple[float, ...]:
    """Return what right and wrong answers round."""
    return (
        growth_per_min * cold_start_s / 60 / each_per_s,
        growth_per_min * cold_start_s / each_per_s,
        growth_per_min * cold_start_s / 60,
        growth_per_min / each_per_s,
    )


def _exact_spares(growth_per_min: float, each_per_s: float, cold_start_s: float) -> float:
    return growth_per_min / 60 * cold_start_s / each_per_s


SPARES = Formula(
    id="5.3",
    name="spares",
    title="Spares that bridge a cold start",
    minutes=8,
    difficulty=3,
    draw=_draw_growth,
    truth=lambda **given: math.ceil(_exact_spares(**given)),
    misconceptions=(
        Misconception(
            "rounded-down",
            "You rounded down, so the last part of the growth has no replica.",
            lambda **given: math.floor(_exact_spares(**given)),
            "Which whole number is at least as large?",
        ),
        Misconception(
            "rounded",
            "You rounded to the nearest number, so in half of all cases part of the growth has no replica.",
            lambda **given: round(_exact_spares(**given)),
            "Which whole number is at least as large?",
        ),
        Misconception(
            "one-too-many",
            "You always add one, even where the division comes out whole, and rent a replica that nobody needs.",
            lambda **given: math.floor(_exact_spares(**given)) + 1,
            "Which whole number is at least as large, and which is the least of these?",
        ),
        Misconception(
            "not-whole",
            "This isn't a whole number, and you can't rent part of a machine.",
            _exact_spares,
            "Which whole number is at least as large?",
        ),
        Misconception(
            "minutes-for-seconds",
            "You multiplied growth per minute by seconds: the units do not cancel.",
            lambda growth_per_min, each_per_s, cold_start_s: math.ceil(growth_per_min * cold_start_s / each_per_s),
            "How many minutes does the cold start take?",
        ),
        Misconception(
            "growth-of-a-minute",
            "You took the growth in one minute. Demand grows for the whole cold start.",
            lambda growth_per_min, each_per_s, cold_start_s: math.ceil(growth_per_min / each_per_s),
            "How many minutes does the cold start take?",
        ),
        Misconception(
            "requests-for-replicas",
            "This is the growth of demand in requests per second. How many replicas is that?",
            lambda growth_per_min, each_per_s, cold_start_s: math.ceil(growth_per_min / 60 * cold_start_s),
            "Divide by what one replica serves.",
        ),
    ),
    hints=(
        "By how much does demand grow before a replica you ask for now is ready? The spares have to serve that much.",
        "growth = growth_per_min x minutes of the cold start = growth_per_min x cold_start_s / ___. Replicas = "
        "growth / ___, rounded ___.",
        "With other numbers: demand grows by 2 requests/s every minute, the cold start takes 90 s, and a replica "
        "serves 0.8. The growth is 3 requests/s; 3 / 0.8 = 3.75, so four.",
    ),
)

# --- 5.4 a trace ---------------------------------------------------------------------------------------------------

Row = tuple[int, int, int, int, int]  # minute, ready, served, waiting, asked


@functools.cache
def _paper_rows() -> tuple[Row, ...]:
    ready, waiting, starting = lab.PAPER_REPLICAS, 0, dict[int, int]()
    rows = []
    for minute, came in enumerate(lab.PAPER_CAME, 1):
        ready += starting.pop(minute, 0)
        served = min(waiting + came, ready * lab.PAPER_EACH)
        waiting += came - served
        wanted = math.ceil((came + waiting) / lab.PAPER_EACH)
        asked = max(0, wanted - ready - sum(starting.values()))
        if asked:
            starting[minute + lab.PAPER_COLD_MIN + 1] = asked
        rows.append((minute, ready, served, waiting, asked))
    return tuple(rows)


def _explain_minute(row: int, column: str, seen: Json, right: Json) -> tuple[str, str]:
    minute, ready, _, waiting, asked = _paper_rows()[row + 1]
    came = lab.PAPER_CAME[minute - 1]
    wanted = math.ceil((came + waiting) / lab.PAPER_EACH)
    number = type(seen) in (int, float)
    if column == "asked" and number and seen < 0:
        return "negative", "No replica is ever taken away: a fleet with more than it wants asks for 0."
    if column == "minute":
        return "minute", f"The rows go from minute 2 to minute {len(lab.PAPER_CAME)}, one each."
    if column == "ready" and number and seen > right:
        return "ready-too-early", "A replica asked for at the end of a minute misses the next two whole minutes."
    if column == "ready":
        return "ready-forgotten", "Replicas asked for three minutes ago serve from this minute on."
    if column == "served":
        return "served", "The fleet serves what came or waited, but at most 30 for each ready replica."
    if column == "waiting":
        return "waiting", "Waiting at the end = waiting before + came - served."
    if number and seen == max(0, wanted - ready) != asked:
        return (
            "starting-forgotten",
            "Some replicas are already starting: if you don't count them, you ask for them twice.",
        )
    if number and seen == max(0, math.ceil(came / lab.PAPER_EACH) - ready):
        return "waiting-ignored", "The rule counts the requests that wait as well as those that came."
    return "asked", "Wanted = (came + waiting at the end) / 30, rounded up; asked = wanted - ready - starting, or 0."


FLEET = Trace(
    id="5.4",
    name="rows",
    title="Seven minutes of a reactive fleet",
    minutes=12,
    difficulty=3,
    truth=lambda: _paper_rows()[1:],
    columns=("minute", "ready", "served", "waiting", "asked"),
    explain=_explain_minute,
    hints=(
        "Keep a list next to the table: how many replicas were asked for, and in which minute they start to serve.",
        "served = min(waiting before + came, 30 x ready); waiting = waiting before + came - served; asked = "
        "ceil((came + waiting) / 30) - ready - ___.",
        "With other numbers: in minute 20, three are ready, one is starting, 150 came and none had been waiting. "
        "Served 90, waiting 60, wanted 210 / 30 = 7, asked 7 - 3 - 1 = 3. They serve from minute 23 on.",
    ),
)

# --- 5.5 a prediction ----------------------------------------------------------------------------------------------

LONGEST_QUEUE = Predict(
    id="5.5",
    name="most_waiting",
    title="The longest queue after a jump",
    minutes=6,
    difficulty=3,
    unit="requests",
    experiment=lambda: float(lab.play(lab.JUMP, lab.reactive()).waiting.max()),
    widest=1.5,
    too_low="Before the first new replica answers, up to one look and a whole cold start go by, and the queue grows.",
    too_high="The replicas that are ready go on serving, and the first new ones are enough to end the growth.",
    hints=(
        "The queue grows from the jump until new replicas answer. How long is that, and how much does it grow per "
        "second?",
        "growth per second = arrivals after the jump - ___ x 0.5; time = up to ___ s until the autoscaler looks + "
        "the cold start. Multiply.",
        "With another service: 8 come per second, 6 can be served, the autoscaler looks every 10 s, and a cold "
        "start takes 50 s: (8 - 6) x 60 = 120.",
    ),
)

# --- 5.6 and 5.7 witnesses -----------------------------------------------------------------------------------------

MOST_POINTS, MOST_PER_S, LEAST_PER_S = 12, 10, 0.5
SHORTEST_MIN, LONGEST_MIN = 20, 120
NEARLY_S = lab.PROMISE_S / 2  # a wait this long is not far from late
WASTE_SHARE = 0.1  # of the reactive fleet's bill: less is negligible


def _no_curve(told: Json) -> Problem | None:
    where = "the curve as a whole"
    if not (isinstance(told, list) and all(isinstance(point, list) and len(point) == 2 for point in told)):
        why = "Give a list of pairs: (minute, requests per second)."
        return Problem("no-curve", repr(told)[:80], why, "Start from [(0, 1), (30, 2)].", where)
    if not 2 <= len(told) <= MOST_POINTS:
        return Problem("points", f"{len(told)} points", f"A curve has 2 to {MOST_POINTS}.", "Add or drop some.", where)
    before = 0.0
    for i, (minute, per_s) in enumerate(told):
        where = f"point {i + 1}"
        if not (type(minute) in (int, float) and type(per_s) in (int, float)):
            return Problem(
                "no-number", repr(told[i])[:80], "Both must be numbers.", "(minute, requests per second)", where
            )
        if not LEAST_PER_S <= per_s <= MOST_PER_S:
            why = f"Rates lie between {LEAST_PER_S:g} and {MOST_PER_S} requests per second."
            return Problem("rate", f"{per_s:g} per second", why, "Choose a rate in between.", where)
        if minute < before or (i == 0 and minute != 0):
            why = "The first point is at minute 0, and time never goes backwards."
            return Problem("time", f"minute {minute:g}", why, "Put the points in order.", where)
        before = minute
    if not SHORTEST_MIN <= before <= LONGEST_MIN:
        why = f"The last point must lie between minute {SHORTEST_MIN} and minute {LONGEST_MIN}."
        return Problem("length", f"it ends at minute {before:g}", why, "Move the last point.", f"point {len(told)}")
    return None


def _played(told: Json) -> tuple[lab.Played, lab.Played]:
    points = [(minute, per_s) for minute, per_s in told]
    return lab.play(points, lab.reactive()), lab.play(points, lab.predictive())


def _judge_break(told: Json) -> Problem | None:
    if (problem := _no_curve(told)) is not None:
        return problem
    by_load, by_trend = _played(told)
    waits = f"the longest wait {by_load.wait_s.max():.1f} s and {by_trend.wait_s.max():.1f} s"
    seen = f"kept the promise: {by_load.kept_share:.1%} reactive, {by_trend.kept_share:.1%} predictive; {waits}"
    if by_load.kept_share >= lab.BROKEN_SHARE and by_load.wait_s.max() >= NEARLY_S:
        why = f"Some requests wait in the reactive fleet, but too few of them longer than {lab.PROMISE_S:g} s."
        step = "Let demand grow somewhat faster where it grows most, or end the curve sooner after that."
        return Problem("reactive-nearly", seen, why, step, _steepest(told))
    if by_load.kept_share >= lab.BROKEN_SHARE:
        why = "The reactive fleet is hardly late: demand doesn't outgrow its headroom within a cold start."
        return Problem("reactive-keeps", seen, why, "Let demand grow faster where it grows most.", _steepest(told))
    if by_trend.kept_share >= lab.PROMISED_SHARE and _is_of_section_1(told):
        why = "This is section 1's curve, or nearly: it's nowhere more than a tenth away."
        return Problem("section-1", seen, why, "Find one of your own: what makes that one work?", "all of its minutes")
    if by_trend.kept_share >= lab.PROMISED_SHARE:
        return None
    if any(one[0] == other[0] and one[1] < other[1] for one, other in pairwise(told)):
        why = "Nothing in the minutes before a jump lets a forecast see it coming."
        return Problem("jump", seen, why, "Let a slow rise announce the fast one.", _steepest(told))
    why = "The rise was too fast, or came with too little notice, for a line through the last minutes."
    return Problem("predictive-late", seen, why, "Let demand begin to rise gently, then faster.", _steepest(told))


def _is_of_section_1(told: Json) -> bool:
    known, own = lab.curve_of(lab.WORD_SPREADS), lab.curve_of([(minute, per_s) for minute, per_s in told])
    end_s = 60 * min(told[-1][0], lab.WORD_SPREADS[-1][0])
    return all(abs(own.rate_at(s) / known.rate_at(s) - 1) < 0.1 for s in range(0, int(end_s), 60))


def _steepest(told: Json) -> str:
    pairs = list(pairwise(told))
    one, other = max(pairs, key=lambda pair: (pair[1][1] - pair[0][1]) / max(pair[1][0] - pair[0][0], 1e-3))
    if other[1] <= one[1]:
        return "the whole curve: it never grows"
    if other[0] == one[0]:
        return f"the jump at minute {one[0]:g}"
    return f"steepest from minute {one[0]:g} to {other[0]:g}"


def _judge_waste(told: Json) -> Problem | None:
    if (problem := _no_curve(told)) is not None:
        return problem
    by_load, by_trend = _played(told)
    extra, saved = by_trend.usd - by_load.usd, by_load.refunds_usd - by_trend.refunds_usd
    share = f"{extra / by_load.usd:+.1%} of {by_load.usd:.2f}"
    seen = f"machines cost {extra:+.2f} USD ({share}), refunds saved {saved:.2f} USD"
    where = f"{len(told)} points, {told[-1][0]:g} minutes"
    if saved >= extra and saved > 0:
        why = "Prediction saves at least as much as it costs: here it's worth the money."
        return Problem("it-saves", seen, why, "Keep demand so gentle that no request is late by load alone.", where)
    if extra >= WASTE_SHARE * by_load.usd:
        return None
    why = f"Prediction costs less than {WASTE_SHARE:.0%} more than reaction: the forecast was hardly wrong."
    return Problem("hardly-wastes", seen, why, "Where does a line through the last minutes miss the mark?", where)


BREAKS = Witness(
    id="5.6",
    name="surge",
    title="A curve that only prediction survives",
    minutes=10,
    difficulty=3,
    judge_value=_judge_break,
    hints=(
        "Reactive capacity is what demand called for one cold start ago. A line through the last minutes needs minutes "
        "in which demand has already begun to rise.",
        "Reactive scaling is late where demand grows by more than its headroom, a quarter, within about ___ s. "
        "Predictive scaling sees that coming if the rise before was of a similar kind: steps that grow from one "
        "point to the next.",
        "Of another kind: a rise by a fixed amount every minute is announced, but soon it is small compared with "
        "what is there already. A jump is large, but unannounced. Between the two lies growth by a fixed factor.",
    ),
)

WASTES = Witness(
    id="5.7",
    name="calm",
    title="A curve on which prediction wastes money",
    minutes=8,
    difficulty=3,
    judge_value=_judge_waste,
    hints=(
        "Prediction can save only what reactive scaling loses. And it costs money where a rise doesn't go on.",
        "saved = 0 if demand grows by less than a quarter within about ___ s. extra > 0 wherever the line points "
        "above what actually comes: at each turning point.",
        "Of another kind: demand that never changes wastes nothing, because a flat line is right. Both miss a "
        "single jump. What remains are gentle rises that end.",
    ),
)

# --- 5.8 classify --------------------------------------------------------------------------------------------------

MEASURES = Classify(
    id="5.8",
    name="measures",
    title="Which measure for which demand",
    minutes=8,
    items=lab.SITUATIONS,
    options=tuple(lab.MEASURES),
    keys=locked_all(
        "5.8",
        a="by the clock",
        b="by load",
        c="spares",
        d="by trend",
        e="faster start",
        f="refuse",
        g="by load",
        h="by the clock",
    ),
    because={
        "a": "The rise is known to the minute, and too sudden for any trend: there's nothing to measure or guess.",
        "b": "Within a cold start it grows by less than the headroom. Anything more would only cost money.",
        "c": "Neither the clock nor a trend announces it. Only replicas that are ready already can serve it.",
        "d": "No date was known, but the minutes before show what's coming: each rise announces a larger one.",
        "e": "Most of the cold start is one stage that you can shorten, and that helps whatever the demand is.",
        "f": "No number of replicas that you can get is enough. What's left is to choose which requests to serve.",
        "g": "No request is ever late, and a forecast would overshoot each rise and pay for it.",
        "h": "The hour is known in advance: be ready for it instead of waiting until you see it.",
    },
    hints=(
        "Ask of each: is it known in advance, announced by the minutes before, or neither? And does any request wait?",
        "Known: the clock. Announced: the trend. Neither: spares. Slow compared with the cold start: the load "
        "alone. And for two of the eight, timing is not the point.",
        "Another one: at midnight on New Year's Eve everyone sends greetings. That is by the clock.",
    ),
)

# --- 5.9 free text -------------------------------------------------------------------------------------------------


def _told_plan() -> str:
    """Return a plan with the numbers of today's model and prices."""
    by_load, by_trend = (lab.play(lab.WORD_SPREADS, scaler) for scaler in (lab.reactive(), lab.predictive()))
    bare, spared = (lab.play(lab.JUMP, lab.reactive(spares=kept), spares=kept) for kept in (0, 4))
    return (
        f"A new GPU takes {lab.cold_start().nominal_s:.0f} s to answer. When word spreads, demand grows by up to "
        f"{lab.growth_in_cold_start(lab.WORD_SPREADS):.0%} in that time, and our replicas have "
        f"{lab.ROOM_FRACTION:.0%} of headroom, so scaling by load alone was late for {1 - by_load.kept_share:.0%} of "
        "the requests. "
        "The start is announced, so a schedule adds two replicas ten minutes before it. From then on a forecast "
        f"{lab.HORIZON_S:.0f} s ahead adds to the reactive rule, which stays the floor; it has to look further ahead "
        f"than a cold start. In the model this costs {by_trend.usd - by_load.usd:.2f} USD for machines and avoids "
        f"refunds of {by_load.refunds_usd - by_trend.refunds_usd:.2f} USD. If the forecast is too high, we pay for "
        "idle replicas for a few minutes. It can't see a jump that comes without notice, and four spares, for "
        f"{4 * lab.machine().usd_per_hour:.2f} USD per hour, only shorten the queue of a jump, from "
        f"{bare.waiting.max():.0f} to {spared.waiting.max():.0f}. After the sale we drop the spares and the schedule, "
        "because on calm days they only cost money."
    )


PLAN = FreeText(
    id="5.9",
    name="plan",
    title="A plan for the sale",
    minutes=10,
    difficulty=3,
    at_least_words=50,
    rubric=(
        "Says why reactive scaling alone is late, with numbers: the cold start, and the growth of demand within it.",
        "Chooses by what is known: the clock for the announced start, a forecast or spares for what isn't announced.",
        "Gives the forecast a horizon longer than the cold start, and says why.",
        "Names the price of the plan in USD or replicas, and compares it with the refunds it avoids.",
        "Says what happens when the forecast is wrong in either direction, and when to end the measures.",
    ),
    model_answer=_told_plan(),
    hints=(
        "What is known about the sale, and what is not? Each part has a measure of its own.",
        "Compare growth within a cold start with the headroom, and the extra USD for machines with the refunds: ___ "
        "late requests x 0.05 USD.",
        'About another service: "The match begins at 20:00, so the clock adds six servers at 19:50. Goals come '
        'unannounced; four spares at 2 USD per hour bridge the three minutes until others start."',
    ),
)

QUESTIONS = (COLD_START, BACKLOG, SPARES, FLEET, LONGEST_QUEUE, BREAKS, WASTES, MEASURES, PLAN)
