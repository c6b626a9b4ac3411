"""What a rollout is told: how the answers of its two versions turned out since it last asked.

Only requests for the model itself count. Who pins a version has chosen it, so those answers say nothing about how the
two compare. An attempt that failed at a replica counts as an error of its version even when another attempt saved the
client's answer: failover hides from clients what a rollout must see.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from miniserve.api.answered import AnsweredCall
from miniserve.control.guardrails import OutcomeBatch
from miniserve.errors import Draining, RequestError
from miniserve.types import AttemptResult, FleetView, Request


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


class OutcomeBook:
    """Counts the outcomes of the versions `old` and `new` of `model`."""

    def __init__(self, model: str, old: str, new: str) -> None:
        self._model = model
        self._counts = {old: _Counts(), new: _Counts()}
        self._versions: dict[str, str] = {}  # replica -> version, remembered while it is down
        self.last_answer_s: defaultdict[str, float | None] = defaultdict(lambda: None)  # by version

    def look(self, view: FleetView) -> None:
        """Learn which replica serves what."""
        self._versions |= {replica.replica_id: replica.version for replica in view.replicas if replica.version}

    def answered(self, call: AnsweredCall) -> None:
        """Count an answer that its client got. What failed has been counted with its attempts."""
        counts = self._of(call)
        if counts is None:
            return
        self.last_answer_s[call.model] = call.ended_s
        if call.is_complete:
            counts.answers += 1
            if call.ttft_s is not None:
                counts.latencies_s.append(call.ttft_s)

    def judged(self, call: AnsweredCall, good: bool) -> None:
        """Count what somebody thought of an answer."""
        if (counts := self._of(call)) is not None:
            counts.verdicts.append(good)

    def failed(self, request: Request, attempt: AttemptResult) -> None:
        """Count an attempt that failed, unless the request itself was at fault, or the replica was taken away."""
        counts = self._counts.get(self._versions.get(attempt.replica_id, ""))
        if counts is not None and request.model == self._model and is_fault(attempt.error):
            counts.answers += 1
            counts.errors += 1

    def mirrored(self, version: str, ttft_s: float | None, error: Exception | None) -> None:
        """Count the answer to a copy, which nobody saw."""
        counts = self._counts[version]
        counts.answers += 1
        counts.errors += is_fault(error)
        if error is None and ttft_s is not None:
            counts.latencies_s.append(ttft_s)

    def take(self) -> Mapping[str, OutcomeBatch]:
        """Return what has happened since the last call."""
        return {version: counts.take() for version, counts in self._counts.items()}

    def _of(self, call: AnsweredCall) -> _Counts | None:
        return self._counts.get(call.model) if call.request.model == self._model else None


def is_fault(error: Exception | None) -> bool:
    """Return whether a failure speaks against the replica's version."""
    if error is None or isinstance(error, Draining):
        return False
    return not isinstance(error, RequestError) or error.status >= 500
