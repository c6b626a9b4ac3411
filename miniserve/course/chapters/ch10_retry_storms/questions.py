"""Chapter 10, retry storms: the questions, their true answers, and what each wrong answer means."""

from __future__ import annotations

from random import Random

from miniserve.course.chapters.ch10_retry_storms import lab
from miniserve.course.check.ask import Json
from miniserve.course.check.kinds import Classify, FreeText, Kill, Predict, Trace, Witness, locked_all
from miniserve.course.check.numbers import Formula, Misconception, Number, Params, round_between
from miniserve.course.check.verdict import Problem
from miniserve.errors import Overloaded
from miniserve.policies.recovery.retry import Backoff, NaiveRetry, NeverRetry, expected_attempts
from miniserve.policies.recovery.waits import no_jitter

# --- 10.1 a formula ------------------------------------------------------------------------------------------------


def _draw_tries(rng: Random) -> Params:
    return {"p": round_between(rng, 0.05, 0.95), "n": rng.randrange(2, 9)}


AMPLIFICATION = Formula(
    id="10.1",
    name="mean_tries",
    title="How many tries one request makes",
    minutes=7,
    truth=lambda p, n: expected_attempts(p, n),
    draw=_draw_tries,
    misconceptions=(
        Misconception(
            "no-limit",
            "This is the mean without a limit: it lets a request retry for ever.",
            lambda p, n: 1 / (1 - p),
            "The sum ends with the nth try.",
        ),
        Misconception(
            "one-try-more",
            "You counted one try too many: n includes the first.",
            lambda p, n: (1 - p ** (n + 1)) / (1 - p),
            "For n = 1 the answer must be 1.",
        ),
        Misconception(
            "one-try-fewer",
            "You counted one try too few: n includes the first.",
            lambda p, n: (1 - p ** (n - 1)) / (1 - p),
            "For n = 1 the answer must be 1.",
        ),
        Misconception(
            "retries-only",
            "These are the retries alone, but the first try is load as well.",
            lambda p, n: (1 - p**n) / (1 - p) - 1,
            "For p = 0 the answer must be 1.",
        ),
        Misconception(
            "all-or-one",
            "You let every request whose first try fails make all its tries; most succeed before the last.",
            lambda p, n: 1 + p * (n - 1),
            "The third try happens only if two have failed.",
        ),
        Misconception(
            "served-share",
            "This is the share of requests that succeed in the end.",
            lambda p, n: 1 - p**n,
            "Which tries happen, and how likely is each?",
        ),
        Misconception(
            "chance-swapped",
            "You took p as the probability that a try succeeds.",
            lambda p, n: (1 - (1 - p) ** n) / p,
            "Here p is the probability that it fails.",
        ),
    ),
    hints=(
        "Take each try by itself: how likely is it to happen at all? The mean is the sum of these probabilities.",
        "The first happens with probability 1; the second if the first failed: p. The kth: p ** ___. Add up k = 1 to "
        "n.",
        "With other numbers: if nine tries in ten failed and two were allowed, 1 + 0.9 = 1.9 tries; with three, "
        "1 + 0.9 + 0.81 = 2.71.",
    ),
)

# --- 10.2 a number -------------------------------------------------------------------------------------------------


def _draw_layers(rng: Random) -> Params:
    layers, tries = rng.choice(((3, 4), (4, 3), (3, 5), (5, 4), (4, 5)))
    return {"layers": layers, "tries": tries}


LAYERS = Number(
    id="10.2",
    name="tries_at_the_gpu",
    title="Layers that all retry",
    minutes=5,
    draw=_draw_layers,
    truth=lambda layers, tries: tries**layers,
    rtol=0.0,
    misconceptions=(
        Misconception(
            "added",
            "You added the layers. But each try of an outer layer sets off all the tries of the layer below.",
            lambda layers, tries: layers * tries,
            "Draw the tree of two layers.",
        ),
        Misconception(
            "swapped",
            "You swapped base and exponent.",
            lambda layers, tries: layers**tries,
            "With one layer, the answer must be that layer's tries.",
        ),
        Misconception(
            "retries-only",
            "You multiplied the retries alone; each layer also passes on its first try.",
            lambda layers, tries: (tries - 1) ** layers,
            "A layer that makes n tries passes on n, including the first.",
        ),
        Misconception(
            "one-layer-fewer",
            "You left one layer out.",
            lambda layers, tries: tries ** (layers - 1),
            "The innermost layer multiplies as well.",
        ),
    ),
    hints=(
        "Start inside: how often does the innermost layer try when it is asked once? And how often is it asked?",
        "Each layer multiplies what it gets by its own tries: ___ x ___ x ..., one factor for each layer.",
        "With other numbers: two layers of six tries make 6 x 6 = 36.",
    ),
)

# --- 10.3 a trace --------------------------------------------------------------------------------------------------

_SECONDS = 8


def _wave_rows() -> list[tuple[int, int, int, int, int]]:
    drawn = list(lab.JITTERED_S.values())
    bare = lab.wave(lambda _, failures: lab.BARE_S[failures - 1], len(drawn), lab.SERVED_PER_S, _SECONDS)
    jittered = lab.wave(lambda client, failures: drawn[client][failures - 1], len(drawn), lab.SERVED_PER_S, _SECONDS)
    return [(*one, *other[1:]) for one, other in zip(bare, jittered, strict=True)]


def _explain_wave(row: int, column: str, seen: Json, right: Json) -> tuple[str, str]:
    second, bare, _, jittered, _ = _wave_rows()[row + 1]
    first = sum(waits[0] == second for waits in lab.JITTERED_S.values())
    if column == "second":
        return "second", f"The rows go from second 2 to second {_SECONDS}, one each, including empty seconds."
    if column == "bare arrive" and bare == 0:
        return (
            "bare-too-early",
            "Without jitter all clients wait 4 s after their first failure, 8 s after their second.",
        )
    if column == "bare arrive":
        return "bare-all-at-once", "All twelve failed at second 0 and waited equally long. Which ones are missing?"
    if column == "bare served":
        return "bare-served", f"Each second serves up to {lab.SERVED_PER_S} of the clients that arrive in it."
    if column == "jitter arrive" and seen == first:
        return "second-wait-forgotten", "A client failed in an earlier second, and its second wait ends here."
    if column == "jitter arrive":
        return "jitter-arrive", "Count first waits that end here, and second waits of clients that failed earlier."
    return "jitter-served", f"{jittered} arrive; the service does up to {lab.SERVED_PER_S}, and the others fail."


WAVE = Trace(
    id="10.3",
    name="rows",
    title="A wave, with and without jitter",
    minutes=12,
    difficulty=3,
    truth=lambda: _wave_rows()[1:],
    columns=("second", "bare arrive", "bare served", "jitter arrive", "jitter served"),
    explain=_explain_wave,
    hints=(
        "Keep two separate lists. Without jitter all clients do the same. With jitter, enter each client at the second "
        "when its first wait ends.",
        "arrive(s) = clients whose first wait is s + clients that failed at second t and whose second wait is s - t. "
        "served(s) = min(arrive(s), ___).",
        "With other numbers: a service does two tries per second, and A, B and C arrive at second 5. A and B are "
        "served. C fails, and with a second wait of 6 s it arrives again at second 11.",
    ),
)

# --- 10.4 a prediction ---------------------------------------------------------------------------------------------

TRIES = Predict(
    id="10.4",
    name="tries_between",
    title="Tries when nothing is broken any more",
    minutes=6,
    difficulty=3,
    unit="tries",
    experiment=lambda: lab.larkspur_storm("naive").between(*lab.LATE_S)[1],
    widest=1.5,
    too_low="The GPUs have recovered, but what are they working on, and for whom?",
    too_high="A client gives up after its last try: no request makes more than that.",
    hints=(
        "The GPUs are fast again. The question is whether they can work off what has piled up.",
        "If nearly all tries fail, the load is 19 x ___ tries per second; compare that with the 24 that the GPUs can "
        "do. What does that make of p in your formula of 10.1?",
        "With other numbers: 10 requests/s, a service that can do 15, and two tries: when it fails, it gets 20 "
        "tries/s. It goes on failing, and each request makes both tries.",
    ),
)

# --- 10.5 a witness ------------------------------------------------------------------------------------------------

_RANGES = {"arrivals_per_s": (1, 9), "fault_s": (1, 20), "tries": (2, 10), "wait_s": (0, 10)}


def _judge_storm(told: Json) -> Problem | None:
    if not (isinstance(told, dict) and set(told) == set(_RANGES)):
        keys = ", ".join(_RANGES)
        return Problem("no-parameters", repr(told)[:80], f"The keys are {keys}.", "Give a dictionary with these four.")
    for key, (low, high) in _RANGES.items():
        if type(told[key]) not in (int, float) or not low <= told[key] <= high:
            seen = f"{key} = {told[key]!r}"[:80]
            return Problem("out-of-range", seen, f"{key} lies between {low} and {high}.", "Choose a number there.")
    if told["tries"] != int(told["tries"]):
        return Problem("half-a-try", f"tries = {told['tries']}", "Tries are whole.", "Give a whole number.")
    demand = {"arrivals_per_s": told["arrivals_per_s"], "fault_s": told["fault_s"]}
    without = lab.storm(NeverRetry(), **demand).late_share
    retrying = NaiveRetry(max_attempts=int(told["tries"]), wait_s=told["wait_s"])
    with_retries = lab.storm(retrying, **demand).late_share
    seen = f"answered in the last minute: {without:.0%} without retries, {with_retries:.0%} with"
    if without < 0.95:
        why = "It stays down even without retries, so retries are not to blame."
        return Problem("down-anyway", seen, why, "Capacity minus arrivals drains the queue: make that larger.")
    if with_retries <= 0.1:
        return None
    load = told["arrivals_per_s"] * told["tries"]
    if load <= lab.CAPACITY_PER_S:
        why = f"Even if all tries fail, {load:g} per second arrive, and the server can do {lab.CAPACITY_PER_S}."
        return Problem("load-too-small", seen, why, "Use more requests, or more tries.")
    why = "The fault was too short, or the retries too sparse, to keep every client waiting beyond 2 s."
    return Problem("it-recovers", seen, why, "Lengthen the fault, or let clients come back sooner.")


STAYS_DOWN = Witness(
    id="10.5",
    name="parameters",
    title="Down, though nothing is broken",
    minutes=10,
    difficulty=3,
    judge_value=_judge_storm,
    hints=(
        "You need two things: a push, and a load that then sustains itself.",
        "Without retries: arrivals_per_s well below 10, so that the queue drains. With failing tries: "
        "arrivals_per_s x tries above ___. And the queue after the fault must be longer than the clients' patience.",
        "With another server, of 50 tries/s: 40 requests/s and two tries make 80 when all fail. A fault of 1 s leaves "
        "40 in the queue, which is 0.8 s of work: less than the patience of 2 s, so the server recovers.",
    ),
)

# --- 10.6 a kill ---------------------------------------------------------------------------------------------------

BASE_S, CAP_S, MOST_TRIES = 0.5, 20.0, 10
_KEYS = {"attempt", "retry_after_s", "now_s", "deadline_s"}


def _number(value: Json) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1000


def _admissible(told: Json) -> Problem | None:
    if not (isinstance(told, list) and 1 <= len(told) <= 2 and all(isinstance(row, dict) for row in told)):
        why = "The answer is a list of one or two failures, each a dictionary."
        return Problem("no-list", repr(told)[:80], why, "Start from the example in the cell above.")
    for i, row in enumerate(told):
        where = f"failure {i + 1}"
        if set(row) != _KEYS:
            keys = ", ".join(sorted(_KEYS))
            return Problem("keys", repr(sorted(row))[:80], f"The keys are {keys}.", "Give all four.", where)
        if type(row["attempt"]) is not int or not 1 <= row["attempt"] <= 9:
            why = "attempt counts the failures so far, 1 to 9."
            return Problem("no-attempt", repr(row["attempt"])[:80], why, "Give a whole number.", where)
        optional = [row[key] for key in ("retry_after_s", "deadline_s") if row[key] is not None]
        if not all(map(_number, [row["now_s"], *optional])):
            why = "Times are numbers from 0 to 1,000; retry_after_s and deadline_s may be None."
            return Problem("no-time", repr(row)[:80], why, "Give seconds, as plain numbers.", where)
    return None


def _own_wait(attempt: int) -> float:
    return min(CAP_S, BASE_S * 2.0 ** (attempt - 1))


def _right(row: dict[str, Json]) -> Json:
    error = Overloaded("busy", retry_after_s=row["retry_after_s"])
    policy = Backoff(max_attempts=MOST_TRIES, base_s=BASE_S, cap_s=CAP_S, jitter=no_jitter)
    return policy.delay_s(row["attempt"], error, row["now_s"], row["deadline_s"])


def _in_time(delay_s: float, row: dict[str, Json]) -> Json:
    return delay_s if row["deadline_s"] is None or row["now_s"] + delay_s < row["deadline_s"] else None


def _never_caps(row: dict[str, Json]) -> Json:
    told_s = row["retry_after_s"]
    return _in_time(BASE_S * 2.0 ** (row["attempt"] - 1) if told_s is None else told_s, row)


def _never_listens(row: dict[str, Json]) -> Json:
    return _in_time(_own_wait(row["attempt"]), row)


def _never_looks_at_the_clock(row: dict[str, Json]) -> Json:
    return _own_wait(row["attempt"]) if row["retry_after_s"] is None else row["retry_after_s"]


BUGS = Kill(
    id="10.6",
    name="failures",
    title="Two failures that find three bugs",
    minutes=10,
    difficulty=4,
    admissible=_admissible,
    correct=lambda told: [_right(row) for row in told],
    buggy={
        "never-caps": (
            lambda told: [_never_caps(row) for row in told],
            "It has no cap: is there a failure without push-back whose wait would exceed 20 s and still be in time?",
        ),
        "never-listens": (
            lambda told: [_never_listens(row) for row in told],
            "It ignores what the server asks for: does any of your failures carry a retry_after_s that matters?",
        ),
        "never-looks-at-the-clock": (
            lambda told: [_never_looks_at_the_clock(row) for row in told],
            "It waits past the deadline: is there a failure whose wait would end after its deadline?",
        ),
    },
    hints=(
        "One of the three needs a failure of its own; a single failure can find the other two.",
        "Cap: 0.5 x 2 ** (attempt - 1) > 20, no push-back, and no deadline in the way. Clock and push-back: "
        "now_s + retry_after_s > ___, while now_s + the policy's own wait < ___.",
        "With other bugs: a version that never gives up and one that adds a second to each wait are both found by two "
        "failures, one with the last attempt and one with the first.",
    ),
)

# --- 10.7 classify -------------------------------------------------------------------------------------------------

REMEDIES = Classify(
    id="10.7",
    name="remedies",
    title="Which remedy for which storm",
    minutes=8,
    items=lab.SITUATIONS,
    options=tuple(lab.REMEDIES),
    keys=locked_all(
        "10.7", a="jitter", b="breaker", c="no retry", d="one layer", e="budget", f="cap", g="backoff", h="no retry"
    ),
    because={
        "a": "They already wait longer each time, but all equally long: they come back as one wave.",
        "b": "There aren't too many requests; they go to a GPU that can't answer, and each pays its timeout.",
        "c": "However long you wait, it fails again for the same reason: the request is wrong, not the service.",
        "d": "3 x 3 x 3 = 27 tries of one request. Each layer is moderate; the product isn't.",
        "e": "Each client keeps to its rules. Only a limit on the retries of all clients together keeps the load down.",
        "f": "Doubling is right at first, but after ten doublings nobody is waiting for the answer any more.",
        "g": "Without any wait, the failing service gets its whole load again within milliseconds.",
        "h": "You can't take back what was read. A second answer would differ, and follow half of the first.",
    },
    hints=(
        "Ask each time: is the request wrong, or the moment, or the number of tries, or the place that retries?",
        "The moment: backoff, jitter, cap. The number: budget, one layer. The replica it goes to: breaker. "
        "Pointless: no retry.",
        "Another one: a wrong password gives 401. Sending it again doesn't make it right: no retry.",
    ),
)

# --- 10.8 free text ------------------------------------------------------------------------------------------------

REVIEW = FreeText(
    id="10.8",
    name="review",
    title="After the storm",
    minutes=10,
    difficulty=3,
    at_least_words=50,
    rubric=(
        "Separates the trigger (20 s of slow GPUs) from what kept the service down (retries beyond its capacity).",
        "Says with numbers why the service could not recover: 19 requests/s times four tries against 24 per second.",
        "Says why more patience or backoff alone would not help, or what each measure changes: moment or number.",
        "Proposes a limit on the retries of all clients together (a budget), in one layer, and names its price: some "
        "requests fail.",
        "Names a way out while the service is down: shed load or switch retries off until the queue is empty.",
    ),
    model_answer=(
        "For 20 s our GPUs were slow; that was the trigger, and it ended by itself. What kept us down was our own "
        "retries: each of 19 requests/s was tried four times, so 76 tries/s met GPUs that can do 24, and they worked "
        "on answers whose readers had left. Backoff would have moved these tries, not removed them. From now on only "
        "the clients retry, with jitter and at most three tries, and all of them share a budget of one retry per ten "
        "requests, so that the load stays below 21 per second. The price is that during a fault most requests fail "
        "after one try. If it happens again, we refuse new requests at the gateway until the queue is empty."
    ),
    hints=(
        "What started it, and what kept it going? The two have different remedies.",
        "Load while all tries fail = requests/s x tries; with a budget = requests/s x (1 + ___). Compare both "
        "with what the service can do.",
        'About another service: "A disk was full for a minute. The 200 uploads/s were each tried five times; 1,000 '
        'tries/s met room for 300. A budget of a tenth would have made them 220."',
    ),
)

QUESTIONS = (AMPLIFICATION, LAYERS, WAVE, TRIES, STAYS_DOWN, BUGS, REMEDIES, REVIEW)
