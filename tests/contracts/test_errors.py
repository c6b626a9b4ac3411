"""The contract of errors: whoever passes one on, the class, the code and the rest of it stay what they were."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import simpy

from miniserve import errors
from miniserve.errors import NoFirstToken, RequestError, Unreachable, UpstreamError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RequestError)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", [None, "a_code"])
def test_an_error_is_rebuilt_from_its_arguments_as_simpy_does(kind: type[RequestError], code: str | None) -> None:
    error = kind("what happened", param="prompt", code=code, retry_after_s=1.5)
    rebuilt = type(error)(*error.args)
    assert vars(rebuilt) == vars(error)
    assert str(rebuilt) == "what happened"
    assert error.code == (code or kind.code)


def test_who_waits_for_a_simulated_process_gets_its_error() -> None:
    env, caught = simpy.Environment(), []

    def failing() -> Generator[simpy.Event, Any, None]:
        yield env.timeout(1.0)
        raise errors.no_first_token(2.0)

    def waiting() -> Generator[simpy.Event, Any, None]:
        try:
            yield env.process(failing())
        except RequestError as error:
            caught.append(error)

    env.run(env.process(waiting()))
    assert [(type(error), error.code, str(error)) for error in caught] == [
        (NoFirstToken, "no_first_token", "the replica brought no token within 2 s")
    ]


def test_status_and_code_tell_the_class() -> None:
    told = [(kind.status, kind.code) for kind in KINDS if kind is not RequestError]
    assert len(told) == len(set(told))


def test_whoever_waits_for_an_upstream_error_gets_the_finer_ones_too() -> None:
    for error in (errors.no_first_token(2.0), errors.no_connection(), errors.cut_off(), errors.left_the_fleet("r0")):
        assert isinstance(error, UpstreamError)
        assert (error.status, error.type, error.retryable) == (502, "upstream_error", True)
    assert isinstance(errors.left_the_fleet("r0"), Unreachable), "no request is to blame"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("said", "kept"), [(1e12, errors.LONGEST_WAIT_S), (float("inf"), errors.LONGEST_WAIT_S), (float("nan"), None)]
)
def test_no_error_asks_anybody_to_wait_for_ever(kind: type[RequestError], said: float, kept: float | None) -> None:
    assert kind("later", retry_after_s=said).retry_after_s == kept
    assert kind("never", retry_after_s=-1.0).retry_after_s == -1.0, "a negative one forbids retries"
