"""Introduce a new version step by step, and roll back at once if it does harm.

A rollout is a sequence of stages. A stage shows the new version to a share of the users, or mirrors requests to it and
discards the answers. Every strategy is such a sequence:

    canary      1 %, 10 %, 50 %, 100 %, each until the new version has given enough answers
    ramp        many small steps, by time
    shadow      a share of 0, with traffic mirrored
    blue-green  100 % at once, when all new replicas are ready

The old version stays warm until `keep_warm_s` after the last stage began, so rolling back is a single change of shares.
Users who saw the new version at 1 % still see it at 10 %: shares list the new version first, as
`policies.routing.router.VersionPin` expects. No change of shares can undo what the new version wrote elsewhere (a
cache, a schema).

Knows counts of answers, ready replicas, and the time it is told. The driver sets shares and mirrors; nothing here sends
a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from miniserve.abtest.harm import Trials
from miniserve.control.guardrails import GUARDRAILS, Breach, Guardrail, Guards, OutcomeBatch
from miniserve.control.rollout_actions import (
    Retire,
    RolledBack,
    RolloutAction,
    RolloutView,
    SetMirror,
    SetShares,
    restored_record,
)
from miniserve.errors import SetupError

__all__ = [
    "Phase",
    "Retire",
    "RolledBack",
    "Rollout",
    "RolloutAction",
    "RolloutView",
    "SetMirror",
    "SetShares",
    "Stage",
]
__all__ += ["blue_green", "canary", "ramp_stages", "shadow"]


class Phase(StrEnum):
    WAITING = "waiting"  # for replicas of the new version
    RUNNING = "running"
    WARM = "warm"  # all stages passed; the old version is still running
    DONE = "done"
    ROLLED_BACK = "rolled_back"


# --- stages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stage:
    """One step. It begins once `min_ready` replicas of the new version are ready, and ends when both minima are met."""

    share: float
    min_answers: int = 0  # of the new version; mirrored ones count
    min_s: float = 0.0
    mirror: float = 0.0
    min_ready: int = 1

    def __post_init__(self) -> None:
        """Raises: SetupError for a share outside [0, 1] or a negative minimum."""
        if not (0 <= self.share <= 1 and 0 <= self.mirror <= 1):
            raise SetupError(f"share ({self.share}) and mirror ({self.mirror}) must lie between 0 and 1")
        if min(self.min_answers, self.min_s, self.min_ready) < 0:
            raise SetupError(f"the minima of a stage must be at least 0: {self}")


def canary(
    shares: Sequence[float] = (0.01, 0.1, 0.5, 1.0), *, min_answers: int = 1400, min_s: float = 0.0
) -> list[Stage]:
    """Return a canary's stages; 1,400 answers detect a quality drop of 3 points in 9 of 10 cases (see the tests)."""
    return [Stage(share, min_answers, min_s) for share in shares]


def ramp_stages(steps: int, step_s: float) -> list[Stage]:
    """Return equal steps up to 100 %, each `step_s` long."""
    if steps < 1:
        raise SetupError(f"a ramp has at least 1 step, not {steps}")
    return [Stage(step / steps, min_s=step_s) for step in range(1, steps + 1)]


def shadow(mirror: float, *, min_answers: int = 1400) -> list[Stage]:
    """Return the single stage that shows users nothing; use it before a canary's stages, or alone."""
    return [Stage(0.0, min_answers, mirror=mirror)]


def blue_green(replicas: int) -> list[Stage]:
    """Return the single stage of a switch: everything at once, when `replicas` new ones are ready.

    Nothing is left to compare with, so only guardrails with a `limit` can roll it back.
    """
    return [Stage(1.0, min_ready=replicas)]


# --- the loop ------------------------------------------------------------------------------------------------------


class Rollout:
    """One new version being introduced. `tick` is called every few seconds, with what happened in between."""

    def __init__(
        self,
        old: str,
        new: str,
        stages: Sequence[Stage],
        *,
        guardrails: Sequence[Guardrail] = GUARDRAILS,
        min_answers: int = 50,
        keep_warm_s: float = 600.0,
    ) -> None:
        _check(old, new, stages, guardrails, keep_warm_s)
        self._old, self._new = old, new
        self._stages = tuple(stages)
        self._guards = Guards(guardrails, min_answers=min_answers)
        self._keep_warm_s = keep_warm_s
        self._index = -1
        self._answers = 0  # of the new version, in this stage
        self._shown = self._all = 0
        self._started_s = self._stage_s = 0.0
        self.phase = Phase.WAITING
        self.record: RolledBack | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Return all stages."""
        return self._stages

    @property
    def guardrails(self) -> tuple[Guardrail, ...]:
        """Return what is watched."""
        return self._guards.rails

    @property
    def stage(self) -> Stage | None:
        """Return the current stage; None before the first."""
        return self._stages[self._index] if self._index >= 0 else None

    @property
    def stage_index(self) -> int:
        """Return the index of the current stage; -1 before the first."""
        return self._index

    @property
    def exposed_share(self) -> float:
        """Return the share of all answers shown so far that came from the new version."""
        return self._shown / self._all if self._all else 0.0

    @property
    def answers_in_stage(self) -> int:
        """Return how many answers the new version has given in the current stage."""
        return self._answers

    @property
    def mirror(self) -> float:
        """Return the share of requests that is mirrored now."""
        stage = self.stage
        return stage.mirror if stage is not None and self.phase is not Phase.ROLLED_BACK else 0.0

    def counts(self) -> dict[str, tuple[Trials, Trials]]:
        """Return what was counted so far of the new version and of the old one, by metric."""
        return self._guards.counts()

    def p_values(self) -> dict[str, float]:
        """Return the evidence against the new version, by metric."""
        return self._guards.p_values()

    def tick(self, now_s: float, view: RolloutView) -> list[RolloutAction]:
        """Take in what happened since the last tick; return what to change now.

        Raises: SetupError if the view has answers of a version that is not part of this rollout.
        """
        if unknown := sorted(set(view.batches) - {self._old, self._new}):
            raise SetupError(
                f"answers of unknown versions {unknown}; this rollout goes from {self._old} to {self._new}"
            )
        if self.phase in (Phase.DONE, Phase.ROLLED_BACK):
            return []
        if self._index < 0:
            self._guards.update(OutcomeBatch(), view.batches.get(self._old, OutcomeBatch()))  # the baseline
            self._started_s = now_s
            return self._next_stage(now_s, view)
        breach = self._count(view)
        if breach is not None:
            return self._back(now_s, str(breach), breach)
        if self.phase is Phase.WARM:
            return self._retire(now_s)
        return self._next_stage(now_s, view) if self._passed(now_s) else []

    def roll_back(self, now_s: float, reason: str) -> list[RolloutAction]:
        """Roll back by hand. Once the old version is retired there is no way back, and nothing is returned."""
        return [] if self.phase in (Phase.DONE, Phase.ROLLED_BACK) else self._back(now_s, reason, None)

    def promote(self, now_s: float) -> list[RolloutAction]:
        """Skip by hand what is left: show the new version to all users; once they have it, retire the old one."""
        last = self._stages[-1]
        if self.phase is Phase.WARM:
            return self._retired()
        if self.phase is not Phase.RUNNING or last.share < 1:
            return []
        mirrored, self._index, self._stage_s = self._stages[self._index].mirror, len(self._stages) - 1, now_s
        self.phase = Phase.WARM
        return [self._shares(last.share), *self._mirror(mirrored, last.mirror)]

    # --- over a restart ----------------------------------------------------------------------------------------------

    def state(self, now_s: float) -> dict[str, Any]:
        """Return where it stands and all that it has counted, in JSON's types; times as ages, since clocks restart."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        ages = {"started": now_s - self._started_s, "stage": now_s - self._stage_s}
        record = None if self.record is None else {**asdict(self.record), "at_s": now_s - self.record.at_s}
        return {"phase": self.phase.value, **numbers, "ages": ages, "guards": self._guards.state(), "record": record}

    def restore(self, state: Mapping[str, Any], now_s: float) -> None:
        """Go on from the `state` of a rollout with the same settings: it decides as that one would have.

        Raises: ValueError, TypeError or LookupError for what is no such state.
        """
        self._guards.restore(state["guards"])
        if not -1 <= state["_index"] < len(self._stages):
            raise ValueError(f"there is no stage {state['_index']}")
        for name in _NUMBERS:
            setattr(self, name, int(state[name]))
        self._started_s, self._stage_s = now_s - state["ages"]["started"], now_s - state["ages"]["stage"]
        self.phase = Phase(state["phase"])
        self.record = None if state["record"] is None else restored_record(state["record"], now_s)

    def _count(self, view: RolloutView) -> Breach | None:
        new, old = view.batches.get(self._new, OutcomeBatch()), view.batches.get(self._old, OutcomeBatch())
        shown = new.answers if self._stages[self._index].share > 0 else 0
        self._answers += new.answers
        self._shown += shown
        self._all += shown + old.answers
        return self._guards.update(new, old)

    def _passed(self, now_s: float) -> bool:
        stage = self._stages[self._index]
        return self._answers >= stage.min_answers and now_s - self._stage_s >= stage.min_s

    def _next_stage(self, now_s: float, view: RolloutView) -> list[RolloutAction]:
        if self._index + 1 == len(self._stages):
            return self._finish(now_s)
        after = self._stages[self._index + 1]
        if view.ready.get(self._new, 0) < after.min_ready:
            self.phase = Phase.WAITING
            return []
        mirrored = self._stages[self._index].mirror if self._index >= 0 else 0.0
        self._index += 1
        self.phase, self._answers, self._stage_s = Phase.RUNNING, 0, now_s
        return [self._shares(after.share), *self._mirror(mirrored, after.mirror)]

    def _finish(self, now_s: float) -> list[RolloutAction]:
        last = self._stages[-1]
        if last.share == 1:
            self.phase = Phase.WARM
            return self._retire(now_s)
        self.phase = Phase.DONE  # a shadow, or an experiment that keeps its shares: both versions are needed
        return self._mirror(last.mirror, 0.0)

    def _retire(self, now_s: float) -> list[RolloutAction]:
        return [] if now_s - self._stage_s < self._keep_warm_s else self._retired()

    def _retired(self) -> list[RolloutAction]:
        self.phase = Phase.DONE
        return [*self._mirror(self._stages[-1].mirror, 0.0), Retire(self._old)]

    def _back(self, now_s: float, reason: str, breach: Breach | None) -> list[RolloutAction]:
        stage = self.stage or Stage(0.0)
        self.phase = Phase.ROLLED_BACK
        self.record = RolledBack(
            now_s,
            now_s - self._started_s if self._index >= 0 else 0.0,
            self._new,
            self._index,
            stage.share,
            reason,
            self._shown,
            self._all,
            breach,
        )
        return [self._shares(0.0), *self._mirror(stage.mirror, 0.0), self.record]

    def _shares(self, new: float) -> SetShares:
        return SetShares(((self._new, new), (self._old, 1.0 - new)))

    def _mirror(self, before: float, after: float) -> list[RolloutAction]:
        return [] if before == after else [SetMirror(self._new, after)]


_NUMBERS = ("_index", "_answers", "_shown", "_all")


def _check(old: str, new: str, stages: Sequence[Stage], guardrails: Sequence[Guardrail], keep_warm_s: float) -> None:
    if not old or not new or old == new:
        raise SetupError(f"a rollout goes from one version to another, not from {old!r} to {new!r}")
    shares = [stage.share for stage in stages]
    if not shares or shares != sorted(shares):
        raise SetupError(f"a rollout needs at least one stage, and its shares must never fall: {shares}")
    if shares[0] == 1 and not any(rail.limit for rail in guardrails):
        raise SetupError("at 100 % there is no old version to compare with: give at least one guardrail a limit")
    if not keep_warm_s >= 0:
        raise SetupError(f"keep_warm_s ({keep_warm_s}) must be at least 0")
