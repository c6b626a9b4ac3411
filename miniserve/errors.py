"""Every error that a caller can cause, in one tree.

    MiniserveError                     status  retryable
    ├── SetupError                      -        -     shown by the command line: one line, exit code 2
    │   └── WeightsError                -        -     missing, truncated, wrong hash, unsupported architecture
    ├── PolicyError                     -        -     a policy broke its contract; names it and the request
    └── RequestError
        ├── InvalidRequest              400      no    `param` names the field
        ├── Unauthorized                401      no
        ├── NotFound                    404      no
        ├── RequestTimeout              408      no    the client did not send its body in time
        ├── PayloadTooLarge             413      no
        ├── RateLimited                 429      yes   `retry_after_s`
        ├── InternalError               500      no    our bug: the message says nothing about the inside
        ├── UpstreamError               502      yes   a replica broke off or refused the connection
        ├── Overloaded                  503      yes   `retry_after_s`
        └── DeadlineExceeded            504      no

All arguments are positional with defaults (simpy rebuilds a failing process's exception as `type(e)(*e.args)`).
A message says what happened, with the numbers, and what to do. `assert` is for our own invariants only.
"""

from __future__ import annotations


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

    def __init__(
        self, message: str = "", param: str | None = None, code: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, param, code, retry_after_s)
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class InvalidRequest(RequestError):
    status = 400
    type = "invalid_request_error"


class Unauthorized(RequestError):
    status = 401
    type = "authentication_error"


class NotFound(RequestError):
    status = 404
    type = "not_found_error"


class RequestTimeout(RequestError):
    status = 408
    type = "timeout_error"


class PayloadTooLarge(RequestError):
    status = 413
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


class Overloaded(RequestError):
    status = 503
    retryable = True
    type = "overloaded_error"


class DeadlineExceeded(RequestError):
    status = 504
    type = "timeout_error"
