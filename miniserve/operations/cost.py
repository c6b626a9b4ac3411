"""The bill of a live stack: every replica-second in one account, by model, tenant, feature and replica.

`observe.live_ledger` keeps the books; here they are fed by the fleet's attempts and probes. A price makes them money.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric

from miniserve.api.answered import AnsweredCall
from miniserve.observe.cost import Dimension, Ledger, LedgerLine
from miniserve.observe.live_ledger import AttemptEnd, LiveLedger
from miniserve.operations.part import DeskPart
from miniserve.operations.rollout_mirror import SHADOW_TENANT
from miniserve.operations.workplace import Workplace
from miniserve.types import FinishReason, FleetView, Send, TokenEvent

KEEP_EVERY_S = 5.0
_LABELS = ("account", "model")
SHOWN: tuple[Dimension, ...] = ("account", "model", "tenant", "feature")


class CostPart(DeskPart):
    """Keeps the ledger of one gateway."""

    name = "cost"

    def __init__(self, work: Workplace) -> None:
        self._work = work
        self._price = work.settings.usd_per_replica_hour
        self._ledger = LiveLedger(self._price, shadow_tenant=SHADOW_TENANT)
        self._kept: object = None
        self._kept_s = -KEEP_EVERY_S
        work.fleet.meter = self.metered

    async def metered(
        self, send: Send, model: str, events: AsyncGenerator[TokenEvent, None]
    ) -> AsyncGenerator[TokenEvent, None]:
        """Yield an attempt's events unchanged, and book its tokens."""
        books = self._ledger.begin(send.replica_id, model, send.request)
        how: AttemptEnd = "closed"
        try:
            async with aclosing(events):
                async for event in events:
                    if not books.computed and not books.cached:
                        self._ledger.first_token(books, event.cached_tokens)
                    books.took(0, len(event.token_ids) or bool(event.text))
                    if event.finish_reason is not None:
                        how = "failed" if event.finish_reason is FinishReason.ERROR else "complete"
                    yield event
        except Exception:
            how = "failed"
            raise
        finally:
            self._ledger.end(books, how, self._work.fleet.clock())

    def answered(self, call: AnsweredCall) -> None:
        self._ledger.answered(call.answer_id, is_complete=call.is_complete)

    def tick(self, now_s: float, view: FleetView) -> None:
        members = self._work.fleet.members()
        busy_s = {one.replica_id: one.report.stats.busy_s for one in members if one.report is not None}
        self._ledger.turn(now_s, view, busy_s)

    @property
    def ledger(self) -> Ledger:
        """The books as of the last turn."""
        return self._ledger.ledger()

    def status(self) -> object:
        ledger = self.ledger
        driver = ledger.biggest_driver()
        return {
            "usd_per_replica_hour": self._price,
            "usd": round(ledger.usd, 8),
            "replica_s": round(ledger.seconds, 3),
            "billed_s": round(ledger.billed_s, 3),
            "biggest_driver": None if driver is None else str(driver),
            **_figures(ledger.total),
            **{f"by_{dimension}": {line.name: _line(line) for line in ledger.by(dimension)} for dimension in SHOWN},
        }

    def metrics(self) -> Iterable[Metric]:
        about = "Replica-seconds by account and model: the whole bill."
        seconds = CounterMetricFamily("miniserve_replica_seconds", about, labels=_LABELS)
        usd = CounterMetricFamily("miniserve_cost_usd", "What they cost.", labels=_LABELS)
        sums: dict[tuple[str, str], tuple[float, float]] = {}
        for entry in self.ledger.entries:
            place = (entry.account, entry.labels.model or "none")
            before = sums.get(place, (0.0, 0.0))
            sums[place] = (before[0] + entry.seconds, before[1] + entry.usd)
        for place, (spent_s, spent_usd) in sums.items():
            seconds.add_metric(place, spent_s)
            usd.add_metric(place, spent_usd)
        return (seconds, usd)

    def state(self) -> object:
        now_s = self._work.fleet.clock()
        if now_s - self._kept_s >= KEEP_EVERY_S:
            self._kept_s, self._kept = now_s, self._ledger.state()
        return self._kept

    def restore(self, state: Any) -> None:
        self._ledger.restore(state)


def _figures(total: LedgerLine) -> dict[str, float | None]:
    return {
        "answers": total.answers,
        "usd_per_answer": round(total.usd_per_answer, 8) if total.answers else None,
        "usd_per_million_tokens": round(total.usd_per_million_tokens, 4) if total.answer_tokens else None,
    }


def _line(line: LedgerLine) -> dict[str, float]:
    seconds, usd = round(line.seconds, 3), round(line.usd, 8)
    return {"seconds": seconds, "usd": usd, "answers": line.answers, "tokens": line.answer_tokens}
