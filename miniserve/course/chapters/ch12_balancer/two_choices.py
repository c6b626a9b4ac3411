"""Asks and judges two choices: a balancer must look at exactly two replicas, each pair with the same probability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from miniserve.course.chapters.ch12_balancer.asked import contract, equals, many, same_views, traffic, unfolded
from miniserve.course.chapters.ch12_balancer.judged import difference, offered, outstanding_of, with_views
from miniserve.course.check.ask import Json
from miniserve.course.check.verdict import Problem
from miniserve.seeds import generator

PAIRS = 3000  # draws
_CHI_SQUARE = 46.0  # of ten pairs; fair draws exceed it once in two million times


def two_contract(seed: int) -> Sequence[Json]:
    return [{**asked, "makes": [{"seed": seed}], "watched": True} for asked in contract({"outstanding": 5})]


def two_examples(seed: int) -> Sequence[Json]:
    """Return rounds with two replicas: the balancer must look at both, and the less loaded wins, wherever it stands."""
    views = [{"replica_id": "a", "outstanding": 5}, {"replica_id": "b", "outstanding": 1}]
    rounds = [{"id": f"q{i}", "replicas": views[:: 1 if i % 2 else -1]} for i in range(8)]
    return [{"makes": [{"seed": 1}], "watched": True, "lives": [rounds]}]


def pairs(seed: int) -> Sequence[Json]:
    """Return 40 requests to five replicas, and again; 40 to balancers of two seeds; and many, to count the pairs."""
    rng = generator(seed, "12 pairs")
    names = [f"q{rng.randrange(10**9)}" for _ in range(PAIRS)]
    views = [{"replica_id": f"r{i}", "outstanding": load} for i, load in enumerate(rng.sample(range(9), 5))]
    few, idle = same_views(names[:40], views), same_views(names[:40], equals(8, outstanding=0))
    one, other = {"seed": seed}, {"seed": seed + 1}
    again = [few, few, same_views(names[39::-1], views)]
    return [
        {"about": "luck", "watched": True, "makes": [one, one, one], "lives": again},
        {"about": "seeds", "watched": True, "makes": [one, other], "lives": [idle, idle]},
        {"about": "pairs", "watched": True, "makes": [one], "lives": [same_views(names, views)]},
    ]


def two_traffic(seed: int) -> Sequence[Json]:
    (asked,) = traffic(seed, rounds=150, fleet=7)
    return [{**asked, "makes": [{"seed": seed}], "watched": True}]


def two_of_many(seed: int) -> Sequence[Json]:
    (asked,) = many(seed, 1000)
    return [{**asked, "makes": [{"seed": seed}]}]


def judge_two(asked: Json, told: Json) -> Problem | None:
    """Check that the balancer looks at exactly two replicas, and chooses the less loaded."""
    if (problem := offered(asked, told)) is not None:
        return problem
    lives = [with_views(life, choices) for life, choices in zip(asked["lives"], told["lives"], strict=True)]
    rounds = [one for life in lives for one in life]
    choices = [chosen for life in told["lives"] for chosen in life]
    played = [row for row in zip(rounds, choices, told["looked"], strict=True) if len(row[0]["replicas"]) > 1]
    for one, chosen, looked in played:
        if len(looked) != 2:
            return _not_two(one, looked, any(len(others) == 2 for _, _, others in played))
        loads = {view["replica_id"]: outstanding_of(view) for view in one["replicas"]}
        where = f"request {one['id']}; drawn: {', '.join(f'{id_}: outstanding={loads[id_]}' for id_ in looked)}"
        if chosen not in looked:
            why = "You chose a replica that isn't one of the two whose load you looked at."
            return Problem("not-drawn", repr(chosen), why, "Return the id of one of the two.", where)
        if loads[chosen] > min(loads[id_] for id_ in looked):
            why = "It is the busier of the two that you drew."
            if any(loads_of[picked] < max(loads_of[id_] for id_ in pair) for loads_of, picked, pair in _drawn(played)):
                why = "It is the busier of the two that you drew; at other times you chose the right one."
                return Problem("place-decides", repr(chosen), why, "Compare the two loads, not their places.", where)
            return Problem("picks-max", repr(chosen), why, "Which way round is the comparison?", where)
    return None


def _drawn(played: Sequence[tuple[Json, str, Sequence[str]]]) -> list[tuple[dict[str, int], str, Sequence[str]]]:
    return [
        ({view["replica_id"]: outstanding_of(view) for view in one["replicas"]}, chosen, looked)
        for one, chosen, looked in played
        if len(looked) == 2 and chosen in looked
    ]


def _not_two(one: Json, looked: Sequence[str], two_at_times: bool) -> Problem:
    seen = f"looked at {', '.join(looked) or 'no replica'}"
    where = f"request {one['id']}, {len(one['replicas'])} replicas"
    if len(looked) > 2:
        why = "You compared all loads. Two are enough, and a balancer that takes the least of all joins the herd."
        return Problem("looks-at-all", seen, why, "Draw two places first; then look at those two.", where)
    if len(looked) == 1 and two_at_times:
        why = "You drew the same replica twice: that is one choice, not two."
        return Problem("same-twice", seen, why, "Draw the second among the others.", where)
    why = "The power of two choices comes from comparing two loads."
    return Problem("one-look", seen, why, "Look at the loads of both replicas that you drew.", where)


def judge_pairs(asked: Json, told: Json) -> Problem | None:
    """Check that every pair has its chance, and that the draw depends on the seed and the request alone."""
    asked = unfolded(asked)
    if (problem := judge_two(asked, told)) is not None:
        return problem
    where = f"{len(asked['lives'][0])} requests to {len(asked['lives'][0][0]['replicas'])} replicas"
    if asked["about"] == "pairs":
        return _judge_each_pair(asked, told, where)
    first, again, *more = told["lives"]
    drawn = [told["looked"][at : at + len(first)] for at in range(0, len(told["looked"]), len(first))]
    if asked["about"] == "seeds":
        if drawn[0] != drawn[1]:
            return None
        why = "Balancers with two different seeds drew the same pairs, so many gateways would draw alike."
        return Problem("ignores-seed", "seed makes no difference", why, "The draw must depend on the seed.", where)
    if (differ := difference(first, again)) is not None:
        why = "The same requests in the same situation went elsewhere, so you could never repeat a run."
        return Problem("not-repeatable", differ, why, "Draw with number(..., self._seed, request.request_id).", where)
    if (differ := difference(first, more[0][::-1])) is not None:
        why = "Earlier requests change the draw, so one request more or less changes all later ones."
        return Problem("remembers", differ, why, "Draw with number(..., self._seed, request.request_id).", where)
    return None


def _judge_each_pair(asked: Json, told: Json, where: str) -> Problem | None:
    ids = sorted(view["replica_id"] for view in asked["lives"][0][0]["replicas"])
    counts = Counter(tuple(pair) for pair in told["looked"])
    pairs = list(combinations(ids, 2))
    expected = len(told["looked"]) / len(pairs)
    missing = [pair for pair in pairs if not counts[pair]]
    if missing:
        seen = f"never drawn: {', '.join(' and '.join(pair) for pair in missing)}"
        why = "Your draw never gives some pairs, so you never compare their loads."
        return Problem("pairs-missing", seen, why, "The second may be any of the others.", where)
    rare, often = min(pairs, key=lambda pair: counts[pair]), max(pairs, key=lambda pair: counts[pair])
    if sum((counts[pair] - expected) ** 2 / expected for pair in pairs) > _CHI_SQUARE:
        seen = f"{' and '.join(rare)}: {counts[rare]} times; {' and '.join(often)}: {counts[often]} times"
        why = f"A fair draw gives each pair about {expected:.0f} times."
        return Problem("pairs-uneven", seen, why, "If both draws hit the same one, what then?", where)
    return None


def judge_two_of_many(asked: Json, told: Json) -> Problem | None:
    if (problem := judge_two(asked, told)) is not None:
        return problem
    count = len(asked["lives"][0][0]["replicas"])
    if told["taken"] <= 20:
        return None
    seen = f"you took {told['taken']} replicas out of the tuple"
    why = f"Going through all {count} to draw two wastes what two choices save."
    return Problem("copies-all", seen, why, "Draw places, and take replicas[place].", f"{count} replicas")
