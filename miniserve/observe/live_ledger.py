"""The ledger of a live fleet: what a gateway sees of each replica, booked so that it adds up to what the fleet cost.

A replica reports how long its engine was in steps. At each turn, the seconds that were added since the last one are
split among the attempts that got tokens from it meanwhile, by their tokens: the rule of `observe.cost`, at the
resolution of a turn instead of a step. What was not spent in steps is idle. To which account an attempt's seconds go
is known when its request has ended; until then they are listed as work for an answer.

Any time since a replica was ordered is booked exactly once, so the sum is right whatever the split. The split itself
is what a gateway can know: work before a first token is booked when that token comes, or when the attempt ends.

Pure: it is told the time, and holds no prompt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from miniserve.observe.cost import Entry, Labels, Ledger, merge_entries
from miniserve.observe.traffic import BoundedLabel
from miniserve.types import FleetView, ReplicaState, ReplicaView, Request

AttemptEnd = Literal["complete", "failed", "closed"]
FORGET_S = 120.0  # attempts whose request was never heard of again


@dataclass(slots=True, eq=False)
class MeteredAttempt:
    """One attempt at one replica, and what it has cost so far."""

    request_id: str
    labels: Labels
    prompt_tokens: int
    is_shadow: bool
    fresh_prompt: int = 0  # tokens since the last turn
    fresh_output: int = 0
    prompt_s: float = 0.0
    output_s: float = 0.0
    computed: int = 0  # prompt tokens
    cached: int = 0
    output: int = 0
    end: AttemptEnd | None = None
    ended_s: float = 0.0

    @property
    def fresh(self) -> int:
        return self.fresh_prompt + self.fresh_output

    def took(self, prompt_tokens: int, output_tokens: int) -> None:
        """Count tokens that were computed for it."""
        self.fresh_prompt += prompt_tokens
        self.fresh_output += output_tokens
        self.computed += prompt_tokens
        self.output += output_tokens


@dataclass(slots=True)
class _Row:
    """A replica's books. All seconds up to `until_s` are in them."""

    since_s: float
    until_s: float
    model: str = ""
    busy_s: float | None = None  # as its process reported last
    early_s: float = 0.0  # reported beyond the time that has passed here: the report was newer than the turn
    unsplit_s: float = 0.0  # spent in steps, for tokens that have not come yet
    attempts: list[MeteredAttempt] = field(default_factory=list)  # that run, or have tokens that are not paid for
    payer: Labels | None = None  # whose tokens were the last to be paid for


class LiveLedger:
    """Told of attempts as they run, and once per turn of each replica's busy time."""

    def __init__(self, usd_per_replica_hour: float, *, shadow_tenant: str = "") -> None:
        self._usd_per_s = usd_per_replica_hour / 3600.0
        self._shadow_tenant = shadow_tenant
        self._rows: dict[str, _Row] = {}
        self._open: defaultdict[str, list[MeteredAttempt]] = defaultdict(list)  # by answer
        self._ended: dict[str, bool] = {}  # answers that are over: whether the client has it all
        self._sums: dict[tuple[str, Labels], Entry] = {}
        self._billed_s = 0.0  # of replicas that have gone
        self._names = {name: BoundedLabel() for name in ("tenant", "feature", "model", "replica")}

    # --- attempts ----------------------------------------------------------------------------------------------------

    def begin(self, replica_id: str, model: str, request: Request) -> MeteredAttempt:
        """Return the books of an attempt that begins now."""
        labels = Labels(
            request.priority.name.lower(),
            self._names["tenant"].value(request.tenant),
            self._names["feature"].value(request.feature),
            self._names["model"].value(model),
            self._names["replica"].value(replica_id),
        )
        is_shadow = bool(self._shadow_tenant) and request.tenant == self._shadow_tenant
        prompt_tokens = len(request.prompt_ids) + len(request.resume_ids)
        attempt = MeteredAttempt(request.request_id, labels, prompt_tokens, is_shadow)
        self._open[_answer_of(request.request_id)].append(attempt)
        if (row := self._rows.get(replica_id)) is not None:
            row.attempts.append(attempt)
        return attempt

    def first_token(self, attempt: MeteredAttempt, cached_tokens: int) -> None:
        """Count its prompt, which has been computed by now."""
        attempt.cached = min(cached_tokens, attempt.prompt_tokens)
        attempt.took(attempt.prompt_tokens - attempt.cached, 0)

    def end(self, attempt: MeteredAttempt, how: AttemptEnd, now_s: float) -> None:
        """AttemptEnd an attempt: it was complete, it failed, or somebody closed it."""
        attempt.end, attempt.ended_s = how, now_s
        if not attempt.computed and not attempt.cached:
            attempt.took(attempt.prompt_tokens, 0)  # how far it got, nobody has told

    def answered(self, answer_id: str, *, is_complete: bool) -> None:
        """Learn that the call with this id is over."""
        if answer_id in self._open:
            self._ended[answer_id] = is_complete

    # --- turns -------------------------------------------------------------------------------------------------------

    def turn(self, now_s: float, view: FleetView, busy_s: Mapping[str, float]) -> None:
        """Book all time since the last turn. `busy_s`: seconds in steps since its process began, by replica."""
        there = {replica.replica_id for replica in view.replicas}
        for replica_id in [one for one in self._rows if one not in there]:
            self._close_row(replica_id)
        for replica in view.replicas:
            if replica.replica_id not in self._rows:
                self._rows[replica.replica_id] = _Row(now_s, now_s)
            self._book_time(self._rows[replica.replica_id], now_s, replica, busy_s.get(replica.replica_id))
        for answer_id in list(self._open):
            self._settle(answer_id, now_s)

    def _book_time(self, row: _Row, now_s: float, replica: ReplicaView, busy_s: float | None) -> None:
        passed_s, row.until_s = now_s - row.until_s, now_s
        row.model = replica.version or row.model
        if replica.state is ReplicaState.STARTING:
            self._book("starting", self._place(replica.replica_id, row), passed_s)
            return
        added_s = 0.0
        if busy_s is not None:
            before_s = busy_s if row.busy_s is None else row.busy_s  # what it did before we knew it is not ours to book
            added_s = busy_s - before_s if busy_s >= before_s else busy_s  # another process counts from 0
            row.busy_s = busy_s
        worked_s = min(passed_s, added_s + row.early_s)
        row.early_s = max(0.0, row.early_s + added_s - worked_s)  # rounding may leave a little less than nothing
        self._book("idle", self._place(replica.replica_id, row), max(0.0, passed_s - worked_s))
        self._split(replica.replica_id, row, worked_s)

    def _split(self, replica_id: str, row: _Row, worked_s: float) -> None:
        """Share out what was worked by the tokens that came of it."""
        row.unsplit_s += worked_s
        tokens = sum(attempt.fresh for attempt in row.attempts)
        if tokens:
            each_s, row.unsplit_s = row.unsplit_s / tokens, 0.0
            for attempt in row.attempts:
                attempt.prompt_s += attempt.fresh_prompt * each_s
                attempt.output_s += attempt.fresh_output * each_s
                row.payer = attempt.labels if attempt.fresh else row.payer
                attempt.fresh_prompt = attempt.fresh_output = 0
        elif not row.attempts and row.unsplit_s:
            # A report is half a second old: the end of a step's time may come when its tokens have long been paid for.
            # Without any such tokens, somebody asks this replica who is no client of ours.
            account, labels = ("left", self._place(replica_id, row)) if row.payer is None else ("output", row.payer)
            self._book(account, labels, row.unsplit_s)
            row.unsplit_s = 0.0
        row.attempts = [attempt for attempt in row.attempts if attempt.end is None or attempt.fresh]

    def _close_row(self, replica_id: str) -> None:
        row = self._rows.pop(replica_id)
        self._billed_s += row.until_s - row.since_s
        self._split(replica_id, row, 0.0)
        self._book("left", self._place(replica_id, row), row.unsplit_s)
        for attempt in row.attempts:
            attempt.fresh_prompt = attempt.fresh_output = 0

    # --- what became of it -------------------------------------------------------------------------------------------

    def _settle(self, answer_id: str, now_s: float) -> None:
        """Book a call's attempts once it is over and all their tokens are paid for."""
        attempts = self._open[answer_id]
        if any(attempt.end is None or attempt.fresh for attempt in attempts):
            return
        is_complete = self._ended.get(answer_id)
        if is_complete is None and not attempts[0].is_shadow:
            if now_s - max(attempt.ended_s for attempt in attempts) < FORGET_S:
                return
            is_complete = False
        del self._open[answer_id]
        self._ended.pop(answer_id, None)
        for attempt in attempts:
            self._book_attempt(attempt, _account(attempt, attempts, is_complete=bool(is_complete)))

    def _book_attempt(self, attempt: MeteredAttempt, account: str) -> None:
        if account == "answer":
            self._book("prompt", attempt.labels, attempt.prompt_s, attempt.computed)
            self._book("output", attempt.labels, attempt.output_s, attempt.output, answers=1)
        else:
            self._book(account, attempt.labels, attempt.prompt_s + attempt.output_s, attempt.computed + attempt.output)
        if attempt.cached:
            self._book("cached", attempt.labels, 0.0, attempt.cached)

    def _place(self, replica_id: str, row: _Row) -> Labels:
        names = self._names
        return Labels(model=names["model"].value(row.model), replica=names["replica"].value(replica_id))

    def _book(self, account: str, labels: Labels, seconds: float, tokens: int = 0, answers: int = 0) -> None:
        if seconds or tokens or answers:
            entry = Entry(account, labels, seconds, seconds * self._usd_per_s, tokens, answers)
            before = self._sums.get((account, labels))
            (self._sums[account, labels],) = merge_entries([entry] if before is None else [before, entry])

    # --- read and kept -----------------------------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        """Return all that is booked, and what is under way as work for answers."""
        billed_s = self._billed_s + sum(row.until_s - row.since_s for row in self._rows.values())
        return Ledger(merge_entries((*self._sums.values(), *self._under_way())), billed_s, billed_s * self._usd_per_s)

    def _under_way(self) -> Iterable[Entry]:
        for attempts in self._open.values():
            for one in attempts:
                yield self._entry("prompt", one.labels, one.prompt_s)
                yield self._entry("output", one.labels, one.output_s)
        for replica_id, row in self._rows.items():
            if row.unsplit_s:
                yield self._entry("prompt", self._place(replica_id, row), row.unsplit_s)

    def _entry(self, account: str, labels: Labels, seconds: float) -> Entry:
        return Entry(account, labels, seconds, seconds * self._usd_per_s)

    def state(self) -> dict[str, Any]:
        """Return the books in JSON's types, as if everything that runs ended here."""
        ledger = self.ledger()
        return {"entries": [asdict(entry) for entry in ledger.entries], "billed_s": ledger.billed_s}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`'s books. Raises: TypeError, LookupError, ValueError for what is none."""
        entries = [Entry(**{**fields, "labels": Labels(**fields["labels"])}) for fields in state["entries"]]
        self._sums = {(entry.account, entry.labels): entry for entry in merge_entries(entries)}
        self._billed_s = float(state["billed_s"])


def _answer_of(request_id: str) -> str:
    """Return the id of the call that a request belongs to: its choices and drafts are called ID-1, ID-small, ..."""
    return request_id.partition("-")[0]


def _account(attempt: MeteredAttempt, attempts: list[MeteredAttempt], *, is_complete: bool) -> str:
    """Return where an ended attempt's seconds go, given all attempts of its call."""
    if attempt.is_shadow:
        return "shadow"
    if attempt.end == "failed":
        return "failed"
    if not is_complete:
        return "left"
    if attempt.end == "complete":
        return "answer"
    # Closed by somebody: after a stop string, which is an answer's end too, or because another one was faster.
    same = [one for one in attempts if one.request_id == attempt.request_id and one.end != "failed"]
    return "answer" if attempt is same[-1] and all(one.end == "closed" for one in same) else "hedge"
