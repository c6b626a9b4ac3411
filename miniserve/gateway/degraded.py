"""The degradation ladder, live: under overload requests get a smaller model, a shorter answer, or a time to come back.

The ladder looks at the fleet, and at the alerts about promises, once per control tick; each request is treated before
it is dispatched. Whatever is taken away is said with the first token (`Served.degraded`), and so in a header, the log
and the metrics. A pinned request keeps its version, and nobody is sent to a model that has no replica ready or too
little room. There is no cache of answers here, so the rung for one does nothing more than the one below it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from miniserve.api.backend import Backend
from miniserve.api.catalogue import Catalogue, same_tokenizer
from miniserve.control.degrade import BurningBudget, Degradation, Rung, SetRung, Treatment, treat
from miniserve.errors import SetupError
from miniserve.types import FleetView, Request, TokenEvent

log = logging.getLogger(__name__)


class DegradingBackend:
    """A backend behind a ladder. `tick` belongs into the fleet's control loop (`Fleet.add_tick`)."""

    def __init__(
        self,
        backend: Backend,
        degradation: Degradation,
        catalogue: Catalogue,
        *,
        is_burning: Callable[[], bool] = lambda: False,
        on_change: Callable[[str], object] = lambda text: None,
    ) -> None:
        """`is_burning` says whether a promise is being broken; `on_change` is told of each change, in plain words.

        Raises: SetupError if a smaller model does not exist, or reads other tokens than the one it stands in for."""
        self._backend = backend
        self._degradation = degradation
        self._catalogue = catalogue
        self._ladder = degradation.ladder()
        self._budget = BurningBudget()
        self._is_burning, self._on_change = is_burning, on_change
        self._ready: frozenset[str] = frozenset()  # models with a ready replica, as of the last tick
        others = {*catalogue.names.aliases, *catalogue.names.by_question}  # resolved before they come here
        names = {entry.name: entry.model for entry in catalogue if entry.name not in others}
        for large, small in degradation.smaller.items():
            for name in (large, small):
                if name not in names:
                    raise SetupError(f"degradation.smaller: there is no model {name!r}; there are {', '.join(names)}")
            if not same_tokenizer(names[large].tokenizer, names[small].tokenizer):
                raise SetupError(f"degradation.smaller: {small} cannot stand in for {large}: another tokenizer")

    @property
    def rung(self) -> Rung:
        """Where the ladder stands."""
        return self._ladder.rung

    def tick(self, now_s: float, view: FleetView) -> None:
        """Look at the fleet, and go up or down."""
        self._ready = frozenset(name for replica in view.ready() for name in _names(replica.version))
        if not view.ready():
            return  # that is an outage, not overload: there is nothing to share out, and no load to measure
        least = self._budget.least(now_s, is_burning=self._is_burning())
        for change in self._ladder.tick(now_s, view, least):
            log.warning("degradation: %s at load %.2f", change.rung.name.lower().replace("_", " "), change.load)
            self._on_change(_in_words(change, least))

    def ready(self) -> bool:
        return self._backend.ready()

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Yield the answer that there is capacity for. Raises: Overloaded if the request's class has none now."""
        treatment = self._treated(request)
        measures = treatment.measures
        async with aclosing(self._backend.generate(treatment.request)) as events:
            async for event in events:
                if measures and event.served is not None:
                    event = replace(event, served=replace(event.served, degraded=measures))
                    measures = ()  # another attempt says again who answers, but this is counted once
                yield event

    def _treated(self, request: Request) -> Treatment:
        settings = self._degradation
        return treat(
            request,
            self._ladder.rung,
            small_model=self._smaller(request),
            max_tokens=settings.max_tokens,
            retry_after_s=settings.retry_after_s,
        )

    def _smaller(self, request: Request) -> str | None:
        """Return the model that may stand in; none for a pin, since `smaller` names models and no versions."""
        small = self._degradation.smaller.get(request.model)
        if small is None or small not in self._ready:
            return None
        needed = len(request.prompt_ids) + request.sampling.max_tokens
        return small if needed <= self._catalogue.entry(small).model.max_model_len else None


_MEASURES = {
    Rung.NORMAL: "everybody gets the whole answer of the model that was asked for again",
    Rung.SMALL_MODEL: "answers come from smaller models where there are any",
    Rung.SHORT_ANSWER: "answers are cut short as well",
    Rung.CACHED_ANSWER: "answers are cut short as well",
    Rung.SHED_BATCH: "batch requests are refused as well",
    Rung.SHED_STANDARD: "only interactive requests are served",
}


def _in_words(change: SetRung, least: Rung) -> str:
    why = f"the load is {change.load:.1f} times what the replicas should hold"
    if change.rung == least != Rung.NORMAL:
        why = "a promise is not being kept"
    return f"{_MEASURES[change.rung][:1].upper()}{_MEASURES[change.rung][1:]}: {why}."


def _names(version: str) -> tuple[str, str]:
    """Return what a replica's model answers to: its pin and its name."""
    return version, version.partition("@")[0]
