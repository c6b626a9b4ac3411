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

SETTLE_S = 2.0  # from a death or a hang to its sentence: streams go on elsewhere within a fraction of that
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
    is_leaving: bool = False  # it was told to end, so its silence means nothing
    hangs_since_s: float | None = None
    hung_steps: int | None = None  # those of an engine that stands still; None: its process answers no probe


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
        self._before = self._counts = Streams()  # of the turn before, and of this one
        self._has_begun = False
        self._together: dict[str, list[str]] = {}  # of this turn, by what happened: replicas
        self._slowest_s = 0.0  # of those that became ready
        self._is_well: set[str] = set()  # of this turn: works again
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
        self._before, self._counts = self._counts, counts
        if now_s - self._called_s > SILENT_S / 2:
            self._awake_since_s = now_s
        self._called_s = now_s
        if not self._has_begun and view.ready():
            told.append(Sentence(f"The stack is up: {_census(view)}.", "good"))
        self._together, self._slowest_s, self._is_well = {}, 0.0, set()
        for one in view.replicas:
            told += self._look(one, now_s, facts.get(one.replica_id), one.replica_id in silent)
        for gone in sorted(self._known.keys() - {one.replica_id for one in view.replicas}):
            self._note("left" if self._known.pop(gone).ever_ready else "given up", gone)
        told = self._settle(now_s) + told + self._said_together()
        self._has_begun = self._has_begun or bool(view.ready())
        return told

    # --- one replica -----------------------------------------------------------------------------------------------

    def _look(self, one: ReplicaView, now_s: float, facts: ProcessFacts | None, is_silent: bool) -> list[Sentence]:
        known = self._known.get(one.replica_id)
        if known is None:
            known = self._known[one.replica_id] = _Known(ReplicaState.STARTING, now_s)
            if self._has_begun and one.state is ReplicaState.STARTING:
                self._note("starting", one.replica_id)
        before, known.state = known.state, one.state
        if one.state is ReplicaState.READY:
            # A process is reaped a moment before its replica is marked down: the pid that was ready is the one to miss.
            if facts is not None and (known.pid is None or before is not ReplicaState.READY):
                known.pid = facts.pid
            known.is_leaving = False
            return self._look_at_ready(one, known, before, now_s, is_silent)
        if one.state is ReplicaState.DOWN:
            return self._look_at_down(one, known, now_s, facts)
        if one.state is ReplicaState.DRAINING and not known.is_leaving:
            known.is_leaving = True
            self._note("draining", one.replica_id)
        return []

    def _look_at_ready(
        self, one: ReplicaView, known: _Known, before: ReplicaState, now_s: float, is_silent: bool
    ) -> list[Sentence]:
        name, is_mute = one.replica_id, now_s - max(one.as_of_s, self._awake_since_s) >= SILENT_S
        if known.hangs_since_s is not None:
            if is_mute or is_silent or now_s - one.as_of_s >= _FRESH_S or one.steps == known.hung_steps:
                return []
            after_s, known.hangs_since_s = now_s - known.hangs_since_s, None
            if self._was_a_moment(name):
                return []
            self._is_well.add(name)
            return [Sentence(f"{name} works again, {after_s:.1f} s after it was found hanging.", "good")]
        if is_mute or is_silent:
            self._hangs(one.replica_id, known, None if is_mute else one.steps, now_s)
            return []
        is_new, known.ever_ready = not known.ever_ready, True
        if before is ReplicaState.READY or not self._has_begun:
            return []
        if is_new:
            self._note("ready", name)
            self._slowest_s = max(self._slowest_s, now_s - known.since_s)
            return []
        return [Sentence(f"{name} is back after {now_s - known.since_s:.1f} s.", "good")]

    def _look_at_down(
        self, one: ReplicaView, known: _Known, now_s: float, facts: ProcessFacts | None
    ) -> list[Sentence]:
        """Its process has ended, then or earlier while it hung, or it is there and answers nothing."""
        if known.pid is not None and facts is not None and facts.pid != known.pid:
            hangs_since_s, known.hangs_since_s = known.hangs_since_s, None
            known.pid, known.since_s = None, now_s
            if hangs_since_s is None:
                self._trouble(_how_it_ended(facts.exit_code), one.replica_id, now_s)
                return []
            text = (
                f"{one.replica_id} hung for {now_s - hangs_since_s:.0f} s; its process was ended and is started anew."
            )
            return [Sentence(text, "warning")]
        is_known = known.is_leaving or known.hangs_since_s is not None
        if not is_known and (known.pid is not None or facts is None):
            self._hangs(one.replica_id, known, None, now_s)
        return []

    def _hangs(self, replica_id: str, known: _Known, steps: int | None, now_s: float) -> None:
        known.hangs_since_s, known.hung_steps = now_s, steps
        self._trouble("hang", replica_id, now_s)

    # --- what several did at once: a rollout's replicas, say --------------------------------------------------------

    def _note(self, what: str, replica_id: str) -> None:
        self._together.setdefault(what, []).append(replica_id)

    def _said_together(self) -> list[Sentence]:
        told = []
        for what, names in self._together.items():
            after = f" after {self._slowest_s:.1f} s" if what == "ready" else ""
            told.append(Sentence(f"{_sentence(what, names)}{after}.", "good" if what == "ready" else "info"))
        return told

    # --- what became of its streams --------------------------------------------------------------------------------

    def _trouble(self, kind: str, replica_id: str, now_s: float) -> None:
        if self._troubles is None:
            self._troubles = _Troubles(self._before, now_s)
        self._troubles.last_s = now_s
        self._troubles.by_kind.setdefault(kind, []).append(replica_id)

    def _was_a_moment(self, replica_id: str) -> bool:
        """Whether a hang is over before it was told, and moved nobody's stream: then it is not worth a word."""
        troubles = self._troubles
        hanging = [] if troubles is None else troubles.by_kind.get("hang", [])
        if troubles is None or replica_id not in hanging or self._counts != troubles.before:
            return False
        hanging.remove(replica_id)
        if not hanging:
            del troubles.by_kind["hang"]
        self._troubles = troubles if troubles.by_kind else None
        return True

    def _settle(self, now_s: float) -> list[Sentence]:
        troubles = self._troubles
        if troubles is None:
            return []
        is_past = any(name in self._is_well for names in troubles.by_kind.values() for name in names)
        if now_s - troubles.last_s < SETTLE_S and not is_past:
            return []
        self._troubles = None
        counts = self._counts
        resumed, failed = counts.resumed - troubles.before.resumed, counts.failed - troubles.before.failed
        what = ", and ".join(_sentence(kind, names) for kind, names in troubles.by_kind.items())
        return [Sentence(f"{what}; {_outcome(resumed, failed)}.", "alarm" if failed else "warning")]


def _list(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code == -9:
        return "killed"
    return "told to end" if exit_code in (0, -15) else "broken"


_SENTENCES = {
    "killed": ("was killed", "were killed"),
    "told to end": ("was told to end and is started anew", "were told to end and are started anew"),
    "broken": ("broke down and is started anew", "broke down and are started anew"),
    "hang": (
        "hangs: it is there but makes no progress",
        "hang: they are there but make no progress (or this machine has too much to do)",
    ),
    "starting": ("is starting", "are starting"),
    "ready": ("is ready", "are ready"),
    "draining": (
        "is draining: it finishes what it has and gets nothing new",
        "are draining: they finish what they have and get nothing new",
    ),
    "left": ("has left", "have left"),
    "given up": ("was given up before it was ready", "were given up before they were ready"),
}


def _sentence(kind: str, names: list[str]) -> str:
    one, many = _SENTENCES[kind]
    return f"{_list(names)} {one if len(names) == 1 else many}"


def _outcome(resumed: int, failed: int) -> str:
    went_on = [f"{resumed} {'stream' if resumed == 1 else 'streams'} went on elsewhere"] if resumed else []
    lost = [f"{failed} {'answer' if failed == 1 else 'answers'} failed"] if failed else []
    return ", ".join(went_on + lost) or "no answer was lost"


def _census(view: FleetView) -> str:
    models = Counter(one.version for one in view.ready())
    first, *others = [f"{count} of {model}" for model, count in models.items()]
    replicas = "replica" if first.startswith("1 ") else "replicas"
    return ", ".join([first.replace(" of", f" {replicas} of", 1), *others])
