"""Chapter 7, cache-aware and model routing: its questions, their answers, and what each wrong answer means."""

from __future__ import annotations

import functools
import math
from random import Random
from typing import Any

from miniserve.course.chapters.ch07_routing import lab
from miniserve.course.check.ask import Json
from miniserve.course.check.kinds import Classify, FreeText, Predict, Trace, Witness, locked_all
from miniserve.course.check.numbers import Formula, Misconception, Number, Params, round_between, two_digits
from miniserve.course.check.verdict import Problem
from miniserve.planning.levers import recorded_scores, small_shares
from miniserve.policies.routing.affinity import PrefixAffinity

# --- 7.1 a formula -------------------------------------------------------------------------------------------------


def _draw_prompt(rng: Random) -> Params:
    prompt_tokens, block_tokens = rng.randrange(200, 4000), rng.choice((16, 32, 64, 128))
    shared_tokens = rng.randrange(0, prompt_tokens)
    if rng.random() < 0.25:
        shared_tokens -= shared_tokens % block_tokens  # whole blocks, which some count as one fewer or one more
    return {
        "prompt_tokens": prompt_tokens,
        "shared_tokens": shared_tokens,
        "block_tokens": block_tokens,
        "base_s": round_between(rng, 0.005, 0.1),
        "per_token_s": round_between(rng, 5e-5, 5e-4),
    }


HIT = Formula(
    id="7.1",
    name="ttft_s",
    title="The time to first token after a prefix hit",
    minutes=8,
    draw=_draw_prompt,
    truth=lambda prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s: (
        base_s + (prompt_tokens - shared_tokens // block_tokens * block_tokens) * per_token_s
    ),
    misconceptions=(
        Misconception(
            "parts-of-blocks",
            "You let the cache give back every shared token, but it gives back whole blocks only.",
            lambda prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s: (
                base_s + (prompt_tokens - shared_tokens) * per_token_s
            ),
            "How many whole blocks fit into the shared tokens?",
        ),
        Misconception(
            "blocks-rounded-up",
            "You rounded the blocks up, but the last one isn't the same to its end, so it isn't a hit.",
            lambda prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s: (
                base_s + (prompt_tokens - math.ceil(shared_tokens / block_tokens) * block_tokens) * per_token_s
            ),
            "Sharing fewer tokens than one block holds is no hit at all.",
        ),
        Misconception(
            "whole-block-lost",
            "Where the shared tokens fill whole blocks, you lose the last one; otherwise it's right.",
            lambda prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s: (
                base_s + (prompt_tokens - (math.ceil(shared_tokens / block_tokens) - 1) * block_tokens) * per_token_s
            ),
            "Work out a case in which the division leaves nothing over.",
        ),
        Misconception(
            "blocks-not-tokens",
            "You subtracted a number of blocks from a number of tokens.",
            lambda prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s: (
                base_s + (prompt_tokens - shared_tokens // block_tokens) * per_token_s
            ),
            "How many tokens do these blocks hold?",
        ),
        Misconception(
            "reads-what-is-known",
            "You let the replica read the tokens that it already knows, and not the others.",
            lambda prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s: (
                base_s + shared_tokens // block_tokens * block_tokens * per_token_s
            ),
            "With nothing shared, the whole prompt must be read.",
        ),
        Misconception(
            "time-saved",
            "This is the time that the hit saves, not what is left.",
            lambda prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s: (
                shared_tokens // block_tokens * block_tokens * per_token_s
            ),
            "The question is how long the wait is.",
        ),
        Misconception(
            "no-base",
            "You left out what every step takes, however few tokens it reads.",
            lambda prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s: (
                (prompt_tokens - shared_tokens // block_tokens * block_tokens) * per_token_s
            ),
            "Reading a single token already takes base_s + per_token_s.",
        ),
        Misconception(
            "no-hit",
            "This is the time without a hit.",
            lambda prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s: (
                base_s + prompt_tokens * per_token_s
            ),
            "Which of these tokens need not be read?",
        ),
    ),
    hints=(
        "Count the tokens that must be read: the whole prompt, except for blocks that are the same from their first "
        "token to their last.",
        "base_s + (prompt_tokens - whole blocks x ___) x per_token_s, where whole blocks = shared_tokens // ___. "
        "In Python, // divides and drops the rest.",
        "With other numbers: 45 of 90 tokens are shared, in blocks of 20. That is 2 whole blocks, or 40 tokens, so "
        "50 must be read. At 1 ms each and a base of 10 ms, that takes 60 ms.",
    ),
)

# --- 7.2 a trace ---------------------------------------------------------------------------------------------------

GIVEN_ROWS = 2  # the text gives them


@functools.cache
def _rows() -> list[lab.Row]:
    return lab.by_hand(PrefixAffinity(block_tokens=lab.BLOCK_TOKENS))


@functools.cache
def _elsewhere(row: int) -> int:
    """Return how many tokens of this row's prompt the other replica holds."""
    rows = _rows()
    sizes = {name: tokens for name, tokens in lab.EVENTS if tokens is not None}
    name, _, _, chosen, _ = rows[row]
    there = [lab.prompt(each[0][0], sizes[each[0]]) for each in rows[:row] if each[3] != chosen]
    return lab.held(there, lab.prompt(name[0], sizes[name]))


def _explain_row(row: int, column: str, seen: Json, right: Json) -> tuple[str, str]:
    name, on_a, on_b, chosen, found = _rows()[row + GIVEN_ROWS]
    other = _elsewhere(row + GIVEN_ROWS)
    load = {"A": on_a, "B": on_b}
    if column == "request":
        return (
            "order",
            f"The rows follow the order of arrival; here {name} arrives. Finished requests have no row of their own.",
        )
    if column in ("on A", "on B"):
        return "outstanding", "Count what was sent there before and hasn't finished. The new request doesn't count yet."
    if column == "replica" and seen not in ("A", "B"):
        return "no-replica", 'A replica is "A" or "B".'
    if column == "replica":
        less_busy = min(load, key=lambda id_: load[id_])
        if seen == less_busy != chosen:
            why = f"It has less to do, but holds only {other} tokens of the prompt, and the other one {found}."
            return "load-alone", why + " Put both into the score."
        if other > found:
            why = f"It holds more of the prompt, {other} tokens against {found}, but it has more to do: "
            return "prefix-alone", why + f"{load[str(seen)]} requests against {load[chosen]}. Put both into the score."
        return "score", "Work out both scores: the share of the prompt that is held, minus the load's part."
    if seen == 0 and found == lab.GUIDE_TOKENS:
        return "guide-forgotten", "No turn of this chat was sent there, but the guide was, with other prompts."
    if seen == other:
        return "other-replica", "That is what the other replica holds. Count what was sent to the chosen one."
    return "found", "Compare with each prompt that was sent there: how many tokens at the beginning are the same?"


PLACES = Trace(
    id="7.2",
    name="rows",
    title="Prefix against load, by hand",
    minutes=14,
    difficulty=3,
    truth=lambda: _rows()[GIVEN_ROWS:],
    columns=("request", "on A", "on B", "replica", "found"),
    explain=_explain_row,
    hints=(
        "Keep a list for each replica: which prompts were sent there, how long they were, and which requests "
        "haven't finished. Every prompt holds the guide.",
        "score = found / prompt - (outstanding - mean) / max(1, mean), for A and for B; mean = (A + B) / 2. The "
        "load part has the same size for both, with opposite ___.",
        "With other numbers: A has 5 outstanding, B has 3, so the mean is 4. Of 1,000 tokens, A holds 900 and B "
        "300. A: 0.9 - 1/4 = 0.65; B: 0.3 + 1/4 = 0.55. It goes to A, and 900 tokens are found.",
    ),
)

# --- 7.3 a prediction ----------------------------------------------------------------------------------------------

FOUND = Predict(
    id="7.3",
    name="found_between",
    title="What the caches give without a plan",
    minutes=6,
    difficulty=3,
    unit="",
    experiment=lambda: lab.found_share(lab.evening("by load")),
    widest=1.7,
    too_low="By chance, some follow-ups reach a replica that has read their chat, or an earlier part of it. How often?",
    too_high=(
        "The balancer doesn't know where a chat was read. How often does it pick that replica by chance, out of four?"
    ),
    hints=(
        "Both balancers serve the same chats. What differs is the chance that a follow-up finds its own cache.",
        "The share by load = the share by prefix x the chance that the last turn was read on the same replica, one "
        "in ___. A little more is found where an earlier turn of the chat was read.",
        "With other numbers: if two replicas find 50 % of all tokens by prefix, by chance they find half as many, "
        "25 %, and more with the earlier turns: perhaps between 24 % and 36 %.",
    ),
)

# --- 7.4 a witness -------------------------------------------------------------------------------------------------

RANGES: dict[str, tuple[float, float]] = {
    "guides": (2, 40),
    "guide_tokens": (200, 3000),
    "hot_share": (0, 0.95),
    "requests_per_s": (0.2, 2.5),
}
LIMIT_S, TIMES_WORSE = 4.0, 3.0


def _refused(told: Json) -> Problem | None:
    keys = ", ".join(RANGES)
    if not (isinstance(told, dict) and set(told) == set(RANGES)):
        return Problem(
            "no-demand", repr(told)[:80], f"The keys are {keys}.", "Give a dictionary with these four.", "your answer"
        )
    for key, (low, high) in RANGES.items():
        value = told[key]
        if type(value) not in (int, float) or not low <= value <= high:
            why = f"{key} lies between {low:g} and {high:g}."
            return Problem("out-of-range", f"{key} = {value!r}"[:80], why, "Choose a number in that range.", key)
        if key in ("guides", "guide_tokens") and value != int(value):
            return Problem("part-of-one", f"{key} = {value}", f"{key} is a count.", "Give a whole number.", key)
    return None


def _judge_demand(told: Json) -> Problem | None:
    if (problem := _refused(told)) is not None:
        return problem
    demand: dict[str, Any] = {
        "guides": int(told["guides"]),
        "guide_tokens": int(told["guide_tokens"]),
        "hot_share": float(told["hot_share"]),
        "requests_per_s": float(told["requests_per_s"]),
    }
    by_load_s = lab.ttft_p99_s(lab.spring("by load", **demand))
    alone = lab.spring("by prefix alone", **demand)
    alone_s, busiest = lab.ttft_p99_s(alone), lab.busiest_share(alone)
    seen = f"p99 of the time to first token: {by_load_s:.2f} s by load, {alone_s:.2f} s by prefix alone"
    where = f"the busiest replica by prefix got {busiest:.0%} of the requests"
    if by_load_s > LIMIT_S:
        why = (
            f"Even by load, some requests wait longer than {LIMIT_S:g} s: this is too much for four replicas, "
            "however it is shared."
        )
        return Problem(
            "too-much-for-all", seen, why, "Send fewer requests per second, or make the guides shorter.", where
        )
    if alone_s >= TIMES_WORSE * by_load_s:
        return None
    if busiest < 0.4:
        why = "By prefix the work is spread fairly evenly, so no replica falls far behind the others."
        return Problem("nobody-is-hot", seen, why, "Which of the four numbers makes one guide more popular?", where)
    why = f"The busiest replica gets {busiest * demand['requests_per_s']:.2f} requests/s, and keeps up with them."
    most_per_s = lab.capacity_per_s(demand["guide_tokens"], known=True)
    return Problem("it-copes", seen, why, f"It can serve about {most_per_s:.2f} per second. Give it more.", where)


TOO_POPULAR = Witness(
    id="7.4",
    name="demand",
    title="More hits, longer waits",
    minutes=10,
    difficulty=3,
    judge_value=_judge_demand,
    hints=(
        "By prefix alone, all questions behind one guide go to one replica, however long its queue is.",
        "requests/s on that replica = requests_per_s x ___, and it can serve about 0.7 per second. All four "
        "together can serve about four times that, so requests_per_s itself must stay below ___.",
        "On another fleet, ten replicas can serve 2 requests/s each. At 10 requests/s, of which 50 % go to one "
        "replica, that one gets 5 per second and can serve 2. Its queue grows all day, while nine have time to "
        "spare.",
    ),
)

# --- 7.5 a formula -------------------------------------------------------------------------------------------------


def _draw_cascade(rng: Random) -> Params:
    small_usd = round_between(rng, 0.01, 0.2)
    return {
        "kept_share": round_between(rng, 0.1, 0.95),
        "small_usd": small_usd,
        "large_usd": two_digits(small_usd * rng.uniform(2, 20)),
        "check_usd": two_digits(small_usd * rng.uniform(0.05, 0.5)),
    }


CASCADE = Formula(
    id="7.5",
    name="cascade_usd",
    title="What a cascade costs",
    minutes=7,
    draw=_draw_cascade,
    truth=lambda kept_share, small_usd, large_usd, check_usd: small_usd + check_usd + (1 - kept_share) * large_usd,
    misconceptions=(
        Misconception(
            "either-or",
            "You let each question go to one model. In a cascade the small one answers all of them.",
            lambda kept_share, small_usd, large_usd, check_usd: (
                kept_share * small_usd + (1 - kept_share) * large_usd + check_usd
            ),
            "Which models work on a question that ends up with the large one?",
        ),
        Misconception(
            "share-swapped",
            "You sent the kept answers to the large model.",
            lambda kept_share, small_usd, large_usd, check_usd: small_usd + check_usd + kept_share * large_usd,
            "If all answers are kept, the large model costs nothing.",
        ),
        Misconception(
            "check-forgotten",
            "You left out what it costs to look at the answers.",
            lambda kept_share, small_usd, large_usd, check_usd: small_usd + (1 - kept_share) * large_usd,
            "Each of the small model's answers is checked.",
        ),
        Misconception(
            "check-of-some",
            "You paid for the check only where the answer wasn't kept. You know that only after the check.",
            lambda kept_share, small_usd, large_usd, check_usd: small_usd + (1 - kept_share) * (large_usd + check_usd),
            "If all answers are kept, they were still checked.",
        ),
        Misconception(
            "both-always",
            "You asked the large model every time.",
            lambda kept_share, small_usd, large_usd, check_usd: small_usd + check_usd + large_usd,
            "If all answers are kept, the large model costs nothing.",
        ),
    ),
    hints=(
        "Follow one question: what do you pay in any case, and what only sometimes?",
        "In any case: ___ + ___. With probability 1 - ___ the small model's answer isn't kept, and you pay "
        "large_usd on top.",
        "With other numbers: small 1 cent, large 9 cents, check 0.5 cents, two answers in three are kept: 1 + 0.5 + "
        "9 / 3 = 4.5 cents.",
    ),
)

# --- 7.6 a number --------------------------------------------------------------------------------------------------

_SCORES = recorded_scores()
_EASY_LOSS = _SCORES["large"]["easy"] - _SCORES["small"]["easy"]
_HARD_LOSS = _SCORES["large"]["hard"] - _SCORES["small"]["hard"]


def _draw_floor(rng: Random) -> Params:
    return {"easy_share": rng.choice((0.7, 0.75, 0.8)), "lost_points": rng.choice((2, 3, 4))}


def _hard_to_small(easy_share: float, lost_points: float) -> float:
    features = {"easy": easy_share, "hard": 1 - easy_share}
    return small_shares(features, _SCORES["large"], _SCORES["small"], lost_points / 100)["hard"]


FLOOR = Number(
    id="7.6",
    name="hard_to_small",
    title="Down to the quality floor",
    minutes=9,
    difficulty=3,
    draw=_draw_floor,
    truth=_hard_to_small,
    misconceptions=(
        Misconception(
            "easy-is-free",
            "You treated the easy questions as free, but the small model is a little worse on them as well.",
            lambda easy_share, lost_points: lost_points / 100 / ((1 - easy_share) * _HARD_LOSS),
            "Which part of the allowance do the easy questions use up?",
        ),
        Misconception(
            "share-of-all",
            "This is the share of all questions that are hard and go to the small model.",
            lambda easy_share, lost_points: (lost_points / 100 - easy_share * _EASY_LOSS) / _HARD_LOSS,
            "The question is about the hard ones alone.",
        ),
        Misconception(
            "easy-loss-unweighted",
            "You subtracted the whole loss on easy questions. Not all questions are easy.",
            lambda easy_share, lost_points: (lost_points / 100 - _EASY_LOSS) / ((1 - easy_share) * _HARD_LOSS),
            "Weight each loss by the share of questions that it falls on.",
        ),
        Misconception(
            "shares-swapped",
            "You weighted the loss on hard questions by the share of the easy ones.",
            lambda easy_share, lost_points: (lost_points / 100 - easy_share * _EASY_LOSS) / (easy_share * _HARD_LOSS),
            "What share of all questions is hard?",
        ),
        Misconception(
            "points-not-percent",
            "A point is a hundredth: 2 points are 0.02.",
            lambda easy_share, lost_points: (lost_points - easy_share * _EASY_LOSS) / ((1 - easy_share) * _HARD_LOSS),
            "Accuracies in the table are shares; put the points on the same scale.",
        ),
    ),
    hints=(
        "The allowance is spent in two places. First subtract what the easy questions use up, when all of them go to "
        "the small model.",
        "allowance = easy_share x (loss on an easy one) + (1 - easy_share) x ___ x (loss on a hard one). Solve for the "
        "blank. A loss is the large model's accuracy minus the small one's.",
        "With other numbers: half of the questions are easy, the losses are 0.01 and 0.5, and the allowance is 10 "
        "points. Easy ones use 0.5 x 0.01 = 0.005; 0.095 is left. A hard one costs 0.5, and half are hard: 0.095 / "
        "(0.5 x 0.5) = 0.38.",
    ),
)

# --- 7.7 classify --------------------------------------------------------------------------------------------------

DECISIONS = Classify(
    id="7.7",
    name="decisions",
    title="Where should it go?",
    minutes=7,
    items=lab.SITUATIONS,
    options=tuple(lab.CHOICES),
    keys=locked_all(
        "7.7",
        a="by prefix",
        b="by load",
        c="by load",
        d="small model",
        e="large model",
        f="cascade",
        g="no sharing",
        h="by load",
    ),
    because={
        "a": "There is a long prompt to save, and no queue to pay for it.",
        "b": "The hit saves a fraction of a second; thirty requests ahead in the queue take much longer than that.",
        "c": "There is nothing to find in any cache, so only the queues differ.",
        "d": "Where both are right equally often, the cheaper one is enough, and you needn't see its answer first.",
        "e": "A cascade keeps answers that the small model is sure of, and here it is sure but wrong.",
        "f": "The answers themselves show which questions were hard, and asking twice keeps nobody waiting.",
        "g": "A fast first token reveals that someone has sent the same beginning. Only separate caches hide that.",
        "h": "Every replica has it, so all are equally good: only the queues are left to choose by.",
    },
    hints=(
        "First ask whether it is about the replica, the model, or neither.",
        "The replica: compare what a hit would save with what the queue would cost. The model: can you tell in "
        "advance? If not, does the small model know when it is wrong?",
        "Another one: a prompt of 20 tokens on an idle fleet. A hit would save next to nothing: by load.",
    ),
)

# --- 7.8 free text -------------------------------------------------------------------------------------------------

PROPOSAL = FreeText(
    id="7.8",
    name="reply",
    title="A reply to the manager",
    minutes=10,
    difficulty=3,
    at_least_words=50,
    rubric=(
        "Says what the small model for everything would save and what it would lose, with numbers: cost per 1,000 "
        "answers, accuracy on hard questions.",
        "Says that affinity alone piles up the popular guide's questions on one replica, with a number.",
        "Proposes to weigh prefix against load, and says what that keeps: most of the hits, and short queues.",
        "Proposes a router or a cascade with a quality floor, names who sets it, and what the router itself costs.",
        "Says what to watch: accuracy on hard questions by itself, p99 and the busiest replica's share, not averages.",
    ),
    model_answer=(
        "Using the small model for everything costs 0.057 USD per 1,000 answers instead of 0.322, a sixth. But on "
        "hard questions it is right 24 % of the time instead of 91 %, and an average over mostly easy ones hides "
        "that. Sending every question to the replica that has its guide is fine while guides are equally popular. "
        "On the Saturday with one hot guide, one replica of four got 66 % of the requests, and the p99 of the first "
        "token was 49 s instead of 1 s by load. So I would weigh prefix against load: that still finds 93 % of the "
        "tokens, against 95 %, and keeps the p99 at 1 s. And I would let a router send the easy questions to the "
        "small model, and of the hard ones only as many as a floor set by management allows; the router's own cost "
        "belongs in the sum. We should watch the accuracy on hard questions by itself, the p99, and the busiest "
        "replica's share of the requests."
    ),
    hints=(
        "Take the two proposals one by one: what does each save, whom does it hurt, and how badly?",
        "Money: cost of ___ against cost of ___ per 1,000 answers. Quality: accuracy on the ___ questions. Waiting: "
        "the p99 of the day with a ___ guide. Then: which limit would you put beside each saving?",
        'About another service: "Answering every email from a template saves 40 % and angers the one customer in '
        "five whose email fits none. I would use templates where the subject line is known, and count complaints by "
        'week."',
    ),
)

QUESTIONS = (HIT, PLACES, FOUND, TOO_POPULAR, CASCADE, FLOOR, DECISIONS, PROPOSAL)
