"""What the names of models stand for, beside the models' own: aliases, and two ways to let one of two models answer.

Without numpy, which only those need who choose by the question (see `model_router`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from miniserve.policies.routing.model_router import Cascade, ModelRouter


@dataclass(frozen=True, slots=True)
class ModelRouting:
    """The names that a gateway offers beside `large` and `large@2`."""

    aliases: Mapping[str, str] = field(default_factory=dict)  # to a model or a version
    by_question: Mapping[str, ModelRouter] = field(default_factory=dict)
    cascades: Mapping[str, Cascade] = field(default_factory=dict)
    deprecated: Mapping[str, int] = field(default_factory=dict)  # from when on: seconds since 1970
