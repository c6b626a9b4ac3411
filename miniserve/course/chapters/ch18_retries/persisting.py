"""Asks and judges the client's loop of chapter 18: what it sends, sleeps, asks and pays, and in which order.

Service, policy and budget follow a script; only tries and sleeping move the clock, and a log records everything. The
first rule of the contract that a wrong log breaks explains it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from miniserve.course.check.ask import Json, Told
from miniserve.course.check.verdict import Problem
from miniserve.seeds import generator

TRY_S = 0.25  # how long each try takes
Event = list[Json]


# --- what is asked -------------------------------------------------------------------------------------------------


def _try(error: str = "busy", *words: str) -> Json:
    return {"error": error, "words": list(words)}


OK = _try("", "prune", "in", "March")


def _asked(
    tries: Sequence[Json],
    waits: Sequence[float | None] = (),
    grants: Sequence[bool] = (),
    starts_s: float = 10.0,
    **settings: Json,
) -> Json:
    """Return one request. The script has more tries than are due, so that one too many shows."""
    return {
        "tries": [*tries, *[_try()] * 3],
        "waits": list(waits),
        "grants": list(grants) or [True] * len(waits),
        "starts_s": starts_s,
        "try_s": TRY_S,
        **settings,
    }


_NOBODY = (0.5, 1.0, None)


def persist_contract(seed: int) -> Sequence[Json]:
    return [_asked([OK])]


def persist_examples(seed: int) -> Sequence[Json]:
    """Ask about one thing at a time."""
    broken = _try("busy", "prune", "in")
    rest = _try("", "March")
    return [
        _asked([_try(), OK], [0.5]),
        _asked([_try(), _try(), _try()], _NOBODY),
        _asked([_try("wrong")], [None]),
        _asked([_try(), _try()], [0.5, 1.0], [True, False]),
        _asked([_try()], [0.5], [False]),
        _asked([_try(), OK], [0.0]),
        _asked([_try(), _try(), OK], [0.5, 1.0], deadline_s=99.0),
        _asked([broken, OK], [0.5], resume=False),
        _asked([_try(), broken, OK], [0.5, 0.5]),
        _asked([broken, rest], [0.5], resume=True),
        _asked([broken, _try(), rest], [0.5, 0.5], resume=True),
        _asked([broken, _try("busy", "early")], [0.5, None], resume=True),
    ]


def _random(rng: Random) -> Json:
    tries, waits, grants = [], [], []
    for _ in range(rng.randint(0, 6)):
        words = [rng.choice(("moss", "rain", "soil", "seed")) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
        tries.append(_try(rng.choice(("busy", "busy", "wrong")), *words))
        waits.append(None if rng.random() < 0.1 else round(rng.uniform(0, 5), 2))
        grants.append(rng.random() < 0.85)
    settings = rng.choice(({}, {"resume": True}, {"deadline_s": 60.0}, {"resume": True, "deadline_s": 9.0}))
    return _asked([*tries, OK], [*waits, None], [*grants, True], round(rng.uniform(0, 100), 2), **settings)


def persist_properties(seed: int) -> Sequence[Json]:
    rng = generator(seed, "18 loops")
    return [_random(rng) for _ in range(40)]


def persist_differential(seed: int) -> Sequence[Json]:
    rng = generator(seed, "18 more loops")
    return [_random(rng) for _ in range(80)]


def persist_cost(seed: int) -> Sequence[Json]:
    """Ask for a very patient client."""
    return [_asked([*[_try()] * 3000, OK], [0.001] * 3000)]


def fewer_tries(asked: Json) -> Sequence[Json]:
    """Propose the request with one failure fewer."""
    real = len(asked["tries"]) - 3
    return [
        {
            **asked,
            "tries": asked["tries"][:at] + asked["tries"][at + 1 :],
            "waits": asked["waits"][:at] + asked["waits"][at + 1 :],
            "grants": asked["grants"][:at] + asked["grants"][at + 1 :],
        }
        for at in range(min(real - 1, 12))
    ]


# --- what is right -------------------------------------------------------------------------------------------------


def _right(asked: Json) -> tuple[list[Event], Json]:
    """Return the right log, and the right result."""
    now_s = asked["starts_s"]
    words: list[str] = []
    log: list[Event] = [["deposit", now_s]]
    waits, grants = iter(asked["waits"]), iter(asked["grants"])
    for failures, one in enumerate(asked["tries"], 1):
        log.append(["send", list(words)])
        now_s += TRY_S
        words += one["words"]
        log.append(["record", not one["error"], now_s])
        if not one["error"]:
            return log, {"words": words, "error": None}
        name = {"busy": "Overloaded", "wrong": "InvalidRequest"}[one["error"]]
        result = {"words": words, "error": name}
        if words and not asked.get("resume"):
            return log, result
        log.append(["delay", failures, name, now_s, asked.get("deadline_s")])
        wait_s = next(waits, None)
        if wait_s is None:
            return log, result
        log.append(["withdraw", now_s])
        if not next(grants, False):
            return log, result
        log.append(["sleep", wait_s])
        now_s += wait_s
    raise AssertionError("a script ends with tries that no loop may make")


# --- how it is judged ----------------------------------------------------------------------------------------------

_Check = Callable[[Json, list[Event], list[Event]], tuple[str, str, str, str] | None]  # id, seen, why, next


_FREE = "The first try is no retry. The budget would refuse it just when all tries fail."


def _of(log: Sequence[Event], *kinds: str) -> list[Event]:
    return [event for event in log if event[0] in kinds]


def _story(log: Sequence[Event]) -> str:
    """Return a log on one line."""
    shown = log[:9]
    texts = [" ".join(map(_short, event[:2])) for event in shown]
    return ", ".join(texts) + (", ..." if len(log) > len(shown) else "")


def _short(part: Json) -> str:
    if isinstance(part, dict):
        return f"a {part['type']}"
    return f"{part:g}" if isinstance(part, float) else f"{part}"


def judge_persist(asked: Json, told: Json) -> Problem | None:
    """Check that the log is the right one, except where the order doesn't matter."""
    log, result = told["log"], told["result"]
    right, wanted = _right(asked)
    where = _where(asked)
    if "type" in result and result["type"].endswith("not a coroutine"):
        why = "`persist` awaits others, so it must be an `async def`."
        return Problem("not-async", f"it returned {result['type']}", why, "Keep the first line as it was.", where)
    if result.get("type") == "other await":
        why = "It awaited something that it wasn't given, so it can't run in simulated time."
        return Problem("other-await", _story(log), why, "Sleep with `sleep`, send with `send`.", where)
    for check in _CHECKS:
        found = check(asked, log, right)
        if found is not None:
            id_, seen, why, next_ = found
            return Problem(id_, seen, why, next_, where)
    if told["changed_later"]:
        why = "`send` may still hold the words of an earlier try: what it was given must stay as it was."
        next_ = "Hand it a tuple, and make a new one with `words + last.words`."
        return Problem("hands-out-list", "the words given to `send` changed after it had them", why, next_, where)
    if "type" in result:
        why = "Return a `Try`: all words that came, and the last error (None if the answer is complete)."
        return Problem("no-try", f"it returned a {result['type']}", why, "Try(words, error)", where)
    if result["words"] != wanted["words"]:
        seen = f"it returned {result['words']}; the reader has {wanted['words']}"
        why = "All words that came belong to the answer, each once, even the words of broken tries."
        return Problem("loses-words", seen, why, "Append the new words to the old ones.", where)
    if result["error"] != wanted["error"]:
        seen = f"it returned the error {result['error']}; the last try ended with {wanted['error']}"
        why = "The caller must learn how the request ended."
        return Problem("hides-error", seen, why, "Return the last error, or None after a success.", where)
    return None


def _where(asked: Json) -> str:
    tries = asked["tries"][:-3]
    shown = ["ok" if not one["error"] else one["error"] + (" after words" if one["words"] else "") for one in tries[:6]]
    more = ", ..." if len(tries) > 6 else ""
    waits = ", ".join("None" if wait is None else f"{wait:g}" for wait in asked["waits"][:6])
    resume = f"; resume={asked['resume']}" if "resume" in asked else ""
    return f"tries: {', '.join(shown)}{more}; policy: {waits or '-'}; budget: {_grants(asked)}{resume}"


def _grants(asked: Json) -> str:
    return ", ".join("yes" if grant else "no" for grant in asked["grants"][:6]) or "-"


def _judge_order(asked: Json, log: list[Event], right: list[Event]) -> tuple[str, str, str, str] | None:
    acts, wanted = _of(log, "send", "sleep"), _of(right, "send", "sleep")
    kinds = [event[0] for event in acts]
    seen = _story(log)
    sends, due = kinds.count("send"), [event[0] for event in wanted].count("send")
    if not sends and _of(log, "withdraw"):
        return "pays-for-first", seen, _FREE, "Withdraw only after a failure."
    if not sends:
        return "never-sends", seen or "nothing happened", "Nothing was sent.", "Await `send(words)` in a loop."
    if kinds[0] == "sleep":
        why = "It slept before the first try, so every customer waits for nothing, even on a good day."
        return "sleeps-first", seen, why, "Sleep only after a failure that you will retry."
    if sends > 1 and _of(right, "delay") and not _of(log, "delay"):
        why = "It never asked the policy, so nothing ends it."
        return "unbounded", seen, why, "Ask `policy.delay_s` after each failure; None means: give up."
    if sends > due:
        return _too_many(asked, due, seen)
    if sends < due:
        why = "Policy and budget allowed a further try, and it made none."
        if asked.get("resume") and any(one["words"] for one in asked["tries"][:sends]):
            why = "The service could continue this answer, and policy and budget allowed that."
        return "gives-up", seen, why, "Go on until there is no error, no wait, or no budget."
    if kinds[-1] == "sleep":
        why = "It slept and then gave up, so it waited for nothing."
        return "sleeps-for-nothing", seen, why, "Decide first, then sleep."
    if _of(acts, "sleep") != _of(wanted, "sleep"):
        why = "It should wait as long as the policy says, once after each failure."
        return "sleeps-otherwise", seen, why, "`await sleep(wait_s)`, with the wait from `delay_s`."
    if _of(acts, "send") != _of(wanted, "send"):
        why = "A try must get the words that the reader already has, or the answer starts over."
        return "starts-over", seen, why, "`await send(words)`, with all words so far."
    return None


def _too_many(asked: Json, due: int, seen: str) -> tuple[str, str, str, str]:
    """Explain why the loop shouldn't have made the try after the last one due."""
    last = asked["tries"][due - 1]
    words = any(one["words"] for one in asked["tries"][:due])
    if not last["error"]:
        return "goes-on", seen, "The answer was complete, and it asked again.", "Stop when there is no error."
    if words and not asked.get("resume"):
        why = "The reader has words of this answer; another one would follow them, and differ."
        return "after-first-word", seen, why, "Without `resume`, give up once a word has come."
    if due <= len(asked["waits"]) and asked["waits"][due - 1] is not None:
        why = "The budget refused: all clients together have used up their retries."
        return "ignores-budget", seen, why, "Go on only if `budget.withdraw(...)` is true."
    return "ignores-policy", seen, "The policy said None: give up.", "Look at what `delay_s` returned."


def _judge_policy(asked: Json, log: list[Event], right: list[Event]) -> tuple[str, str, str, str] | None:
    found, wanted = _of(log, "delay"), _of(right, "delay")
    for seen, due in zip(found, wanted, strict=False):
        if seen[1] != due[1]:
            text = f"delay_s({seen[1]}, ...) after {due[1]} failures"
            return "miscounts", text, "`attempt` counts the failures so far, from 1.", "Count before you ask."
        if seen[2] != due[2]:
            text = f"delay_s got a {seen[2]}; the try ended with {due[2]}"
            return "other-error", text, "The policy decides by the last try's error.", "Pass that on."
        if abs(seen[3] - due[3]) > 1e-9:
            text = f"delay_s got the time {seen[3]:g} s; the clock says {due[3]:g} s"
            return "old-time", text, "A try takes time, and so does a wait.", "Ask `clock()` again."
        if seen[4] != due[4]:
            text = f"delay_s got the deadline {seen[4]}; it is {due[4]}"
            return "no-deadline", text, "Without it the policy waits past the deadline.", "Pass `deadline_s` on."
    if len(found) > len(wanted):
        text = f"it asked the policy {len(found)} times; {len(wanted)} times were due"
        return "asks-policy", text, "Where no try may follow, you need no wait.", "First: may it go on at all?"
    return None


def _judge_budget(asked: Json, log: list[Event], right: list[Event]) -> tuple[str, str, str, str] | None:
    deposits, withdraws, due = len(_of(log, "deposit")), len(_of(log, "withdraw")), len(_of(right, "withdraw"))
    sends = len(_of(log, "send"))
    if deposits != 1:
        id_ = "no-deposit" if not deposits else "deposits-each-try"
        why = "Each request pays in once. If retries paid in, they would pay for each other without end."
        return id_, f"{deposits} deposits, {sends} tries", why, "`budget.deposit(clock())`, before the loop."
    if log[0][0] != "deposit":
        why = "The request pays in when it comes. Later is too late: by then all tries may have failed."
        return "deposits-late", _story(log), why, "`budget.deposit(clock())`, before the loop."
    if withdraws == due + 1 and next((e[0] for e in log if e[0] in ("send", "withdraw")), "") == "withdraw":
        return "pays-for-first", _story(log), _FREE, "Withdraw only after a failure."
    if withdraws > due:
        text = f"{withdraws} withdrawals for {due} retries"
        return "pays-for-nothing", text, "It paid for a retry that the policy refuses.", "Ask the policy first."
    if withdraws < due:
        text = f"{withdraws} withdrawals for {due} retries"
        return "ignores-budget", text, "It made a retry without paying for it.", "Withdraw before every retry."
    records, wanted = _of(log, "record"), _of(right, "record")
    if [event[1] for event in records] != [event[1] for event in wanted]:
        heard, ended = ([event[1] for event in events][:6] for events in (records, wanted))
        text = f"the budget heard {heard}; the tries succeeded: {ended}"
        why = "Some budgets look at how tries end, so record each once."
        return "no-record", text, why, "`budget.record(last.error is None, clock())` after each try."
    order = [event[0] for event in log if event[0] in ("record", "withdraw")]
    if order != [event[0] for event in right if event[0] in ("record", "withdraw")]:
        why = "It asked the budget for a retry before the budget knew of the failure."
        return "records-late", _story(log), why, "Record right after the try."
    return _judge_times(log, right)


def _judge_arguments(asked: Json, log: list[Event], right: list[Event]) -> tuple[str, str, str, str] | None:
    """Check that each call got arguments of the right types, in the right order."""
    for event in log:
        kind, last = event[0], event[-1]
        if kind in ("deposit", "withdraw", "record") and type(last) not in (int, float):
            return _no_time(f"budget.{kind}", last)
        if kind == "delay" and (type(event[1]) is not int or event[2] not in ("Overloaded", "InvalidRequest")):
            seen = f"policy.delay_s got {_kind(event[1])} as its attempt, and {_a(event[2])} as its error"
            why = "Its arguments are attempt, error, now_s and deadline_s, in this order."
            return "arguments", seen, why, "Hand over the count of failures first, then the last try's error."
        if kind == "delay" and type(event[3]) not in (int, float):
            return _no_time("policy.delay_s", event[3])
        if kind == "sleep" and type(last) not in (int, float):
            seen, why = f"sleep got {_kind(last)}", "It takes a number of seconds."
            return "arguments", seen, why, "Hand over the wait that `delay_s` returned."
    return None


def _kind(value: Json) -> str:
    return _a(value["type"]) if isinstance(value, dict) else "None" if value is None else f"the number {value:g}"


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiouAEIOU" else f"a {noun}"


def _no_time(call: str, got: Json) -> tuple[str, str, str, str]:
    seen = f"{call} got {_kind(got)} where the time belongs"
    if got in ({"type": "function"}, {"type": "method"}):
        return "no-time", seen, "`clock` is a function; `clock()` calls it and gives the time.", "Write `clock()`."
    return "no-time", seen, "It takes the present time, in seconds, as its last argument.", "Hand over `clock()`."


def _judge_clock(asked: Json, log: list[Event], right: list[Event]) -> tuple[str, str, str, str] | None:
    """Check that every time in the log is one that the clock has shown: no computer's clock, and no sum."""
    shown, now_s = [asked["starts_s"]], asked["starts_s"]
    for event in log:
        if event[0] in ("send", "sleep"):
            now_s += asked["try_s"] if event[0] == "send" else event[1]
            shown.append(now_s)
        told_s = {"deposit": event[-1], "withdraw": event[-1], "record": event[-1], "delay": event[-2]}.get(event[0])
        if told_s is not None and all(abs(told_s - one) > 1e-9 for one in shown):
            call = {"delay": "policy.delay_s"}.get(event[0], f"budget.{event[0]}")
            seen = f"{call} got the time {told_s:,.{0 if told_s > 1e6 else 2}f} s; the clock says {now_s:,.6g} s"
            why = "Time is simulated here, and only `clock` knows it: the computer's clock shows another time."
            return "other-clock", seen, why, "Ask `clock()`, and hand over what it says."
    return None


def _judge_times(log: list[Event], right: list[Event]) -> tuple[str, str, str, str] | None:
    """Check that each call of the budget carries the current time."""
    for kind in ("deposit", "record", "withdraw"):
        for found, due in zip(_of(log, kind), _of(right, kind), strict=True):
            if kind == "withdraw" and found[-1] > due[-1] + 1e-9:
                why = "It slept before it asked the budget: if the budget refuses, it waited for nothing."
                return "sleeps-for-nothing", _story(log), why, "Decide first, then sleep."
            if abs(found[-1] - due[-1]) > 1e-9:
                text = f"{kind} got the time {found[-1]:g} s; the clock says {due[-1]:g} s"
                why = "A try takes time, and a budget forgets what is old."
                return "old-time", text, why, "Ask `clock()` again."
    return None


_CHECKS: Sequence[_Check] = (_judge_arguments, _judge_clock, _judge_order, _judge_policy, _judge_budget)


def persist_broke(asked: Json, told: Told) -> Problem | None:
    """Explain the exceptions that many learners meet."""
    where = told.line or _where(asked)
    if "one try too many" in told.error:
        why = "It goes on and on: nothing ends it."
        if any(one["words"] for one in asked["tries"]) and not asked.get("resume"):
            why = "It goes on and on, although the reader already has words of the answer."
        seen = "more tries than policy and budget allowed"
        return Problem("unbounded", seen, why, "None of `delay_s` gives up.", _where(asked))
    if "no running event loop" in told.error:
        why = "It waits on the computer's clock, but here time is simulated."
        return Problem("other-await", told.error, why, "Sleep with `sleep`, send with `send`.", where)
    if told.error.startswith("RecursionError"):
        why = "It calls itself for each try, and Python limits how deep."
        return Problem("recursion", told.error[:80], why, "A loop has no such limit.", where)
    if told.error.startswith(("Overloaded", "InvalidRequest")):
        why = "`send` raises nothing, and neither may `persist`: it returns what went wrong."
        return Problem("raises-error", told.error, why, "Return Try(words, error).", where)
    if "no attribute 'error'" in told.error or "no attribute 'words'" in told.error:
        why = "`send(...)` gives a Try only when you await it."
        return Problem("no-await", told.error, why, "`await send(words)`", where)
    return None
