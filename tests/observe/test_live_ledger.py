"""The live ledger: whatever happens, each replica-second is booked once, and where it belongs."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.observe.cost import Ledger
from miniserve.observe.live_ledger import LiveLedger, MeteredAttempt
from miniserve.types import FleetView, Priority, ReplicaState, ReplicaView, Request

READY, STARTING, DOWN = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.DOWN


def view(**states: ReplicaState) -> FleetView:
    return FleetView(tuple(ReplicaView(name, state, version="large@1") for name, state in states.items()))


def asked(request_id: str = "q", prompt: int = 4, **more: str) -> Request:
    return Request(request_id, "large", range(prompt), priority=Priority.STANDARD, **more)  # type: ignore[arg-type]


def ledger_of(usd_per_hour: float = 3600.0) -> LiveLedger:
    """One replica that has been ready since 0; its process has worked for nothing yet."""
    books = LiveLedger(usd_per_hour, shadow_tenant="shadow")
    books.turn(0.0, view(r=READY), {"r": 0.0})
    return books


def serve(
    books: LiveLedger, request: Request, tokens: int = 4, *, cached: int = 0, replica: str = "r"
) -> MeteredAttempt:
    attempt = books.begin(replica, "large@1", request)
    books.first_token(attempt, cached)
    attempt.took(0, tokens)
    return attempt


def accounts(ledger: Ledger) -> dict[str, float]:
    return {line.name: pytest.approx(line.seconds) for line in ledger.by("account") if line.seconds}


def test_a_step_is_paid_by_the_tokens_in_it() -> None:
    books = ledger_of()
    ann = serve(books, asked("a", tenant="ann"), 4)  # 4 of prompt, 4 of output
    bob = serve(books, asked("b", tenant="bob", prompt=8), 8, cached=4)  # 4 of prompt, 8 of output
    for attempt, name in ((ann, "a"), (bob, "b")):
        books.end(attempt, "complete", 0.9)
        books.answered(name, is_complete=True)
    books.turn(1.0, view(r=READY), {"r": 0.5})
    ledger = books.ledger()

    assert accounts(ledger) == {"idle": 0.5, "prompt": 0.2, "output": 0.3}
    assert {line.name: (pytest.approx(line.seconds), line.answers) for line in ledger.by("tenant")} == {
        "(idle)": (0.5, 0),
        "bob": (0.3, 1),
        "ann": (0.2, 1),
    }
    assert ledger.cached_tokens == 4
    assert ledger.usd == pytest.approx(ledger.billed_usd) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("ends", "is_complete", "expected"),
    [
        (["complete"], True, ["answer"]),
        (["closed"], True, ["answer"]),  # after a stop string the edge closes
        (["closed"], False, ["left"]),  # the client has gone
        (["failed"], False, ["failed"]),
        (["failed", "complete"], True, ["failed", "answer"]),
        (["failed", "closed"], True, ["failed", "answer"]),
        (["closed", "complete"], True, ["hedge", "answer"]),
        (["complete", "closed"], True, ["answer", "hedge"]),
        (["complete"], False, ["left"]),
    ],
)
def test_where_the_seconds_of_an_attempt_go(ends: list[str], is_complete: bool, expected: list[str]) -> None:
    books = ledger_of()
    for number, end in enumerate(ends):
        attempt = serve(books, asked("q"), tokens=number + 1, replica="r")
        books.end(attempt, end, 0.5)  # type: ignore[arg-type]
    books.answered("q", is_complete=is_complete)
    books.turn(1.0, view(r=READY), {"r": 1.0})
    tokens = {"answer": {"prompt", "output"}}
    names = set().union(*(tokens.get(one, {one}) for one in expected))

    assert set(accounts(books.ledger())) == names
    assert books.ledger().seconds == pytest.approx(1.0)


def test_what_is_reported_late_is_paid_by_whom_it_was_for() -> None:
    books = ledger_of()
    books.end(serve(books, asked("q", tenant="ann")), "complete", 0.5)
    books.answered("q", is_complete=True)
    books.turn(1.0, view(r=READY), {"r": 0.4})
    books.turn(2.0, view(r=READY), {"r": 0.6})
    assert {line.name: pytest.approx(line.seconds) for line in books.ledger().by("tenant")} == {
        "(idle)": 1.4,
        "ann": 0.6,
    }


def test_a_copy_for_nobody_has_an_account_of_its_own() -> None:
    books = ledger_of()
    books.end(serve(books, asked("q", tenant="shadow")), "complete", 0.5)
    books.turn(1.0, view(r=READY), {"r": 1.0})
    assert accounts(books.ledger()) == {"shadow": 1.0}


def test_work_before_the_first_token_is_paid_when_it_comes() -> None:
    books = ledger_of()
    attempt = books.begin("r", "large@1", asked())
    books.turn(1.0, view(r=READY), {"r": 1.0})
    assert accounts(books.ledger()) == {"prompt": 1.0}
    books.first_token(attempt, 0)
    books.end(attempt, "complete", 1.5)
    books.answered("q", is_complete=True)
    books.turn(2.0, view(r=READY), {"r": 1.5})
    assert accounts(books.ledger()) == {"prompt": 1.5, "idle": 0.5}


def test_starting_is_an_account_and_a_restart_counts_from_zero() -> None:
    books = LiveLedger(1.0)
    for now_s, state, busy in [(0, STARTING, {}), (3, READY, {"r": 2.0}), (5, READY, {"r": 4.0}), (7, DOWN, {})]:
        books.turn(now_s, view(r=state), busy)
    books.turn(9.0, view(r=READY), {"r": 0.5})
    assert books.ledger().seconds == pytest.approx(9.0)
    assert accounts(books.ledger()) == {"idle": 6.5, "left": 2.5}, "nobody of ours was there while it worked"


def test_books_survive_a_restart() -> None:
    books = ledger_of()
    serve(books, asked())
    books.turn(1.0, view(r=READY), {"r": 1.0})
    again = LiveLedger(3600.0)
    again.restore(json.loads(json.dumps(books.state())))
    assert again.ledger().by("account") == books.ledger().by("account")
    assert again.ledger().billed_s == pytest.approx(again.ledger().seconds)


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_each_second_is_booked_once_whatever_happens(seed: int, turns: int) -> None:
    """Replicas come, work, die and go, and attempts end in all ways, some of them unheard of."""
    rng, books, now_s = Random(seed), LiveLedger(1.0, shadow_tenant="shadow"), 0.0
    busy: dict[str, float] = {}
    open_attempts: list[MeteredAttempt] = []
    for turn in range(turns):
        now_s += rng.uniform(0.1, 40.0)
        there = {name: rng.choice((READY, READY, STARTING, DOWN)) for name in "abc" if rng.random() < 0.8}
        for name in there:
            busy[name] = rng.choice((busy.get(name, 0.0) + rng.uniform(0, 30), 0.0))
        books.turn(now_s, view(**there), {name: busy[name] for name in there if rng.random() < 0.9})
        for _ in range(rng.randrange(4)):
            request = asked(f"{turn}{rng.randrange(3)}-{rng.randrange(2)}", tenant=rng.choice(("x", "shadow")))
            open_attempts.append(books.begin(rng.choice("abcd"), "large@1", request))
        for attempt in rng.sample(open_attempts, len(open_attempts) // 2):
            if rng.random() < 0.7:
                books.first_token(attempt, rng.randrange(6))
                attempt.took(0, rng.randrange(9))
            if rng.random() < 0.7:
                books.end(attempt, rng.choice(("complete", "failed", "closed")), now_s)
                open_attempts.remove(attempt)
            if rng.random() < 0.7:
                books.answered(attempt.request_id.partition("-")[0], is_complete=rng.random() < 0.7)
        ledger = books.ledger()
        assert ledger.seconds == pytest.approx(ledger.billed_s)
        assert min((entry.seconds for entry in ledger.entries), default=0.0) >= 0.0
