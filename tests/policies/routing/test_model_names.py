"""Names of models when not every model is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from miniserve.policies.routing.model_names import ModelRouting


def test_names_leave_with_the_models_that_they_need() -> None:
    both: Any = SimpleNamespace(small="small", large="large")
    routing = ModelRouting(
        aliases={"best": "large@2", "usual": "large", "chat": "usual", "cheap": "small"},
        by_question={"auto": both},
        cascades={"frugal": both},
        deprecated={"large@1": 1, "cheap": 2, "chat": 3},
    )
    assert routing.among(["small@1", "large@1", "large@2"]) == routing
    assert routing.among(["large@1"]) == ModelRouting(
        aliases={"usual": "large", "chat": "usual"}, deprecated={"large@1": 1, "chat": 3}
    )
