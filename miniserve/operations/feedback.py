"""`POST /v1/feedback`: what a client thought of an answer, matched to who gave that answer.

    {"id": "chatcmpl-...", "rating": "up"}      or      {"id": "cmpl-...", "score": 0.25}

The last answers are remembered by their ids: the version that answered and who asked, never a text. Each answer is
judged once; what comes later is read and not counted. A restart of the gateway forgets the answers, and feedback on
them is then refused with a sentence: a few verdicts are lost, and no statistic is wrong.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from starlette.requests import Request as HttpRequest
from starlette.routing import BaseRoute

from miniserve.api.answered import AnsweredCall
from miniserve.api.bodies import read_body
from miniserve.api.openapi import described_body, errors
from miniserve.errors import InvalidRequest, NotFound
from miniserve.operations.bodies import LONGEST_BODY
from miniserve.operations.part import DeskPart
from miniserve.operations.workplace import Workplace

REMEMBERED = 10_000  # answers
GOOD_FROM = 0.5  # a score
GRACE_S = 0.5  # a quick client may be here with its verdict before the edge has written its answer down


class FeedbackBody(BaseModel):
    """A verdict on one answer: either a rating or a score."""

    model_config = ConfigDict(
        strict=True, json_schema_extra={"oneOf": [{"required": ["rating"]}, {"required": ["score"]}]}
    )

    id: Annotated[str, Field(min_length=1, max_length=200, description="the `id` of the answer")]
    rating: Literal["up", "down"] | SkipJsonSchema[None] = None
    score: Annotated[float, Field(ge=0, le=1, description="0.5 and above is good")] | SkipJsonSchema[None] = None

    @property
    def good(self) -> bool:
        return self.rating == "up" if self.score is None else self.score >= GOOD_FROM


class FeedbackTaken(BaseModel):
    """What became of it. `counted` is false if the answer had been judged before."""

    id: str
    counted: bool


@dataclass(slots=True)
class _Remembered:
    call: AnsweredCall
    is_judged: bool = False


class FeedbackPart(DeskPart):
    """Remembers answers, and tells all parts of a verdict."""

    name = "feedback"

    def __init__(self, work: Workplace) -> None:
        self._work = work
        self._answers: OrderedDict[str, _Remembered] = OrderedDict()
        self._awaited: dict[str, asyncio.Event] = {}
        self._good: Counter[str] = Counter()  # by version
        self._judged: Counter[str] = Counter()

    def answered(self, call: AnsweredCall) -> None:
        """Remember a complete answer, without prompt and text."""
        if not call.is_complete:
            return
        bare = replace(call, text="", request=replace(call.request, prompt_ids=()))
        self._answers[call.answer_id] = _Remembered(bare)
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        if (awaited := self._awaited.get(call.answer_id)) is not None:
            awaited.set()

    def take(self, public_id: str, *, good: bool) -> bool:
        """Pass a verdict on; return whether it is the first on that answer. Raises: NotFound."""
        remembered = self._answers.get(_own_id(public_id))
        if remembered is None:
            raise NotFound(
                f"there is no answer {public_id!r} among the last {REMEMBERED:,} complete ones since this gateway "
                "started; send the `id` of an answer, soon after it",
                param="id",
                code="answer_not_found",
            )
        if remembered.is_judged:
            return False
        remembered.is_judged = True
        self._judged[remembered.call.model] += 1
        self._good[remembered.call.model] += good
        self._work.judged(remembered.call, good)
        return True

    def status(self) -> object:
        return {model: {"judged": n, "good": self._good[model]} for model, n in sorted(self._judged.items())}

    def state(self) -> object:
        return {"judged": dict(self._judged), "good": dict(self._good)}

    def restore(self, state: object) -> None:
        assert isinstance(state, dict)
        judged, good = ({str(k): int(v) for k, v in state[name].items()} for name in ("judged", "good"))
        self._judged, self._good = Counter(judged), Counter(good)

    def routes(self) -> Sequence[BaseRoute]:
        return [
            APIRoute(
                "/v1/feedback",
                self._take,
                methods=["POST"],
                response_model=FeedbackTaken,
                responses=errors(400, 404, 408, 413, 415),
                openapi_extra=described_body(FeedbackBody),
            )
        ]

    async def _take(self, request: HttpRequest) -> FeedbackTaken:
        """Say what an answer was worth."""
        body = await read_body(request, FeedbackBody, LONGEST_BODY, context=0)
        if (body.rating is None) == (body.score is None):
            raise InvalidRequest("give either `rating` (up or down) or `score` (0 to 1), and not both", param="rating")
        await self._come(_own_id(body.id))
        return FeedbackTaken(id=body.id, counted=self.take(body.id, good=body.good))

    async def _come(self, answer_id: str) -> None:
        """Wait for an answer to be written down, for a moment."""
        if answer_id in self._answers:
            return
        awaited = self._awaited.setdefault(answer_id, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await awaited.wait()
        self._awaited.pop(answer_id, None)


def _own_id(public_id: str) -> str:
    """Return what we call an answer that its client knows as chatcmpl-ID or cmpl-ID."""
    return public_id.rpartition("-")[2]
