"""The part that holds feature flags: on for named users, for a share of a cohort, for a share of all.

    POST /admin/flags   {"action": "set", "name": "brief", "share": 0.1, "on": ["ann"], "off": ["bob"],
                         "cohorts": {"beta": 0.5}, "serves": "large@2"}
                        {"action": "clear", "name": "brief"}      {"action": "list"}

A user is the session, else the body's `user`, else the tenant; the cohort is what the header `x-cohort` says. The
answer's header `x-miniserve-flags` names the flags that are on. Users of a flag that serves a version are like clients
that pin it: neither a rollout nor an experiment counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from miniserve.api.bodies import as_invalid_request
from miniserve.api.flagged import Flagged, FlagLookup
from miniserve.control.flags import FlagBook, FlagSetting
from miniserve.errors import InvalidRequest, NotFound, SetupError
from miniserve.gateway.fleet import Fleet
from miniserve.operations.bodies import admin_body
from miniserve.operations.part import DeskPart
from miniserve.operations.workplace import Workplace

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,40}$")]  # they stand in a header, divided by commas
_User = Annotated[str, Field(min_length=1, max_length=200)]
_Users = Annotated[list[_User], Field(max_length=1000)]
_Share = Annotated[float, Field(ge=0, le=1)]


class FlagBody(BaseModel):
    """One action. What a `set` leaves out stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    action: Literal["set", "clear", "list"]
    name: _Name | None = None
    share: _Share | None = None
    on: _Users | None = None
    off: _Users | None = None
    cohorts: Annotated[dict[_User, _Share], Field(max_length=100)] | None = None
    serves: Annotated[str, Field(max_length=200)] | None = None


def live_flags(book: FlagBook, fleet: Fleet) -> FlagLookup:
    """Return what the edge asks about each call."""

    def lookup(model: str, user: str, cohort: str) -> Flagged:
        flags = book.on_for(user, cohort)
        return Flagged(book.version_of(model, flags, is_ready), flags)

    def is_ready(version: str) -> bool:
        return any(replica.version == version for replica in fleet.view().ready())

    return lookup


class FlagsPart(DeskPart):
    """Sets and clears flags, and keeps them over a restart."""

    name = "flags"

    def __init__(self, work: Workplace) -> None:
        self._work = work
        self._kept = self._made_state()

    def status(self) -> object:
        """Return the flags; of the named users only how many they are, since anybody may read this."""
        settings = self._work.flags.settings()
        return {name: {**asdict(one), "on": len(one.on), "off": len(one.off)} for name, one in settings.items()} or None

    def state(self) -> object:
        return self._kept

    def restore(self, state: Any) -> None:
        for one in state["flags"]:
            said = FlagBody.model_validate({**one, "action": "set"})
            try:
                self._work.flags.put(_setting(said, FlagSetting(one["name"])))
            except SetupError as error:
                raise ValueError(str(error)) from None
        self._kept = self._made_state()

    def _made_state(self) -> dict[str, Any]:
        settings = self._work.flags.settings().values()
        return {"flags": [{**asdict(one), "on": list(one.on), "off": list(one.off)} for one in settings]}

    def routes(self) -> Sequence[BaseRoute]:
        return [Route("/admin/flags", self._act, methods=["POST"])]

    async def _act(self, http: HttpRequest) -> Response:
        try:
            body = FlagBody.model_validate(await admin_body(http))
        except ValidationError as error:
            raise as_invalid_request(error) from None
        if body.action == "set":
            self._set(body)
        elif body.action == "clear":
            self._clear(body)
        if body.action != "list":
            self._kept = self._made_state()
            self._work.keep()
        return JSONResponse(self._kept)

    def _set(self, body: FlagBody) -> None:
        name = _named(body)
        if body.serves:
            self._work.catalogue.entry(body.serves)  # NotFound names those that there are
        setting = _setting(body, self._work.flags.settings().get(name) or FlagSetting(name))
        try:
            self._work.flags.put(setting)
        except SetupError as error:
            raise InvalidRequest(str(error)) from None
        brings = f", and brings {setting.serves}" if setting.serves else ""
        self._work.events.say("flags", f"{name} is on for {setting.share:.4g} of all users{brings}")

    def _clear(self, body: FlagBody) -> None:
        name = _named(body)
        try:
            self._work.flags.drop(name)
        except LookupError:
            there = ", ".join(self._work.flags.settings()) or "none"
            raise NotFound(f"there is no flag {name!r}; there are: {there}", param="name") from None
        self._work.events.say("flags", f"{name} is cleared: nobody has it")


def _named(body: FlagBody) -> str:
    if body.name is None:
        raise InvalidRequest(f"name: say which flag to {body.action}", param="name")
    return body.name


def _setting(body: FlagBody, before: FlagSetting) -> FlagSetting:
    said: dict[str, Any] = body.model_dump(exclude={"action", "name"}, exclude_none=True)
    for users in ("on", "off"):
        if users in said:
            said[users] = tuple(said[users])
    return replace(before, **said)
