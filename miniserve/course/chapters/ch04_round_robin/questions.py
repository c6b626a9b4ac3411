"""Chapter 4, round robin fails: its questions, their answers, and what each wrong answer means."""

from __future__ import annotations

import math
from random import Random

from miniserve.course.chapters.ch04_round_robin import lab
from miniserve.course.check.ask import Json
from miniserve.course.check.kinds import Classify, FreeText, Kill, Predict, Trace, Witness, locked_all
from miniserve.course.check.numbers import Formula, Misconception, Number, Params, round_between, two_digits
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
    """Return how many requests each replica holds when request `number` arrives, if a balancer counts requests."""
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
        return "no-letter", 'Write a replica as "A" or "B", a capital letter in quotes.'
    if column == "turns: replica":
        return (
            "not-in-turn",
            f"This is request {number}. By turns A gets requests 1, 3, 5 and so on, however busy it is.",
        )
    if column == "counts: replica" and right == "A":
        return "equals", f"Unfinished when request {number} arrives: {_unfinished(number)}. A tie goes to A."
    if column == "counts: replica":
        return (
            "not-fewest",
            f"Unfinished when request {number} arrives: {_unfinished(number)}. Finished requests don't count.",
        )
    if _differs_by(seen, right, tokens / lab.TOKENS_PER_S):
        return (
            "with-answer",
            f"That runs to the end of request {number}'s answer. The wait ends when the answer begins.",
        )
    if _differs_by(seen, right, at_s):
        return (
            "clock-time",
            f"That is the second at which its answer begins. Request {number} arrived at second {at_s}.",
        )
    if right == 0:
        return (
            "waits-for-nobody",
            f"When request {number} arrives, its replica has finished everything it was sent before.",
        )
    if seen == 0:
        return (
            "jumps-the-queue",
            f"Request {number} finds its replica busy; its answer begins only when all earlier ones are finished.",
        )
    return "wait", f"Request {number} waits from second {at_s} until its replica has finished the last one before it."


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
        "wait = max(0, free - arrival); then free = max(free, arrival) + tokens / ___. When you count, at each "
        "arrival cross out whatever has finished by then.",
        "With other numbers: A is free at second 12, and a request of 250 tokens arrives there at second 9. It "
        "waits for 3 s and takes 5 s to write, so A is free at second 17.",
    ),
)

# --- 4.2 a formula -------------------------------------------------------------------------------------------------


def _draw_two_sizes(rng: Random) -> Params:
    share, short_s, long_s = round_between(rng, 0.02, 0.3), round_between(rng, 0.2, 2), round_between(rng, 5, 40)
    load = rng.uniform(0.3, 0.9)
    return {
        "per_s": two_digits(load / _mean(share, short_s, long_s)),
        "long_share": share,
        "short_s": short_s,
        "long_s": long_s,
    }


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
            "You squared the mean. The formula needs the mean of the squares, which is larger.",
            lambda per_s, long_share, short_s, long_s: (
                per_s * _mean(long_share, short_s, long_s) ** 2 / 2 / (1 - per_s * _mean(long_share, short_s, long_s))
            ),
            "Square each size first, then take the mean.",
        ),
        Misconception(
            "no-half",
            "You made every request wait for a whole answer; on average, it arrives in the middle of one.",
            lambda per_s, long_share, short_s, long_s: 2 * _wait_s(per_s, long_share, short_s, long_s),
            "Where does the 2 go in the formula?",
        ),
        Misconception(
            "no-queue",
            "This is the wait for the answer in progress alone. The requests already in the queue come first as well.",
            lambda per_s, long_share, short_s, long_s: per_s * _square(long_share, short_s, long_s) / 2,
            "What does the load do to the wait?",
        ),
        Misconception(
            "idle-share",
            "You divided by the load. What works off the queue is what's left over, 1 minus the load.",
            lambda per_s, long_share, short_s, long_s: (
                _square(long_share, short_s, long_s) / (2 * _mean(long_share, short_s, long_s))
            ),
            "As the load approaches 1, the wait must grow without bound.",
        ),
        Misconception(
            "multiplied",
            "You multiplied by 1 minus the load. The wait grows with the load, so divide instead.",
            lambda per_s, long_share, short_s, long_s: (
                per_s * _square(long_share, short_s, long_s) / 2 * (1 - per_s * _mean(long_share, short_s, long_s))
            ),
            "In Python a / 2 * b is (a / 2) * b: put brackets round the whole denominator.",
        ),
        Misconception(
            "with-answer",
            "This is the time until the end of the answer; the question asks only for the wait before it.",
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
        "You need three numbers: the mean answer time, the mean of the squared answer times, and the load.",
        "mean = q * long + (1 - q) * short; square = q * long ** 2 + ___; load = arrivals * mean; "
        "wait = arrivals * square / (2 * ___).",
        "With other numbers: half of the answers take 2 s, half 4 s, and one request arrives every 6 s. The mean is "
        "3 s, the mean square (4 + 16) / 2 = 10 and the load 0.5, so the wait is 1/6 x 10 / (2 x 0.5) = 1.67 s.",
    ),
)

# --- 4.3 a kill, and 4.4 a witness ---------------------------------------------------------------------------------

FEWEST, MOST = 100, 1000
TIMES, NOBODY_MINDS_S = 3.0, 1.0
HALF, WORTH_S = 0.5, 2.0


def _admissible(told: Json) -> Problem | None:
    if not isinstance(told, list) or not all(isinstance(row, list) and len(row) == 2 for row in told):
        why = "Give a list of pairs: (second of arrival, tokens of the answer)."
        return Problem("no-trace", repr(told)[:80], why, "For example [(0.5 * i, 100) for i in range(200)].")
    if not FEWEST <= len(told) <= MOST:
        why = f"{FEWEST} to {MOST:,} requests are needed; with fewer, the p99 is simply the slowest."
        return Problem("how-many", f"{len(told)} requests", why, "Make the pairs with a list comprehension.")
    before_s = 0.0
    for i, (at_s, tokens) in enumerate(told):
        where = f"request {i + 1}"
        if type(at_s) not in (int, float) or not before_s <= at_s <= 1e6:
            why = "Times are seconds from 0 to a million, and never go backwards."
            return Problem("no-time", repr(at_s)[:80], why, "Sort the list by time, starting from 0.", where)
        if type(tokens) not in (int, float) or not lab.SHORTEST <= tokens <= lab.LONGEST or tokens % 1:
            why = f"An answer has {lab.SHORTEST} to {lab.LONGEST:,} tokens, a whole number."
            return Problem("no-size", repr(tokens)[:80], why, "Choose a size in that range.", where)
        before_s = at_s
    return None


def _fine(trace: lab.Trace, p99_s: float) -> bool:
    """Return whether a p99 is below three times that of counting; waits below a second count as a second."""
    return p99_s < TIMES * max(NOBODY_MINDS_S, lab.p99_wait_s(trace, lab.fewest_requests))


KILLER = Kill(
    id="4.3",
    name="killer",
    title="A trace that catches three balancers out",
    minutes=12,
    difficulty=3,
    admissible=_admissible,
    correct=lambda told: True,  # counting with fresh numbers is the yardstick
    buggy={
        "takes-turns": (
            lambda told: _fine(told, lab.p99_wait_s(told, lab.by_turns)),
            "Its p99 is below 3 s, or not three times that of counting. Do short requests get their turn behind "
            "long ones while other replicas are free?",
        ),
        "draws-lots": (
            lambda told: _fine(told, lab.p99_wait_s(told, lab.by_lot)),
            "Its p99 is below 3 s, or not three times that of counting. Does more than one request in a hundred "
            "draw a replica that stays busy for long?",
        ),
        "looks-too-late": (
            lambda told: _fine(told, lab.p99_wait_s(told, lab.fewest_requests, lab.LATE_S)),
            "Its p99 is below 3 s, or not three times that of counting. Until the next report, all requests go to "
            "one replica: does that ever hurt?",
        ),
    },
    hints=(
        "Leave the fleet enough capacity overall, yet keep one replica busy for long. Which of the three balancers "
        "knows about that, and when?",
        "Take many short answers and, every so often, a long one of ___ tokens, rarely enough that three replicas "
        "are free most of the time. Several short ones must arrive between two reports.",
        "Another fleet: answers of 5 s among many of 0.1 s. If one in 40 is long and 4 arrive per second, a long "
        "one comes every 10 s, and 20 others arrive while it is being written. By turns, some of those 20 land "
        "behind it.",
    ),
)


def _work(trace: lab.Trace) -> str:
    """Return a clause about the load that a trace puts on the fleet; empty if all requests arrive at once."""
    between_s = (trace[-1][0] - trace[0][0]) / (len(trace) - 1)
    mean_s = sum(tokens for _, tokens in trace) / len(trace) / lab.TOKENS_PER_S
    return f"; the load of the fleet is {mean_s / between_s / lab.REPLICAS:.0%}" if between_s else ""


def _judge_winner(told: Json) -> Problem | None:
    if (problem := _admissible(told)) is not None:
        return problem
    turns_s, counts_s = (lab.p99_wait_s(told, choose) for choose in (lab.by_turns, lab.fewest_requests))
    seen = f"p99 of the wait: {turns_s:.3g} s by turns, {counts_s:.3g} s by counting{_work(told)}"
    if counts_s < WORTH_S:
        why = f"Counting keeps the p99 below {WORTH_S:g} s here, so there is nothing to gain."
        return Problem("nobody-waits", seen, why, "Give the fleet more work, so that requests have to wait.")
    if turns_s <= HALF * counts_s:
        return None
    if turns_s < counts_s:
        why = "Turns are ahead, but not by a factor of two."
        return Problem("not-half", seen, why, "Let more arrive while counts are equal and one replica is nearly free.")
    if len({tokens for _, tokens in told}) > 1:
        why = "Answers of different lengths are what counting is good at."
        return Problem("sizes-differ", seen, why, "For which answers can nothing beat taking turns?")
    why = "All answers are alike, yet the counts don't mislead."
    return Problem("counts-as-good", seen, why, "When are all four counts equal, and what don't they tell?")


WINNER = Witness(
    id="4.4",
    name="winner",
    title="A trace on which taking turns wins",
    minutes=12,
    difficulty=4,
    judge_value=_judge_winner,
    hints=(
        "A count doesn't say how far along the current answer is. When would that matter most?",
        "If each replica holds one request, all counts are 1, and counting picks the first replica. Taking turns "
        "picks the one that began longest ago. So use equal answers at equal intervals, a little ___ than the fleet "
        "can serve them.",
        "With two replicas and answers of 10 s, send one every 4.9 s. By turns the third waits 0.2 s for A, the "
        "fourth 0.2 s for B. By counting the fourth finds one on each, and waits for A, which has only just begun.",
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
    too_low="An answer alone takes 1 s, and at this load both of the drawn replicas are often busy.",
    too_high=(
        "A queue gets long only if both drawn replicas have long ones. The chance of that is a square, and for the "
        "next place a square of the square."
    ),
    hints=(
        "By lot, the share of replicas that hold at least k requests is load ** k. What becomes of that if each "
        "request takes the shorter of two queues?",
        "With two looks the share that holds at least k is about load ** (2 ** k - 1): the exponents are 1, 3, 7, "
        "... The mean number on a replica is the sum over k = 1, 2, 3, ..., and the mean time is that sum / ___.",
        "With another load, 0.5: by lot 0.5 + 0.25 + 0.125 + ... = 1 request, so 1 / 0.5 = 2 s. With two looks 0.5 "
        "+ 0.125 + 0.008 = 0.633 requests, so 0.633 / 0.5 = 1.27 s.",
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
            "A step computes no more than its budget.",
        ),
        Misconception(
            "fixed-forgotten",
            "You left out the fixed part. Every step pays it, however little it computes.",
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
            "You counted the chunk but not the readers' own tokens, which are computed in the same step.",
            lambda fixed_ms, token_ms, budget_tokens, readers, prompt_tokens: (
                fixed_ms + token_ms * (budget_tokens - readers)
            ),
            "Every token that a step computes takes time.",
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
        "time of a step = fixed_ms + token_ms x (all tokens that it computes), and it computes at most ___.",
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
        "a": "The answers are alike and arrive regularly, so the replica that began longest ago is free first. No "
        "number helps.",
        "b": "Sizes differ and are unknown; what's known, and fresh, is which requests haven't finished.",
        "c": "The sizes are known in advance. A request of 2,000 tokens isn't the same load as one of 10.",
        "d": "All sixteen would pick the same best replica until the next report. Something has to keep them apart.",
        "e": "It doesn't matter which replica gets the request: inside it, one step takes too long.",
        "f": "No replica is idle while requests wait at another, so a balancer has nothing left to even out.",
        "g": "Looking at very few replicas already brings nearly all of the gain.",
        "h": "A balancer that looks would do no better here, and it needs numbers.",
    },
    hints=(
        "Ask of each: is the work uneven, are the numbers stale or expensive to get, is the trouble inside a "
        "replica, or is there simply too much work?",
        "Uneven: count requests, or tokens if they are known. Stale or expensive numbers: two. Even: turns. Inside: "
        "chunks.",
        "Another one: a gateway keeps its own count of requests, always fresh, for ten replicas; sizes are unknown. "
        'That is "requests".',
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
        "Distinguishes equal numbers of requests from equal work, with sizes from the chapter (10 to 2,000 tokens).",
        "Says what customers notice, with a figure: the p99 by turns against that by counting, while the p50 hardly "
        "differs.",
        "Says that there are enough GPUs: requests queue at one while another has free places.",
        "Names what to count, and what can go wrong with it (stale reports, several gateways, ties).",
        "Says how to tell whether it helped: the p99 before and after on the same demand, or the spread of the queues.",
    ),
    model_answer=(
        "Each GPU gets a quarter of the requests, but not a quarter of the work: a chat has a hundred tokens and an "
        "article two thousand. Where two articles land on one GPU, short questions wait behind them while another "
        "GPU has free places. On our afternoon the p99 of the time to first token is 13 s by turns and a fraction "
        "of that if the gateway sends each request to the GPU with the fewest unfinished ones; half of the "
        "customers notice nothing. We don't need more GPUs for that. As long as there is one gateway, its count is "
        "fresh; with several we would draw two GPUs and take the better one. I would watch the p99 and the spread "
        "between the four queues for a week."
    ),
    hints=(
        "Equal in what? Which of the tables above shows that the GPUs are not equal where it matters?",
        "Name what differs between requests, which figure shows the harm, what to count instead, and what may go "
        "wrong.",
        'About another service: "Each clerk gets every third customer. But one sells stamps and another a mortgage; '
        'on Friday the third queue was 40 minutes long while the first clerk read the paper."',
    ),
)

QUESTIONS = (EIGHT, MEAN_WAIT, KILLER, WINNER, TWO, PAUSE, REMEDIES, ANSWER)
