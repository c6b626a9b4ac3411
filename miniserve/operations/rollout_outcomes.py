"""What a rollout is told: how the answers of its two versions turned out since it last asked.

Only requests for the model itself count. Who pins a version has chosen it, so those answers say nothing about how the
two compare. An attempt that failed at a replica counts as an error of its version even when another attempt saved the
client's answer: failover hides from clients what a rollout must see.
"""

from __future__ import annotations

from collections import defaultdict

from miniserve.api.answered import AnsweredCall
from miniserve.control.rollout_loop import RolloutTally, is_fault
from miniserve.types import AttemptResult, FleetView, Request


class OutcomeBook:
    """Counts the outcomes of the versions `old` and `new` of `model`."""

    def __init__(self, model: str, old: str, new: str) -> None:
        self._model = model
        self.tally = RolloutTally(old, new)
        self._both = (old, new)
        self._versions: dict[str, str] = {}  # replica -> version, remembered while it is down
        self.last_answer_s: defaultdict[str, float | None] = defaultdict(lambda: None)  # by version

    def look(self, view: FleetView) -> None:
        """Learn which replica serves what."""
        self._versions |= {replica.replica_id: replica.version for replica in view.replicas if replica.version}

    def answered(self, call: AnsweredCall) -> None:
        """Count an answer that its client got. What failed has been counted with its attempts."""
        if self._is_theirs(call):
            self.last_answer_s[call.model] = call.ended_s
            if call.is_complete:
                self.tally.answer(call.model, call.ttft_s)

    def judged(self, call: AnsweredCall, good: bool) -> None:
        """Count what somebody thought of an answer."""
        if self._is_theirs(call):
            self.tally.judge(call.model, good)

    def failed(self, request: Request, attempt: AttemptResult) -> None:
        """Count an attempt that failed, unless the request itself was at fault, or the replica was taken away."""
        if request.model == self._model and is_fault(attempt.error):
            self.tally.error(self._versions.get(attempt.replica_id, ""))

    def mirrored(self, version: str, ttft_s: float | None, error: Exception | None) -> None:
        """Count the answer to a copy, which nobody saw."""
        if is_fault(error):
            self.tally.error(version)
        else:
            self.tally.answer(version, ttft_s if error is None else None)

    def _is_theirs(self, call: AnsweredCall) -> bool:
        return call.request.model == self._model and call.model in self._both
