"""What may be asked of `POST /admin/rollout`, checked field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from miniserve.control.rollout_plan import RolloutPlan
from miniserve.errors import InvalidRequest, SetupError

MIN_ANSWERS = 200  # 20 wrong answers in 100 instead of 6 are seen within 140 (see the tests); 3 points more need 1,400
RAMP_STEP_S = 30.0  # of a ramp, if nothing is said
Share = Annotated[float, Field(ge=0, le=1)]


class RolloutBody(BaseModel):
    """One action. All but `action` belongs to a start; `new` is needed there."""

    model_config = ConfigDict(extra="forbid", strict=True)

    action: Literal["start", "promote", "rollback", "clear"]
    new: str = ""
    old: str | None = None  # which version it is to follow, if several serve
    source: str | None = None  # the model files of `new`: a name or a folder; by default a shipped model of that name
    strategy: Literal["canary", "blue-green", "shadow", "ramp"] = "canary"
    shares: Annotated[list[Share], Field(min_length=1, max_length=100)] | None = None
    steps: Annotated[int, Field(ge=1, le=100)] | None = None  # of a ramp: equal shares
    mirror: Annotated[float, Field(gt=0, le=1)] | None = None
    min_answers: Annotated[int, Field(ge=0, le=10**9)] = MIN_ANSWERS
    min_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    replicas: Annotated[int, Field(ge=1, le=64)] | None = None
    keep_warm_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    without_eval: bool = False
    reason: Annotated[str, Field(max_length=200)] = "rolled back by hand"

    def plan(self, replicas: int) -> RolloutPlan:
        """Return the plan for a start; `replicas` unless the body says how many. Raises: InvalidRequest."""
        said: dict[str, Any] = {
            "shares": None if self.shares is None else tuple(self.shares),
            "mirror": self.mirror,
            "min_s": self.min_s,
            "keep_warm_s": self.keep_warm_s,
        }
        if self.strategy == "ramp":
            steps = self.steps or 10
            said["shares"] = said["shares"] or tuple((step + 1) / steps for step in range(steps))
            said["min_s"] = RAMP_STEP_S if self.min_s is None else self.min_s
        said = {name: value for name, value in said.items() if value is not None}
        said |= {"min_answers": self.min_answers, "replicas": self.replicas or replicas}
        try:
            return RolloutPlan(self.new, self.strategy, **said)
        except SetupError as error:
            raise InvalidRequest(str(error)) from None


def checked_body(fields: Mapping[str, Any]) -> RolloutBody:
    """Return the body. Raises: InvalidRequest naming the first field that is wrong."""
    try:
        body = RolloutBody.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise InvalidRequest(f"{name}: {first['msg']}", param=name) from None
    name, _, version = body.new.partition("@")
    if body.action == "start" and not (name and version):
        raise InvalidRequest(
            f"new is {body.new!r}; name the version that is to be introduced as NAME@VERSION, such as large@2", "new"
        )
    return body
