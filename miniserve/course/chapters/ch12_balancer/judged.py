"""Judges a balancer's choices by the numbers that it was shown, not by what the library would do.

Ties may be broken in any way that depends on the request, ignores the order of the list, and spreads. The first rule
that would have made all of the same choices explains a wrong one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from miniserve.course.chapters.ch12_balancer.asked import Load, View, unfolded
from miniserve.course.check.ask import Json, Told
from miniserve.course.check.verdict import Problem
from miniserve.types import ReplicaView, Request

Rules = Sequence[tuple[str, str, Load]]  # problem id, why, what is smallest at the chosen one


def outstanding_of(view: View) -> int:
    return int(view.get("outstanding", 0))


def _shown(views: Sequence[View], *names: str) -> str:
    """Return the views on one line, with the numbers that matter."""
    each = (f"{v['replica_id']}: {', '.join(f'{name}={v.get(name, 0):g}' for name in names)}" for v in views)
    return "; ".join(each)


def offered(asked: Json, told: Json) -> Problem | None:
    """Every choice must be the id of a replica on offer, or None where there is none."""
    if told["changed"]:
        where = f"request {asked['lives'][0][0]['id']}"
        why = "Views are frozen: the fleet reported them, and others read them as well."
        return Problem("mutates", "a view was changed", why, "Compute in variables of your own.", where)
    for life, choices in zip(asked["lives"], told["lives"], strict=True):
        for i, (one, chosen) in enumerate(zip(life, choices, strict=True)):
            ids = one.get("fleet") or [view["replica_id"] for view in one["replicas"]]
            where = f"request {one['id']} ({i + 1} of {len(life)}); on offer: {', '.join(ids) or 'no replica'}"
            if isinstance(chosen, dict):
                why = "`choose` returns the `replica_id` of a replica, a string."
                return Problem("no-id", f"a {chosen['type']}", why, "Return view.replica_id.", where)
            if chosen is None and ids:
                why = "None means that no replica may have the request, and here one could."
                return Problem("nobody", "None", why, "Return an id whenever `replicas` is not empty.", where)
            if chosen is not None and chosen not in ids:
                why = "A replica that isn't on offer is down, draining, or has failed too often: nothing may go there."
                return Problem("not-offered", repr(chosen), why, "Choose among `replicas`, never from memory.", where)
    return None


def broke(asked: Json, told: Told) -> Problem | None:
    """Explain the exceptions that many learners meet."""
    asked = unfolded(asked)
    first: View = next((one for life in asked["lives"] for one in life), {})
    where = f"e.g. request {first.get('id', '')}; {told.line}".rstrip("; ")
    if told.error.startswith("FrozenInstanceError"):
        why = "Views are frozen: the fleet reported them, and others read them as well."
        return Problem("mutates", told.error, why, "Compute in variables of your own.", where)
    if "'tuple' object" in told.error or "does not support item" in told.error:
        why = "The replicas come as a tuple, so that no balancer can change the list that others use."
        return Problem("changes-list", told.error, why, "sorted(...) and min(...) change nothing.", where)
    arithmetic = told.error.partition(":")[0] in ("ValueError", "IndexError", "ZeroDivisionError")
    empty = any(not (one.get("fleet") or one.get("replicas")) for life in asked["lives"] for one in life)
    if empty and arithmetic:
        why = "With no replicas there is nothing to choose from."
        return Problem("empty", told.error, why, "Return None first if `replicas` is empty.", "`replicas` is empty")
    if arithmetic and len(first.get("replicas", ())) == 1:
        why = "With one replica there is no second to draw."
        return Problem("one-replica", told.error, why, "Return its id before you draw.", "`replicas` holds one view")
    return None


def least_of(load: Load, told_as: Sequence[str], rules: Rules, next_: str, asked: Json, told: Json) -> Problem | None:
    """Check that each choice has the smallest `load` of the replicas shown."""
    if (problem := offered(asked, told)) is not None:
        return problem
    rounds = [
        (one, chosen)
        for life, choices in zip(asked["lives"], told["lives"], strict=True)
        for one, chosen in zip(with_views(life, choices), choices, strict=True)
        if chosen is not None
    ]
    wrong = [(one, chosen) for one, chosen in rounds if not _smallest(load, one["replicas"], chosen)]
    if not wrong:
        return None
    one, chosen = wrong[0]
    best = next(v["replica_id"] for v in one["replicas"] if _smallest(load, one["replicas"], v["replica_id"]))
    where = f"request {one['id']}; {_shown(one['replicas'], *told_as)}"
    seen = f"{chosen!r}, although {best!r} has less"
    for id_, why, rule in rules:
        if _fits(rule, rounds):
            return Problem(id_, seen, why, next_, where)
    return Problem("not-least", seen, "The replica you chose doesn't have the least load.", next_, where)


def _fits(rule: Load, rounds: Sequence[tuple[Json, str]]) -> bool:
    """Return whether `rule` explains all of these choices; False if its loads are all alike, or were not shown."""
    try:
        loads = [{repr(rule(view)) for view in shown["replicas"]} for shown, _ in rounds]
        fits = all(_smallest(rule, shown["replicas"], picked) for shown, picked in rounds)
        return fits and any(len(different) > 1 for different in loads)
    except KeyError:
        return False


def _smallest(load: Load, views: Sequence[View], chosen: str) -> bool:
    """Return whether `chosen` has the smallest load of all."""
    own = next(load(view) for view in views if view["replica_id"] == chosen)
    return all(not load(view) < own for view in views)  # type: ignore[operator]


def with_views(life: Sequence[Json], choices: Sequence[str]) -> list[Json]:
    """Return the rounds with the views that the driver showed, replayed from the choices, and how many each got."""
    held: dict[str, str] = {}
    sent: Counter[str] = Counter()
    shown = []
    for place, (one, chosen) in enumerate(zip(life, choices, strict=True)):
        if "fleet" in one:
            for request_id in one["ended"]:
                held.pop(request_id, None)
            counts = Counter(held.values())
            views = [{"replica_id": id_, "outstanding": counts[id_]} for id_ in one["fleet"]]
        else:
            views = one["replicas"]
        views = [{**view, "sent": sent[view["replica_id"]], "place": i} for i, view in enumerate(views)]
        shown.append({"id": one["id"], "replicas": views, "place": place})
        held[one["id"]] = chosen
        sent[chosen] += 1
    return shown


def judge_luck(what: str, asked: Json, told: Json) -> Problem | None:
    """Check that tied replicas share the requests, and that the choice among them depends on the request alone."""
    asked = unfolded(asked)
    if (problem := offered(asked, told)) is not None:
        return problem
    ids = [view["replica_id"] for view in asked["lives"][0][0]["replicas"]]
    if len(told["lives"]) == 1:
        return _judge_spread(ids, told["lives"][0], what)
    first, again, reversed_, turned = told["lives"]
    where = f"{len(ids)} replicas with the same {what}; request {asked['lives'][0][0]['id']} and 39 more"
    if (differ := difference(first, again)) is not None:
        why = "The same requests in the same situation went elsewhere, so you could never repeat a run."
        next_ = "Break ties by the request: number(..., request.request_id)."
        return Problem("not-repeatable", differ, why, next_, where)
    if (differ := difference(first, reversed_[::-1])) is not None:
        why = "Earlier requests decide your ties, so two gateways that count alike run in step."
        next_ = "Break ties by request.request_id, and remember nothing."
        return Problem("remembers", differ, why, next_, where)
    if (differ := difference(first, turned)) is not None:
        why = "The order of the list breaks your ties, and that order differs from gateway to gateway."
        return Problem("order-decides", differ, why, "Sort the ids of the tied replicas first.", where)
    return None


def difference(one: Sequence[str], other: Sequence[str]) -> str | None:
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    return (
        f"{pairs[0][0]!r} the first time, then {pairs[0][1]!r} ({len(pairs)} of {len(one)} differ)" if pairs else None
    )


def _judge_spread(ids: Sequence[str], choices: Sequence[str], what: str) -> Problem | None:
    counts = Counter(choices)
    seen = ", ".join(f"{id_}: {counts[id_]}" for id_ in ids)
    where = f"{len(choices)} requests to {len(ids)} replicas with the same {what}"
    if max(counts.values()) == len(choices):
        why = "Ties always go to the same replica, so a quiet fleet has one busy replica (herding)."
        return Problem("herds", seen, why, "Let the request's own draw decide among all tied replicas.", where)
    share = len(choices) / len(ids)
    if min(counts[id_] for id_ in ids) < 0.4 * share or max(counts.values()) > 1.9 * share:
        why = f"A fair draw gives each about {share:.0f}."
        return Problem("uneven", seen, why, "Give every tied replica the same chance.", where)
    return None


def judge_cost(most_compared: float, most_reads: float, asked: Json, told: Json) -> Problem | None:
    """Check that one choice among many neither sorts nor reads the same loads again and again."""
    if (problem := offered(asked, told)) is not None:
        return problem
    count = len(asked["lives"][0][0]["replicas"])
    where = f"one request, {count} replicas"
    if told["reads"] > most_reads * count:
        seen = f"{told['reads'] / count:.1f} reads of each replica's load"
        why = "You look at each replica again for every other: twice the replicas make four times the work."
        return Problem("looks-again", seen, why, "Compute the minimum once, before the loop.", where)
    if told["compared"] > most_compared * count:
        seen = f"{told['compared'] / count:.1f} comparisons per replica"
        why = "You sorted all of them to find one. One look at each finds the least."
        return Problem("sorts", seen, why, "min(...) needs one comparison per replica.", where)
    return None


def beside_reference(reference: type, judge: Callable[[Json, Json], Problem | None]) -> Callable[..., Problem | None]:
    """Return a judge that also says what the library's own class would have chosen at the first difference."""

    def judged(asked: Json, told: Json) -> Problem | None:
        problem = judge(asked, told)
        if problem is None or problem.id not in ("not-least",) or len(asked["lives"]) != 1:
            return problem
        for i, one in enumerate(with_views(asked["lives"][0], told["lives"][0])):
            shown = [{k: v for k, v in view.items() if k not in ("sent", "place")} for view in one["replicas"]]
            wanted = reference().choose(Request(one["id"], "m", ()), [ReplicaView(**view) for view in shown])
            if told["lives"][0][i] != wanted and problem.where.startswith(f"request {one['id']};"):
                why = f"{problem.why} All earlier choices were right; the library's class says {wanted!r}."
                return Problem(problem.id, problem.what, why, problem.next, problem.where)
        return problem

    return judged
