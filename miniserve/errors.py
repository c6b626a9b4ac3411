"""Every error that a caller can cause, in one tree.

    MiniserveError                     status  retryable
    ├── SetupError                      -        -     shown by the command line: one line, exit code 2
    │   └── WeightsError                -        -     missing, truncated, wrong hash, unsupported architecture
    ├── PolicyError                     -        -     a policy broke its contract; names it and the request
    └── RequestError
        ├── InvalidRequest              400      no    `param` names the field
        ├── Unauthorized                401      no
        ├── Forbidden                   403      no
        ├── NotFound                    404      no
        ├── Conflict                    409      no    something else is going on already
        ├── RequestTimeout              408      no    the client did not send its body in time
        ├── PayloadTooLarge             413      no
        ├── UnsupportedEncoding         415      no    the body is packed in a way that we do not read
        ├── RateLimited                 429      yes   `retry_after_s`
        ├── InternalError               500      no    our bug: the message says nothing about the inside
        ├── UpstreamError               502      yes   a replica broke off
        │   ├── NoFirstToken            502      yes   ... or was cut off, because its first token did not come
        │   └── Unreachable             502      yes   ... or could not be reached at all: no request is to blame
        ├── Overloaded                  503      yes   `retry_after_s`
        │   └── Draining                503      yes   ... for good: it finishes what it has, and takes nothing new
        └── DeadlineExceeded            504      no

An error is told by its class, never by its code: codes are for clients. simpy rebuilds a failing process's exception as
`type(e)(*e.args)`, so `args` holds all arguments in order; callers name those after the message.
A message says what happened, with the numbers, and what to do. `assert` is for our own invariants only.

Failures that happen in both worlds, live and simulated, are made by the functions at the end, so that a policy meets
the same class, code and message in each.
"""

from __future__ import annotations

import math

LONGEST_WAIT_S = 3600.0  # an error or a policy that asks for more means "not today": nobody is kept waiting for that


class MiniserveError(Exception):
    """Base of all errors raised on purpose."""


class SetupError(MiniserveError):
    """The program cannot start; the message is one line that says how to mend it."""


class WeightsError(SetupError):
    """A model file is absent, damaged, or not one that we can run."""


class PolicyError(MiniserveError):
    """A policy raised, chose what does not exist, or tried to change what it was shown; the run cannot go on.

    The message names the policy and the request that it was asked about.
    """


class RequestError(MiniserveError):
    """One request cannot be served. `status` and `retryable` are the class's; the rest describes this case."""

    status = 500
    retryable = False
    type = "server_error"
    code: str | None = None  # the class's own, where it has one

    def __init__(
        self, message: str = "", param: str | None = None, code: str | None = None, retry_after_s: float | None = None
    ) -> None:
        code = code or self.code
        super().__init__(message, param, code, retry_after_s)
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = _a_wait(retry_after_s)

    def __str__(self) -> str:
        return self.message


def _a_wait(seconds: float | None) -> float | None:
    """Return a push-back as one that can be waited for; None for nan. A negative one forbids retries, and stays."""
    return None if seconds is None or math.isnan(seconds) else min(seconds, LONGEST_WAIT_S)


class InvalidRequest(RequestError):
    status = 400
    type = "invalid_request_error"


class Unauthorized(RequestError):
    status = 401
    type = "authentication_error"


class Forbidden(RequestError):
    """Whoever asks may not do this."""

    status, type, code = 403, "permission_error", "forbidden"


class Conflict(RequestError):
    """It cannot be done now, because of what is going on already."""

    status, type = 409, "invalid_request_error"


class NotFound(RequestError):
    status = 404
    type = "not_found_error"


class RequestTimeout(RequestError):
    status = 408
    type = "timeout_error"


class PayloadTooLarge(RequestError):
    status = 413
    type = "invalid_request_error"


class UnsupportedEncoding(RequestError):
    status = 415
    type = "invalid_request_error"


class RateLimited(RequestError):
    status = 429
    retryable = True
    type = "rate_limit_error"


class InternalError(RequestError):
    status = 500
    type = "server_error"


class UpstreamError(RequestError):
    status = 502
    retryable = True
    type = "upstream_error"


class NoFirstToken(UpstreamError):
    code = "no_first_token"


class Unreachable(UpstreamError):
    code = "unreachable"


class Overloaded(RequestError):
    status = 503
    retryable = True
    type = "overloaded_error"


class Draining(Overloaded):
    code = "draining"


class DeadlineExceeded(RequestError):
    status = 504
    type = "timeout_error"


# --- what both the edge and an engine refuse ------------------------------------------------------------------------


def prompt_too_long(prompt_tokens: int, context: int, param: str = "prompt") -> InvalidRequest:
    """The prompt leaves no room for an answer.

    OpenAI and vLLM say "maximum context length is" too, and tools look for these words: LiteLLM then tries a model with
    a longer context.
    """
    return InvalidRequest(
        f"This model's maximum context length is {context} tokens. However, the prompt has {prompt_tokens} tokens, and "
        "at least one must be left for the answer; shorten the prompt.",
        param,
        "context_length_exceeded",
    )


# --- what goes wrong between a gateway and a replica, in both worlds ------------------------------------------------


def left_the_fleet(replica_id: str) -> Unreachable:
    """The request was to be sent to a replica that is no longer there."""
    return Unreachable(f"replica {replica_id} has left the fleet")


def no_connection() -> Unreachable:
    """The replica's process is not there, or nothing reaches it."""
    return Unreachable("no connection to the replica")


def cut_off() -> Unreachable:
    """The network between gateway and replica broke while the replica was answering."""
    return Unreachable("the network to the replica broke before its answer was complete")


def broke_off() -> UpstreamError:
    """The replica's process ended while it was answering; the request may be the reason."""
    return UpstreamError("the connection to the replica failed before its answer was complete")


def stopped() -> UpstreamError:
    """The replica was taken away while it was answering."""
    return UpstreamError("the replica was stopped before its answer was complete")


def stalled(after_s: float) -> UpstreamError:
    """The replica has work and gets nowhere, so its streams are cut off and go on elsewhere."""
    return UpstreamError(f"the replica had made no progress for {after_s:.3g} s")


def no_first_token(after_s: float) -> NoFirstToken:
    """The driver has waited long enough for the attempt's first token."""
    return NoFirstToken(f"the replica brought no token within {after_s:.3g} s")


def deadline_passed() -> DeadlineExceeded:
    """The driver has waited for the answer until the request's deadline."""
    return DeadlineExceeded("the request's deadline passed before its answer was complete")


def draining(name: str = "this replica") -> Draining:
    """A door is shut: what is inside may finish, and nothing new comes in."""
    return Draining(f"{name} is draining and takes no new requests; try another", retry_after_s=1.0)
