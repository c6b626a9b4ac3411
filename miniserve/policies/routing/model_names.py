"""What the names of models stand for, beside the models' own: aliases, and two ways to let one of two models answer.

Without numpy, which only those need who choose by the question (see `model_router`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
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

    def among(self, served: Collection[str]) -> ModelRouting:
        """Return what is left of the names where only these models are `served`, as NAME or NAME@VERSION."""
        there = {*served, *(name.partition("@")[0] for name in served)}
        aliases: dict[str, str] = {}
        for alias, target in self.aliases.items():
            if target in there:
                aliases[alias] = target
                there.add(alias)
        by_question = {name: one for name, one in self.by_question.items() if {one.small, one.large} <= there}
        cascades = {name: one for name, one in self.cascades.items() if {one.small, one.large} <= there}
        there |= by_question.keys() | cascades.keys()
        deprecated = {name: since for name, since in self.deprecated.items() if name in there}
        return ModelRouting(aliases, by_question, cascades, deprecated)
