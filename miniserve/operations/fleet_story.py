"""What happens to the replicas, told in plain words: who was killed, hangs, is back, came or left.

Pure: told the time, the fleet's view and some counts once a turn, it returns sentences. A death is told a moment later
than it is seen, because only then is it known what became of the streams that ran there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from miniserve.gateway.status import ProcessFacts
from miniserve.operations.events import Level
from miniserve.types import FleetView, ReplicaState, ReplicaView

SETTLE_S = 1.0  # from a death to its sentence: streams go on elsewhere within a fraction of that
SILENT_S = 4.0  # without an answer to a probe; these come twice a second
_FRESH_S = 2.0


@dataclass(frozen=True, slots=True)
class Streams:
    """Counts since the start: streams that went on at another replica, and calls that failed."""

    resumed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    level: Level = "info"


@dataclass(slots=True)
class _Known:
    state: ReplicaState
    since_s: float  # when it was ordered, or went
    pid: int | None = None
    ever_ready: bool = False
    hangs_since_s: float | None = None
    hung_steps: int = 0


@dataclass(slots=True)
class _Troubles:
    """Deaths and hangs that wait for their sentence, with the counts before the first of them."""

    before: Streams
    last_s: float
    by_kind: dict[str, list[str]] = field(default_factory=dict)  # "was killed" -> replicas


class FleetStory:
    """`watch` is called each turn."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._troubles: _Troubles | None = None
        self._counts = Streams()  # of the turn before
        self._has_begun = False
        self._awake_since_s = self._called_s = -inf  # after a pause of ours every report is old

    def watch(
        self,
        now_s: float,
        view: FleetView,
        counts: Streams,
        facts: Mapping[str, ProcessFacts],
        silent: Mapping[str, float],
    ) -> list[Sentence]:
        """Return what there is to say. `silent`: replicas that have work and make no progress, and for how long."""
        told: list[Sentence] = []
        if now_s - self._called_s > SILENT_S / 2:
            self._awake_since_s = now_s
        self._called_s = now_s
        if not self._has_begun and view.ready():
            told.append(Sentence(f"The stack is up: {_census(view)}.", "good"))
        for one in view.replicas:
            told += self._look(one, now_s, facts.get(one.replica_id, ProcessFacts()), one.replica_id in silent)
        for gone in self._known.keys() - {one.replica_id for one in view.replicas}:
            ended = "has left" if self._known.pop(gone).ever_ready else "was given up before it was ready"
            told.append(Sentence(f"{gone} {ended}."))
        told += self._settle(now_s, counts)
        self._counts = counts
        self._has_begun = self._has_begun or bool(view.ready())
        return told

    # --- one replica -----------------------------------------------------------------------------------------------

    def _look(self, one: ReplicaView, now_s: float, facts: ProcessFacts, is_silent: bool) -> list[Sentence]:
        known = self._known.get(one.replica_id)
        if known is None:
            known = self._known[one.replica_id] = _Known(ReplicaState.STARTING, now_s)
            if self._has_begun and one.state is ReplicaState.STARTING:
                return [Sentence(f"{one.replica_id} is starting.")]
        before, known.state = known.state, one.state
        if one.state is ReplicaState.READY:
            known.pid = facts.pid or known.pid
            return self._look_at_ready(one, known, before, now_s, is_silent)
        if one.state is before:
            return self._look_at_down(one, known, now_s, facts) if one.state is ReplicaState.DOWN else []
        if one.state is ReplicaState.DRAINING:
            return [Sentence(f"{one.replica_id} is draining: it finishes what it has and gets nothing new.")]
        if one.state is ReplicaState.DOWN:
            self._went_down(one, known, now_s, facts)
        return []

    def _look_at_ready(
        self, one: ReplicaView, known: _Known, before: ReplicaState, now_s: float, is_silent: bool
    ) -> list[Sentence]:
        name, is_mute = one.replica_id, now_s - max(one.as_of_s, self._awake_since_s) >= SILENT_S
        if known.hangs_since_s is not None:
            if is_mute or is_silent or now_s - one.as_of_s >= _FRESH_S or one.steps == known.hung_steps:
                return []
            after_s, known.hangs_since_s = now_s - known.hangs_since_s, None
            return [Sentence(f"{name} works again, {after_s:.1f} s after it was found hanging.", "good")]
        if is_mute or is_silent:
            self._hangs(one, known, now_s)
            return []
        if before is ReplicaState.READY or not self._has_begun:
            known.ever_ready = True
            return []
        is_new, known.ever_ready = not known.ever_ready, True
        after_s = now_s - known.since_s
        return [Sentence(f"{name} is {'ready' if is_new else 'back'} after {after_s:.1f} s.", "good")]

    def _look_at_down(self, one: ReplicaView, known: _Known, now_s: float, facts: ProcessFacts) -> list[Sentence]:
        """A process that hung, and so was down already, may have been replaced by now."""
        if known.hangs_since_s is None or not _has_ended(known, facts):
            return []
        hung_s, known.hangs_since_s, known.since_s = now_s - known.hangs_since_s, None, now_s
        return [
            Sentence(f"{one.replica_id} hung for {hung_s:.0f} s; its process was ended and is started anew.", "warning")
        ]

    def _went_down(self, one: ReplicaView, known: _Known, now_s: float, facts: ProcessFacts) -> None:
        if _has_ended(known, facts):
            known.hangs_since_s, known.since_s = None, now_s
            self._trouble(_how_it_ended(facts.exit_code), one.replica_id, now_s)
        elif known.hangs_since_s is None:
            self._hangs(one, known, now_s)

    def _hangs(self, one: ReplicaView, known: _Known, now_s: float) -> None:
        known.hangs_since_s, known.hung_steps = now_s, one.steps
        self._trouble("hang", one.replica_id, now_s)

    # --- what became of its streams --------------------------------------------------------------------------------

    def _trouble(self, kind: str, replica_id: str, now_s: float) -> None:
        if self._troubles is None:
            self._troubles = _Troubles(self._counts, now_s)
        self._troubles.last_s = now_s
        self._troubles.by_kind.setdefault(kind, []).append(replica_id)

    def _settle(self, now_s: float, counts: Streams) -> list[Sentence]:
        troubles = self._troubles
        if troubles is None or now_s - troubles.last_s < SETTLE_S:
            return []
        self._troubles = None
        resumed, failed = counts.resumed - troubles.before.resumed, counts.failed - troubles.before.failed
        what = ", and ".join(_sentence(kind, names) for kind, names in troubles.by_kind.items())
        return [Sentence(f"{what}; {_outcome(resumed, failed)}.", "alarm" if failed else "warning")]


def _has_ended(known: _Known, facts: ProcessFacts) -> bool:
    return known.pid is not None and facts.pid != known.pid


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code == -9:
        return "killed"
    return "told to end" if exit_code in (0, -15) else "broken"


_SENTENCES = {
    "killed": ("was killed", "were killed"),
    "told to end": ("was told to end and is started anew", "were told to end and are started anew"),
    "broken": ("broke down and is started anew", "broke down and are started anew"),
    "hang": ("hangs: it is there but makes no progress", "hang: they are there but make no progress"),
}


def _sentence(kind: str, names: list[str]) -> str:
    one, many = _SENTENCES[kind]
    return f"{' and '.join(names)} {one if len(names) == 1 else many}"


def _outcome(resumed: int, failed: int) -> str:
    went_on = f"{resumed} {'stream' if resumed == 1 else 'streams'} went on elsewhere"
    if failed:
        return f"{went_on}, {failed} {'answer' if failed == 1 else 'answers'} failed"
    return went_on if resumed else "no answer was lost"


def _census(view: FleetView) -> str:
    models = Counter(one.version for one in view.ready())
    first, *others = [f"{count} of {model}" for model, count in models.items()]
    replicas = "replica" if first.startswith("1 ") else "replicas"
    return ", ".join([first.replace(" of", f" {replicas} of", 1), *others])
