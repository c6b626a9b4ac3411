"""Which parts a gateway has when nothing else is said, in the order in which they take their turns."""

from __future__ import annotations

from miniserve.operations.feedback import FeedbackPart
from miniserve.operations.page.part import PagePart
from miniserve.operations.replicas import ReplicasPart
from miniserve.operations.rollout import RolloutPart
from miniserve.operations.workplace import MakePart

STANDARD_PARTS: tuple[MakePart, ...] = (ReplicasPart, FeedbackPart, RolloutPart, PagePart)
