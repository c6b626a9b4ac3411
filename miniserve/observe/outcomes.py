"""What became of each request, in columns: one row per request, 60 bytes, no objects.

A million requests take a gigabyte as Python objects; as columns they take 60 MB, and every question ("p99 of the
requests that arrived after the fault") is a single numpy expression. `OutcomeLog` is written during a run, `Outcomes`
is read afterwards. Live and simulated runs fill the same log. Times are by the run's own clock, in seconds.

`status` is HTTP's: 200 was served to the end, 499 is a client that left, anything else is the error's own status.
A time that never happened (the first token of a refused request) is nan.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from math import inf, isnan, nan
from typing import Any

import numpy as np
import numpy.typing as npt

from miniserve.errors import InternalError, RequestError
from miniserve.observe.percentiles import percentiles_of_sorted
from miniserve.types import FinishReason, Outcome, Request

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

SERVED, CLIENT_LEFT = 200, 499

_TYPES = {
    "index": "i",
    "arrived_s": "d",
    "first_token_s": "d",
    "ended_s": "d",
    "deadline_s": "d",
    "prompt_tokens": "i",
    "output_tokens": "i",
    "cached_tokens": "i",
    "attempts": "h",
    "status": "h",
    "replica": "i",
    "tenant": "i",
}

_COUNTS = ("prompt_tokens", "output_tokens", "cached_tokens", "attempts", "status")
ROW = ("index", "arrived_s", "ttft_s", "e2e_s", *_COUNTS, "replica", "tenant")


class OutcomeLog:
    """Collects rows; a row costs about a microsecond. Read them with `outcomes()` when the run is over."""

    def __init__(self) -> None:
        self._columns: dict[str, array[Any]] = {name: array(code) for name, code in _TYPES.items()}
        self._appends = [column.append for column in self._columns.values()]
        self._replicas: dict[str, int] = {}
        self._tenants: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._columns["index"])

    def record(
        self,
        index: int,
        arrived_s: float,
        ended_s: float,
        *,
        first_token_s: float | None = None,
        deadline_s: float | None = None,
        prompt_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
        attempts: int = 1,
        status: int = SERVED,
        replica_id: str | None = None,
        tenant: str = "",
    ) -> None:
        """Add one request. `index` is its position in the workload: the same request keeps it in every run."""
        row = (
            index,
            arrived_s,
            nan if first_token_s is None else first_token_s,
            ended_s,
            inf if deadline_s is None else deadline_s,
            prompt_tokens,
            output_tokens,
            cached_tokens,
            attempts,
            status,
            -1 if replica_id is None else self._replicas.setdefault(replica_id, len(self._replicas)),
            self._tenants.setdefault(tenant, len(self._tenants)),
        )
        for append, value in zip(self._appends, row, strict=True):
            append(value)

    def record_outcome(self, index: int, request: Request, outcome: Outcome, ended_s: float) -> None:
        """Add a request as `policies.dispatch` ended it. Its first token is the first one of any attempt."""
        came = [a.first_token_s for a in outcome.attempts if a.first_token_s is not None]
        self.record(
            index,
            request.arrived_s,
            ended_s,
            first_token_s=min(came, default=None),
            deadline_s=request.deadline_s,
            prompt_tokens=len(request.prompt_ids),
            output_tokens=sum(len(a.token_ids) for a in outcome.attempts),
            cached_tokens=outcome.attempts[-1].cached_tokens if outcome.attempts else 0,
            attempts=sum(1 + len(a.losers) for a in outcome.attempts),
            status=status_of(outcome),
            replica_id=outcome.attempts[-1].replica_id if outcome.attempts else None,
            tenant=request.tenant,
        )

    def outcomes(self) -> Outcomes:
        """Return the rows without copying them; the log accepts no more rows while the result is in use."""
        columns = {name: np.frombuffer(column, dtype=column.typecode) for name, column in self._columns.items()}
        return Outcomes(**columns, replicas=tuple(self._replicas), tenants=tuple(self._tenants))


def status_of(outcome: Outcome) -> int:
    """Return the HTTP status for how `outcome` ended."""
    match outcome.error:
        case None:
            return CLIENT_LEFT if outcome.finish_reason is FinishReason.ABORT else SERVED
        case RequestError() as error:
            return error.status
        case _:
            return InternalError.status


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """The columns, one row per request, in the order in which requests ended."""

    index: Ints
    arrived_s: Floats
    first_token_s: Floats
    ended_s: Floats
    deadline_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    cached_tokens: Ints
    attempts: npt.NDArray[np.int16]
    status: npt.NDArray[np.int16]
    replica: Ints  # index into `replicas`; -1: no replica ever got it
    tenant: Ints  # index into `tenants`
    replicas: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def served(self) -> Mask:
        """Which requests were served to the end."""
        return np.asarray(self.status == SERVED)

    @property
    def ttft_s(self) -> Floats:
        """Time to first token; nan if none came."""
        return self.first_token_s - self.arrived_s

    @property
    def e2e_s(self) -> Floats:
        """Time from arrival to the end."""
        return self.ended_s - self.arrived_s

    @property
    def tpot_s(self) -> Floats:
        """Time per output token after the first; nan if there were fewer than two."""
        gaps = np.where(self.output_tokens > 1, self.output_tokens - 1.0, nan)
        return (self.ended_s - self.first_token_s) / gaps

    @property
    def duration_s(self) -> float:
        """Time from the first arrival to the last end; 0 if there are no requests."""
        return float(self.ended_s.max() - self.arrived_s.min()) if len(self) else 0.0

    def where(self, mask: Mask) -> Outcomes:
        """Return the rows that `mask` selects."""
        return replace(self, **{name: getattr(self, name)[mask] for name in _TYPES})

    def arrived_between(self, start_s: float, end_s: float) -> Outcomes:
        """Return the requests that arrived in [start, end): use it to drop a warm-up, or to look at one phase."""
        return self.where((self.arrived_s >= start_s) & (self.arrived_s < end_s))

    def of_tenant(self, tenant: str) -> Outcomes:
        """Return one tenant's requests; none for an unknown tenant."""
        place = self.tenants.index(tenant) if tenant in self.tenants else -1
        return self.where(self.tenant == place)

    def by_status(self) -> dict[int, int]:
        """Return how many requests ended with each status, in order of status."""
        statuses, counts = np.unique(self.status, return_counts=True)
        return dict(zip(statuses.tolist(), counts.tolist(), strict=True))

    def by_replica(self) -> dict[str, int]:
        """Return how many requests ended at each replica."""
        counts = np.bincount(self.replica[self.replica >= 0], minlength=len(self.replicas))
        return dict(zip(self.replicas, counts.tolist(), strict=True))

    def rows(self) -> Iterator[tuple[int | float | str | None, ...]]:
        """Yield each request in the columns of `ROW`; what never happened is None."""
        for i in range(len(self)):
            times = (self.arrived_s[i], self.ttft_s[i], self.e2e_s[i])
            replica = self.replica[i]
            yield (
                int(self.index[i]),
                *(None if isnan(seconds) else round(float(seconds), 9) for seconds in times),
                *(int(getattr(self, name)[i]) for name in _COUNTS),
                self.replicas[replica] if replica >= 0 else None,
                self.tenants[self.tenant[i]],
            )

    def summary(self) -> Summary:
        """Return the figures for a table. Latencies cover only served requests: a refusal is not a fast answer."""
        served = self.where(self.served)
        duration_s = self.duration_s
        per_s = 1.0 / duration_s if duration_s > 0 else 0.0
        return Summary(
            requests=len(self),
            served=len(served),
            by_status=self.by_status(),
            duration_s=duration_s,
            served_per_s=len(served) * per_s,
            output_tokens_per_s=int(self.output_tokens.sum(dtype=np.int64)) * per_s,
            attempts_per_request=_share(int(self.attempts.sum(dtype=np.int64)), len(self)),
            cached_fraction=_share(
                int(self.cached_tokens.sum(dtype=np.int64)), int(self.prompt_tokens.sum(dtype=np.int64))
            ),
            ttft=Latency.of(served.ttft_s),
            tpot=Latency.of(served.tpot_s),
            e2e=Latency.of(served.e2e_s),
        )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Mean and exact percentiles of a latency, seconds."""

    mean_s: float
    p50_s: float
    p90_s: float
    p95_s: float
    p99_s: float
    p99_9_s: float
    max_s: float

    @classmethod
    def of(cls, values_s: Floats | Sequence[float]) -> Latency | None:
        """Return the figures of `values_s`, ignoring nans; None if nothing is left."""
        values = np.asarray(values_s, dtype=np.float64)
        ordered = np.sort(values[~np.isnan(values)])
        if not len(ordered):
            return None
        return cls(float(ordered.mean()), *map(float, percentiles_of_sorted(ordered, (50, 90, 95, 99, 99.9, 100))))


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in a dozen figures. A latency is None if no request had one."""

    requests: int
    served: int
    by_status: dict[int, int] = field(default_factory=dict)
    duration_s: float = 0.0
    served_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    attempts_per_request: float = 0.0
    cached_fraction: float = 0.0  # of all prompt tokens
    ttft: Latency | None = None
    tpot: Latency | None = None
    e2e: Latency | None = None

    def figures(self) -> dict[str, Any]:
        """Return the fields as a flat mapping: `ttft_p99_s`, `served_per_s`, ..."""
        flat: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Latency):
                flat |= {f"{item.name}_{part.name}": getattr(value, part.name) for part in fields(value)}
            elif value is not None:
                flat[item.name] = value
        return flat
