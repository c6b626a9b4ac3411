"""Who asks for what: calls by route and kind, model, tenant, region and feature.

What a client writes into a header becomes a time series, so each label has a bound: the first `MOST_VALUES` values are
told apart, all later ones are "other". Each dimension is a counter of its own; together they would multiply.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from miniserve.types import Request

MOST_VALUES = 20  # of one label
LONGEST_VALUE = 64  # characters
OTHER, NOT_TOLD = "other", "none"


class BoundedLabel:
    """Gives a label's value for whatever a client calls itself."""

    def __init__(self, most: int = MOST_VALUES) -> None:
        self._most = most
        self._known: set[str] = {NOT_TOLD}

    def value(self, text: str | None) -> str:
        """Return `text` while it is among the first values seen, then "other"; "none" for nothing."""
        text = (text or NOT_TOLD)[:LONGEST_VALUE]
        if text not in self._known:
            if len(self._known) > self._most:
                return OTHER
            self._known.add(text)
        return text


class Traffic:
    """Counts calls as they are let in. One per registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "miniserve_calls_total",
            "Calls for a generation, by route, whether the answer streams, and model.",
            ("endpoint", "stream", "model"),
            registry=registry,
        )
        self._by = {
            name: Counter(f"miniserve_calls_by_{name}_total", f"Calls by {name}.", (name,), registry=registry)
            for name in ("tenant", "region", "feature", "priority")
        }
        self._labels = {name: BoundedLabel() for name in ("tenant", "region", "feature", "model")}

    def record(self, endpoint: str, request: Request, *, stream: bool) -> None:
        """Count a call; `request` is the first of those that it asks for."""
        bounded = self._labels
        kind = "true" if stream else "false"
        self._calls.labels(endpoint, kind, bounded["model"].value(request.model)).inc()
        self._by["tenant"].labels(bounded["tenant"].value(request.tenant)).inc()
        self._by["region"].labels(bounded["region"].value(request.region)).inc()
        self._by["feature"].labels(bounded["feature"].value(request.feature)).inc()
        self._by["priority"].labels(request.priority.name.lower()).inc()
