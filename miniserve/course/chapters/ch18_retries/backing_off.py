"""Asks and judges the retry policy of chapter 18: whether to come back, and after how long.

The first rule that would have given all of the same waits explains a wrong answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from miniserve import errors
from miniserve.course.check.ask import Json, Told
from miniserve.course.check.verdict import Problem
from miniserve.policies.recovery.retry import may_retry
from miniserve.seeds import generator

SHARE = 0.75  # of the bare wait: this check's own jitter, which is none of the four
Row = dict[str, Json]


def drive_backoff(answer: Json, asked: Json) -> Json:
    """Make a policy; return its wait for each failure, and how often it drew for that."""
    from miniserve import errors

    draws = 0

    def jitter(waits: Json, failures: int, previous_s: float) -> float:
        nonlocal draws
        draws += 1
        return float(asked["share"] * min(waits.cap_s, waits.base_s * 2.0 ** min(failures - 1, 60)))

    waits, drawn, changed = [], [], []
    policy = answer(**asked["makes"], jitter=jitter)
    for row in asked["rows"]:
        kind = getattr(errors, row["error"], None)
        error = RuntimeError("a bug") if kind is None else kind("failed", None, None, row["retry_after_s"])
        draws = 0
        before, held = dict(vars(error)), {name: value for name, value in vars(policy).items() if type(value) is int}
        wait_s = policy.delay_s(row["attempt"], error, row["now_s"], row["deadline_s"])
        waits.append(wait_s if wait_s is None or type(wait_s) in (int, float) else {"type": type(wait_s).__name__})
        drawn.append(draws)
        changed += [f"error.{name}" for name, value in vars(error).items() if before.get(name, error) is not value]
        changed += [f"self.{name}" for name, value in held.items() if vars(policy).get(name) != value]
    return {"waits": waits, "drawn": drawn, "changed": changed[:1]}


# --- what is asked -------------------------------------------------------------------------------------------------


def _row(
    attempt: int = 1,
    error: str = "Overloaded",
    retry_after_s: float | None = None,
    now_s: float = 0.0,
    deadline_s: float | None = None,
) -> Row:
    return {
        "attempt": attempt,
        "error": error,
        "retry_after_s": retry_after_s,
        "now_s": now_s,
        "deadline_s": deadline_s,
    }


def _asked(rows: Sequence[Row], max_attempts: int = 4, base_s: float = 0.5, cap_s: float = 20.0) -> Json:
    makes = {"max_attempts": max_attempts, "base_s": base_s, "cap_s": cap_s}
    return {"makes": makes, "rows": list(rows), "share": SHARE}


_FAILURES = (
    "InvalidRequest", "Unauthorized", "NotFound", "RateLimited", "InternalError", "UpstreamError", "Overloaded",
    "DeadlineExceeded", "RuntimeError",
)  # fmt: skip
_ENDS = ((100.0, 130.0), (100.0, 100.5), (100.0, 100.75), (100.0, 100.76), (100.0, 99.0), (0.1, 0.5), (0.0, 0.0))
_UNHEARD = [_row(1, "NotFound"), _row(4, "RateLimited"), _row(4, "RateLimited", 3.0)]  # no further try


def backoff_contract(seed: int) -> Sequence[Json]:
    return [_asked([_row(), _row(2), _row(3)])]


def backoff_examples(seed: int) -> Sequence[Json]:
    """Ask about one thing at a time: the kinds of failures, the count, push-back, the deadline."""
    return [
        _asked([_row(1, error) for error in _FAILURES]),
        _asked([_row(attempt) for attempt in (1, 2, 3, 4, 5)]),
        _asked([_row(1, "RateLimited", told_s) for told_s in (3.0, 0.0, 60.0, 0.001, -1.0)] + _UNHEARD),
        _asked([_row(2, now_s=at_s, deadline_s=end_s) for at_s, end_s in _ENDS]),
        _asked([_row(1, "Overloaded", 5.0, 10.0, at_s) for at_s in (15.0, 15.1, 12.0)]),
    ]


def _random_rows(seed: int, name: str, count: int) -> Sequence[Json]:
    rng = generator(seed, name)
    asked = []
    for _ in range(count):
        rows = []
        for _ in range(12):
            error = rng.choice((*_FAILURES, "Overloaded", "RateLimited", "UpstreamError"))
            told_s = rng.choice((None, None, None, 0.0, -1.0, round(rng.uniform(0, 40), 2)))
            now_s = round(rng.uniform(0, 1000), 2)
            deadline_s = rng.choice((None, round(now_s + rng.uniform(-1, 30), 2)))
            rows.append(_row(rng.randint(1, 8), error, told_s, now_s, deadline_s))
        asked.append(_asked(rows, rng.randint(1, 8), round(rng.uniform(0.1, 2), 2), round(rng.uniform(4, 30), 1)))
    return asked


def backoff_properties(seed: int) -> Sequence[Json]:
    return _random_rows(seed, "18 failures", 6)


def backoff_differential(seed: int) -> Sequence[Json]:
    return _random_rows(seed, "18 more failures", 20)


def backoff_cost(seed: int) -> Sequence[Json]:
    """Ask for the draws: as many for a wait as failures led to it."""
    return [_asked([_row(attempt) for attempt in (1, 2, 3, 9)], max_attempts=10)]


def fewer_rows(asked: Json) -> Sequence[Json]:
    """Propose each row alone, then all but one."""
    rows = asked["rows"]
    if len(rows) < 2:
        return []
    return [{**asked, "rows": [row]} for row in rows] + [
        {**asked, "rows": rows[:at] + rows[at + 1 :]} for at in range(len(rows))
    ]


# --- the right waits, and common wrong ones ------------------------------------------------------------------------

Wait = float | None


def _error(row: Row) -> Exception:
    kind = getattr(errors, row["error"], None)
    return RuntimeError("a bug") if kind is None else kind("failed", None, None, row["retry_after_s"])


def _told(row: Row) -> Wait:
    return None if row["error"] == "RuntimeError" else row["retry_after_s"]


def _own(makes: Json, row: Row) -> float:
    return float(SHARE * min(makes["cap_s"], makes["base_s"] * 2.0 ** (row["attempt"] - 1)))


def _in_time(row: Row, wait_s: float) -> Wait:
    return wait_s if row["deadline_s"] is None or row["now_s"] + wait_s < row["deadline_s"] else None


def _listened(makes: Json, row: Row) -> float:
    told_s = _told(row)
    return _own(makes, row) if told_s is None else told_s


def _may(makes: Json, row: Row) -> bool:
    return bool(row["attempt"] < makes["max_attempts"] and may_retry(_error(row)))


def _right(makes: Json, row: Row) -> Wait:
    return _in_time(row, _listened(makes, row)) if _may(makes, row) else None


def _if_may(wait: Callable[[Json, Row], Wait]) -> Callable[[Json, Row], Wait]:
    return lambda makes, row: wait(makes, row) if _may(makes, row) else None


def _of_class(row: Row) -> bool:
    """Return whether the class alone, without push-back, allows a retry."""
    return bool(getattr(_error(row), "retryable", False))


def _cut(makes: Json, row: Row) -> Wait:
    wait_s, end_s = _listened(makes, row), row["deadline_s"]
    return wait_s if end_s is None else max(0.0, min(wait_s, end_s - row["now_s"]))


def _cut_even_below(makes: Json, row: Row) -> Wait:
    wait_s, end_s = _listened(makes, row), row["deadline_s"]
    return wait_s if end_s is None else min(wait_s, end_s - row["now_s"])


def _of_ours(makes: Json, row: Row) -> bool:
    return row["error"] != "RuntimeError" and bool(row["attempt"] < makes["max_attempts"])


def _within(row: Row, wait_s: float, limit_s: float | None) -> Wait:
    return wait_s if limit_s is None or wait_s < limit_s else None


def _at_the_deadline(makes: Json, row: Row) -> Wait:
    wait_s, end_s = _listened(makes, row), row["deadline_s"]
    return wait_s if end_s is None or row["now_s"] + wait_s <= end_s else None


_COUNTED = "max_attempts counts all tries, including the first; after that many failures it is over."
_COMES_AGAIN = "However long you wait, this failure comes again: the request is wrong, or it is too late."
_EARLY = "You come back earlier than you should, and just when it is too late."
_RULES: Sequence[tuple[str, str, str, Callable[[Json, Row], Wait]]] = (
    (
        "retries-400",
        _COMES_AGAIN,
        "Ask `may_retry` first.",
        lambda m, r: _in_time(r, _listened(m, r)) if r["attempt"] < m["max_attempts"] else None,
    ),
    (
        "retries-400",
        _COMES_AGAIN,
        "Ask `may_retry` first.",
        lambda m, r: _in_time(r, _listened(m, r)) if _of_ours(m, r) else None,
    ),
    (
        "unbounded",
        "You never give up: " + _COUNTED,
        "Compare `attempt` with the limit.",
        lambda m, r: _in_time(r, _listened(m, r)) if may_retry(_error(r)) else None,
    ),
    (
        "one-try-more",
        _COUNTED,
        "Is it < or <=?",
        lambda m, r: (
            _in_time(r, _listened(m, r)) if r["attempt"] <= m["max_attempts"] and may_retry(_error(r)) else None
        ),
    ),
    (
        "one-try-fewer",
        _COUNTED,
        "How many failures have you seen after the first try?",
        lambda m, r: _right({**m, "max_attempts": m["max_attempts"] - 1}, r),
    ),
    (
        "takes-minus",
        "A negative push-back means: don't come back.",
        "`may_retry` knows that.",
        lambda m, r: _in_time(r, _listened(m, r)) if _of_class(r) and r["attempt"] < m["max_attempts"] else None,
    ),
    (
        "takes-minus",
        "A negative push-back means: don't come back.",
        "`may_retry` knows that.",
        lambda m, r: (
            _in_time(r, max(0.0, _listened(m, r))) if _of_class(r) and r["attempt"] < m["max_attempts"] else None
        ),
    ),
    (
        "never-listens",
        "The server said how long to wait, and knows better.",
        "`error.retry_after_s` comes first.",
        _if_may(lambda m, r: _in_time(r, _own(m, r))),
    ),
    (
        "zero-is-none",
        "0 is also a push-back: come back at once. Only None means that the server didn't say.",
        "Compare with None: 0 counts as False.",
        _if_may(lambda m, r: _in_time(r, _told(r) or _own(m, r))),
    ),
    (
        "caps-push-back",
        "The cap is for the policy's own waits. A server that asks for a minute won't answer sooner.",
        "Take the server's wait unchanged.",
        _if_may(lambda m, r: _in_time(r, min(m["cap_s"], _listened(m, r)))),
    ),
    (
        "longer-of-both",
        "You took the larger of the two. The server knows when it has room.",
        "Take the server's wait unchanged.",
        _if_may(lambda m, r: _in_time(r, max(_own(m, r), _listened(m, r)))),
    ),
    (
        "adds-push-back",
        "You added push-back and your own wait. The server knows when it has room.",
        "Take the server's wait unchanged.",
        _if_may(lambda m, r: _in_time(r, _own(m, r) + (_told(r) or 0.0))),
    ),
    (
        "never-looks-at-the-clock",
        "That wait ends after the deadline, when nobody needs the answer.",
        "Compare now_s + wait with the deadline.",
        _if_may(_listened),
    ),
    (
        "deadline-is-a-time",
        "`deadline_s` is a moment, like `now_s`, not a duration.",
        "Compare now_s + wait with the deadline.",
        _if_may(lambda m, r: _within(r, _listened(m, r), r["deadline_s"])),
    ),
    (
        "at-the-deadline",
        "A wait that ends just at the deadline leaves no time for a try.",
        "Is it < or <=?",
        _if_may(_at_the_deadline),
    ),
    (
        "cuts-to-deadline",
        _EARLY,
        "Give up: return None.",
        _if_may(_cut),
    ),
    (
        "cuts-to-deadline",
        _EARLY,
        "Give up: return None.",
        _if_may(lambda m, r: _right(m, r) if _right(m, r) is not None else _cut_even_below(m, r)),
    ),
    (
        "forgets-the-wait",
        "The deadline hasn't passed yet, but it will have when the wait ends.",
        "Compare now_s + wait with the deadline.",
        _if_may(lambda m, r: _listened(m, r) if r["deadline_s"] is None or r["now_s"] < r["deadline_s"] else None),
    ),
    (
        "no-deadline-at-0",
        "0 s is a deadline: a clock may start there. Only None means that there is none.",
        "Compare with None: 0 counts as False.",
        _if_may(lambda m, r: _in_time(r, _listened(m, r)) if r["deadline_s"] else _listened(m, r)),
    ),
    (
        "push-back-only",
        "A push-back says when to come back, but allows no extra try: " + _COUNTED,
        "First whether, then how long.",
        lambda m, r: (
            _in_time(r, _listened(m, r))
            if may_retry(_error(r)) and (_told(r) is not None or r["attempt"] < m["max_attempts"])
            else None
        ),
    ),
    (
        "at-once",
        "0 means: come back at once. Only None gives up.",
        "Return None where no further try may follow.",
        lambda m, r: _right(m, r) or 0.0,
    ),
    (
        "no-jitter",
        "That is the bare wait: clients that failed together come back together.",
        "`self._draw(attempt)` draws a wait.",
        _if_may(lambda m, r: _in_time(r, _own(m, r) / SHARE if _told(r) is None else float(_told(r) or 0.0))),
    ),
)

# --- how it is judged ----------------------------------------------------------------------------------------------


def judge_backoff(asked: Json, told: Json) -> Problem | None:
    """Check that each failure gets the right wait or None, from one draw."""
    makes, pairs = asked["makes"], list(zip(asked["rows"], told["waits"], strict=True))
    for row, wait_s in pairs:
        if isinstance(wait_s, dict):
            why = "A wait is a number of seconds; None gives up."
            return Problem("no-number", f"a {wait_s['type']}", why, "Return one of the two.", _where(makes, row))
    changed = next(iter(told["changed"]), "")
    if changed.startswith("error."):
        why = "The error belongs to the caller, who may log it, or ask another policy about it."
        return Problem(
            "changes-error", f"it gave {changed} another value", why, "Use a variable of your own.", "delay_s"
        )
    wrong = [(row, wait_s) for row, wait_s in pairs if not _same(wait_s, _right(makes, row))]
    if wrong:
        row, wait_s = wrong[0]
        seen = f"{_shown(wait_s)}; it should be {_shown(_right(makes, row))}"
        for id_, why, next_, rule in _RULES:
            if all(_same(value, rule(makes, one)) for one, value in pairs):
                return Problem(id_, seen, why, next_, _where(makes, row))
        if changed:
            seen = f"{seen}; and each call changes {changed}"
            why = "One policy serves many requests, so a call must leave it as it was. `attempt` is the count you need."
            return Problem("remembers", seen, why, f"Compare with {changed} and leave it alone.", _where(makes, row))
        drawn = told["drawn"][pairs.index(wrong[0])]
        if None not in (wait_s, _right(makes, row)) and _told(row) is None and drawn != row["attempt"]:
            why = f"The policy's own wait is `_draw` of `attempt` itself, here {row['attempt']}."
            if not drawn:
                why = "You didn't draw with the jitter and the generator that the class was given."
            return Problem("other-draw", seen, why, "`self._draw(attempt)` draws it.", _where(makes, row))
        why = "First whether: kind of failure, tries, push-back. Then how long. Then whether that is in time."
        return Problem("wait", seen, why, "Go through the contract for this one failure.", _where(makes, row))
    for row, draws in zip(asked["rows"], told["drawn"], strict=True):
        if draws > row["attempt"]:
            why = "You drew twice, so you compare one wait with the deadline and return another."
            seen = f"{draws} random draws; one wait after {row['attempt']} failures needs {row['attempt']}"
            return Problem("draws-twice", seen, why, "Keep the draw in a variable.", _where(makes, row))
    return None


def _same(one: Wait, other: Wait) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def _shown(wait_s: Wait) -> str:
    return "None (give up)" if wait_s is None else f"{wait_s:.4g} s"


def _where(makes: Json, row: Row) -> str:
    told_s = "" if row["retry_after_s"] is None else f", retry_after_s={row['retry_after_s']:g}"
    end = "None" if row["deadline_s"] is None else f"{row['deadline_s']:g}"
    return (
        f"attempt={row['attempt']} of max {makes['max_attempts']}, {row['error']}{told_s}, now_s={row['now_s']:g}, "
        f"deadline_s={end}; base {makes['base_s']:g} s, cap {makes['cap_s']:g} s, own wait {_own(makes, row):.4g} s"
    )


def backoff_broke(asked: Json, told: Told) -> Problem | None:
    """Explain the exceptions that many learners meet."""
    where = told.line or _where(asked["makes"], asked["rows"][0])
    if told.error.startswith("AttributeError") and ("retry_after_s" in told.error or "retryable" in told.error):
        why = "Not every exception is one of ours: a bug in the client has no push-back."
        return Problem("unknown-error", told.error, why, "Ask `may_retry` first.", where)
    if told.error.startswith("TypeError") and "NoneType" in told.error and "not callable" not in told.error:
        why = "`deadline_s` may be None: no deadline; `retry_after_s` may be None: the server did not say."
        return Problem("none", told.error, why, "Check for None before you compute.", where)
    return None
