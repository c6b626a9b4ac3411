"""Chapter 12's questions: three balancers, one prediction, one text.

`balancing_asked`, `balancing_judged` and `two_choices` ask and judge balancers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from miniserve.course.chapters.ch12_balancer import lab
from miniserve.course.chapters.ch12_balancer.asked import (
    View,
    contract,
    fewer_rounds,
    luck,
    many,
    random_rounds,
    traffic,
)
from miniserve.course.chapters.ch12_balancer.drive import drive_choose
from miniserve.course.chapters.ch12_balancer.judged import (
    Rules,
    beside_reference,
    broke,
    judge_cost,
    judge_luck,
    least_of,
    offered,
    outstanding_of,
)
from miniserve.course.chapters.ch12_balancer.two_choices import (
    judge_pairs,
    judge_two,
    judge_two_of_many,
    pairs,
    two_contract,
    two_examples,
    two_of_many,
    two_traffic,
)
from miniserve.course.check.ask import Json
from miniserve.course.check.code import CheckLayer, Code
from miniserve.course.check.kinds import FreeText, Predict
from miniserve.policies.routing.balancer import LeastKv, LeastOutstanding
from miniserve.seeds import generator

# --- 12.1 ----------------------------------------------------------------------------------------------------------


_OUTSTANDING_RULES: Rules = (
    ("picks-max", "It is the busiest.", lambda v: -outstanding_of(v)),
    (
        "counts-finished",
        "You pick the replica that got the fewest requests so far, but requests that have ended are no longer load.",
        lambda v: v["sent"],
    ),
    (
        "first-listed",
        "It is the first in the list, whatever its load.",
        lambda v: v["place"],
    ),
    (
        "queue-depth",
        "You compare `queue_depth`, which comes by report and is stale; the gateway counts `outstanding` itself.",
        lambda v: v["queue_depth"],
    ),
    ("running", "You compare `running`, which leaves out the waiting requests.", lambda v: v["running"]),
    ("kv", "You pick the emptiest pool, but its fullness doesn't count requests.", lambda v: v["kv_used_fraction"]),
    (
        "adds-queue",
        "You add `queue_depth` to `outstanding`, so requests that wait count twice.",
        lambda v: outstanding_of(v) + v["queue_depth"],
    ),
    (
        "adds-running",
        "You add `running` to `outstanding`, so requests that run count twice.",
        lambda v: outstanding_of(v) + v["running"],
    ),
)

_judge_outstanding = partial(
    least_of, outstanding_of, ("outstanding",), _OUTSTANDING_RULES, "Compare `outstanding`, and nothing else."
)


def _outstanding_examples(seed: int) -> Sequence[Json]:
    """The text's example, and thirty more, the same for every learner."""
    views = [
        {"replica_id": "a", "outstanding": 3, "queue_depth": 0, "running": 3, "kv_used_fraction": 0.2},
        {"replica_id": "b", "outstanding": 1, "queue_depth": 1, "running": 4, "kv_used_fraction": 0.9},
        {"replica_id": "c", "outstanding": 2, "queue_depth": 2, "running": 1, "kv_used_fraction": 0.4},
    ]
    (others,) = random_rounds(0, 30)
    return [{"lives": [[{"id": "q3", "replicas": views}, *others["lives"][0]]]}]


LEAST_OUTSTANDING = Code(
    id="12.1",
    name="LeastOutstanding",
    title="The fewest unfinished requests",
    minutes=15,
    difficulty=2,
    target="miniserve/policies/routing/balancer.py::LeastOutstanding.choose",
    forbidden=("least", "LeastQueue", "LeastKv", "PowerOfTwo", "BALANCERS"),
    driver=drive_choose,
    layers=(
        CheckLayer("contract", lambda seed: contract({"outstanding": 5}), offered, on_error=broke),
        CheckLayer("examples", _outstanding_examples, _judge_outstanding, fewer_rounds, broke),
        CheckLayer(
            "properties",
            lambda seed: [*random_rounds(seed), *luck(seed, {"outstanding": 2})],
            lambda asked, told: (
                judge_luck("load", asked, told) if "about" in asked else _judge_outstanding(asked, told)
            ),
            fewer_rounds,
            broke,
        ),
        CheckLayer(
            "differential",
            traffic,
            beside_reference(LeastOutstanding, _judge_outstanding),
            fewer_rounds,
            broke,
        ),
        CheckLayer("cost", many, partial(judge_cost, 5, 4), on_error=broke),
    ),
    hints=(
        "Load is what is there now. Which number of a view counts the requests that we sent and that haven't ended?",
        "Three steps: what is the smallest number? Which replicas have it? Which of these does the request draw?",
        "With loads {x: 4, y: 2, z: 2} the smallest is 2, the tied replicas are [y, z] in name order, and "
        "a number drawn for the request, say 7, picks place 7 % 2 = 1, so z. You get such a number from "
        '`number("any word", request.request_id)`.',
    ),
)


# --- 12.2 ----------------------------------------------------------------------------------------------------------


def _room(view: View) -> tuple[int, float]:
    return int(view.get("queue_depth", 0)), float(view.get("kv_used_fraction", 0.0))


_KV_RULES: Rules = (
    ("picks-max", "It is the fullest.", lambda v: tuple(-part for part in _room(v))),
    (
        "kv-only",
        "Its pool is the emptiest, but more requests wait there: they hold no blocks yet.",
        lambda v: v["kv_used_fraction"],
    ),
    (
        "queue-only",
        "Its queue is the shortest, but another replica with an equally short queue has more room.",
        lambda v: v["queue_depth"],
    ),
    (
        "adds",
        "You added queue and fullness, so a full pool weighs as much as one waiting request.",
        lambda v: v["queue_depth"] + v["kv_used_fraction"],
    ),
    (
        "multiplies",
        "You multiplied queue and fullness, so a zero in one hides the other.",
        lambda v: v["queue_depth"] * v["kv_used_fraction"],
    ),
    (
        "outstanding",
        "You compare `outstanding`, our own requests only. Here you should use the reports.",
        outstanding_of,
    ),
    ("running", "You compare `running`, but running requests already have their room.", lambda v: v["running"]),
    ("first-listed", "It is the first in the list.", lambda v: v["place"]),
)

_judge_kv = partial(
    least_of,
    _room,
    ("queue_depth", "kv_used_fraction"),
    _KV_RULES,
    "Compare the queue first, then the pool: tuples compare in that order.",
)


def _kv_examples(seed: int) -> Sequence[Json]:
    views = [
        {"replica_id": "a", "outstanding": 1, "queue_depth": 2, "running": 1, "kv_used_fraction": 0.1},
        {"replica_id": "b", "outstanding": 9, "queue_depth": 0, "running": 5, "kv_used_fraction": 0.6},
        {"replica_id": "c", "outstanding": 2, "queue_depth": 0, "running": 4, "kv_used_fraction": 0.8},
    ]
    (others,) = _kv_rounds(0)
    return [{"lives": [[{"id": "q3", "replicas": views}, *others["lives"][0]]]}]


def _kv_rounds(seed: int) -> Sequence[Json]:
    """Random views; full pools against short queues, which sums and products confuse; pools that are nearly alike."""
    rng = generator(seed, "12 pools")
    edges = [
        {
            "id": f"q{rng.randrange(10**6)}",
            "replicas": [
                {"replica_id": "full", "outstanding": 4, "queue_depth": 0, "running": 3, "kv_used_fraction": 1.0},
                {"replica_id": "waits", "outstanding": 1, "queue_depth": 1, "running": 1, "kv_used_fraction": 0.0},
            ],
        }
        for _ in range(12)
    ]
    edges += [{"id": f"q{rng.randrange(10**6)}", "replicas": _nearly_full()} for _ in range(6)]
    (shown,) = random_rounds(seed)
    return [{"lives": [shown["lives"][0] + edges]}]


def _nearly_full() -> list[View]:
    """Pools that look equally full once rounded."""
    load = {"outstanding": 3, "queue_depth": 0, "running": 3}
    return [{"replica_id": name, **load, "kv_used_fraction": used} for name, used in (("x", 0.42), ("y", 0.41))]


LEAST_KV = Code(
    id="12.2",
    name="LeastKv",
    title="Where there is room",
    minutes=12,
    difficulty=2,
    target="miniserve/policies/routing/balancer.py::LeastKv.choose",
    forbidden=("least", "LeastQueue", "LeastOutstanding", "PowerOfTwo", "BALANCERS"),
    driver=drive_choose,
    layers=(
        CheckLayer("contract", lambda seed: contract({"kv_used_fraction": 0.5}), offered, on_error=broke),
        CheckLayer("examples", _kv_examples, _judge_kv, fewer_rounds, broke),
        CheckLayer(
            "properties",
            lambda seed: [*_kv_rounds(seed), *luck(seed, {"queue_depth": 1, "kv_used_fraction": 0.5})],
            lambda asked, told: (
                judge_luck("queue and pool", asked, told) if "about" in asked else _judge_kv(asked, told)
            ),
            fewer_rounds,
            broke,
        ),
        CheckLayer(
            "differential",
            lambda seed: random_rounds(seed + 10_000, 120),
            beside_reference(LeastKv, _judge_kv),
            fewer_rounds,
            broke,
        ),
        CheckLayer("cost", many, partial(judge_cost, 5, 8), on_error=broke),
    ),
    hints=(
        'A waiting request holds no blocks. So which of the two numbers can say "no room" although the other is low?',
        "Order by two numbers: the second matters only where the first ties. Python compares tuples that way.",
        "With (queue, pool) = x: (1, 0.0), y: (0, 0.9), z: (0, 0.7), y and z have the shortest queue, and of "
        "the two z has the emptier pool. (0, 0.9) < (1, 0.0) is True.",
    ),
)


# --- 12.3 ----------------------------------------------------------------------------------------------------------

REPORTS_EVERY_S = 8.0

PREDICT_HERD = Predict(
    id="12.3",
    name="p99_with_old_views_s",
    title="What do stale numbers cost?",
    minutes=5,
    difficulty=3,
    experiment=lambda: lab.ttft_p99_s(LeastOutstanding, REPORTS_EVERY_S),
    widest=3.0,
    unit="s",
    too_low="Between two reports every request sees the same numbers, so all of them go to the same replica.",
    too_high="A herd moves on with the next report; meanwhile the replicas that it left work off their queues.",
    hints=(
        "How many requests come between two reports? Where do they go while the numbers don't change?",
        "About 9 requests come in 8 s. A replica has 12 places, some of them taken: what must the last ones wait for?",
        "Another fleet: 30 requests in a minute, reports every 10 s, 5 places. Five requests go to one replica at "
        "once. If three places were taken, three of the five wait until an answer there ends.",
    ),
)


# --- 12.4 ----------------------------------------------------------------------------------------------------------

POWER_OF_TWO = Code(
    id="12.4",
    name="PowerOfTwo",
    title="The better of two",
    minutes=15,
    difficulty=3,
    target="miniserve/policies/routing/balancer.py::PowerOfTwo.choose",
    forbidden=("PeakEwma", "LeastOutstanding", "BALANCERS"),
    driver=drive_choose,
    layers=(
        CheckLayer("contract", two_contract, offered, on_error=broke),
        CheckLayer("examples", two_examples, judge_two, on_error=broke),
        CheckLayer("properties", pairs, judge_pairs, fewer_rounds, broke),
        CheckLayer("differential", two_traffic, judge_two, fewer_rounds, broke),
        CheckLayer("cost", two_of_many, judge_two_of_many, on_error=broke),
    ),
    hints=(
        "Draw places, not replicas: the first among all, the second among the others. Then compare two numbers.",
        "One large number holds two draws: n % 5 is the first, and n // 5 is random enough for another. Of 5 places 4 "
        "are left for the second; the places from the first draw on move up by one.",
        "Worked, with 5 replicas and the number 43: 43 % 5 = 3 is the first; 43 // 5 = 8, and 8 % 4 = 0 is the second, "
        "place 0. Had it been 3, it would mean place 4, because place 3 is taken.",
    ),
)


# --- 12.5 ----------------------------------------------------------------------------------------------------------

WHICH_ONE = FreeText(
    id="12.5",
    name="which_one",
    title="Which one would you run?",
    minutes=5,
    difficulty=3,
    weight=0.5,
    rubric=(
        "Says that a gateway knows only its own outstanding requests, and learns of the other five's by report.",
        "Picks two choices (or justifies another balancer) because stale numbers make a herd.",
        "Names something to watch that would show the mistake: p99 by gateway, spread of queue depth over replicas.",
    ),
    model_answer="With six gateways each counts a sixth of the requests, and learns of the others from reports "
    "that are seconds old. Always taking the least loaded would send six herds to the same replica, so I would run two "
    "choices on the reported queue, with our own outstanding requests added. I would watch p99 of the time to first "
    "token and the spread of queue depth between replicas: waves as long as a report's age are the herd.",
    hints=(
        "What does one of six gateways know of the requests that the other five have sent?",
        "Think of the figure with stale numbers: which curve stays low as reports get rarer?",
        "Say which you would run, why it copes with stale numbers, and which figure would prove you wrong.",
    ),
)

QUESTIONS = (LEAST_OUTSTANDING, LEAST_KV, PREDICT_HERD, POWER_OF_TWO, WHICH_ONE)
