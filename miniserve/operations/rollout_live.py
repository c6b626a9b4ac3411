"""One rollout on the live stack: `control.rollout.Rollout` is told what clients got, and what it asks for is done.

Shares are set in the router, copies are sent by `rollout_mirror.Mirror`, replicas come and go through
`workplace.Versions`. Nothing here decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from miniserve.api.answered import AnsweredCall
from miniserve.control.rollout import (
    Phase,
    Retire,
    RolledBack,
    Rollout,
    RolloutAction,
    SetMirror,
    SetShares,
)
from miniserve.control.rollout_loop import RolloutLoop
from miniserve.control.rollout_plan import RolloutPlan
from miniserve.operations.rollout_eval import EvalScores
from miniserve.operations.rollout_mirror import Mirror
from miniserve.operations.rollout_outcomes import OutcomeBook
from miniserve.operations.rollout_words import began_text, rolled_back_text, stage_text
from miniserve.operations.workplace import Workplace
from miniserve.types import AttemptResult, FleetView, Request


@dataclass(frozen=True, slots=True)
class RolloutOrder:
    """What a person asked for: the plan, and from which version."""

    plan: RolloutPlan
    old: str
    scores: EvalScores
    without_eval: bool = False

    @property
    def new(self) -> str:
        return self.plan.new

    @property
    def model(self) -> str:
        return self.plan.new.partition("@")[0]


class LiveRollout:
    """From the order to its end. `tick` is called twice a second."""

    def __init__(self, work: Workplace, order: RolloutOrder) -> None:
        """Raises: SetupError for a plan that is impossible; NotFound if the model is not offered."""
        self.order = order
        self.rollout: Rollout = order.plan.build(order.old, order.new)
        self.book = OutcomeBook(order.model, order.old, order.new)
        model = work.catalogue.entry(order.model).model
        self.mirror = Mirror(work.fleet, model, order.old, order.new, self.book.mirrored)
        self.failure: str | None = None  # why the new version could not be started
        self.shares: dict[str, float] = {}  # as they are set now; none: the traffic is not split
        self.switched_after_s: float | None = None  # from the order to the last answer of the old version
        self.back_after_s: float | None = None  # from the way back to the last answer of the new version
        self._work = work
        self.began_s = work.fleet.clock()
        self._loop = RolloutLoop(self.rollout, self.book.tally, self.began_s)
        self._back_s: float | None = None
        self._kept: dict[str, Any] = {}

    @property
    def is_over(self) -> bool:
        return self.rollout.phase in (Phase.DONE, Phase.ROLLED_BACK)

    @property
    def phase(self) -> str:
        return "failed" if self.failure else self.rollout.phase.value

    @property
    def share(self) -> float:
        """The share of the users who get the new version now."""
        return self.shares.get(self.order.new, 0.0) if self.shares else float(self._is_promoted)

    @property
    def _is_promoted(self) -> bool:
        stage = self.rollout.stage
        return self.rollout.phase is Phase.DONE and stage is not None and stage.share == 1

    @property
    def loser(self) -> str:
        """The version that is not needed once this is over."""
        return self.order.old if self._is_promoted else self.order.new

    # --- its life ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Keep all users with the old version, until the first stage begins."""
        self._set_shares({self.order.new: 0.0, self.order.old: 1.0})
        self._say(began_text(self.order), "warning" if self.order.without_eval else "info")
        self._keep()

    def tick(self, now_s: float, view: FleetView) -> None:
        """Tell the rollout what has happened and do what it asks for."""
        self.book.look(view)
        if self.is_over:
            self._forget_shares(view)
            return
        if (actions := self._loop.tick(now_s, view)) is None:
            return
        self._perform(actions, now_s)
        self._look_for_trouble(now_s, sum(replica.version == self.order.new for replica in view.ready()))
        self._keep()

    def promote(self, now_s: float) -> bool:
        """Return whether there was anything to promote."""
        return self._by_hand(self.rollout.promote(now_s), now_s)

    def roll_back(self, now_s: float, reason: str) -> bool:
        """Return whether there was anything to roll back."""
        return self._by_hand(self.rollout.roll_back(now_s, reason), now_s)

    def _by_hand(self, actions: list[RolloutAction], now_s: float) -> bool:
        self._perform(actions, now_s)
        self._keep()
        return bool(actions)

    def _look_for_trouble(self, now_s: float, ready: int) -> None:
        versions = self._work.versions
        why = None if versions is None or self.is_over else versions.trouble(self.order.new)
        if why is not None and (ready == 0 or self.rollout.phase is Phase.WAITING):
            self.failure = why
            self.roll_back(now_s, f"{self.order.new} could not be started: {why}")

    def _forget_shares(self, view: FleetView) -> None:
        """Once no replica of the loser is left, the traffic need not be split any more."""
        if self.shares and all(replica.version != self.loser for replica in view.replicas):
            self._forget()

    def end(self) -> None:
        """Give up what is left of it: a shadow's new version has served its purpose."""
        if not self._is_promoted and self.rollout.phase is Phase.DONE:
            self._retire(self.order.new)
        self._forget()

    def _forget(self) -> None:
        self._work.pin.forget(self.order.model)
        self.shares = {}
        self._keep()

    # --- what it is told ---------------------------------------------------------------------------------------------

    def answered(self, call: AnsweredCall) -> None:
        if call.started_s < self.began_s:
            return
        self.book.answered(call)
        self.mirror.answered(call)
        if call.request.model != self.order.model:
            return
        if call.model == self.order.old and self.switched_after_s is not None and self._back_s is None:
            self.switched_after_s = call.ended_s - self.began_s
        if call.model == self.order.new and self._back_s is not None:
            self.back_after_s = call.ended_s - self._back_s

    def judged(self, call: AnsweredCall, good: bool) -> None:
        if call.started_s >= self.began_s:
            self.book.judged(call, good)

    def failed(self, request: Request, attempt: AttemptResult) -> None:
        self.book.failed(request, attempt)

    # --- what it asks for --------------------------------------------------------------------------------------------

    def _perform(self, actions: list[RolloutAction], now_s: float) -> None:
        for action in actions:
            if isinstance(action, SetShares):
                self._set_shares(dict(action.shares))
            elif isinstance(action, SetMirror):
                self.mirror.fraction = action.fraction
            elif isinstance(action, RolledBack):
                self._rolled_back(action, now_s)
            elif isinstance(action, Retire):
                self._retire(action.version)
        if actions and (text := stage_text(self.order, self.rollout, actions)):
            self._say(text)
        if self.shares.get(self.order.new) == 1 and self.switched_after_s is None:
            self.switched_after_s = now_s - self.began_s

    def _set_shares(self, shares: Mapping[str, float]) -> None:
        self.shares = dict(shares)
        self._work.pin.set_shares(self.shares)

    def _rolled_back(self, record: RolledBack, now_s: float) -> None:
        self._back_s, self.back_after_s = now_s, 0.0
        if self.failure:
            self._say(f"{record.reason}; {self.order.old} goes on serving all users.", "alarm")
        else:
            self._say(rolled_back_text(self.order, record), "warning" if record.breach is None else "alarm")
        self._retire(self.order.new)

    def _retire(self, version: str) -> None:
        if self._work.versions is None:
            return
        self._work.versions.retire_version(version)
        name, _, number = version.partition("@")
        self._work.catalogue.remove_version(name, number)
        if version == self.order.old:
            self._say(f"{version} is retired; {self.order.new} has taken its place.", "good")

    def _say(self, text: str, level: Any = "info") -> None:
        self._work.events.say("rollout", text, level)

    # --- over a restart ----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all that must survive, as of the last look at the outcomes."""
        return self._kept

    def _keep(self) -> None:
        now_s = self._work.fleet.clock()
        order = {"plan": asdict(self.order.plan), "old": self.order.old, "without_eval": self.order.without_eval}
        self._kept = {
            "order": {**order, "scores": asdict(self.order.scores)},
            "rollout": self.rollout.state(now_s),
            "copies": self.mirror.counts.state(),
            "failure": self.failure,
            "shares": self.shares,
            "age_s": now_s - self.began_s,
            "switched_after_s": self.switched_after_s,
            "back_after_s": self.back_after_s,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a rollout of the same order was, with the same shares and the same statistics."""
        now_s = self._work.fleet.clock()
        self.rollout.restore(state["rollout"], now_s)
        self.mirror.counts.restore(state["copies"])
        self.mirror.fraction = self.rollout.mirror
        self.failure = state["failure"]
        self.began_s = now_s - float(state["age_s"])
        self.switched_after_s, self.back_after_s = state["switched_after_s"], state["back_after_s"]
        if state["shares"]:
            self._set_shares({str(name): float(share) for name, share in state["shares"].items()})
        self._keep()

    async def close(self) -> None:
        await self.mirror.close()
