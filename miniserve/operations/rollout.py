"""The part that introduces new versions: one rollout at a time, begun and ended through `POST /admin/rollout`.

    {"action": "start", "new": "large@2", "strategy": "canary", "shares": [0.01, 0.1, 0.5, 1]}
    {"action": "promote"}      {"action": "rollback"}      {"action": "clear"}

What is asked is checked before anything changes: a version that is not there, that another tokenizer reads, or whose
recorded eval is too low, costs nobody anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from miniserve.api.answered import AnsweredCall
from miniserve.api.wiring import served_model
from miniserve.control.rollout_plan import RolloutPlan
from miniserve.errors import Conflict, InvalidRequest, RequestError, SetupError
from miniserve.operations.bodies import admin_body
from miniserve.operations.part import DeskPart
from miniserve.operations.rollout_body import RolloutBody, checked_body
from miniserve.operations.rollout_eval import RESULTS, EvalScores, names_in_records, recorded_score, require_score
from miniserve.operations.rollout_live import LiveRollout, RolloutOrder
from miniserve.operations.rollout_words import status_json
from miniserve.operations.workplace import Workplace
from miniserve.types import AttemptResult, FleetView, ReplicaState, Request


class RolloutPart(DeskPart):
    """Holds the rollout that runs, or the last one until it is cleared."""

    name = "rollout"

    def __init__(self, work: Workplace, results: Path = RESULTS) -> None:
        """`results`: where the records of evals are."""
        self._work = work
        self._results = results
        self._live: LiveRollout | None = None
        self._is_starting = False
        work.backend.on_failed.append(self._failed)

    # --- what it is told ---------------------------------------------------------------------------------------------

    def tick(self, now_s: float, view: FleetView) -> None:
        if self._live is not None:
            self._live.tick(now_s, view)

    def answered(self, call: AnsweredCall) -> None:
        if self._live is not None:
            self._live.answered(call)

    def judged(self, call: AnsweredCall, good: bool) -> None:
        if self._live is not None:
            self._live.judged(call, good)

    def _failed(self, request: Request, attempt: AttemptResult) -> None:
        if self._live is not None:
            self._live.failed(request, attempt)

    def status(self) -> object:
        return None if self._live is None else status_json(self._live, self._work.fleet.clock())

    # --- over a restart ----------------------------------------------------------------------------------------------

    def state(self) -> object:
        return {} if self._live is None else self._live.state()

    def restore(self, state: Any) -> None:
        if not state:
            return
        order = state["order"]
        fields = order["plan"].items()
        plan: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields}
        try:
            live = LiveRollout(
                self._work,
                RolloutOrder(
                    RolloutPlan(**plan), str(order["old"]), EvalScores(**order["scores"]), bool(order["without_eval"])
                ),
            )
        except (SetupError, RequestError) as error:
            raise ValueError(str(error)) from error
        live.restore(state)
        self._live = live

    async def close(self) -> None:
        if self._live is not None:
            await self._live.close()

    # --- by hand -----------------------------------------------------------------------------------------------------

    def routes(self) -> Sequence[BaseRoute]:
        return [Route("/admin/rollout", self._act, methods=["POST"])]

    async def _act(self, http: HttpRequest) -> Response:
        body = checked_body(await admin_body(http))
        if body.action == "start":
            await self._start(body)
        elif body.action == "promote":
            self.promote()
        elif body.action == "rollback":
            self.roll_back(body.reason)
        else:
            self.clear()
        self._work.keep()
        return JSONResponse({"rollout": self.status()})

    def promote(self) -> None:
        """Show the new version to all users now; pressed again, retire the old one. Raises: Conflict."""
        live = self._running()
        if not live.promote(self._work.fleet.clock()):
            raise Conflict(
                f"{live.order.new} cannot be promoted now: "
                + ("its replicas are not ready yet" if live.phase == "waiting" else "a shadow is seen by nobody")
            )

    def roll_back(self, reason: str) -> None:
        """Bring all users back to the old version at once. Raises: Conflict."""
        self._running().roll_back(self._work.fleet.clock(), reason)

    def clear(self) -> None:
        """Forget a rollout that is over. Raises: Conflict if it is not."""
        live = self._live
        if live is not None and not live.is_over:
            raise Conflict(f"{_named(live)} is running; promote it or roll it back first")
        if live is not None:
            live.end()
        self._live = None

    def _running(self) -> LiveRollout:
        if self._live is None or self._live.is_over:
            raise Conflict("no rollout is running; `python -m miniserve rollout start` begins one")
        return self._live

    # --- a start -----------------------------------------------------------------------------------------------------

    async def _start(self, body: RolloutBody) -> None:
        if self._is_starting or (self._live is not None and not self._live.is_over):
            what = "another one is being started" if self._live is None else f"{_named(self._live)} is running"
            raise Conflict(f"there is one rollout at a time, and {what}: wait for its end, or roll it back")
        self._is_starting = True
        try:
            await self._begin(body)
        except SetupError as error:
            raise InvalidRequest(str(error)) from None
        finally:
            self._is_starting = False

    async def _begin(self, body: RolloutBody) -> None:
        work, model = self._work, body.new.partition("@")[0]
        old = body.old or self._serving(model, body.new)
        if work.pin.splits(model) and (self._live is None or not self._live.shares):
            raise Conflict(f"the traffic of {model} is split already: end the experiment with it first")
        view = work.fleet.view()
        plan = body.plan(sum(one.version == old and one.state is not ReplicaState.DRAINING for one in view.replicas))
        plan.build(old, body.new)  # refuses what is impossible
        folder = await asyncio.to_thread(self._files, body.new, body.source)
        scores = await asyncio.to_thread(self._scores, old, body.new, folder)
        if not body.without_eval:
            harm = next(rail.harm for rail in plan.build(old, body.new).guardrails if rail.metric == "bad")
            require_score(old, body.new, scores, harm)
        if folder is not None:
            await asyncio.to_thread(self._offer, body.new, old, folder)
        live = LiveRollout(work, RolloutOrder(plan, old, scores, body.without_eval))
        if self._live is not None:
            await self._live.close()
        live.begin()  # no user may get a replica of the new version as soon as it is ready
        self._live = live
        if work.versions is not None and folder is not None:
            work.versions.start_version(body.new, old, plan.replicas, folder)

    def _serving(self, model: str, new: str) -> str:
        """Return the version that serves now. Raises: NotFound, Conflict."""
        self._work.catalogue.entry(model)
        names = {view.version for view in self._work.fleet.view().ready()}
        if model in names:
            raise Conflict(f"{model} is served without a version: start it as {model}@1, say, to have others beside it")
        serving = sorted(name for name in names if name.partition("@")[0] == model and name != new)
        if len(serving) != 1:
            there = f"{', '.join(serving)} serve it: say which `old` one is meant" if serving else "no other is ready"
            raise Conflict(f"{new} is to take over from another version of {model}, and {there}")
        return serving[0]

    def _files(self, new: str, source: str | None) -> Path | None:
        """Return the files of the new version; None if its replicas run elsewhere. Raises: SetupError, NotFound."""
        if self._work.versions is not None:
            return self._work.versions.files(new, source)
        self._work.catalogue.entry(new)
        return None

    def _scores(self, old: str, new: str, folder: Path | None) -> EvalScores:
        def score(version: str, files: Path | None) -> float | None:
            return recorded_score(names_in_records(version, files or Path(version.replace("@", "-"))), self._results)

        versions = self._work.versions
        return EvalScores(score(old, None if versions is None else versions.files(old)), score(new, folder))

    def _offer(self, new: str, old: str, folder: Path) -> None:
        """Let clients ask for the new version by its name. Raises: SetupError for another tokenizer."""
        name, _, version = new.partition("@")
        longest = self._work.catalogue.entry(old).model.max_model_len
        self._work.catalogue.add_version(name, version, served_model(new, folder, longest))


def _named(live: LiveRollout) -> str:
    return f"the one from {live.order.old} to {live.order.new}"
