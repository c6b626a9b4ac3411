"""What a person sees of the traffic: exact, and only of late."""

from __future__ import annotations

from miniserve.observe.recent import TTFT_WINDOW, WINDOW_S, Recent


def test_requests_are_counted_from_their_beginning_to_their_end() -> None:
    recent = Recent()
    for _ in range(3):
        recent.begin()
    assert (recent.requests, recent.in_flight, recent.failed) == (3, 3, 0)
    recent.end(failed=False)
    recent.end(failed=True)
    assert (recent.requests, recent.in_flight, recent.failed) == (3, 1, 1)


def test_the_rate_is_of_the_tokens_of_the_last_seconds() -> None:
    recent = Recent()
    assert recent.tokens_per_s(0.0) == 0.0
    for token in range(20):
        recent.add_tokens(2, token / 10)
    assert recent.tokens_per_s(1.9) == 40 / WINDOW_S
    assert recent.tokens_per_s(1.0 + WINDOW_S) == 20 / WINDOW_S, "the older half is forgotten"
    assert recent.tokens_per_s(2.1 + WINDOW_S) == 0.0


def test_a_long_run_takes_no_more_memory_than_a_short_one() -> None:
    recent = Recent()
    for token in range(100_000):
        recent.add_tokens(1, token / 1000)
        recent.ttft_s.add(float(token))
    assert len(recent._tokens) <= 10 * WINDOW_S + 2
    assert len(recent.ttft_s) == TTFT_WINDOW
