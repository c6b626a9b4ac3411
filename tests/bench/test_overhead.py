"""What the gateway adds, as the benchmark works it out: the medians' difference, over all and turn by turn."""

from __future__ import annotations

import io

from rich.console import Console

from miniserve.bench.overhead import overhead_of, overhead_table
from miniserve.observe.outcomes import OutcomeLog, Outcomes


def turn(*ttft_ms: float | None, failed: int = 0) -> Outcomes:
    """One turn's outcomes; None: an answer of which no character was complete."""
    log = OutcomeLog()
    for i, ms in enumerate(ttft_ms):
        log.record(i, 1.0, 2.0, first_token_s=None if ms is None else 1.0 + ms / 1000)
    for i in range(failed):
        log.record(i, 1.0, 1.0, first_token_s=1.0, status=503)
    return log.outcomes()


def test_the_overhead_is_the_difference_of_the_medians() -> None:
    result = overhead_of([turn(4, 5, 6), turn(5, None)], [turn(8, 9, 10, failed=2), turn(7)])
    assert (result["direct_ttft_ms"]["p50"], result["gateway_ttft_ms"]["p50"]) == (5.0, 8.0)
    assert result["added_p50_ms"] == 3.0
    assert result["added_p50_ms_per_turn"] == [4.0, 2.0]
    assert result["ratio_p50"] == 1.6
    assert result["requests"] == {"direct": {"sent": 5, "served": 5}, "gateway": {"sent": 6, "served": 4}}


def test_the_table_says_how_far_the_goal_is() -> None:
    console = Console(file=io.StringIO(), record=True, width=120)
    console.print(overhead_table(overhead_of([turn(4)], [turn(6)])))
    text = " ".join(console.export_text().split())
    assert "the gateway adds 2.00 ms at the median, 1.50 times the direct call; aim below 5 ms, goal 2 ms" in text
