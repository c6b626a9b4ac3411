"""Asks balancers: their driver, and the requests and replicas that they meet.

It asks in `lives`. In each, a fresh balancer chooses for one request after the other; a round shows either views, or a
fleet whose loads follow from the balancer's own choices. Contains no answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from miniserve.course.check.ask import Json
from miniserve.seeds import generator

View = dict[str, Json]
Load = Callable[[View], object]


def drive_choose(answer: Json, asked: Json) -> Json:
    """Play `lives`: each has a balancer of its own, made as `makes` says, that chooses for one request after another.

    A round has either the views to show (`replicas`), or the names of the fleet (`fleet`) and the requests that have
    ended by then (`ended`): then the loads follow from the balancer's choices. `watched` records whose loads it reads.
    """
    import builtins
    from dataclasses import FrozenInstanceError

    from miniserve.types import ReplicaView, Request

    class Counted(float):
        """A number that counts its comparisons."""

        compared = 0

        def __lt__(self, other: float) -> bool:
            Counted.compared += 1
            return float(self) < float(other)

        def __gt__(self, other: float) -> bool:
            Counted.compared += 1
            return float(self) > float(other)

        def __le__(self, other: float) -> bool:
            Counted.compared += 1
            return float(self) <= float(other)

        def __ge__(self, other: float) -> bool:
            Counted.compared += 1
            return float(self) >= float(other)

        __hash__ = float.__hash__

    class Watched:
        """A view that records reads of its load."""

        _view: ReplicaView
        _looked: list[str]

        def __init__(self, view: ReplicaView, looked: list[str]) -> None:
            self.__dict__.update(_view=view, _looked=looked)

        def __setattr__(self, name: str, value: object) -> None:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")

        def __getattr__(self, name: str) -> object:
            value = getattr(self._view, name)
            if name not in ("outstanding", "queue_depth", "running", "kv_used_fraction", "tokens_per_s"):
                return value
            self._looked.append(self._view.replica_id)
            return Counted(value)

    class Touched(tuple):  # type: ignore[type-arg]
        """A tuple that counts how many of its items are taken."""

        taken = 0

        def __getitem__(self, place):  # type: ignore[no-untyped-def]
            Touched.taken += len(range(*place.indices(len(self)))) if isinstance(place, slice) else 1
            return tuple.__getitem__(self, place)

        def __iter__(self):  # type: ignore[no-untyped-def]
            for item in tuple.__iter__(self):
                Touched.taken += 1
                yield item

    plain_hash = hash

    def salted(thing: object) -> int:
        """Python's hash as it differs between processes: for all but numbers, it is another one in each life."""
        return plain_hash(thing if isinstance(thing, int | float) else (len(told["lives"]), thing))

    told: dict[str, Json] = {"lives": [], "looked": [], "changed": False}
    makes = asked.get("makes") or [{}] * len(asked["lives"])
    for make, rounds in zip(makes, asked["lives"], strict=True):
        balancer = answer(**make)
        held: dict[str, str] = {}
        choices: list[Json] = []
        if isinstance(rounds, dict):  # many requests with the same views
            rounds = [{"id": name, "replicas": rounds["replicas"]} for name in rounds["ids"]]
        last = None
        for place, one in enumerate(rounds):
            if "fleet" in one:
                for request_id in one["ended"]:
                    held.pop(request_id, None)
                counts = list(held.values())
                views = [ReplicaView(id_, outstanding=counts.count(id_)) for id_ in one["fleet"]]
            elif one["replicas"] is not last:
                last = one["replicas"]
                views = [ReplicaView(**view) for view in last]
            before, looked = [plain_hash(view) for view in views], []  # type: ignore[var-annotated]
            watched = [Watched(view, looked) for view in views] if asked.get("watched") else []
            shown = Touched(watched) if watched else tuple(views)
            vars(builtins)["hash"] = salted
            try:
                chosen = balancer.choose(Request(one["id"], "model", (1, 2, 3), arrived_s=float(place)), shown)
            finally:
                vars(builtins)["hash"] = plain_hash
            forced = any(len(vars(view)) > 2 for view in watched)
            told["changed"] = told["changed"] or forced or [plain_hash(view) for view in views] != before
            kind = type(chosen).__name__.replace("Watched", "ReplicaView")
            choices.append(chosen if chosen is None or type(chosen) is str else {"type": kind})
            if asked.get("watched"):
                told["looked"].append(sorted(set(looked)))
                told["reads"] = told.get("reads", 0) + len(looked)
            if type(chosen) is str:
                held[one["id"]] = chosen
        told["lives"].append(choices)
    told["compared"], told["taken"] = Counted.compared, Touched.taken
    return told


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
