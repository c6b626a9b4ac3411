"""Chapter 90: one question of each kind that grading treats differently."""

from __future__ import annotations

from random import Random
from typing import Any

from miniserve.course.check.code import CheckLayer, Code
from miniserve.course.check.kinds import FreeText, Witness
from miniserve.course.check.numbers import Formula, Misconception, Number
from miniserve.course.check.verdict import Problem

HINTS = ("Think.", "rate x time", "2 req/s for 3 s are 6")


def _draw(rng: Random) -> dict[str, Any]:
    return {"rate": rng.randrange(2, 50), "time_s": rng.randrange(2, 50)}


def _witness(told: Any) -> Problem | None:
    if not (isinstance(told, list) and told and all(type(value) in (int, float) for value in told)):
        return Problem("no-list", repr(told)[:60], "A list of seconds is asked for.")
    if sum(told) / len(told) < 1 and max(told) > 20:
        return None
    return Problem("no-tail", repr(told)[:60], "The mean must be under 1 s and the largest above 20 s.", "Use many.")


def drive(answer: Any, asked: list[list[int]]) -> list[str | None]:
    """Let the learner's balancer choose among replicas with these queues."""
    from miniserve.types import ReplicaView, Request

    views = [[ReplicaView(f"r{i}", queue_depth=depth) for i, depth in enumerate(depths)] for depths in asked]
    balancer = answer()
    return [balancer.choose(Request("x", "small", (1,)), some) for some in views]


def _shortest(asked: list[list[int]], told: Any) -> Problem | None:
    for depths, chosen in zip(asked, told, strict=True):
        if not depths and chosen is not None:
            return Problem("no-replicas", repr(chosen), "There was none to choose.")
        if depths and (chosen is None or depths[int(chosen[1:])] != min(depths)):
            return Problem("not-shortest", repr(chosen), "Another queue is shorter.", "Compare.", repr(depths))
    return None


def _random(seed: int) -> list[Any]:
    rng = Random(seed)
    return [[[rng.randrange(9) for _ in range(4)] for _ in range(20)]]


QUESTIONS = (
    Number(
        id="90.1",
        name="requests",
        title="How many?",
        hints=HINTS,
        draw=_draw,
        truth=lambda rate, time_s: rate * time_s,
        misconceptions=(Misconception("divided", "Rate times time, not over it.", lambda rate, time_s: rate / time_s),),
    ),
    Formula(
        id="90.2",
        name="in_system",
        title="Little's law",
        hints=HINTS,
        draw=_draw,
        truth=lambda rate, time_s: rate * time_s,
    ),
    Witness(id="90.3", name="waits", title="A tail", hints=HINTS, judge_value=_witness),
    FreeText(
        id="90.4",
        name="reason",
        title="Why?",
        hints=HINTS,
        at_least_words=5,
        rubric=("names the tail",),
        model_answer="Because the mean hides the tail.",
    ),
    Code(
        id="90.5",
        name="LeastQueue",
        title="The shortest queue",
        hints=HINTS,
        target="miniserve/policies/routing/balancer.py::LeastQueue.choose",
        forbidden=("least",),
        driver=drive,
        layers=(
            CheckLayer("examples", lambda seed: [[[3, 1, 2], []]], _shortest),
            CheckLayer("properties", _random, _shortest),
        ),
    ),
)
