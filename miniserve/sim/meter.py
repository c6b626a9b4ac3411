"""Meters a fleet: whose tokens were in each step and how each attempt ended, turned into a ledger.

    SimReplica ── batch, steps, seconds ──> spend    each attempt in the batch bears its share
    SimFleet   ── attempt begun ──────────> begin    whose it is, and on which machine's account
    run        ── outcome ────────────────> settle   which attempt gave the answer, which lost, which failed

Paid time that no step used is idle time. That includes a hang, when nothing was being computed.

Knows simulated fleets; prices and times come from `sim.bill`, and `observe.cost` says what the accounts mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from miniserve.engine.batch import Batch, Work
from miniserve.engine.sequence import Sequence
from miniserve.observe.cost import Entry, Labels, Ledger, merge_entries
from miniserve.sim.bill import Account, bill
from miniserve.types import Outcome, Send

_PURPOSES = ("prompt", "output", "again")


@dataclass(slots=True, eq=False)
class _Charge:
    """What one attempt has cost so far: seconds and tokens, each by purpose."""

    sequence: Sequence
    account: Account
    model: str
    number: int  # the attempt's number within its request
    fate: str = "left"
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    tokens: list[int] = field(default_factory=lambda: [0, 0, 0])

    def bear(self, work: Work, steps: int, seconds: float) -> None:
        """Add one work's share of `seconds`. `steps` is 0 for a step that was lost before it ended."""
        # Below the high-water mark the sequence had been computed before it was preempted; beyond what it was sent
        # with,
        # the tokens are output. A prompt token computed twice is "again", not "prompt".
        again = max(0, min(work.end, work.seq.high_water) - work.start)
        prompt = max(0, min(work.end, self._given) - work.start - again)
        parts = (prompt, work.num_tokens - again - prompt, again)
        for i, part in enumerate(parts):
            self.seconds[i] += seconds * part / work.num_tokens
        self.tokens[0] += prompt * min(steps, 1)
        self.tokens[1] += steps if work.samples else 0
        self.tokens[2] += again * min(steps, 1)

    @property
    def _given(self) -> int:
        """The number of tokens it was sent with."""
        request = self.sequence.request
        return len(request.prompt_ids) + len(request.resume_ids)

    def end(self, fates: dict[tuple[int, str], str]) -> None:
        """Record how it ended, if `fates` (by number and replica) say so."""
        self.fate = fates.get((self.number, self.account.replica_id), self.fate)

    def entries(self) -> Iterable[Entry]:
        request, account = self.sequence.request, self.account
        priority = request.priority.name.lower()
        labels = Labels(priority, request.tenant, request.feature, self.model, account.replica_id)
        price = account.usd_per_hour / 3600
        if self.sequence.cached_tokens:
            yield Entry("cached", labels, 0.0, 0.0, self.sequence.cached_tokens)
        if self.fate != "answer":
            yield Entry(self.fate, labels, sum(self.seconds), sum(self.seconds) * price, sum(self.tokens))
            return
        for name, seconds, tokens in zip(_PURPOSES, self.seconds, self.tokens, strict=True):
            answers = int(name == "output")
            if seconds or tokens or answers:
                yield Entry(name, labels, seconds, seconds * price, tokens, answers)


class Meter:
    """One run's meter. Attempts of the same request are told apart by their number and replica."""

    def __init__(self) -> None:
        self._charges: dict[Sequence, _Charge] = {}
        self._attempts: dict[str, list[_Charge]] = {}
        self._models: dict[int, str] = {}  # id of an account -> the model it runs
        self._fates: dict[str, dict[tuple[int, str], str]] = {}  # of requests with attempts that may still arrive

    def rent(self, account: Account, model: str) -> None:
        """Record which model a new machine runs."""
        self._models[id(account)] = model

    def begin(self, account: Account, send: Send, sequence: Sequence) -> None:
        """Open the account of an attempt that has reached its replica."""
        charge = _Charge(sequence, account, self._models[id(account)], send.attempt)
        self._charges[sequence] = charge
        request_id = send.request.request_id
        self._attempts.setdefault(request_id, []).append(charge)
        if request_id in self._fates:
            charge.end(self._fates[request_id])

    def spend(self, batch: Batch, steps: int, seconds: float) -> None:
        """Split `seconds` among the requests in `batch`; the batch ran `steps` times, each one token further."""
        share_s = seconds / batch.num_tokens
        for work in batch.works:
            self._charges[work.seq].bear(work, steps, share_s * work.num_tokens)

    def settle(self, outcome: Outcome) -> None:
        """Record how every attempt of a request ended."""
        fates: dict[tuple[int, str], str] = {}
        number = 0
        for result in outcome.attempts:
            tries = (result, *result.losers)
            fate = "answer" if result.error is None else "failed"
            for each in tries:
                ended = fate if each is result else "hedge" if each.error is None else "failed"
                fates |= {(n, each.replica_id): ended for n in range(number, number + len(tries))}
            number += len(tries)
        for charge in self._attempts.pop(outcome.request_id, ()):
            charge.end(fates)
        if number > 1 or outcome.error is not None:  # an attempt may still be on its way to a far replica
            self._fates[outcome.request_id] = fates

    def ledger(self, accounts: Iterable[Account], now_s: float) -> Ledger:
        """Return everything paid for until `now_s`; the replicas must have reported their last steps."""
        accounts = tuple(accounts)
        entries = [entry for charge in self._charges.values() for entry in charge.entries()]
        stepped: dict[int, list[float]] = {}
        for charge in self._charges.values():
            stepped.setdefault(id(charge.account), []).extend(charge.seconds)
        for account in accounts:
            entries += self._overhead(account, math.fsum(stepped.get(id(account), ())), now_s)
        total = bill(accounts, now_s).total
        return Ledger(merge_entries(entries), total.paid_s, total.usd)

    def _overhead(self, account: Account, stepped_s: float, now_s: float) -> Iterable[Entry]:
        """Yield a machine's seconds that no request has used."""
        line = account.line(now_s)
        idle_s = line.paid_s - line.starting_s - stepped_s
        assert idle_s > -1e-6 * max(1.0, line.paid_s), f"{account.replica_id} ran steps for {-idle_s} s too long"
        labels = Labels(model=self._models[id(account)], replica=account.replica_id)
        for name, seconds in (("idle", idle_s), ("starting", line.starting_s)):
            if seconds:
                yield Entry(name, labels, seconds, seconds / 3600 * account.usd_per_hour)
