"""Which parts a gateway has when nothing else is said, in the order in which they take their turns."""

from __future__ import annotations

from miniserve.operations.alerts import AlertsPart
from miniserve.operations.cost import CostPart
from miniserve.operations.experiments import ExperimentPart
from miniserve.operations.feedback import FeedbackPart
from miniserve.operations.flags import FlagsPart
from miniserve.operations.page.part import PagePart
from miniserve.operations.quality import QualityPart
from miniserve.operations.replicas import ReplicasPart
from miniserve.operations.rollout import RolloutPart
from miniserve.operations.slo import SloPart
from miniserve.operations.workplace import MakePart

STANDARD_PARTS: tuple[MakePart, ...] = (
    ReplicasPart,
    FeedbackPart,
    CostPart,
    SloPart,
    QualityPart,
    AlertsPart,
    RolloutPart,
    ExperimentPart,
    FlagsPart,
    PagePart,
)
