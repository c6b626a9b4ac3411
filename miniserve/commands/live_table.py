"""A live table for the terminal: each replica's state, and what the gateway's clients experience.

Pure: it turns numbers into something `rich` can draw. The caller redraws it a few times a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from miniserve.types import ReplicaState

STATE_COLOURS: dict[str, str] = {
    ReplicaState.STARTING: "yellow",
    ReplicaState.READY: "green",
    ReplicaState.DRAINING: "cyan",
    ReplicaState.DOWN: "red",
}
EVENT_COLOURS = {"good": "green", "warning": "yellow", "alarm": "red"}


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """One replica's row. `pid` None: no process at the moment. `start_s`: its cold start, and the stages within it."""

    replica_id: str
    state: ReplicaState
    pid: int | None
    running: int
    waiting: int
    kv_used_fraction: float
    tokens_per_s: float
    restarts: int
    is_paced: bool = False
    start_s: float | None = None
    stages_s: tuple[float, ...] = ()  # import, load, warm up


@dataclass(frozen=True, slots=True)
class GatewayNumbers:
    """What clients got recently. Latencies are (p50, p90, p99, p99.9), or None before the first answer."""

    url: str
    requests: int
    in_flight: int
    failed: int
    ttft_s: tuple[float, ...] | None
    itl_s: tuple[float, ...] | None
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Remarks:
    """What is said below the numbers: a line for each part, the last events, and a warning about all figures."""

    sections: Sequence[str] = ()
    events: Sequence[tuple[str, str]] = ()  # (level, text), oldest first
    warning: str = ""


def live_table(
    gateway: GatewayNumbers, replicas: Sequence[ReplicaRow], remarks: Remarks | None = None
) -> RenderableType:
    """Return the table with the gateway's line below it, and then the remarks."""
    remarks = remarks or Remarks()
    table = Table(expand=False)
    table.add_column("replica")
    table.add_column("state")
    for heading in ("pid", "running", "waiting", "KV used", "tokens/s", "restarts", "cold start"):
        table.add_column(heading, justify="right")
    for row in replicas:
        table.add_row(
            row.replica_id,
            Text(row.state.value, STATE_COLOURS[row.state]),
            str(row.pid or "-"),
            str(row.running),
            str(row.waiting),
            f"{row.kv_used_fraction:.0%}",
            f"{row.tokens_per_s:.1f}" + (" paced" if row.is_paced else ""),
            str(row.restarts),
            _cold_start(row),
        )
    lines = [Text(gateway_line(gateway)), *(Text(line) for line in remarks.sections)]
    lines += [Text(f"- {text}", EVENT_COLOURS.get(level, "dim")) for level, text in remarks.events]
    lines += [Text(remarks.warning, "yellow")] if remarks.warning else []
    return Group(table, *lines)


def _cold_start(row: ReplicaRow) -> str:
    """Return how long a start took, and how much of it its stages: "6.1 s (2.4 + 3.2 + 0.1)"."""
    if row.start_s is None:
        return "-"
    stages = f" ({' + '.join(f'{seconds:.1f}' for seconds in row.stages_s)})" if row.stages_s else ""
    return f"{row.start_s:.1f} s{stages}"


def gateway_line(gateway: GatewayNumbers) -> str:
    """Return the gateway's numbers as one line, for use below the table or in a log."""
    return (
        f"gateway {gateway.url}: {gateway.requests} requests, {gateway.in_flight} in flight, {gateway.failed} failed, "
        f"TTFT {_milliseconds(gateway.ttft_s)}, ITL {_milliseconds(gateway.itl_s)} ms (p50 / p90 / p99 / p99.9), "
        f"{gateway.tokens_per_s:.1f} tokens/s"
    )


def _milliseconds(latencies_s: tuple[float, ...] | None) -> str:
    return "-" if latencies_s is None else " / ".join(f"{seconds * 1000:.0f}" for seconds in latencies_s)
