"""From parts to requests: one stream in order of arrival, made as it is read.

Tokens are only numbers: chat s owns the numbers from s * 2**20 on, and its prompt is `range(base, base + n)`. A later
turn's prompt is a longer range with the same beginning, so prefixes are shared exactly where real ones would be,
without a million token lists in memory.

Every part draws from its own generator, and every request takes one number from each generator whether it needs it or
not: exchanging one part leaves the others' draws unchanged (common random numbers).

Arrivals are open-loop: they never wait for an answer. A follow-up comes with the first arrival after its time, whether
or not the previous answer was complete.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import accumulate, islice
from typing import Generic, TypeVar

from miniserve.seeds import generator
from miniserve.types import Priority, Request, SamplingParams, TokenIds
from miniserve.workload.arrivals import Arrivals
from miniserve.workload.conversations import Conversations
from miniserve.workload.lengths import CONVERSATION_OUTPUT, CONVERSATION_PROMPT, Lengths
from miniserve.workload.replay import RecordedTrace, prompt_of

TOKENS_PER_CHAT = 1 << 20
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Mix(Generic[Value]):
    """Values with their shares, in any unit: `{"a": 9, "b": 1}` is nine to one."""

    shares: Mapping[Value, float]
    _values: tuple[Value, ...] = field(init=False, repr=False, compare=False, default=())
    _cumulative: tuple[float, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        if not self.shares or min(self.shares.values()) < 0 or sum(self.shares.values()) <= 0:
            raise ValueError(f"shares must be at least 0 and not all 0: {dict(self.shares)}")
        object.__setattr__(self, "_values", tuple(self.shares))
        object.__setattr__(self, "_cumulative", tuple(accumulate(self.shares.values())))

    def at(self, u: float) -> Value:
        """Return the value for the random number `u` (0 <= u < 1)."""
        return self._values[bisect_right(self._cumulative, u * self._cumulative[-1])]


@dataclass(slots=True)
class _Chat:
    """The state of a conversation after its last request."""

    number: int
    tenant: str
    priority: Priority
    region: str | None
    feature: str
    session_key: str
    turn: int = 0
    context_tokens: int = 0  # so far, from both sides


@dataclass(frozen=True, slots=True)
class Workload:
    """Everything that clients do. `conversations` None: every request stands alone."""

    arrivals: Arrivals
    prompt: Lengths = CONVERSATION_PROMPT
    output: Lengths = CONVERSATION_OUTPUT
    conversations: Conversations | None = None
    tenants: Mix[str] = field(default_factory=lambda: Mix({"": 1.0}))
    priorities: Mix[Priority] = field(default_factory=lambda: Mix({Priority.STANDARD: 1.0}))
    regions: Mix[str | None] = field(default_factory=lambda: Mix({None: 1.0}))
    deadline_after_s: float | None = None  # from arrival; None: clients wait forever
    model: str = "model"
    features: Mix[str] = field(default_factory=lambda: Mix({"": 1.0}))

    def requests(
        self, seed: int = 0, *, count: int | None = None, duration_s: float | None = None
    ) -> Iterator[Request]:
        """Yield requests until `count` of them, or until the first that would come after `duration_s`.

        If the arrivals are a trace, it also gives lengths and chats, and the requests end with it.
        """
        made = self._replayed(self.arrivals, seed) if isinstance(self.arrivals, RecordedTrace) else self._drawn(seed)
        for request in islice(made, count):
            if duration_s is not None and request.arrived_s > duration_s:
                return
            yield request

    def _replayed(self, trace: RecordedTrace, seed: int) -> Iterator[Request]:
        chats, known = _Chats(replace(self, conversations=None), seed), dict[str, _Chat]()
        for i, row in enumerate(trace.read()):
            now_s = row.time_s / trace.speed
            chat, _ = chats.next(now_s)
            if row.session is not None:  # one person asks everything in a session
                chat.session_key = row.session
                chat = known.setdefault(row.session, chat)
            answer = SamplingParams(max_tokens=row.output_tokens, ignore_eos=True)
            yield self._request(i, prompt_of(row, i), answer, now_s, chat)

    def _drawn(self, seed: int) -> Iterator[Request]:
        chats = _Chats(self, seed)
        sampling: dict[int, SamplingParams] = {}
        output, tell_output = generator(seed, "output tokens").random, self.output.at
        for i, now_s in enumerate(self.arrivals.times(generator(seed, "arrivals"))):
            chat, prompt_tokens = chats.next(now_s)
            answer = tell_output(output())
            if answer not in sampling:
                sampling[answer] = SamplingParams(max_tokens=answer, ignore_eos=True)
            base = chat.number * TOKENS_PER_CHAT
            yield self._request(i, range(base, base + prompt_tokens), sampling[answer], now_s, chat)
            chats.said(chat, prompt_tokens + answer, now_s)

    def _request(self, i: int, prompt: TokenIds, sampling: SamplingParams, now_s: float, chat: _Chat) -> Request:
        return Request(
            f"q{i}",
            self.model,
            prompt,
            sampling,
            now_s,
            None if self.deadline_after_s is None else now_s + self.deadline_after_s,
            chat.tenant,
            chat.priority,
            chat.session_key,
            chat.region,
            feature=chat.feature,
        )


class _Chats:
    """Decides whose turn it is. Chats wait here for the arrival that continues them."""

    def __init__(self, workload: Workload, seed: int) -> None:
        self._workload = workload
        self._rules = workload.conversations
        self._due: list[tuple[float, int, _Chat]] = []  # heap of (time of its next turn, number, chat)
        self._begun = 0
        names = (
            "tenant",
            "priority",
            "region",
            "feature",
            "prompt tokens",
            "message tokens",
            "goes on",
            "gap",
            "old",
            "old turn",
        )
        draws = (generator(seed, name).random for name in names)
        self._tenant, self._priority, self._region, self._feature, self._prompt, *rest = draws
        self._message, self._goes_on, self._gap, self._old, self._old_turn = rest

    def next(self, now_s: float) -> tuple[_Chat, int]:
        """Return the chat that the arrival at `now_s` belongs to, and the length of its prompt."""
        workload, rules = self._workload, self._rules
        fresh = _Chat(
            self._begun,
            workload.tenants.at(self._tenant()),
            workload.priorities.at(self._priority()),
            workload.regions.at(self._region()),
            workload.features.at(self._feature()),
            f"s{self._begun}",
        )
        prompt = workload.prompt.at(self._prompt())
        if rules is None:
            self._begun += 1
            return fresh, prompt
        # Drawn before any of them is needed: each arrival takes one number per generator, so no branch shifts later
        # draws.
        message, old, old_turn = rules.message.at(self._message()), self._old(), self._old_turn()
        if self._due and self._due[0][0] <= now_s:
            chat = heappop(self._due)[2]
            if chat.context_tokens + message <= rules.max_prompt_tokens:
                return chat, chat.context_tokens + message
        self._begun += 1
        if old < rules.begun_before(now_s):
            self._give_a_past(fresh, prompt, rules.old_turn(old_turn))
            return fresh, min(fresh.context_tokens + message, rules.max_prompt_tokens)
        return fresh, prompt

    def _give_a_past(self, chat: _Chat, first_prompt: int, turn: int) -> None:
        """Give `chat` turns from before the run, of average length after the first."""
        rules = self._rules
        assert rules is not None
        each = rules.message.mean_tokens + self._workload.output.mean_tokens
        chat.turn = turn - 1
        chat.context_tokens = round(first_prompt + (turn - 2) * each + self._workload.output.mean_tokens)

    def said(self, chat: _Chat, context_tokens: int, now_s: float) -> None:
        """Record what a chat's request added, and whether and when it goes on."""
        if self._rules is None:
            return
        chat.turn += 1
        chat.context_tokens = context_tokens
        goes_on, gap = self._goes_on(), self._gap()
        if self._rules.goes_on(chat.turn, goes_on):
            heappush(self._due, (now_s + self._rules.gap_s.value(gap), chat.number, chat))
