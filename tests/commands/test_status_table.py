"""A gateway's status for a person: in 80 columns each replica is one line, and what matters is said in words."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from miniserve.commands.status_sections import section_lines
from miniserve.commands.status_table import status_table

REPLICA: dict[str, Any] = {
    "replica_id": "large@1-0",
    "state": "ready",
    "pid": 123456,
    "model": "large@1",
    "outstanding": 12,
    "running": 8,
    "queue_depth": 4,
    "kv_used_fraction": 0.42,
    "busy_fraction": 0.99,
    "tokens_per_s": 123.4,
    "restarts": 1,
    "paced": True,
    "overrun_fraction": 0.01,
    "report_age_s": 0.4,
    "cold_start_s": {"import": 2.0, "load": 1.0, "warm_up": 0.5, "total": 4.5},
}
REQUESTS = {"total": 100, "in_flight": 12, "failed": 0, "ttft_s": {"p50": 0.0312}}


def shown(*replicas: dict[str, Any]) -> str:
    console = Console(width=80, record=True, file=StringIO())
    console.print(status_table({"url": "http://127.0.0.1:1", "replicas": list(replicas), "requests": REQUESTS}))
    return console.export_text()


def test_each_replica_is_one_line_of_eighty_columns() -> None:
    text = shown(REPLICA, REPLICA | {"replica_id": "large@1-1"})

    (line,) = [line.split() for line in text.splitlines() if "123456" in line and "large@1-1" in line]
    assert line == ["large@1-1", "ready", "large@1", "(paced)", "123456", "12", "8", "4", "42%", "99%", "123.4", "1"]
    assert "31.2" in text, "milliseconds"


def test_what_a_person_must_know_is_said_below() -> None:
    text = " ".join(shown(REPLICA | {"overrun_fraction": 0.2, "report_age_s": 40.0}).split())

    assert "paced: these replicas are as fast as their step-time model says" in text
    assert "too busy for these figures: steps that overran their pace: large@1-0 20%" in text
    assert "large@1-0: this is from 40 s ago, its last report" in text
    assert "large@1-0 started in 4.5 s (import 2.0, load 1.0, warm up 0.5)" in text


def test_what_another_version_leaves_out_is_a_dash() -> None:
    text = shown({"replica_id": "r0"})

    assert "r0" in text
    assert "started" not in text


LOAD = {"rate_per_s": 24.04, "factor": 2.0, "sent": 1210, "answered": 1200, "failed": 0, "good_fraction": 0.9512}
ROLLOUT = {
    "old": "large@1",
    "new": "large@2",
    "strategy": "canary",
    "phase": "running",
    "stage": 1,
    "stages": [0.1, 0.5, 1.0],
    "share": 0.5,
    "answers_in_stage": 40,
    "min_answers": 200,
    "reason": None,
}


def test_each_part_has_a_line_and_one_that_is_absent_or_strange_has_none() -> None:
    cost = {"usd_per_hour": 1.23456, "by": {"large@1": 0.5}, "rows": [1, 2]} | {f"x{i}": i for i in range(6)}
    status = {"load": LOAD, "rollout": ROLLOUT, "alerts": {"firing": [{"name": "slow answers"}]}, "cost": cost}
    assert section_lines(status) == [
        "load: 24.0 questions/s (times 2, by hand); 1,200 answered, 95.1% of them right, 0 failed",
        "rollout: large@2 after large@1, canary, running; stage 2 of 3, 50% of the users, 40 of 200 answers",
        "cost: usd per hour 1.235, by large@1 0.5, x0 0, x1 1, x2 2, x3 3 and 2 more (--json has all)",
        "alerts: slow answers",
    ]
    assert section_lines({}) == []
    assert section_lines({"load": {"factor": 1}, "rollout": None, "slo": [], "alerts": 3, "replicas": []}) == []
    assert section_lines({"alerts": []}) == ["alerts: none"]
    back = ROLLOUT | {"phase": "rolled back", "reason": "too many wrong answers"}
    assert section_lines({"rollout": back}) == [
        "rollout: large@2 after large@1, canary, rolled back: too many wrong answers"
    ]
