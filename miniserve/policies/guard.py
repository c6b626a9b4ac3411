"""Policies may be anybody's: ask one, and if it breaks its contract, say which one and at which request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import TypeVar

from miniserve.errors import PolicyError
from miniserve.types import Request

_T = TypeVar("_T")


def ask(policy: object, request: Request, question: Callable[[], _T]) -> _T:
    """Return `question()`, which asks `policy` about `request`. Raises: PolicyError in place of whatever it raises."""
    try:
        return question()
    except FrozenInstanceError as error:
        raise broken(policy, request, f"it tried to change what it was shown ({error})") from error
    except Exception as error:
        raise broken(policy, request, f"it raised {type(error).__name__}: {error}") from error


def broken(policy: object, request: Request, what: str) -> PolicyError:
    """Return the error that names the policy and the request."""
    return PolicyError(f"policy {type(policy).__name__} failed on request {request.request_id}: {what}")
