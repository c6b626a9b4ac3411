"""Who caused the bill? A ledger of replica-seconds and dollars whose entries add up to what the fleet cost.

Every second of every replica is in exactly one account:

    prompt     computing prompt tokens      |  of attempts that gave the client its answer
    output     making the answer's tokens   |
    again      recomputing what preemption had thrown away
    hedge      attempts that lost their race
    failed     attempts that broke off or were cut off before the answer was complete
    shadow     copies of requests for a version that nobody is shown, live only
    left       attempts whose client had gone, and those without an answer when the run ended
    idle       no step was running: the replica was ready (or down) and not needed
    starting   from ordering the machine until it could take its first request
    cached     prompt tokens that did not have to be computed: no seconds, no money, only tokens

The cost of a step is split among its requests by the tokens each has in it. So a request pays its proportion of reading
the weights, and pays less in a full batch than alone. A failed attempt's tokens may have reached the client; the
attempt still counts as failed.

Knows nothing about simulation: `sim.meter` fills a ledger from a simulated fleet, `observe.live_ledger` from a live
one, `commands.cost_report` shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

ANSWERS = ("prompt", "output", "again")
WASTE = ("hedge", "failed", "shadow", "left")
OVERHEAD = ("idle", "starting")  # no request caused these
ACCOUNTS = (*ANSWERS, *WASTE, *OVERHEAD, "cached")
Dimension = Literal["account", "request type", "model", "tenant", "feature", "replica"]
DIMENSIONS: tuple[Dimension, ...] = ("account", "request type", "model", "tenant", "feature", "replica")


@dataclass(frozen=True, slots=True)
class Labels:
    """Whose work it was, and where. Idle time has only a place: `model` and `replica`."""

    request_type: str = ""  # the request's class of service
    tenant: str = ""
    feature: str = ""
    model: str = ""  # the model that computed it, not the name that was asked for
    replica: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger. `answers` counts the requests whose answers these seconds completed."""

    account: str
    labels: Labels
    seconds: float  # replica-seconds
    usd: float
    tokens: int = 0
    answers: int = 0

    def under(self, dimension: Dimension) -> str:
        """Return the name under which `dimension` lists this entry; idle time has its own if it belongs to no name.

        Raises: ValueError for an unknown dimension.
        """
        match dimension:
            case "account":
                return self.account
            case "model":
                return self.labels.model
            case "replica":
                return self.labels.replica
            case "request type" | "tenant" | "feature":
                name: str = getattr(self.labels, dimension.replace(" ", "_"))
                return f"({self.account})" if self.account in OVERHEAD else name
        raise ValueError(f"no dimension {dimension!r}; there are {', '.join(DIMENSIONS)}")


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """The sum of all entries under one name."""

    name: str
    seconds: float
    usd: float
    answers: int
    answer_tokens: int  # made for answers
    idle_usd: float  # of `usd`: idle and starting

    @property
    def usd_per_answer(self) -> float:
        return self.usd / self.answers if self.answers else math.nan

    @property
    def usd_per_million_tokens(self) -> float:
        return self.usd / self.answer_tokens * 1e6 if self.answer_tokens else math.nan


@dataclass(frozen=True, slots=True)
class Driver:
    """Where most of the money went."""

    account: str
    usd: float
    fraction: float
    most_of_it: str  # the replica for overhead, else the tenant, feature, ... with the largest part

    def __str__(self) -> str:
        return f"biggest driver: {self.account}, {self.usd:,.4f} USD = {self.fraction:.1%} of the bill{self.most_of_it}"


@dataclass(frozen=True, slots=True)
class Ledger:
    """All entries of a run. `billed_usd` and `billed_s` come from the bill, computed independently of the entries."""

    entries: tuple[Entry, ...]
    billed_s: float
    billed_usd: float

    @property
    def seconds(self) -> float:
        return math.fsum(entry.seconds for entry in self.entries)

    @property
    def usd(self) -> float:
        return math.fsum(entry.usd for entry in self.entries)

    @property
    def total(self) -> LedgerLine:
        """Return everything in one line: what a token and a request cost, idle time included."""
        return _line("total", self.entries)

    def by(self, dimension: Dimension) -> tuple[LedgerLine, ...]:
        """Return the lines of one dimension, the most expensive first."""
        groups: dict[str, list[Entry]] = {}
        for entry in self.entries:
            groups.setdefault(entry.under(dimension), []).append(entry)
        lines = (_line(name, entries) for name, entries in groups.items())
        return tuple(sorted(lines, key=lambda line: (-line.usd, -line.seconds, line.name)))

    def differs(self, dimension: Dimension) -> bool:
        """Return whether there is more than one name under `dimension`, not counting idle time."""
        lines = self.by(dimension)
        return dimension == "account" or sum(line.usd > line.idle_usd or bool(line.answers) for line in lines) > 1

    def of_account(self, *accounts: str) -> float:
        """Return the dollars in `accounts`."""
        return math.fsum(entry.usd for entry in self.entries if entry.account in accounts)

    @property
    def cached_tokens(self) -> int:
        return sum(entry.tokens for entry in self.entries if entry.account == "cached")

    @property
    def cached_worth_usd(self) -> float:
        """Return what the cached tokens would have cost at the average price of a computed prompt token."""
        computed = sum(entry.tokens for entry in self.entries if entry.account == "prompt")
        return self.cached_tokens * self.of_account("prompt") / computed if computed else 0.0

    def biggest_driver(self) -> Driver | None:
        """Return the most expensive account, and who has most of it; None if nothing was paid."""
        if not self.usd > 0:
            return None
        top = self.by("account")[0]
        inside = Ledger(tuple(entry for entry in self.entries if entry.account == top.name), 0.0, 0.0)
        return Driver(top.name, top.usd, top.usd / self.usd, _who(inside, top))


def _line(name: str, entries: Iterable[Entry]) -> LedgerLine:
    rows = list(entries)
    return LedgerLine(
        name,
        math.fsum(entry.seconds for entry in rows),
        math.fsum(entry.usd for entry in rows),
        sum(entry.answers for entry in rows),
        sum(entry.tokens for entry in rows if entry.account == "output"),
        math.fsum(entry.usd for entry in rows if entry.account in OVERHEAD),
    )


def _who(inside: Ledger, top: LedgerLine) -> str:
    """Describe who has most of one account: the name, in any dimension, with the largest part short of all."""
    where: tuple[Dimension, ...] = (
        ("model", "replica") if top.name in OVERHEAD else ("tenant", "feature", "request type", "model", "replica")
    )
    parts = [(lines[0].usd, dimension, lines[0].name) for dimension in where if len(lines := inside.by(dimension)) > 1]
    if not parts:
        return ""
    usd, dimension, name = max(parts, key=lambda part: part[0])
    return f", most of it by {dimension} {name or '-'} ({usd / top.usd:.0%})"


def merge_entries(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Add up entries of the same account and labels."""
    sums: dict[tuple[str, Labels], Entry] = {}
    for entry in entries:
        place = (entry.account, entry.labels)
        before = sums.get(place)
        sums[place] = entry if before is None else _sum(before, entry)
    return tuple(sums.values())


def _sum(a: Entry, b: Entry) -> Entry:
    return Entry(a.account, a.labels, a.seconds + b.seconds, a.usd + b.usd, a.tokens + b.tokens, a.answers + b.answers)
