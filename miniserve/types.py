"""The shared vocabulary: what a request is, what a replica looks like from outside, what a policy may ask for.

Uses only the standard library. Everything here is a frozen value: safe to share between threads, to log, and to compare
in tests. Times are float seconds on the injected clock (see `clock.py`), never wall-clock times.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

LOCAL_TENANT = "local"  # whose requests say no tenant
GREEDY_UP_TO = 1e-5  # a temperature; vLLM draws the line there too
TokenIds = Sequence[int]  # a tuple of real tokens; a `range` if a simulation only needs distinct ones


class FinishReason(StrEnum):
    """Why a generation ended (the OpenAI words, plus two that only we see)."""

    STOP = "stop"  # end-of-sequence token, or a stop string
    LENGTH = "length"  # max_tokens, the class's cap, or the context was reached
    ABORT = "abort"  # the client left; no one reads this
    ERROR = "error"  # the engine could not continue


class Priority(IntEnum):
    """Classes of service; lower is served first. See `engine.scheduler` for how waiting makes up for class."""

    INTERACTIVE = 0
    STANDARD = 1
    BATCH = 2


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to turn logits into tokens. `temperature=0` is greedy.

    A draw is keyed by (seed, index of the token in the output), never by time or batch, so the same request gives the
    same tokens on any replica, in any batch, and after a restart. The penalties and bans see this request's own tokens
    only, so the same holds with them.
    """

    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0 = all tokens
    seed: int = 0
    stop: tuple[str, ...] = ()  # applied to text, so by the detokenizer (`text.py`), not by the engine
    ignore_eos: bool = False
    logprobs: int | None = None  # None = none; n = the chosen token's and the n most likely
    min_p: float = 0.0  # leave out tokens below this share of the most likely one's probability
    frequency_penalty: float = 0.0  # off a token's logit for each time it stands in the output
    presence_penalty: float = 0.0  # off its logit if it stands there at all
    repetition_penalty: float = (
        1.0  # divides the logit of what stands in prompt or output (a negative one is multiplied)
    )
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token, added to its logit)
    bad_words: tuple[tuple[int, ...], ...] = ()  # runs of tokens that must not come to stand in the output
    stop_token_ids: tuple[int, ...] = ()  # end the output as the end-of-sequence token does, and always
    min_tokens: int = 0  # before so many there is no end: no end token, no stop string

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is taken: near 0, dividing by the temperature would overflow."""
        return self.temperature <= GREEDY_UP_TO or self.top_p == 0

    @property
    def changes_logits(self) -> bool:
        """Whether anything is to be done to the logits before a token is drawn (see `engine/penalties.py`)."""
        return bool(
            self.frequency_penalty
            or self.presence_penalty
            or self.repetition_penalty != 1
            or self.logit_bias
            or self.bad_words
            or self.min_tokens
        )


@dataclass(frozen=True, slots=True)
class Request:
    """One generation, tokenized, as policies and replicas see it."""

    request_id: str  # unique, so made where the request comes in: what a client calls its request need not be
    model: str
    prompt_ids: TokenIds
    sampling: SamplingParams = SamplingParams()
    arrived_s: float = 0.0
    deadline_s: float | None = None
    tenant: str = ""
    priority: Priority = Priority.STANDARD
    session_key: str | None = None
    region: str | None = None
    resume_ids: TokenIds = ()  # tokens an earlier attempt already sent to the client: continue after them
    feature: str = ""  # what asked: a part of a product, a kind of question; a label for routers and for the bill
    seen: Callable[[], bool] | None = field(default=None, compare=False, repr=False)
    """Says whether anything of the answer has gone out to the client by now; None: every token does, as it comes."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability (natural log, of the model's distribution before temperature) of one token."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # the most likely alternatives, best first


@dataclass(frozen=True, slots=True)
class Served:
    """Who answers a request, and how that differs from what was asked for. Said with an attempt's first event."""

    model: str  # as the replica calls it: NAME or NAME@VERSION
    degraded: tuple[str, ...] = ()  # what an overloaded gateway has taken away (see `control.degrade`)
    discarded_tokens: int = 0  # of an answer that another model began and that was not good enough


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """New tokens of one request, in order. The last event of a request carries `finish_reason`.

    `text` is set only by a backend that speaks text instead of token ids (a foreign OpenAI-compatible server).
    """

    request_id: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    cached_tokens: int = 0  # prompt tokens found in the prefix cache
    text: str | None = None
    served: Served | None = field(default=None, compare=False)  # the gateway's note; a replica's own is not believed


class ReplicaState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """What a policy may know about a replica. Possibly stale: `as_of_s` says when it was true."""

    replica_id: str
    state: ReplicaState = ReplicaState.READY
    outstanding: int = 0  # requests this gateway has sent there that have not finished: always fresh
    queue_depth: int = 0  # waiting inside the replica, as of the last probe
    running: int = 0
    kv_used_fraction: float = 0.0
    tokens_per_s: float = 0.0
    version: str = ""
    region: str = ""
    weight: float = 1.0  # relative share of the traffic it should get, for its speed or its rollout stage
    as_of_s: float = 0.0
    steps: int = 0  # its engine's steps since the start: while this grows, it does not hang


@dataclass(frozen=True, slots=True)
class FleetView:
    """A snapshot of all replicas: everything that policies see of the world."""

    replicas: tuple[ReplicaView, ...] = ()
    as_of_s: float = 0.0
    requests: int = 0  # that have come so far, whatever their fate; counted only in views for control loops

    def ready(self) -> tuple[ReplicaView, ...]:
        """Return the replicas that may get new work."""
        return tuple([r for r in self.replicas if r.state is ReplicaState.READY])  # a list first: this is a hot path


# --- effects: what `policies.dispatch` asks its driver to do -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Send:
    """Run `request` on `replica_id`, passing its tokens to the client; the driver answers with an `AttemptResult`.

    When a limit passes, the driver cuts the attempt off, which counts as a failure. Limits count from the attempt's
    start.
    """

    replica_id: str
    request: Request
    attempt: int
    first_token_within_s: float | None = None  # passed: `wait_on` is asked, and without it or more time, NoFirstToken
    within_s: float | None = None  # passed: DeadlineExceeded (what is left of the request's own deadline)
    wait_on: Callable[[float], float | None] | None = field(default=None, compare=False, repr=False)
    """Told the time, says how many seconds more the first token may take; None: no longer."""


@dataclass(frozen=True, slots=True)
class Hedge:
    """Run `first`; if it has produced no token `after_s` later, start `second()` alongside it.

    `second` is called at that moment, so it sees the fleet as it is then; None means "no second attempt". The first to
    produce a token wins: its tokens go to the client, and the other is aborted. The answer is the deciding
    `AttemptResult`, the winner's or the last failure; the other one is in its `losers`. If `first` fails before it is
    hedged, that failure is the answer, and the retry policy decides whether to try again.
    """

    first: Send
    after_s: float
    second: Callable[[], Send | None]


Effect = Sleep | Send | Hedge


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How one attempt ended. Times are by the driver's clock."""

    replica_id: str
    finish_reason: FinishReason | None = None  # None: the attempt failed, or was aborted as the loser of a hedge
    token_ids: TokenIds = ()  # what this attempt delivered to the client
    error: Exception | None = None
    started_s: float = 0.0
    first_token_s: float | None = None  # when the first token came
    ended_s: float = 0.0
    losers: tuple[AttemptResult, ...] = ()
    cached_tokens: int = 0  # prompt tokens found in the prefix cache, known once a token has come
    is_text: bool = False  # it delivered text instead of tokens, which nobody else can continue

    @property
    def ok(self) -> bool:
        return self.error is None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended, over all its attempts; losers of hedges are in the attempts that beat them."""

    request_id: str
    finish_reason: FinishReason | None = None
    error: Exception | None = None
    attempts: tuple[AttemptResult, ...] = field(default=())

    @property
    def ok(self) -> bool:
        return self.error is None


# --- actions: what a control loop (`miniserve.control`) asks its driver to do ---------------------------------------


@dataclass(frozen=True, slots=True)
class ScaleTo:
    """Have `replicas` ready or starting; draining ones and those that are down do not count."""

    replicas: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Send nothing new to `replica_id`; once its running requests are answered, give the replica back."""

    replica_id: str


Story = Generator[Effect, AttemptResult | None, Outcome]  # what `policies.dispatch` returns and a driver performs
Clock = Callable[[], float]  # seconds, monotonic; see `clock.py`
