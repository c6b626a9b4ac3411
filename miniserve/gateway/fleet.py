"""The replicas that the gateway knows: how busy each is, whether it answers, and the snapshot that policies see.

Two kinds of knowledge: `outstanding` is counted here, around each send, and always true; the rest comes from probes
every half second and is as old as `ReplicaView.as_of_s` says. Whether a replica may be used is decided here by facts
only (it answers, it says that it is ready); which one to use is the balancer's business.

Control loops (`add_tick`) are called with the time and the view once per `tick_interval_s`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Protocol

from miniserve.engine.stats import Load
from miniserve.errors import Draining, RequestError, left_the_fleet, no_connection
from miniserve.gateway.distance import Distance, far, nowhere
from miniserve.replica.wire import ReplicaReport
from miniserve.types import Clock, FleetView, ReplicaState, ReplicaView, Request, Send, Served, TokenEvent

log = logging.getLogger(__name__)

SleepFor = Callable[[float], Awaitable[object]]  # seconds
Tick = Callable[[float, FleetView], None]  # a control loop's turn: (now_s, view)


class Upstream(Protocol):
    """A replica as its gateway reaches it; `gateway.remote.RemoteReplica` is one."""

    def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]: ...
    async def report(self, timeout_s: float) -> ReplicaReport: ...
    async def close(self) -> None: ...


MeterEvents = Callable[
    [Send, str, AsyncGenerator[TokenEvent, None]], AsyncGenerator[TokenEvent, None]
]  # (send, model, events)
Via = Callable[[str, Upstream], Awaitable[Upstream]]  # told a replica's id, and how it is reached


@dataclass
class Member:
    """One replica and what is known of it."""

    replica_id: str
    upstream: Upstream
    weight: float = 1.0
    region: str = ""
    state: ReplicaState = ReplicaState.STARTING
    outstanding: int = 0
    misses: int = 0  # probes in a row without an answer
    report: ReplicaReport | None = None
    as_of_s: float = 0.0
    is_leaving: bool = False  # told to drain by us; what its probes say about that comes later, or never
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # set while nothing is outstanding

    def __post_init__(self) -> None:
        self.idle.set()

    def enter(self) -> None:
        self.outstanding += 1
        self.idle.clear()

    def exit(self) -> None:
        self.outstanding -= 1
        if self.outstanding == 0:
            self.idle.set()

    def view(self) -> ReplicaView:
        report = self.report
        load = Load() if report is None else report.stats.load()
        return ReplicaView(
            self.replica_id,
            self.state,
            self.outstanding,
            queue_depth=load.queue_depth,
            running=load.running,
            kv_used_fraction=load.kv_used_fraction,
            tokens_per_s=load.tokens_per_s,
            version="" if report is None else report.model,
            region=self.region,
            weight=self.weight,
            as_of_s=self.as_of_s,
            steps=load.steps,
        )


class Fleet:
    """`async with Fleet(clock) as fleet:` probes its members inside the block and closes them at its end."""

    def __init__(
        self,
        clock: Clock,
        *,
        probe_interval_s: float = 0.5,
        probe_timeout_s: float = 2.0,
        misses_until_down: int = 3,
        tick_interval_s: float = 0.5,  # as often as there can be news
        control_sleep: SleepFor = asyncio.sleep,
        probe_sleep: SleepFor = asyncio.sleep,
        distance: Distance = nowhere,
    ) -> None:
        self.clock = clock
        self._probe_interval_s = probe_interval_s
        self._probe_timeout_s = probe_timeout_s
        self._misses_until_down = misses_until_down
        self._tick_interval_s = tick_interval_s
        self._control_sleep, self._probe_sleep = control_sleep, probe_sleep  # under virtual time, ties need an order
        self._distance = distance
        self.meter: MeterEvents | None = None  # where the bill is made
        self.via: Via | None = None  # where drills put a hop between us and each replica
        self.answered = asyncio.Event()  # set once any replica has reported
        self._ticks: list[Tick] = []
        self._control: asyncio.Task[None] | None = None
        self._members: dict[str, Member] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Fleet:
        self._control = asyncio.create_task(self._control_for_ever(), name="control loops")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._control is not None:
            self._control.cancel()
            await asyncio.gather(self._control, return_exceptions=True)
        for replica_id in list(self._members):
            await self.remove(replica_id)

    # --- membership ------------------------------------------------------------------------------------------------

    def announce(self, replica_id: str, *, weight: float = 1.0, region: str = "") -> None:
        """Show a replica that was ordered as STARTING, until it is `put`: control loops must not order it again."""
        self._members[replica_id] = Member(replica_id, _NotThereYet(), weight, region, as_of_s=self.clock())

    async def put(self, replica_id: str, upstream: Upstream, *, weight: float = 1.0, region: str = "") -> None:
        """Add a replica, or put an announced or a restarted one in its place; returns after its first probe."""
        old, old_probe = self._members.get(replica_id), self._probes.pop(replica_id, None)
        if self.via is not None:
            upstream = await self.via(replica_id, upstream)
        member = self._members[replica_id] = Member(replica_id, upstream, weight, region)
        await self._probe(member)
        self._probes[replica_id] = asyncio.create_task(self._probe_for_ever(member), name=f"probe {replica_id}")
        if old is not None:
            await _retire(old, old_probe)

    async def remove(self, replica_id: str) -> None:
        """Forget a replica; what is still running there is cut off."""
        if (member := self._members.pop(replica_id, None)) is not None:
            await _retire(member, self._probes.pop(replica_id, None))

    def drain(self, replica_id: str) -> None:
        """Send nothing new there; what runs goes on. One that was only announced is forgotten at once."""
        member = self._members.get(replica_id)
        if member is not None and isinstance(member.upstream, _NotThereYet):
            del self._members[replica_id]
        elif member is not None:
            member.is_leaving = True
            self._set_state(member, ReplicaState.DRAINING, ", as it was told")

    async def remove_drained(self, replica_id: str, timeout_s: float | None = None) -> None:
        """Forget a replica once its last answer is out, or after `timeout_s`. Call `drain` before."""
        if member := self._members.get(replica_id):
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await member.idle.wait()
            if self._members.get(replica_id) is member:
                await self.remove(replica_id)

    def mark_down(self, replica_id: str) -> None:
        """Believe somebody who saw the process die, instead of waiting for probes to miss it."""
        if member := self._members.get(replica_id):
            self._set_state(member, ReplicaState.DOWN)

    def weigh(self, replica_id: str, weight: float) -> None:
        """Give a replica another weight. No effect if it has gone."""
        if member := self._members.get(replica_id):
            member.weight = weight

    # --- what others see -------------------------------------------------------------------------------------------

    def view(self) -> FleetView:
        return FleetView(tuple(member.view() for member in self._members.values()), self.clock())

    def members(self) -> tuple[Member, ...]:
        return tuple(self._members.values())

    def any_ready(self) -> bool:
        return any(member.state is ReplicaState.READY for member in self._members.values())

    async def attempt(self, send: Send) -> AsyncGenerator[TokenEvent, None]:
        """Yield what the replica sends; closing early aborts. The attempt counts as outstanding until then.

        Raises: Unreachable if the replica has left the fleet; the replica's error.
        """
        member = self._members.get(send.replica_id)
        if member is None:
            raise left_the_fleet(send.replica_id)
        member.enter()
        try:
            events = self._stream(member.upstream, send)
            if one_way_s := self._distance(send.request.region, member.region):
                events = far(events, one_way_s)
            served = None if member.report is None else Served(member.report.model)
            if self.meter is not None:
                events = self.meter(send, "" if served is None else served.model, events)
            async with aclosing(events):
                async for event in events:
                    yield event if event.served is served else replace(event, served=served)
                    served = None  # said once is enough
        except Draining:
            self._set_state(member, ReplicaState.DRAINING, ": it refused a request")  # sooner than by the next probe
            raise
        finally:
            member.exit()

    def _stream(self, upstream: Upstream, send: Send) -> AsyncGenerator[TokenEvent, None]:
        """Where drills put their faults (`tests/parity/paced_fleet.py`)."""
        return upstream.generate(_named(send))

    # --- control loops ---------------------------------------------------------------------------------------------

    def add_tick(self, tick: Tick) -> None:
        """Have `tick` called once per `tick_interval_s`, after those that were added before it."""
        self._ticks.append(tick)

    def drop_ticks(self, *ticks: Tick) -> None:
        """Call these no more."""
        for tick in ticks:
            self._ticks.remove(tick)

    async def _control_for_ever(self) -> None:
        while True:
            await self._control_sleep(self._tick_interval_s)
            for tick in tuple(self._ticks):
                try:
                    tick(self.clock(), self.view())
                except Exception:  # one broken control loop must not stop the others
                    log.exception("a control loop broke")

    # --- probes ----------------------------------------------------------------------------------------------------

    async def _probe_for_ever(self, member: Member) -> None:
        while True:
            await self._probe_sleep(self._probe_interval_s)
            await self._probe(member)

    async def _probe(self, member: Member) -> None:
        try:
            report = await member.upstream.report(self._probe_timeout_s)
        except RequestError as error:
            member.misses += 1
            if member.misses >= self._misses_until_down:
                self._set_state(member, ReplicaState.DOWN, f" after {member.misses} missed probes: {error}")
            return
        except Exception:  # a bug of ours must not end the probing in silence
            log.exception("the probe of replica %s broke", member.replica_id)
            return
        member.misses = 0
        self.answered.set()
        member.report, member.as_of_s = report, self.clock()
        self._set_state(member, report.state)

    def _set_state(self, member: Member, state: ReplicaState, why: str = "") -> None:
        if member.is_leaving and state in (ReplicaState.STARTING, ReplicaState.READY):
            return
        if member.state is not state:
            log.info("replica %s: %s -> %s%s", member.replica_id, member.state.value, state.value, why)
            member.state = state


class _NotThereYet:
    """Where a replica will be that is still starting."""

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        raise no_connection()
        yield  # a generator that never yields

    async def report(self, timeout_s: float) -> ReplicaReport:
        raise no_connection()

    async def close(self) -> None:
        pass


def _named(send: Send) -> Request:
    """Give each attempt a name: a replica may be asked again before it hears that the last attempt was given up."""
    if send.attempt == 0:
        return send.request
    return replace(send.request, request_id=f"{send.request.request_id}.{send.attempt}")


async def _retire(member: Member, probe: asyncio.Task[None] | None) -> None:
    if probe is not None:
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
    await member.upstream.close()
