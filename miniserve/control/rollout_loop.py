"""What both worlds share in driving a rollout: how outcomes are counted, and when it is asked.

    ended calls ──> RolloutTally ──take──> RolloutLoop.tick ──> actions for the driver

The live driver is `operations.rollout_live`, the simulated one `sim.rollout`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from miniserve.control.guardrails import OutcomeBatch
from miniserve.control.rollout import Phase, Rollout, RolloutAction, RolloutView
from miniserve.errors import Draining, RequestError
from miniserve.types import FleetView

PERIOD_S = 2.0  # between two looks at the outcomes: long enough for answers of both versions in each


@dataclass(slots=True)
class _Counts:
    """Of one version, since it was last asked for."""

    answers: int = 0
    errors: int = 0
    latencies_s: list[float] = field(default_factory=list)
    verdicts: list[bool] = field(default_factory=list)  # whether each judged answer was good

    def take(self) -> OutcomeBatch:
        """Return a batch and start anew. Verdicts on answers of an earlier batch wait for a batch with room."""
        judged, self.verdicts = self.verdicts[: self.answers], self.verdicts[self.answers :]
        batch = OutcomeBatch(self.answers, self.errors, self.latencies_s, len(judged), judged.count(False))
        self.answers, self.errors, self.latencies_s = 0, 0, []
        return batch


class RolloutTally:
    """Counts how the answers of some versions turned out; what other versions did is not counted."""

    def __init__(self, *versions: str) -> None:
        self._counts = {version: _Counts() for version in versions}

    def answer(self, version: str, ttft_s: float | None) -> None:
        """Count a complete answer, shown to a client or a copy that nobody saw."""
        if (counts := self._counts.get(version)) is not None:
            counts.answers += 1
            if ttft_s is not None:
                counts.latencies_s.append(ttft_s)

    def error(self, version: str) -> None:
        """Count an attempt that failed at a replica of `version`, whoever saved the client's answer."""
        if (counts := self._counts.get(version)) is not None:
            counts.answers += 1
            counts.errors += 1

    def judge(self, version: str, good: bool) -> None:
        """Count what somebody thought of an answer."""
        if (counts := self._counts.get(version)) is not None:
            counts.verdicts.append(good)

    def take(self) -> Mapping[str, OutcomeBatch]:
        """Return what has happened since the last call."""
        return {version: counts.take() for version, counts in self._counts.items()}


class RolloutLoop:
    """Asks a rollout when there is something to decide."""

    def __init__(self, rollout: Rollout, tally: RolloutTally, now_s: float) -> None:
        self.rollout = rollout
        self._tally = tally
        self._looked_s = now_s

    def tick(self, now_s: float, view: FleetView) -> list[RolloutAction] | None:
        """Return what is to be changed now; None if it is not the time to look.

        While replicas of the new version are starting, each turn is one; later every `PERIOD_S` seconds.
        """
        if self.rollout.phase is not Phase.WAITING and now_s - self._looked_s < PERIOD_S:
            return None
        self._looked_s = now_s
        ready = Counter(replica.version for replica in view.ready())
        return self.rollout.tick(now_s, RolloutView(self._tally.take(), ready))


def is_fault(error: Exception | None) -> bool:
    """Return whether a failure speaks against the replica's version."""
    if error is None or isinstance(error, Draining):
        return False
    return not isinstance(error, RequestError) or error.status >= 500
