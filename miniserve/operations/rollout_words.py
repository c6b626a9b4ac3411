"""What is said of a rollout: as events for a person who has not read the manual, and as a section of the status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from miniserve.control.rollout import Phase, RolledBack, Rollout, RolloutAction, SetShares

if TYPE_CHECKING:
    from miniserve.operations.rollout_live import LiveRollout, RolloutOrder


def began_text(order: RolloutOrder) -> str:
    """Return what begins, and whether anything was known of the version before."""
    text = f"A rollout begins ({order.plan.strategy}): {order.new} is to take the place of {order.old}"
    if order.plan.strategy == "shadow":
        text = f"A shadow begins: {order.new} is to answer copies of questions to {order.old}, and nobody sees it"
    return f"{text}; it was started without asking for its test score." if order.without_eval else f"{text}."


def stage_text(order: RolloutOrder, rollout: Rollout, actions: Sequence[RolloutAction]) -> str | None:
    """Return what a stage that has just begun, or the end of the last one, means for the users; None if none has."""
    stage, new, old = rollout.stage, order.new, order.old
    if stage is None or rollout.phase is Phase.ROLLED_BACK:
        return None
    if not any(isinstance(action, SetShares) for action in actions):
        if rollout.phase is Phase.DONE and stage.share == 0:
            return f"The shadow of {new} has ended: `rollout status` compares its answers with those of {old}."
        return None
    if stage.share == 1:
        return f"All users of {order.model} get {new} now; {old} is kept ready to take over again."
    if stage.share == 0:
        return f"{percent(stage.mirror)} of the questions to {old} are copied to {new}; users see nothing of it."
    return f"{percent(stage.share)} of the users of {order.model} get {new} now."


def rolled_back_text(order: RolloutOrder, record: RolledBack) -> str:
    """Return when and why the users were brought back, and how many answers of the new version they had seen."""
    what = "was called back by hand" if record.breach is None else "did harm and was rolled back"
    return (
        f"{order.new} {what} {record.after_s:.0f} s after its first stage began, at {percent(record.share)} of the "
        f"users: {record.reason}. They had seen {record.shown_answers:,} of its answers, "
        f"{percent(record.exposed_share)} of all; {order.old} serves everybody again."
    )


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def status_json(live: LiveRollout, now_s: float) -> dict[str, Any]:
    """Return the section of `GET /status`."""
    rollout, order = live.rollout, live.order
    stage, record = rollout.stage or rollout.stages[0], rollout.record
    copies = live.mirror.counts
    return {
        "old": order.old,
        "new": order.new,
        "strategy": order.plan.strategy,
        "phase": live.phase,
        "stage": rollout.stage_index,
        "stages": [each.share for each in rollout.stages],
        "share": live.share,
        "mirror": live.mirror.fraction,
        "answers_in_stage": rollout.answers_in_stage,
        "min_answers": stage.min_answers,
        "p_values": {name: float(f"{value:.4g}") for name, value in rollout.p_values().items()},
        "alpha": {rail.metric: rail.alpha for rail in rollout.guardrails},
        "counts": {
            metric: {"new": {"bad": new.bad, "of": new.n}, "old": {"bad": old.bad, "of": old.n}}
            for metric, (new, old) in rollout.counts().items()
        },
        "exposed_share": round(rollout.exposed_share, 4),
        "reason": None if record is None else record.reason,
        "rolled_back_after_s": None if record is None else round(record.after_s, 1),
        "without_eval": order.without_eval,
        "eval": {"old": order.scores.old, "new": order.scores.new},
        "shadow": copies.as_json() if copies.copies or copies.skipped else None,
        "since_s": round(now_s - live.began_s, 1),
        "switched_after_s": _rounded(live.switched_after_s),
        "back_after_s": _rounded(live.back_after_s),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
