"""Whether a model's answers changed when another version came: what can be seen of them, and what clients say.

Each version's latest answers are kept as a few flags, never as text. When a version appears beside the one that
served so far, its first answers are compared with the last ones of the old version, once (`observe.quality`): looked at
once, a version that is no different is called different in one of twenty cases. A rollout's guardrails look sooner and
as often as they like, at the same time of day; this monitor also sees what no guardrail has a number for, such as
refusals, loops and length.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from miniserve.api.answered import AnsweredCall
from miniserve.observe.quality import METRICS, QualityMonitor, ServedAnswer, Shift, quality_note
from miniserve.operations.alerts import AlertsPart
from miniserve.operations.part import DeskPart
from miniserve.operations.workplace import Workplace
from miniserve.types import FleetView

NEEDED = 250  # answers on each side: a fall from 94 to 80 in 100 liked ones is seen in more than 99 of 100 cases
KEPT = 500  # answers of each version
VERDICT_WITHIN_S = 5.0  # an answer waits so long for its client's verdict, before it is counted
KEEP_EVERY_S = 5.0
_WORSE_IF_HIGHER = {"refused": True, "looped": True, "liked": False}
_WORDS = {"refused": "refusals", "looped": "answers that repeat themselves", "liked": "liked answers"}


@dataclass(slots=True)
class _Model:
    """One model's versions. `old` serves, `new` is being compared with it."""

    monitor: QualityMonitor = field(default_factory=lambda: QualityMonitor(NEEDED))
    old: str = ""
    new: str = ""
    verdicts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by version


class QualityPart(DeskPart):
    """The quality monitor of one gateway."""

    name = "quality"

    def __init__(self, work: Workplace) -> None:
        self._work = work
        self._recent: dict[str, deque[ServedAnswer]] = {}  # by version
        self._models: dict[str, _Model] = {}
        self._waiting: OrderedDict[str, tuple[float, str, ServedAnswer]] = OrderedDict()  # for a verdict, by answer
        self._serving: frozenset[str] = frozenset()
        self._kept: object = None
        self._kept_s = -KEEP_EVERY_S

    # --- answers -----------------------------------------------------------------------------------------------------

    def answered(self, call: AnsweredCall) -> None:
        if call.is_complete and call.model:
            note = replace(quality_note(call.text), output_tokens=call.completion_tokens)
            self._waiting[call.answer_id] = (self._work.fleet.clock(), call.model, note)

    def judged(self, call: AnsweredCall, good: bool) -> None:
        if (waiting := self._waiting.pop(call.answer_id, None)) is not None:
            self._count(waiting[1], replace(waiting[2], liked=good))

    def tick(self, now_s: float, view: FleetView) -> None:
        while self._waiting and now_s - next(iter(self._waiting.values()))[0] >= VERDICT_WITHIN_S:
            _, (_, version, note) = self._waiting.popitem(last=False)
            self._count(version, note)
        self._serving = frozenset(replica.version for replica in view.ready())
        for name, model in self._models.items():
            if model.new and model.new not in self._serving:
                self._end_alert(name, model.new)
                model.new = ""
            if model.old not in self._serving and model.new in self._serving:
                self._end_alert(name, model.new)
                model.old, model.new = model.new, ""  # what was new is what serves now

    # --- comparing ---------------------------------------------------------------------------------------------------

    def _count(self, version: str, note: ServedAnswer) -> None:
        self._recent.setdefault(version, deque(maxlen=KEPT)).append(note)
        model = self._models.setdefault(version.partition("@")[0], _Model(old=version))
        if version == model.old and model.monitor.missing is None:
            model.monitor.record(note)
        elif version != model.old:
            self._count_new(model, version, note)

    def _count_new(self, model: _Model, version: str, note: ServedAnswer) -> None:
        if version in model.verdicts or model.new not in ("", version):
            return
        if not model.new:
            try:
                model.monitor.deployed(version)
            except ValueError:
                return  # too few answers of the old version yet
            model.new = version
        if shifts := model.monitor.record(note):
            self._conclude(model, version, shifts)

    def _conclude(self, model: _Model, version: str, shifts: Iterable[Shift]) -> None:
        shifts = tuple(shifts)
        model.verdicts[version] = [_as_json(shift) for shift in shifts]
        model.monitor = QualityMonitor(NEEDED)  # the new version's answers are not what the old one is like
        for note in self._recent.get(model.old, ()):
            model.monitor.record(note)
        alarms = [shift for shift in shifts if shift.alarm]
        if not alarms:
            self._work.events.say("quality", f"{version} answers like {model.old}, as far as {NEEDED} answers show")
            return
        text = f"{version} against {model.old}: {'; '.join(map(_in_words, alarms))}"
        if any(_is_worse(shift) for shift in alarms):
            self._report(version, f"quality: {text}")
        else:
            self._work.events.say("quality", text, "good")

    def _report(self, version: str, text: str | None) -> None:
        alerts = self._work.part("alerts")
        if isinstance(alerts, AlertsPart):
            alerts.report(f"quality-{version}", "ticket", text)
        elif text is not None:
            self._work.events.say("quality", text, "warning")

    def _end_alert(self, name: str, version: str) -> None:
        self._report(version, None)

    # --- told and kept -----------------------------------------------------------------------------------------------

    def status(self) -> object:
        verdicts = {version: shifts for model in self._models.values() for version, shifts in model.verdicts.items()}
        comparing = {
            model.new: model.monitor.missing
            for model in self._models.values()
            if model.new and model.monitor.missing is not None
        }
        rates = {version: _rates(notes) for version, notes in sorted(self._recent.items())}
        return {"versions": rates, "answers_missing": comparing, "verdicts": verdicts}

    def state(self) -> object:
        now_s = self._work.fleet.clock()
        if now_s - self._kept_s >= KEEP_EVERY_S:
            self._kept_s = now_s
            answers = {
                version: [[note.output_tokens, note.refused, note.looped, note.liked] for note in notes]
                for version, notes in self._recent.items()
            }
            models = {name: [model.old, model.verdicts] for name, model in self._models.items()}
            self._kept = {"answers": answers, "models": models}
        return self._kept

    def restore(self, state: Any) -> None:
        recent = {str(v): deque((ServedAnswer(*n) for n in notes), KEPT) for v, notes in state["answers"].items()}
        models = {}
        for name, (old, verdicts) in state["models"].items():
            models[str(name)] = model = _Model(old=str(old), verdicts=dict(verdicts))
            for note in recent.get(model.old, ()):
                model.monitor.record(note)
        self._recent, self._models = recent, models


def _rates(notes: deque[ServedAnswer]) -> dict[str, float | int | None]:
    liked = [note.liked for note in notes if note.liked is not None]
    n = len(notes)
    return {
        "answers": n,
        "refused": round(sum(note.refused for note in notes) / n, 4),
        "looped": round(sum(note.looped for note in notes) / n, 4),
        "liked": round(sum(liked) / len(liked), 4) if liked else None,
        "judged": len(liked),
        "mean_tokens": round(sum(note.output_tokens for note in notes) / n, 2),
    }


def _as_json(shift: Shift) -> dict[str, Any]:
    return {
        "metric": shift.metric,
        "before": round(shift.before, 4),
        "after": round(shift.after, 4),
        "p_value": shift.p_value,
        "alarm": shift.alarm,
    }


def _is_worse(shift: Shift) -> bool:
    """Say whether a person should look: longer or shorter answers are a change, for better or worse."""
    higher_is_worse = _WORSE_IF_HIGHER.get(shift.metric)
    return True if higher_is_worse is None else (shift.after > shift.before) == higher_is_worse


def _in_words(shift: Shift) -> str:
    if shift.metric == "length":
        return f"answers of {shift.after:.1f} tokens instead of {shift.before:.1f}"
    return f"{shift.after:.1%} {_WORDS[shift.metric]} instead of {shift.before:.1%}"


assert set(METRICS) == {*_WORDS, "length"}
