"""Chapter 18's questions: how long to wait, which failures to try again, the policy, the client's loop.

`waiting`, `backing_off` and `persisting` ask and judge them.
"""

from __future__ import annotations

from miniserve.course.chapters.ch18_retries import backing_off, lab, persisting, waiting
from miniserve.course.chapters.ch18_retries.drive import drive_persist
from miniserve.course.check.code import Code, five_layers
from miniserve.course.check.kinds import Classify, locked_all
from miniserve.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    RateLimited,
    RequestError,
    Unauthorized,
    UpstreamError,
)
from miniserve.policies.recovery.retry import may_retry

# --- 18.1 ----------------------------------------------------------------------------------------------------------

WAITS = Code(
    id="18.1",
    name="Waits",
    title="Four ways to wait",
    minutes=15,
    difficulty=2,
    target="miniserve/policies/recovery/waits.py::Waits.bare+full+equal+decorrelated",
    forbidden=("JITTERS", "no_jitter", "full_jitter", "equal_jitter", "decorrelated_jitter"),
    driver=waiting.drive_waits,
    layers=five_layers(waiting, "waits"),
    hints=(
        "Start with `bare`; two of the others are a share of it. Which part of each wait is fixed, which random?",
        "bare: min(cap, base * 2 ** ___). full: random in [0, 1) times ___. equal: half of ___, plus random times ___. "
        "decorrelated: random between base and ___, then the cap. And 2.0 ** 5000 raises an OverflowError.",
        "With other numbers, base 3 s and cap 10 s: the bare waits are 3, 6, 10, 10 s. After two failures, with a "
        "draw of 0.25, full is 1.5 s and equal 3 + 0.75 = 3.75 s. After a wait of 4 s, decorrelated lies in 3 to 10 s.",
    ),
)

# --- 18.2 ----------------------------------------------------------------------------------------------------------

AGAIN, NEVER = "again", "never"
_ERRORS: dict[str, RequestError] = {
    "a": Overloaded("full", retry_after_s=2.0),
    "b": InvalidRequest("too long"),
    "c": UpstreamError("refused"),
    "d": RateLimited("too many", retry_after_s=12.0),
    "e": Unauthorized("wrong key"),
    "f": UpstreamError("broke off"),
    "g": DeadlineExceeded("too late"),
    "h": Overloaded("do not", retry_after_s=-1.0),
}
_HALF_READ = {"f"}

WHICH = Classify(
    id="18.2",
    name="tried",
    title="Which failures are tried again?",
    minutes=5,
    difficulty=2,
    items=lab.FAILURES,
    options=(AGAIN, NEVER),
    keys=locked_all(
        "18.2",
        **{key: AGAIN if may_retry(error) and key not in _HALF_READ else NEVER for key, error in _ERRORS.items()},
    ),
    because={
        "a": "The server works; it is only busy, and says when it will have room.",
        "b": "The same prompt will be too long next time as well. The request is wrong, not the service.",
        "c": "Nothing was sent, so nothing was done; another moment, or another server, may do better.",
        "d": "It only takes time, and the server says how long.",
        "e": "The key will be wrong next time as well.",
        "f": "You can't take back what was read: a new answer would follow it, and differ.",
        "g": "However soon an answer comes now, it is useless.",
        "h": "A negative push-back forbids a retry, even though a plain 503 allows one.",
    },
    hints=(
        "Could the same request fare better later? And has the customer seen a part of the answer?",
        "Three reasons for never: the request itself is ___; it is too ___; something was already ___. And a server "
        "may forbid it.",
        "Other cases: 413, the body is too large: never. 408, the server didn't get the body in time: the framework "
        "gives up, because a client that sends so slowly will do so again.",
    ),
)

# --- 18.3 ----------------------------------------------------------------------------------------------------------

BACKOFF = Code(
    id="18.3",
    name="Backoff",
    title="Whether, and after how long",
    minutes=15,
    difficulty=3,
    target="miniserve/policies/recovery/retry.py::Backoff.delay_s",
    forbidden=("RETRIES",),
    driver=backing_off.drive_backoff,
    layers=five_layers(backing_off, "backoff"),
    hints=(
        "Two reasons to give up need no wait at all. Which? The third needs the wait, so draw it in between.",
        "1. enough tries, or `not may_retry(error)`: None. 2. the wait: `error.retry_after_s`, unless that is None; "
        "then `self._draw(attempt)`. 3. with a deadline: is `now_s + ___` before it?",
        "Worked: attempt 2 of 5, no push-back, a drawn wait of 3 s, now 60 s, deadline 62 s: it would end at 63 s, so "
        "None. With a push-back of 1.5 s it would end at 61.5 s, so 1.5.",
    ),
)

# --- 18.4 ----------------------------------------------------------------------------------------------------------

PERSIST = Code(
    id="18.4",
    name="persist",
    title="The client's loop",
    minutes=20,
    difficulty=3,
    weight=1.5,
    target="miniserve/clients/retry_loop.py::persist",
    driver=drive_persist,
    layers=five_layers(persisting, "persist", persisting.fewer_tries, shrunk=("properties", "differential")),
    hints=(
        "First write down a good day: what do you call, in which order? Then one failure, then the ways to end.",
        "deposit; then in a loop: send, add the words, record; no error: return. Half read and no resume: "
        "return. Ask the policy; None: return. Ask the budget; no: return. ___.",
        "Worked: two failures, waits 0.5 and None, budget says yes: deposit, send, record, delay_s(1), withdraw, "
        "sleep 0.5, send, record, delay_s(2), and it returns the words that came and the second error.",
    ),
)

QUESTIONS = (WAITS, WHICH, BACKOFF, PERSIST)
