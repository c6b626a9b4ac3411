"""`GET /status`: the gateway's replicas and what its clients get, as one JSON object for a person, a page or a script.

The same readings go to Prometheus (`observe.fleet_metrics`). What only a supervisor knows of a replica (its process,
its restarts, the stages of its start) is passed in as a function; a gateway in front of foreign replicas has none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.fleet import Fleet, Member
from miniserve.observe.counts import ReplicaReading
from miniserve.observe.percentiles import Window
from miniserve.observe.recent import Recent
from miniserve.types import FleetView

PERCENTILES = (50, 90, 99, 99.9)
BUSY_WINDOW_S = 10.0  # over which the busy share is taken: twenty reports


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What a supervisor knows of a replica's process. `pid` None: there is none at the moment."""

    pid: int | None = None
    restarts: int = 0
    cold_start_s: Mapping[str, float] = field(default_factory=dict)  # stage -> seconds, of the last start
    exit_code: int | None = None  # of the process before this one; -9: it was killed


Processes = Callable[[], Mapping[str, ProcessFacts]]  # by replica id


class GatewayStatus:
    """Reads the gateway's parts whenever it is asked; only the busy share is followed over time."""

    def __init__(
        self, fleet: Fleet, backend: FleetBackend, recent: Recent, *, url: str = "", processes: Processes = dict
    ) -> None:
        self._fleet = fleet
        self._backend = backend
        self._recent = recent
        self._url = url
        self._processes = processes
        self._started_s = fleet.clock()
        self._sections: Callable[[], Mapping[str, object]] = dict
        self._busy: dict[str, deque[tuple[float, float]]] = {}  # replica -> (when, busy seconds so far)
        fleet.add_tick(self._follow)

    def readings(self) -> list[ReplicaReading]:
        """Return what is known of each replica now."""
        facts = self._processes()
        return [self._reading(member, facts.get(member.replica_id, ProcessFacts())) for member in self._fleet.members()]

    def add_sections(self, sections: Callable[[], Mapping[str, object]]) -> None:
        """Let the answer have further sections, made anew each time."""
        self._sections = sections

    def as_json(self) -> dict[str, Any]:
        """Return everything, in JSON's types."""
        now_s, facts = self._fleet.clock(), self._processes()
        members = self._fleet.members()
        rows = [self._row(member, facts.get(member.replica_id, ProcessFacts()), now_s) for member in members]
        return {
            "url": self._url,
            "ready": self._backend.ready(),
            "models": sorted({row["model"] for row in rows if row["model"]}),
            "uptime_s": round(now_s - self._started_s, 3),
            "replicas": rows,
            "requests": self._requests(now_s),
            **self._sections(),
        }

    def _requests(self, now_s: float) -> dict[str, Any]:
        recent, counts = self._recent, self._backend.counts
        return {
            "total": recent.requests,
            "in_flight": recent.in_flight,
            "failed": recent.failed,
            "clients_left": counts.clients_left,
            "tokens_per_s": round(recent.tokens_per_s(now_s), 3),
            "ttft_s": _percentiles(recent.ttft_s),
            "itl_s": _percentiles(recent.itl_s),
            "e2e_s": _percentiles(recent.e2e_s),
            "attempts": counts.total("attempts"),
            "retries": counts.total("retries"),
            "hedges": counts.total("hedges"),
            "resumed_streams": counts.total("resumed"),
            "ejections": sum(reading.ejections for reading in self.readings()),
        }

    def _row(self, member: Member, facts: ProcessFacts, now_s: float) -> dict[str, Any]:
        reading, report, view = self._reading(member, facts), member.report, member.view()
        return {
            "replica_id": view.replica_id,
            "state": view.state.value,
            "pid": facts.pid if facts.pid is not None or report is None else report.pid,
            "model": view.version,
            "url": getattr(member.upstream, "url", None),
            "region": view.region,
            "weight": view.weight,
            "outstanding": view.outstanding,
            "running": view.running,
            "queue_depth": view.queue_depth,
            "kv_used_fraction": round(view.kv_used_fraction, 4),
            "tokens_per_s": round(view.tokens_per_s, 3),
            "busy_fraction": reading.busy_fraction,
            "rss_bytes": None if report is None else report.rss_bytes,
            "restarts": facts.restarts,
            "paced": reading.is_paced,
            "overrun_fraction": reading.overrun_fraction,
            "cold_start_s": dict(reading.cold_start_s),
            "report_age_s": None if report is None else round(now_s - member.as_of_s, 3),
            "attempts": reading.counts.attempts,
            "failures": dict(reading.counts.failures),
            "ejections": reading.ejections,
        }

    def _reading(self, member: Member, facts: ProcessFacts) -> ReplicaReading:
        ejector = self._backend.policies.ejector
        return ReplicaReading(
            member.view(),
            self._backend.counts.replicas[member.replica_id],
            None if member.report is None else member.report.stats,
            self._busy_fraction(member.replica_id),
            0 if ejector is None else ejector.ejections[member.replica_id],
            facts.restarts,
            facts.cold_start_s,
        )

    # --- the busy share --------------------------------------------------------------------------------------------

    def _follow(self, now_s: float, view: FleetView) -> None:
        """Note how busy each replica has been so far; a control loop of the fleet."""
        members = {member.replica_id: member for member in self._fleet.members()}
        for replica_id in self._busy.keys() - members.keys():
            del self._busy[replica_id]
        for replica_id, member in members.items():
            if member.report is None:
                continue
            notes, busy_s = self._busy.setdefault(replica_id, deque()), member.report.stats.busy_s
            if notes and busy_s < notes[-1][1]:
                notes.clear()  # another process counts from 0
            notes.append((member.as_of_s, busy_s))
            while len(notes) > 2 and notes[-1][0] - notes[0][0] > BUSY_WINDOW_S:
                notes.popleft()

    def _busy_fraction(self, replica_id: str) -> float | None:
        notes = self._busy.get(replica_id)
        if not notes or notes[-1][0] <= notes[0][0]:
            return None
        (start_s, before_s), (end_s, after_s) = notes[0], notes[-1]
        return round(min(1.0, (after_s - before_s) / (end_s - start_s)), 4)


def _percentiles(window: Window) -> dict[str, float] | None:
    values = window.percentiles(*PERCENTILES)
    if values is None:
        return None
    return {f"p{p:g}": round(value, 6) for p, value in zip(PERCENTILES, values, strict=True)}


def add_status_route(app: FastAPI, status: GatewayStatus) -> None:
    """Give the gateway's app its `GET /status`."""

    async def answer(_: HttpRequest) -> Response:
        return JSONResponse(status.as_json(), headers={"cache-control": "no-store"})

    app.router.routes.append(Route("/status", answer, include_in_schema=False))
