"""A gateway's status as a table: a line for each replica, and below it what the clients get.

Pure: it turns the answer of `GET /status` into something `rich` can draw. What a gateway of another version leaves out
is shown as a dash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from miniserve.commands.live_table import STATE_COLOURS
from miniserve.commands.status_sections import section_lines
from miniserve.replica.pace import TOO_MANY_OVERRUNS

PERCENTILES = ("p50", "p90", "p99", "p99.9")
LATENCIES = {"ttft_s": "TTFT", "itl_s": "ITL", "e2e_s": "end to end"}
_RIGHT = ("pid", "open", "run", "wait", "KV", "busy", "tok/s", "restarts")
STALE_S = 3.0  # a report of this age is worth a remark: six probes have gone by


def status_table(status: Mapping[str, Any]) -> RenderableType:
    """Return the replicas' table, the clients' latencies, and below them the counts and what the parts say."""
    replicas = status["replicas"]
    parts: list[RenderableType] = [_replicas(replicas), _latencies(status["requests"]), Text(_counts(status))]
    parts += [Text(line) for line in (*section_lines(status), *_remarks(replicas))]
    return Group(*parts)


def _replicas(replicas: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)  # fits into 80 columns
    for heading in ("replica", "state", "model"):
        table.add_column(heading, overflow="fold")
    for heading in _RIGHT:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in replicas:
        state = str(row.get("state", "-"))
        table.add_row(
            str(row.get("replica_id", "-")),
            Text(state, STATE_COLOURS.get(state, "")),
            f"{row.get('model') or '-'}{' (paced)' if row.get('paced') else ''}",
            str(row.get("pid") or "-"),
            *(_number(row.get(name), ".0f") for name in ("outstanding", "running", "queue_depth")),
            _number(row.get("kv_used_fraction"), ".0%"),
            _number(row.get("busy_fraction"), ".0%"),
            _number(row.get("tokens_per_s"), ".1f"),
            _number(row.get("restarts"), ".0f"),
        )
    return table


def _latencies(requests: Mapping[str, Any]) -> Table:
    table = Table(expand=False)
    table.add_column("latency (ms), of late")
    for heading in PERCENTILES:
        table.add_column(heading, justify="right")
    for name, label in LATENCIES.items():
        values = requests.get(name) or {}
        table.add_row(label, *(_number(values.get(p), ",.1f", times=1000) for p in PERCENTILES))
    return table


def _counts(status: Mapping[str, Any]) -> str:
    requests = status["requests"]
    named = {
        "requests": "total",
        "in flight": "in_flight",
        "failed": "failed",
        "retries": "retries",
        "hedges": "hedges",
        "streams resumed": "resumed_streams",
        "ejections": "ejections",
    }
    counts = ", ".join(f"{_number(requests.get(name), ',.0f')} {text}" for text, name in named.items())
    up = _number(status.get("uptime_s"), ",.0f", " s")
    rate = _number(requests.get("tokens_per_s"), ",.1f")
    return f"gateway {status.get('url') or '-'}, up {up}: {counts}; {rate} tokens/s"


def _remarks(replicas: list[Mapping[str, Any]]) -> list[str]:
    """Say what a person must know to read the figures rightly."""
    lines = []
    if any(row.get("paced") for row in replicas):
        lines.append("paced: these replicas are as fast as their step-time model says, not as fast as they could be")
    slow = [row for row in replicas if (row.get("overrun_fraction") or 0) > TOO_MANY_OVERRUNS]
    if slow:
        shares = ", ".join(f"{row['replica_id']} {row['overrun_fraction']:.0%}" for row in slow)
        lines.append(f"this machine is too busy for these figures: steps that overran their pace: {shares}")
    lines += [
        f"{row['replica_id']}: this is from {row['report_age_s']:.0f} s ago, its last report"
        for row in replicas
        if (row.get("report_age_s") or 0) > STALE_S
    ]
    for row in replicas:
        if seconds := dict(row.get("cold_start_s") or {}):
            total_s = seconds.pop("total", sum(seconds.values()))
            stages = ", ".join(f"{stage.replace('_', ' ')} {took:.1f}" for stage, took in seconds.items())
            lines.append(f"{row['replica_id']} started in {total_s:.1f} s ({stages})")
    return lines


def _number(value: object, form: str, unit: str = "", times: float = 1) -> str:
    return f"{value * times:{form}}{unit}" if isinstance(value, int | float) else "-"
