"""Anyone may write a policy: call it, and if it breaks its contract, say which policy it was and on which request."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import TypeVar

from miniserve.errors import PolicyError
from miniserve.types import Request

_T = TypeVar("_T")


def ask_about(policy: object, request: Request, question: Callable[[], _T]) -> _T:
    """Return `question()`, which asks `policy` about `request`. Raises: PolicyError in place of any error it raises."""
    return call_policy(policy, _about(request), question)


def call_policy(policy: object, about: str, question: Callable[[], _T]) -> _T:
    """Do the same for a question that is not about a request; the error says it failed on `about`."""
    try:
        return question()
    except (Exception, SystemExit) as error:
        if _is_of_a_change(error):
            raise policy_error(policy, about, f"it tried to change what it was shown ({error})") from error
        raise policy_error(policy, about, f"it raised {type(error).__name__}: {error}") from error


def _is_of_a_change(error: BaseException) -> bool:
    """Return whether a frozen object raised this, refusing to change or gain a field (a TypeError in `__setattr__`)."""
    frames = list(traceback.walk_tb(error.__traceback__))
    refused = bool(frames) and frames[-1][0].f_code.co_name in ("__setattr__", "__delattr__")
    return isinstance(error, FrozenInstanceError) or (refused and isinstance(error, TypeError))


def broken_promise(policy: object, request: Request, what: str) -> PolicyError:
    """Return the error that names the policy and the request."""
    return policy_error(policy, _about(request), what)


def policy_error(policy: object, about: str, what: str) -> PolicyError:
    """Return the error that names the policy and what it failed on."""
    return PolicyError(f"policy {type(policy).__name__} failed on {about}: {what}")


def _about(request: Request) -> str:
    return f"request {request.request_id}"
