"""A gateway's status for a person: in 80 columns each replica is one line, and what matters is said in words."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

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
