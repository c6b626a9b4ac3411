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
    return asked(policy, _about(request), question)


def asked(policy: object, about: str, question: Callable[[], _T]) -> _T:
    """Do the same where it is not about a request: `about` is what it failed on."""
    try:
        return question()
    except FrozenInstanceError as error:
        raise failed(policy, about, f"it tried to change what it was shown ({error})") from error
    except Exception as error:
        raise failed(policy, about, f"it raised {type(error).__name__}: {error}") from error


def broken(policy: object, request: Request, what: str) -> PolicyError:
    """Return the error that names the policy and the request."""
    return failed(policy, _about(request), what)


def failed(policy: object, about: str, what: str) -> PolicyError:
    """Return the error that names the policy and what it failed on."""
    return PolicyError(f"policy {type(policy).__name__} failed on {about}: {what}")


def _about(request: Request) -> str:
    return f"request {request.request_id}"
