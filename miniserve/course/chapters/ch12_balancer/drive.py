"""Asks balancers in `lives`: in each, a fresh one chooses for one request after the other. Contains no answers.

A round has the views to show (`replicas`), or the names of the fleet (`fleet`) and the requests that have `ended` by
then: the loads follow from the balancer's own choices. This module's text goes to the answer (`course/grade/tell.py`).
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

from miniserve.course.check.ask import Json
from miniserve.types import ReplicaView, Request

LOADS = ("outstanding", "queue_depth", "running", "kv_used_fraction", "tokens_per_s")
PLAIN_HASH = hash


def drive_choose(answer: Json, asked: Json) -> Json:
    """Play `lives`: each has a balancer of its own, made as `makes` says. `watched` records whose loads it reads."""
    Counted.compared = Touched.taken = 0
    told: dict[str, Json] = {"lives": [], "looked": [], "changed": False}
    makes = asked.get("makes") or [{}] * len(asked["lives"])
    for make, rounds in zip(makes, asked["lives"], strict=True):
        if isinstance(rounds, dict):  # many requests that are shown the same views
            rounds = [{"id": name, "replicas": rounds["replicas"]} for name in rounds["ids"]]
        told["lives"].append(_live(answer(**make), rounds, bool(asked.get("watched")), told))
    told["compared"], told["taken"] = Counted.compared, Touched.taken
    return told


def _live(balancer: Json, rounds: Json, is_watched: bool, told: dict[str, Json]) -> list[Json]:
    """Ask one balancer about all rounds; return its choices, and tell what it looked at and changed."""
    held: dict[str, str] = {}  # request -> replica
    choices: list[Json] = []
    last, views = None, []  # rounds that share a list of replicas share its views
    for place, one in enumerate(rounds):
        if "fleet" in one:
            for request_id in one["ended"]:
                held.pop(request_id, None)
            views = [ReplicaView(id_, outstanding=list(held.values()).count(id_)) for id_ in one["fleet"]]
        elif one["replicas"] is not last:
            last = one["replicas"]
            views = [ReplicaView(**view) for view in last]
        before, looked = [PLAIN_HASH(view) for view in views], list[str]()
        watched = [Watched(view, looked) for view in views] if is_watched else []
        request = Request(one["id"], "model", (1, 2, 3), arrived_s=float(place))
        chosen = _choose(balancer, request, Touched(watched) if watched else tuple(views), len(told["lives"]))
        forced = any(len(vars(view)) > 2 for view in watched)
        told["changed"] = told["changed"] or forced or [PLAIN_HASH(view) for view in views] != before
        if is_watched:
            told["looked"].append(sorted(set(looked)))
            told["reads"] = told.get("reads", 0) + len(looked)
        if type(chosen) is str:
            held[one["id"]] = chosen
        kind = type(chosen).__name__.replace("Watched", "ReplicaView")
        choices.append(chosen if chosen is None or type(chosen) is str else {"type": kind})
    return choices


def _choose(balancer: Json, request: Request, shown: tuple[Any, ...], life: int) -> Json:
    """Ask once; `hash` of anything but a number differs from life to life, as it does between Python processes."""

    def salted(thing: object) -> int:
        return PLAIN_HASH(thing if isinstance(thing, int | float) else (life, thing))

    vars(builtins)["hash"] = salted
    try:
        return balancer.choose(request, shown)
    finally:
        vars(builtins)["hash"] = PLAIN_HASH


def _counting(compare: Callable[[float, float], bool]) -> Callable[[float, float], bool]:
    def compared(self: float, other: float) -> bool:
        Counted.compared += 1
        return compare(float(self), float(other))

    return compared


class Counted(float):
    """A number that notes when it is compared."""

    compared = 0

    __lt__ = _counting(float.__lt__)
    __gt__ = _counting(float.__gt__)
    __le__ = _counting(float.__le__)
    __ge__ = _counting(float.__ge__)
    __hash__ = float.__hash__


class Watched:
    """A view that notes who asked for its load."""

    _view: ReplicaView
    _looked: list[str]

    def __init__(self, view: ReplicaView, looked: list[str]) -> None:
        self.__dict__.update(_view=view, _looked=looked)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __getattr__(self, name: str) -> object:
        value = getattr(self._view, name)
        if name not in LOADS:
            return value
        self._looked.append(self._view.replica_id)
        return Counted(value)


class Touched(tuple):  # type: ignore[type-arg]
    """A tuple that counts how many of its items were taken."""

    taken = 0

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        Touched.taken += len(range(*place.indices(len(self)))) if isinstance(place, slice) else 1
        return tuple.__getitem__(self, place)

    def __iter__(self):  # type: ignore[no-untyped-def]
        for item in tuple.__iter__(self):
            Touched.taken += 1
            yield item
