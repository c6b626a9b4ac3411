"""A rollout in virtual time: the very object that a live stack runs, told of simulated answers.

    story ──noticed──> RolloutTally ──> RolloutLoop.tick ──> shares, copies, replicas

The mirror of `operations.rollout_live`. What a simulation has no text for is drawn: whether an answer is bad, and
whether anybody says so, by luck that belongs to the request and the version. So two strategies are compared on the
same bad answers, and nothing else in a run changes its draws.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import simpy

from miniserve.control.rollout import Phase, Retire, RolledBack, RolloutAction, SetMirror, SetShares
from miniserve.control.rollout_loop import RolloutLoop, RolloutTally, is_fault
from miniserve.errors import RequestError
from miniserve.hardware.spec import ReplicaSpec
from miniserve.policies.bundle import Policies
from miniserve.policies.decision_log import Decision, OnDecision
from miniserve.policies.dispatch import ClientLeft, advance, cancel
from miniserve.policies.routing.router import Routers, VersionPin
from miniserve.scenario.build import replicas
from miniserve.scenario.model import Scenario
from miniserve.scenario.rollouts import RolloutSection
from miniserve.seeds import uniform
from miniserve.sim.fleet import SimFleet
from miniserve.sim.result import RolloutEvent
from miniserve.types import AttemptResult, Outcome, Priority, Request, Send, Story

TICK_S = 0.5  # as the live control loops


def comes_later(scenario: Scenario, spec: ReplicaSpec) -> bool:
    """Return whether a replica is one that a rollout orders."""
    return scenario.rollout is not None and spec.version == scenario.rollout.new


def split_first(policies: Policies, scenario: Scenario, pin: VersionPin) -> Policies:
    """Let a rollout's shares be the first to narrow the fleet, as on a live gateway."""
    if scenario.rollout is None:
        return policies
    return replace(policies, router=pin if policies.router is None else Routers(pin, policies.router))


def start_rollout(
    scenario: Scenario, fleet: SimFleet, pin: VersionPin, seed: int, write: OnDecision | None
) -> SimRollout | None:
    """Return the rollout that the scenario tells of, if it does; its turns come by themselves."""
    if scenario.rollout is None:
        return None
    new = [(replica_id, spec) for replica_id, spec in replicas(scenario) if comes_later(scenario, spec)]
    return SimRollout(fleet, scenario.rollout, new, pin, seed, write)


class SimRollout:
    """One rollout of a run."""

    def __init__(
        self,
        fleet: SimFleet,
        plan: RolloutSection,
        new_replicas: Sequence[tuple[str, ReplicaSpec]],
        pin: VersionPin,
        seed: int,
        write: OnDecision | None,
    ) -> None:
        self.events: list[RolloutEvent] = []
        self.rollout = plan.plan(len(new_replicas)).build(plan.old, plan.new)
        self._fleet, self._plan, self._seed, self._pin, self._write = fleet, plan, seed, pin, write
        self._new_replicas = tuple(new_replicas)
        self._tally = RolloutTally(plan.old, plan.new)
        self._loop: RolloutLoop | None = None
        self._versions: dict[str, str] = {}  # replica -> version, those that have left included
        self._mirrored = 0.0
        self.shown = {plan.old: 0, plan.new: 0}  # complete answers
        self.shown_bad = {plan.old: 0, plan.new: 0}
        pin.set_shares({plan.new: 0.0, plan.old: 1.0})
        fleet.every(TICK_S, self._tick)

    # --- its turns ---------------------------------------------------------------------------------------------------

    def _tick(self, now_s: float) -> None:
        if self._loop is None:
            if now_s < self._plan.at_s:
                return
            self._loop = self._begin(now_s)
        view = self._fleet.view()
        self._versions |= {replica.replica_id: replica.version for replica in view.replicas}
        if self.rollout.phase not in (Phase.DONE, Phase.ROLLED_BACK):
            self._perform(self._loop.tick(now_s, view) or [], now_s)

    def _begin(self, now_s: float) -> RolloutLoop:
        """Order the new version's replicas; from now on the old version's answers are counted."""
        for replica_id, spec in self._new_replicas:
            self._fleet.add(spec, replica_id)
        if self._new_replicas:
            self._say(now_s, f"{len(self._new_replicas)} replicas of {self._plan.new} are ordered")
        return RolloutLoop(self.rollout, self._tally, now_s)

    def _perform(self, actions: Sequence[RolloutAction], now_s: float) -> None:
        for action in actions:
            match action:
                case SetShares(shares):
                    self._pin.set_shares(dict(shares))
                    self._say(now_s, f"{shares[0][1]:.3g} of the users get {shares[0][0]}", "shares", shares[0][1])
                case SetMirror(version, fraction):
                    self._mirrored = fraction
                    self._say(now_s, f"{fraction:.3g} of the requests are copied to {version}", "mirror", fraction)
                case RolledBack():
                    self._say(now_s, f"{action.version} is rolled back: {action.reason}", "rolled_back", action.version)
                    self._drain(action.version)
                case Retire(version):
                    self._say(now_s, f"{version} is retired", "retire", version)
                    self._drain(version)

    def _drain(self, version: str) -> None:
        for replica in self._fleet.view().replicas:
            if replica.version == version:
                self._fleet.drain(replica.replica_id)

    def _say(self, now_s: float, text: str, *what: object) -> None:
        self.events.append(RolloutEvent(now_s, text))
        if what and self._write is not None:
            self._write(Decision(now_s, "", what))

    # --- what it is told ---------------------------------------------------------------------------------------------

    def noticed(self, story: Story, request: Request) -> Story:
        """Run `story` unchanged, and count how its attempts end."""
        result: AttemptResult | None = None
        try:
            while not isinstance(effect := advance(story, result), Outcome):
                result = yield effect
                if result is not None:
                    for attempt in (*result.losers, result):
                        self._failed(request, attempt)
        except ClientLeft as left:
            cancel(story, left.token_ids)
            raise
        finally:
            story.close()
        self._ended(request, effect)
        return effect

    def _failed(self, request: Request, attempt: AttemptResult) -> None:
        if is_fault(attempt.error) and self._is_split(request):
            self._tally.error(self._versions.get(attempt.replica_id, ""))

    def _ended(self, request: Request, outcome: Outcome) -> None:
        if self._loop is None or not outcome.ok or not self._is_split(request):
            return
        last = outcome.attempts[-1]
        version, first_s = self._versions.get(last.replica_id, ""), _first_token_s(outcome)
        self._tally.answer(version, None if first_s is None else first_s - request.arrived_s)
        if version in self.shown:
            bad = self._is_bad(version, request)
            self.shown[version] += 1
            self.shown_bad[version] += bad
            self._judge(version, request, bad)
        if version == self._plan.old and uniform("mirror", request.request_id) < self._mirrored:
            self._fleet.env.process(self._copy(request))

    def _is_split(self, request: Request) -> bool:
        """Return whether the request is one of those whose version the rollout chooses."""
        model = self._plan.new.rpartition("@")[0]
        return request.model == model if model else "@" not in request.model

    def _is_bad(self, version: str, request: Request) -> bool:
        return uniform(self._seed, "bad answer", request.request_id) < self._plan.bad_fraction.get(version, 0.0)

    def _judge(self, version: str, request: Request, bad: bool) -> None:
        if uniform(self._seed, "verdict", request.request_id) < self._plan.judged_fraction:
            self._tally.judge(version, not bad)

    # --- copies ------------------------------------------------------------------------------------------------------

    def _copy(self, request: Request) -> Generator[simpy.Event, Any, None]:
        """Send a copy to the new version and count its answer; nobody sees it."""
        new, env = self._plan.new, self._fleet.env
        ready = [view for view in self._fleet.view().ready() if view.version == new]
        if not ready:
            return
        replica_id = min(ready, key=lambda view: view.outstanding).replica_id
        copied = replace(
            request, request_id=f"{request.request_id}-copy", priority=Priority.BATCH, tenant="shadow", deadline_s=None
        )
        began_s = env.now
        try:
            attempt = self._fleet.start_attempt(Send(replica_id, copied, 0))
        except RequestError:
            self._tally.error(new)
            return
        yield attempt.ended
        if attempt.error is not None:
            self._tally.error(new)
            return
        self._tally.answer(new, None if attempt.first_token_s is None else attempt.first_token_s - began_s)
        self._judge(new, request, self._is_bad(new, request))

    # --- told --------------------------------------------------------------------------------------------------------

    def figures(self) -> dict[str, float]:
        """Return what the run cost its users, as numbers to compare strategies by."""
        record, all_shown = self.rollout.record, sum(self.shown.values())
        return {
            "rolled_back": float(record is not None),
            "exposed_fraction": self.shown[self._plan.new] / all_shown if all_shown else 0.0,
            "bad_answers": float(sum(self.shown_bad.values())),
            "final_share": 0.0 if record is not None or self.rollout.stage is None else self.rollout.stage.share,
        }


def _first_token_s(outcome: Outcome) -> float | None:
    return next((one.first_token_s for one in outcome.attempts if len(one.token_ids) and one.first_token_s), None)
