"""What balancers are asked about: the requests and replicas that they meet (`drive.py` asks). Contains no answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from miniserve.course.check.ask import Json
from miniserve.seeds import generator

View = dict[str, Json]
Load = Callable[[View], object]


def _views(rng: Random, count: int, most: int = 4) -> list[View]:
    """Return replicas in any order with small loads, so that ties are common."""
    names = rng.sample("abcdefgh", count)
    return [_view(name, rng, most) for name in names]


def _view(name: str, rng: Random, most: int) -> View:
    return {
        "replica_id": name,
        "outstanding": rng.randrange(most),
        "queue_depth": rng.randrange(most),
        "running": rng.randrange(most),
        "kv_used_fraction": rng.randrange(5) / 4,
    }


def random_rounds(seed: int, rounds: int = 60) -> Sequence[Json]:
    rng = generator(seed, "12 views")
    shown = [{"id": f"q{rng.randrange(10**6)}", "replicas": _views(rng, rng.randint(1, 6))} for _ in range(rounds)]
    return [{"lives": [shown]}]


def traffic(seed: int, rounds: int = 200, fleet: int = 5) -> Sequence[Json]:
    """Return requests that come one by one and last for a while; sometimes a replica is not on offer."""
    rng = generator(seed, "12 traffic")
    names = [f"r{i}" for i in range(fleet)]
    ends: dict[int, list[str]] = {}
    life = []
    for i in range(rounds):
        name = f"q{seed}-{i}"
        ends.setdefault(i + 1 + int(rng.expovariate(1 / 12)), []).append(name)
        offered = [replica for replica in rng.sample(names, fleet) if rng.random() < 0.9] or names
        life.append({"id": name, "fleet": offered, "ended": ends.pop(i, [])})
    return [{"lives": [life]}]


def fewer_rounds(asked: Json) -> Sequence[Json]:
    """Propose parts of a life: one round alone, halves, all but a few; then rounds with fewer replicas."""
    if asked.get("about") or len(asked["lives"]) != 1:
        return []
    life = asked["lives"][0]
    cuts = [[one] for one in life] if 1 < len(life) <= 100 and "replicas" in life[0] else []
    size = len(life) // 2
    while size:
        cuts += [life[:at] + life[at + size :] for at in range(0, len(life), size)]
        size //= 2
    if len(life) == 1 and "replicas" in life[0]:
        views = life[0]["replicas"]
        cuts = [[{**life[0], "replicas": views[:i] + views[i + 1 :]}] for i in range(len(views)) if len(views) > 2]
    return [{**asked, "lives": [cut]} for cut in cuts if cut]


def equals(count: int, **load: Json) -> list[View]:
    return [{"replica_id": f"r{i}", **load} for i in range(count)]


def same_views(names: Sequence[str], views: Sequence[View]) -> Json:
    """Return a life in which each request meets the same views."""
    return {"ids": list(names), "replicas": list(views)}


def unfolded(asked: Json) -> Json:
    """Return `asked` with every life as a list of rounds."""
    return {**asked, "lives": [_rounds(life) for life in asked["lives"]]}


def _rounds(life: Json) -> list[Json]:
    return life if isinstance(life, list) else [{"id": name, "replicas": life["replicas"]} for name in life["ids"]]


def luck(seed: int, load: Mapping[str, Json]) -> Sequence[Json]:
    """Return 240 requests to four tied replicas; then a few of them again, with the requests or the list reversed."""
    rng = generator(seed, "12 luck")
    names, alike = [f"q{rng.randrange(10**9)}" for _ in range(240)], equals(4, **load)
    few = same_views(names[:40], alike)
    again = [few, few, same_views(names[39::-1], alike), same_views(names[:40], alike[::-1])]
    return [{"about": "luck", "lives": [same_views(names, alike)]}, {"about": "luck", "lives": again}]


def many(seed: int, count: int = 300) -> Sequence[Json]:
    rng = generator(seed, "12 many")
    loads = rng.sample(range(10 * count), count)
    views = [
        {"replica_id": f"r{i}", "outstanding": n, "queue_depth": n // 2, "kv_used_fraction": (n % 97) / 97}
        for i, n in enumerate(loads)
    ]
    return [{"watched": True, "lives": [[{"id": f"q{seed}", "replicas": views}]]}]


def contract(load: Mapping[str, Json]) -> Sequence[Json]:
    return [
        {"lives": [[{"id": "q1", "replicas": []}]]},
        {"lives": [[{"id": "q2", "replicas": [{"replica_id": "r0", **load}]}]]},
    ]
