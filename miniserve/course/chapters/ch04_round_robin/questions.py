"""Chapter 4, round robin fails: what is asked, what is true, and what it means to be wrong."""

from __future__ import annotations

import math
from random import Random

from miniserve.course.chapters.ch04_round_robin import lab
from miniserve.course.check.ask import Json
from miniserve.course.check.kinds import Classify, FreeText, Kill, Predict, Trace, Witness, locked_all
from miniserve.course.check.numbers import Formula, Misconception, Number, Params
from miniserve.course.check.verdict import Problem
from miniserve.planning.queueing import mg1_waiting_s

# --- 4.1 a trace ---------------------------------------------------------------------------------------------------

_GIVEN_ROWS = 2
_COLUMNS = ("request", "turns: replica", "turns: wait (s)", "counts: replica", "counts: wait (s)")


def _eight_rows() -> list[tuple[int, str, float, str, float]]:
    turns, counts = (lab.serve(lab.PAPER, choose, replicas=2) for choose in (lab.by_turns, lab.fewest_requests))
    return [
        (i + 1, "AB"[turns.place[i]], float(turns.wait_s[i]), "AB"[counts.place[i]], float(counts.wait_s[i]))
        for i in range(len(lab.PAPER))
    ]


def _unfinished(number: int) -> str:
    """Return what both replicas hold when request `number` comes, if requests are counted."""
    run, now_s = lab.serve(lab.PAPER, lab.fewest_requests, replicas=2), lab.PAPER[number - 1][0]
    held = [
        sum(run.place[i] == place and run.ended_s[i] > now_s for i in range(number - 1)) for place in range(2)
    ]  # fmt: skip
    return f"A {held[0]}, B {held[1]}"


def _differs_by(seen: Json, right: Json, more_s: float) -> bool:
    return isinstance(seen, int | float) and isinstance(right, int | float) and abs(seen - right - more_s) < 1e-6


def _explain_eight(row: int, column: str, seen: Json, right: Json) -> tuple[str, str]:
    number = row + 1 + _GIVEN_ROWS
    at_s, tokens = lab.PAPER[number - 1]
    if column == "request":
        return "request", f"The rows go from request {1 + _GIVEN_ROWS} to {len(lab.PAPER)}, in order of arrival."
    if column.endswith("replica") and seen not in ("A", "B"):
        return "no-letter", 'A replica is written "A" or "B", a capital letter in quotes.'
    if column.endswith("wait (s)") and type(seen) not in (int, float):
        return "no-seconds", "A wait is a number of seconds, without quotes or unit."
    if column == "turns: replica":
        return (
            "not-in-turn",
            f"This is request {number}. By turns A gets requests 1, 3, 5 and so on, whatever it has to do.",
        )
    if column == "counts: replica" and right == "A":
        return "equals", f"Unfinished when request {number} comes: {_unfinished(number)}. Among equals A is first."
    if column == "counts: replica":
        return (
            "not-fewest",
            f"Unfinished when request {number} comes: {_unfinished(number)}. What has ended does not count.",
        )
    if _differs_by(seen, right, tokens / lab.TOKENS_PER_S):
        return (
            "with-answer",
            f"That goes to the end of request {number}'s answer. The wait ends where its answer begins.",
        )
    if _differs_by(seen, right, at_s):
        return "clock-time", f"That is the second at which it begins. Request {number} came at second {at_s}."
    if right == 0:
        return "waits-for-nobody", f"Request {number}: all that came to this replica before it have ended."
    if seen == 0:
        return (
            "jumps-the-queue",
            f"Request {number} finds its replica busy; it begins only when all before it have ended.",
        )
    return "wait", f"Request {number} waits from second {at_s} until the last one before it in its replica has ended."


EIGHT = Trace(
    id="4.1",
    name="rows",
    title="Eight requests, two balancers",
    minutes=12,
    difficulty=3,
    truth=lambda: _eight_rows()[_GIVEN_ROWS:],
    columns=_COLUMNS,
    explain=_explain_eight,
    hints=(
        "Do one balancer at a time. For each replica keep one number: the second at which it will be free.",
        "wait = max(0, free - arrival); then free = max(free, arrival) + tokens / ___. When you count, cross out at "
        "each arrival whatever has ended by then.",
        "With other numbers: A is free at second 12, and a request of 250 tokens comes there at second 9. It waits for "
        "3 s and is written for 5 s, so A is free at second 17.",
    ),
)

# --- 4.2 a formula -------------------------------------------------------------------------------------------------


def _draw_two_sizes(rng: Random) -> Params:
    share, short_s, long_s = rng.uniform(0.02, 0.3), rng.uniform(0.2, 2), rng.uniform(5, 40)
    load = rng.uniform(0.3, 0.9)
    return {"per_s": load / _mean(share, short_s, long_s), "long_share": share, "short_s": short_s, "long_s": long_s}


def _mean(share: float, short_s: float, long_s: float) -> float:
    return share * long_s + (1 - share) * short_s


def _square(share: float, short_s: float, long_s: float) -> float:
    return share * long_s**2 + (1 - share) * short_s**2


def _wait_s(per_s: float, long_share: float, short_s: float, long_s: float) -> float:
    mean_s, square = _mean(long_share, short_s, long_s), _square(long_share, short_s, long_s)
    return mg1_waiting_s(per_s, mean_s, square / mean_s**2 - 1)


MEAN_WAIT = Formula(
    id="4.2",
    name="mean_wait_s",
    title="The mean wait behind answers of two sizes",
    minutes=10,
    difficulty=3,
    truth=_wait_s,
    draw=_draw_two_sizes,
    misconceptions=(
        Misconception(
            "all-alike",
            "You squared the mean answer. The mean of the squares is asked for, and it is larger.",
            lambda per_s, long_share, short_s, long_s: (
                per_s * _mean(long_share, short_s, long_s) ** 2 / 2 / (1 - per_s * _mean(long_share, short_s, long_s))
            ),
            "Square each size first, then take the mean.",
        ),
        Misconception(
            "no-half",
            "You let everybody wait for a whole answer; one comes, on average, in its middle.",
            lambda per_s, long_share, short_s, long_s: 2 * _wait_s(per_s, long_share, short_s, long_s),
            "Where does the 2 of the formula stand?",
        ),
        Misconception(
            "no-queue",
            "This is the wait for the answer in progress alone. Those that wait already come first, too.",
            lambda per_s, long_share, short_s, long_s: per_s * _square(long_share, short_s, long_s) / 2,
            "What does the load do to the wait?",
        ),
        Misconception(
            "idle-share",
            "You divided by the load. What is left over, 1 minus the load, works the queue off.",
            lambda per_s, long_share, short_s, long_s: (
                _square(long_share, short_s, long_s) / (2 * _mean(long_share, short_s, long_s))
            ),
            "With a load near 1 the wait must grow beyond all bounds.",
        ),
        Misconception(
            "multiplied",
            "You multiplied by 1 minus the load. The wait grows as the load does, so it must divide.",
            lambda per_s, long_share, short_s, long_s: (
                per_s * _square(long_share, short_s, long_s) / 2 * (1 - per_s * _mean(long_share, short_s, long_s))
            ),
            "In Python a / 2 * b is (a / 2) * b: put brackets round all that divides.",
        ),
        Misconception(
            "with-answer",
            "This is the time until the end of the answer; only the wait before it is asked for.",
            lambda per_s, long_share, short_s, long_s: (
                _wait_s(per_s, long_share, short_s, long_s) + _mean(long_share, short_s, long_s)
            ),
            "Leave the answer itself out.",
        ),
        Misconception(
            "memoryless",
            "This holds for answers of exponential length, whose mean square is twice the square of the mean.",
            lambda per_s, long_share, short_s, long_s: (
                per_s * _mean(long_share, short_s, long_s) ** 2 / (1 - per_s * _mean(long_share, short_s, long_s))
            ),
            "Here there are two sizes: use them.",
        ),
        Misconception(
            "share-swapped",
            "You gave the long answers' share to the short ones.",
            lambda per_s, long_share, short_s, long_s: (
                per_s
                * _square(1 - long_share, short_s, long_s)
                / 2
                / (1 - per_s * _mean(1 - long_share, short_s, long_s))
            ),
            "long_share belongs to long_s.",
        ),
    ),
    hints=(
        "Three numbers lead there: the mean answer, the mean of the squared answers, and the load.",
        "mean = q * long + (1 - q) * short; square = q * long ** 2 + ___; load = arrivals * mean; "
        "wait = arrivals * square / (2 * ___).",
        "With other numbers: half of the answers take 2 s, half 4 s, and one comes every 6 s. Mean 3 s, squares "
        "(4 + 16) / 2 = 10, load 0.5: the wait is 1/6 x 10 / (2 x 0.5) = 1.67 s.",
    ),
)

# --- 4.3 a kill, and 4.4 a witness ---------------------------------------------------------------------------------

FEWEST, MOST = 100, 1000
TIMES, NOBODY_MINDS_S = 3.0, 1.0
HALF, WORTH_S = 0.5, 2.0


def _admissible(told: Json) -> Problem | None:
    if not isinstance(told, list) or not all(isinstance(row, list) and len(row) == 2 for row in told):
        why = "A list of pairs is asked for: (second of arrival, tokens of the answer)."
        return Problem("no-trace", repr(told)[:80], why, "For example [(0.5 * i, 100) for i in range(200)].")
    if not FEWEST <= len(told) <= MOST:
        why = f"{FEWEST} to {MOST:,} requests are asked for; of fewer, a p99 is simply the slowest."
        return Problem("how-many", f"{len(told)} requests", why, "Make the pairs with a list comprehension.")
    before_s = 0.0
    for i, (at_s, tokens) in enumerate(told):
        where = f"request {i + 1}"
        if type(at_s) not in (int, float) or not before_s <= at_s <= 1e6:
            why = "Times are seconds from 0 to a million, and never go back."
            return Problem("no-time", repr(at_s)[:80], why, "Sort the list by its times, from 0 on.", where)
        if type(tokens) not in (int, float) or not lab.SHORTEST <= tokens <= lab.LONGEST or tokens % 1:
            why = f"An answer has {lab.SHORTEST} to {lab.LONGEST:,} tokens, a whole number."
            return Problem("no-size", repr(tokens)[:80], why, "Choose a size in it.", where)
        before_s = at_s
    return None


def _fine(trace: lab.Trace, p99_s: float) -> bool:
    """Say whether a p99 is below three times that of who counts; waits below a second count as one."""
    return p99_s < TIMES * max(NOBODY_MINDS_S, lab.p99_wait_s(trace, lab.fewest_requests))


KILLER = Kill(
    id="4.3",
    name="killer",
    title="A trace that finds three balancers out",
    minutes=12,
    difficulty=3,
    admissible=_admissible,
    correct=lambda told: True,  # who counts, with fresh numbers, is the measure
    buggy={
        "takes-turns": (
            lambda told: _fine(told, lab.p99_wait_s(told, lab.by_turns)),
            "Its p99 is below 3 s, or not three times that of counting. "
            "Do short ones get their turn behind long ones, while other "
            "replicas are free?",
        ),
        "draws-lots": (
            lambda told: _fine(told, lab.p99_wait_s(told, lab.by_lot)),
            "Its p99 is below 3 s, or not three times that of counting. "
            "Do more than one in a hundred draw a replica that is busy "
            "for long?",
        ),
        "looks-too-late": (
            lambda told: _fine(told, lab.p99_wait_s(told, lab.fewest_requests, lab.LATE_S)),
            "Its p99 is below 3 s, or not three times that of counting. "
            "Until the next report all go to one replica: does that "
            "ever hurt?",
        ),
    },
    hints=(
        "Let the fleet have enough room, and yet one replica be busy for long. Who of the three knows that, and when?",
        "Take many short answers, and every so often a long one of ___ tokens; so often that three replicas are free "
        "most of the time. Short ones must come several times between two reports.",
        "Another fleet: answers of 5 s among those of 0.1 s. If one in 40 is long and 4 come per second, a long one "
        "comes every 10 s, and while it lasts 20 others come. By turns a part of those 20 gets in behind it.",
    ),
)


def _work(trace: lab.Trace) -> str:
    """Say how much of what the fleet can do a trace asks for; nothing if all requests come at once."""
    between_s = (trace[-1][0] - trace[0][0]) / (len(trace) - 1)
    mean_s = sum(tokens for _, tokens in trace) / len(trace) / lab.TOKENS_PER_S
    return f"; the fleet gets {mean_s / between_s / lab.REPLICAS:.0%} of what it can do" if between_s else ""


def _judge_winner(told: Json) -> Problem | None:
    if (problem := _admissible(told)) is not None:
        return problem
    turns_s, counts_s = (lab.p99_wait_s(told, choose) for choose in (lab.by_turns, lab.fewest_requests))
    seen = f"p99 of the wait: {turns_s:.3g} s by turns, {counts_s:.3g} s by counting{_work(told)}"
    if counts_s < WORTH_S:
        why = f"Who counts keeps the p99 below {WORTH_S:g} s here, so there is nothing to win."
        return Problem("nobody-waits", seen, why, "Bring the fleet more work, so that requests must wait.")
    if turns_s <= HALF * counts_s:
        return None
    if turns_s < counts_s:
        why = "Turns are ahead, but not by a factor of two."
        return Problem("not-half", seen, why, "Make more requests find all four counts equal, and one nearly free.")
    if len({tokens for _, tokens in told}) > 1:
        why = "Answers of different length are what counting is good at."
        return Problem("sizes-differ", seen, why, "For which answers is taking turns the best that can be done?")
    why = "All answers are alike, and yet the count does not mislead."
    return Problem("counts-as-good", seen, why, "When do all four counts say the same, and what do they not say?")


WINNER = Witness(
    id="4.4",
    name="winner",
    title="A trace on which taking turns wins",
    minutes=12,
    difficulty=4,
    judge_value=_judge_winner,
    hints=(
        "A count does not say how far the answer in progress has come. When would that matter most?",
        "If each replica holds one request, all counts are 1, and counting takes the first replica. Taking turns "
        "takes the one that began longest ago. So: equal answers, at equal distances, a little ___ than the fleet "
        "can do.",
        "With two replicas and answers of 10 s: one every 4.9 s. By turns the third waits 0.2 s for A, the fourth "
        "0.2 s for B. By counting the fourth finds one in each, and waits for A, which has just begun.",
    ),
)

# --- 4.5 a prediction ----------------------------------------------------------------------------------------------

TWO = Predict(
    id="4.5",
    name="mean_time_between_s",
    title="What a second look is worth",
    minutes=6,
    difficulty=3,
    unit="s",
    experiment=lambda: lab.mean_time_s(lab.better_of_two),
    widest=2.0,
    too_low="An answer alone takes 1 s, and at this load even two drawn replicas are often both busy.",
    too_high="A long queue grows only if both drawn ones are long. That is a square, and the next one a square of it.",
    hints=(
        "By lot, the share of replicas that hold at least k requests is load ** k. What becomes of it, if the shorter "
        "of two is taken each time?",
        "With two looks the share that holds at least k is about load ** (2 ** k - 1): the exponents are 1, 3, 7, ... "
        "The mean number in a replica is the sum over k = 1, 2, 3, ..., and the mean time is that sum / ___.",
        "With another load, 0.5: by lot 0.5 + 0.25 + 0.125 + ... = 1 request, 1 / 0.5 = 2 s. With two looks 0.5 + "
        "0.125 + 0.008 = 0.633 requests, 0.633 / 0.5 = 1.27 s.",
    ),
)

# --- 4.6 a number --------------------------------------------------------------------------------------------------


def _draw_chunk(rng: Random) -> Params:
    return {
        "budget_tokens": rng.choice((192, 256, 320)),
        "readers": rng.choice((40, 48, 64)),
        "prompt_tokens": rng.choice((1600, 2000, 2400)),
    }


_FIXED_MS, _TOKEN_MS = lab.step_costs_ms()

PAUSE = Number(
    id="4.6",
    name="longest_pause_ms",
    title="A long prompt in chunks",
    minutes=8,
    difficulty=3,
    params={"fixed_ms": _FIXED_MS, "token_ms": _TOKEN_MS},
    draw=_draw_chunk,
    unit="ms",
    truth=lambda fixed_ms, token_ms, budget_tokens, readers, prompt_tokens: fixed_ms + token_ms * budget_tokens,
    misconceptions=(
        Misconception(
            "whole",
            "This is the pause if the prompt is read whole, in one step.",
            lambda fixed_ms, token_ms, budget_tokens, readers, prompt_tokens: (
                fixed_ms + token_ms * (prompt_tokens + readers)
            ),
            "A step reads no more than its budget.",
        ),
        Misconception(
            "fixed-forgotten",
            "You left the fixed part out. Each step has it, however little it computes.",
            lambda fixed_ms, token_ms, budget_tokens, readers, prompt_tokens: token_ms * budget_tokens,
            "Add what a step costs before the first token.",
        ),
        Misconception(
            "readers-on-top",
            "You put the readers' tokens on top of the budget; they are part of it.",
            lambda fixed_ms, token_ms, budget_tokens, readers, prompt_tokens: (
                fixed_ms + token_ms * (budget_tokens + readers)
            ),
            "How much of the budget is left for the prompt?",
        ),
        Misconception(
            "prompt-only",
            "You counted the chunk and not the readers' own tokens, which are computed in the same step.",
            lambda fixed_ms, token_ms, budget_tokens, readers, prompt_tokens: (
                fixed_ms + token_ms * (budget_tokens - readers)
            ),
            "All that a step computes takes time.",
        ),
        Misconception(
            "all-chunks",
            "This is the time for all chunks together. The readers get a token after each of them.",
            lambda fixed_ms, token_ms, budget_tokens, readers, prompt_tokens: (
                math.ceil(prompt_tokens / (budget_tokens - readers)) * (fixed_ms + token_ms * readers)
                + token_ms * prompt_tokens
            ),
            "A pause is the time between two tokens: one step.",
        ),
    ),
    hints=(
        "A reader gets one token in each step. So the pause is the time of one step; which step is the longest?",
        "time of a step = fixed_ms + token_ms x (all tokens that it computes), and these are at most ___.",
        "With other numbers: fixed 20 ms, 0.5 ms per token, 100 tokens at most, 10 readers. A full step takes "
        "20 + 50 = 70 ms; 90 of its tokens are the prompt's.",
    ),
)

# --- 4.7 classify --------------------------------------------------------------------------------------------------

REMEDIES = Classify(
    id="4.7",
    name="remedies",
    title="What would you do?",
    minutes=8,
    items=lab.SITUATIONS,
    options=tuple(lab.REMEDIES),
    keys=locked_all("4.7", a="turns", b="requests", c="tokens", d="two", e="chunks", f="replicas", g="two", h="turns"),
    because={
        "a": "Answers are alike and come regularly: the replica that began longest ago is free first. No number helps.",
        "b": "Sizes differ and are not known; what is known, and fresh, is who has not finished.",
        "c": "The sizes are known beforehand. One of 2,000 tokens is not the same load as one of 10.",
        "d": "All sixteen would take the same best one until the next report. Something must keep them apart.",
        "e": "That is no matter of who gets the request. Inside the replica one step takes too long.",
        "f": "Nobody is idle while others wait: there is nothing left that a balancer could even out.",
        "g": "Nearly all of the gain is there with a look at very few.",
        "h": "Any of the ways that look would do no better here, and needs numbers.",
    },
    hints=(
        "Ask of each: is the work uneven, are the numbers old or dear, is it inside a replica, or is there too much?",
        "Uneven: count requests, or tokens if they are known. Old or dear numbers: two. Even: turns. Inside: chunks.",
        "Another one: a gateway counts requests, and has a count of its own, always fresh, for ten replicas; sizes are "
        'unknown. That is "requests".',
    ),
)

# --- 4.8 free text -------------------------------------------------------------------------------------------------

ANSWER = FreeText(
    id="4.8",
    name="reply",
    title="Fair, so leave it?",
    minutes=8,
    difficulty=3,
    at_least_words=50,
    rubric=(
        "Separates equal numbers of requests from equal work, with sizes from the chapter (10 to 2,000 tokens).",
        "Says what customers feel with a figure: the p99 by turns beside that of counting, while p50 hardly differs.",
        "Says that the GPUs are not too few: one waits in a queue while another has free places.",
        "Names what to count, and what can go wrong with it (old reports, several gateways, equals).",
        "Says how one would see whether it helped: p99 before and after on the same demand, or spread of the queues.",
    ),
    model_answer=(
        "Each GPU gets a quarter of the requests, but not a quarter of the work: a chat has a hundred tokens and an "
        "article two thousand. Where two articles meet, short questions wait behind them while another GPU has free "
        "places. On our afternoon the p99 of the time to first token is 13 s by turns and a fraction of it if the "
        "gateway sends to the GPU with the fewest unfinished requests; half of the customers notice nothing. We need "
        "no more GPUs for it. As long as there is one gateway its count is fresh; with several we would draw two GPUs "
        "and take the better one. I would watch the p99 and the spread between the four queues for a week."
    ),
    hints=(
        "Equal in what? Which of the tables above shows that it is not equal where it matters?",
        "Name: what differs between requests, which figure shows the harm, what to count instead, what may go wrong.",
        'About another service: "Each clerk gets every third customer. But one sells stamps and another a mortgage; on '
        'Friday the third queue was 40 minutes, and the first clerk read the paper."',
    ),
)

QUESTIONS = (EIGHT, MEAN_WAIT, KILLER, WINNER, TWO, PAUSE, REMEDIES, ANSWER)
