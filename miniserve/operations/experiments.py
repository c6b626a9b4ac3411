"""The part that runs an A/B test between two versions of a model, on real users.

    POST /admin/experiment   {"action": "start", "variants": ["large@1", "large@2"], "split": [0.5, 0.5], "name": "..."}
                             {"action": "stop"}      {"action": "clear"}

Users are split by the router's own shares (`VersionPin`), under a salt that is the experiment's name: a user stays with
a variant, and another experiment shuffles them anew. Requests that name no user (no session, no tenant) are served and
not counted. Who asked for a version by its name has it, and is not part of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from miniserve.api.answered import AnsweredCall
from miniserve.api.bodies import as_invalid_request
from miniserve.api.wiring import served_model
from miniserve.errors import Conflict, InvalidRequest, SetupError
from miniserve.observe.signals import SignalWatch
from miniserve.observe.user_outcomes import USER_METRICS, UserOutcomes, UserSums, restored_outcomes
from miniserve.operations.bodies import admin_body
from miniserve.operations.part import DeskPart
from miniserve.operations.workplace import Workplace
from miniserve.types import LOCAL_TENANT, FleetView, ReplicaState

LOOK_EVERY_S = 10.0  # and keep: the sums of thousands of users are much to write
_SUM_OF = {"retry": "retry", "rephrase": "rephrase", "abandon": "abandon", "return": "returns"}


class ExperimentBody(BaseModel):
    """One action. All but `action` belongs to a start."""

    model_config = ConfigDict(extra="forbid", strict=True)

    action: Literal["start", "stop", "clear"]
    variants: Annotated[list[str], Field(min_length=2, max_length=2)] = Field(default_factory=list)
    split: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=2, max_length=2)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=80)] = "experiment"
    effect: Annotated[float, Field(gt=0, lt=1)] = 0.05  # the smallest difference in liked answers that matters


class ExperimentPart(DeskPart):
    """Holds the experiment that runs, or the last one until it is cleared."""

    name = "experiments"

    def __init__(self, work: Workplace) -> None:
        self._work = work
        self._outcomes: UserOutcomes | None = None
        self._title, self._effect = "", 0.05
        self._is_running = self._is_starting = False
        self._signals = SignalWatch()
        self._report: dict[str, Any] | None = None
        self._kept: object = {}
        self._looked_s = work.fleet.clock()

    @property
    def model(self) -> str:
        return "" if self._outcomes is None else self._outcomes.variants[0].partition("@")[0]

    # --- what it is told ---------------------------------------------------------------------------------------------

    def answered(self, call: AnsweredCall) -> None:
        """Count an answer for its user, and what it shows about the user."""
        if (sums := self._sums(call)) is None:
            return
        left = call.status == 499
        for signal in self._signals.signals(call.user, call.request.prompt_ids, call.started_s, left=left):
            name = _SUM_OF[signal]
            setattr(sums, name, getattr(sums, name) + 1)
        if call.is_complete:
            sums.answers += 1
            sums.ttft_s += call.ttft_s or 0.0
            sums.e2e_s += call.ended_s - call.started_s
            sums.tokens += call.completion_tokens

    def judged(self, call: AnsweredCall, good: bool) -> None:
        if (sums := self._sums(call)) is not None:
            sums.judged += 1
            sums.good += good

    def _sums(self, call: AnsweredCall) -> UserSums | None:
        """Return whose sums to add to; None for a call that is not part of it."""
        request, outcomes = call.request, self._outcomes
        nobody = request.session_key is None and request.tenant in ("", LOCAL_TENANT)
        if outcomes is None or not self._is_running or nobody or request.model != self.model:
            return None
        return outcomes.of(f"{self.model}@{self._work.pin.version_of(request)}", call.user)

    def tick(self, now_s: float, view: FleetView) -> None:
        if self._outcomes is not None and self._is_running and now_s - self._looked_s >= LOOK_EVERY_S:
            self._look(now_s)

    def _look(self, now_s: float) -> None:
        assert self._outcomes is not None
        self._looked_s, before = now_s, None if self._report is None else self._report["verdict"]
        self._outcomes.look()
        self._keep()
        verdict = self._outcomes.verdict(self._effect)
        if verdict.partition(":")[0] != str(before).partition(":")[0]:
            self._work.events.say("experiment", f"{self._title}: {verdict}")

    # --- told and kept -----------------------------------------------------------------------------------------------

    def status(self) -> object:
        return self._report

    def _made_report(self, outcomes: UserOutcomes) -> dict[str, Any]:
        metrics = [found for metric in USER_METRICS if (found := outcomes.compared(metric)) is not None]
        return {
            "name": self._title,
            "running": self._is_running,
            "variants": list(outcomes.variants),
            "split": list(outcomes.shares),
            "users": list(outcomes.counts()),
            "answers": [
                sum(sums.answers for sums in outcomes.users.get(one, {}).values()) for one in outcomes.variants
            ],
            "sample_ratio_p": outcomes.mismatch_p(),
            "always_valid_p": outcomes.always_valid_p,
            "users_needed": outcomes.users_needed(self._effect),
            "effect": self._effect,
            "metrics": {found.metric: {**asdict(found), "means": list(found.means)} for found in metrics},
            "verdict": outcomes.verdict(self._effect),
        }

    def state(self) -> object:
        return self._kept

    def _keep(self) -> None:
        """Remake what is kept: after a look, not with each answer."""
        self._kept = {}
        if self._outcomes is not None:
            self._report = self._made_report(self._outcomes)
            self._kept = {
                "title": self._title,
                "effect": self._effect,
                "running": self._is_running,
                "outcomes": self._outcomes.state(),
            }

    def restore(self, state: Any) -> None:
        if not state:
            return
        self._outcomes = restored_outcomes(state["outcomes"])
        self._title, self._effect = str(state["title"]), float(state["effect"])
        self._is_running = bool(state["running"])
        if self._is_running:
            self._split()
        self._keep()

    # --- by hand -----------------------------------------------------------------------------------------------------

    def routes(self) -> Sequence[BaseRoute]:
        return [Route("/admin/experiment", self._act, methods=["POST"])]

    async def _act(self, http: HttpRequest) -> Response:
        try:
            body = ExperimentBody.model_validate(await admin_body(http))
        except ValidationError as error:
            raise as_invalid_request(error) from None
        if body.action == "start":
            await self._start(body)
        elif body.action == "stop":
            self._stop()
        else:
            self._clear()
        self._work.keep()
        return JSONResponse({"experiment": self.status()})

    async def _start(self, body: ExperimentBody) -> None:
        if self._is_running or self._is_starting:
            raise Conflict(f"{self._title or 'an experiment'} is running: stop it first, there is one at a time")
        outcomes = _asked_for(body)
        model = outcomes.variants[0].partition("@")[0]
        self._work.catalogue.entry(model)
        if self._work.pin.splits(model):
            raise Conflict(f"the traffic of {model} is split by a rollout: wait for its end, or roll it back")
        self._is_starting = True
        try:
            for variant, other in (outcomes.variants, outcomes.variants[::-1]):
                await self._bring(variant, other)
        except SetupError as error:
            raise InvalidRequest(str(error)) from None
        finally:
            self._is_starting = False
        self._outcomes, self._title, self._effect = outcomes, body.name, body.effect
        self._is_running = True
        self._split()
        self._signals = SignalWatch()
        self._keep()
        self._looked_s = self._work.fleet.clock()
        one, other = (f"{share:.0%} {name}" for name, share in zip(outcomes.variants, outcomes.shares, strict=True))
        self._work.events.say("experiment", f"{self._title}: users are split, {one} and {other}")

    async def _bring(self, variant: str, other: str) -> None:
        """See to it that a variant has replicas. Raises: SetupError, Conflict."""
        work, there = self._work, self._work.fleet.view().replicas
        if any(view.version == variant and view.state is not ReplicaState.DRAINING for view in there):
            return
        if work.versions is None:
            raise Conflict(
                f"no replica serves {variant}, and this gateway cannot start one: its replicas are not its own"
            )
        folder = await asyncio.to_thread(work.versions.files, variant, None)
        await asyncio.to_thread(self._offer, variant, other, folder)
        replicas = max(1, sum(view.version == other for view in there))
        work.versions.start_version(variant, other, replicas, folder)

    def _offer(self, variant: str, like: str, folder: Path) -> None:
        name, _, version = variant.partition("@")
        longest = self._work.catalogue.entry(like).model.max_model_len
        self._work.catalogue.add_version(name, version, served_model(variant, folder, longest))

    def _split(self) -> None:
        assert self._outcomes is not None
        shares = dict(zip(self._outcomes.variants, self._outcomes.shares, strict=True))
        self._work.pin.set_shares(shares, salt=self._title)

    def _stop(self) -> None:
        if self._outcomes is None or not self._is_running:
            raise Conflict("no experiment is running; `python -m miniserve experiment start` begins one")
        self._look(self._work.fleet.clock())
        self._is_running = False
        self._keep()
        self._work.pin.set_shares({self._outcomes.variants[0]: 1.0, self._outcomes.variants[1]: 0.0})
        self._work.events.say("experiment", f"{self._title} was stopped; all users get {self._outcomes.variants[0]}")

    def _clear(self) -> None:
        if self._is_running:
            raise Conflict(f"{self._title} is running: stop it first")
        if self._outcomes is not None:
            self._work.pin.forget(self.model)
        self._outcomes = self._report = None
        self._keep()


def _asked_for(body: ExperimentBody) -> UserOutcomes:
    """Return the empty books of what a body asks for. Raises: InvalidRequest."""
    if len(body.variants) != 2:
        raise InvalidRequest("variants: name two versions, such as large@1 and large@2", param="variants")
    (one, _, first), (other, _, second) = (name.partition("@") for name in body.variants)
    if one != other or not first or not second or first == second:
        raise InvalidRequest(
            f"variants: {body.variants[0]} and {body.variants[1]} must be two versions of one model", param="variants"
        )
    split = body.split or [0.5, 0.5]
    if abs(sum(split) - 1) > 1e-9:
        raise InvalidRequest(f"split: {split} must add up to 1", param="split")
    return UserOutcomes((body.variants[0], body.variants[1]), (split[0], split[1]))
