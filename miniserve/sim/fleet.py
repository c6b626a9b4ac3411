"""The simulated fleet: replicas that start, drain, crash, hang, slow down, lose their connection, and cost money.

    add ──> STARTING ── provision, load, warm up ──> READY ── drain ──> DRAINING ── last answer out ──> gone
                                    ^                  |
                                    +── restart <── crash: DOWN after `misses_until_down` missed probes

The mirror of `gateway.fleet`, with the same two kinds of knowledge: `outstanding` is counted here and always true; the
rest of a view comes from probes and is as old as its `as_of_s` (with `probe_interval_s=0` it is always fresh, states
included). Changes to replicas come from calls (a control loop, a test) or from a `FaultPlan`; random draws are keyed,
so two policies face the same randomness. At one instant the fleet's own timers come before arrivals (`sim.timers`).

Knows simpy and its replicas; decides nothing about requests.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial

import simpy

from miniserve.errors import broke_off, cut_off, draining, left_the_fleet, no_connection, stopped
from miniserve.faults import FaultPlan, NoFaults, ReplicaEvent, ReplicaFault, fault_of
from miniserve.hardware.spec import ReplicaSpec
from miniserve.observe.cost import Ledger
from miniserve.policies.health import Running
from miniserve.seeds import uniform
from miniserve.sim.bill import Account, Bill, bill
from miniserve.sim.link import Attempt, CutAttempt, Distances, FarAttempt, shortened
from miniserve.sim.member import LifecycleEvent, SimMember, Trouble
from miniserve.sim.meter import Meter
from miniserve.sim.prefix_tier import PrefixTier, TieredBlocks
from miniserve.sim.prober import Prober
from miniserve.sim.replica import SimAttempt, SimReplica
from miniserve.sim.timers import CONTROL, after, every
from miniserve.types import FleetView, ReplicaState, Request, Send

_NOWHERE = Distances()
_NO_FAULTS = NoFaults()


class SimFleet:
    """Replicas in virtual time. `seed` drives cold starts and spot interruptions."""

    def __init__(
        self,
        env: simpy.Environment,
        *,
        seed: int = 0,
        probe_interval_s: float = 0.5,
        misses_until_down: int = 3,
        distances: Distances = _NOWHERE,
        faults: FaultPlan = _NO_FAULTS,
        tier: PrefixTier | None = None,
        meter: Meter | None = None,
        single_step: bool = False,
    ) -> None:
        self.env = env
        self.log: list[LifecycleEvent] = []
        self.running: dict[Running, None] = {}  # the attempts that drivers perform, oldest first
        self._seed = seed
        self._prober = Prober(env, probe_interval_s, misses_until_down)
        self._distances = distances
        self._faults = None if isinstance(faults, NoFaults) else faults
        self._tier, self._meter, self._single_step = tier, meter, single_step
        self._members: dict[str, SimMember] = {}
        self._accounts: list[Account] = []
        self._cache_use_before: Counter[str] = Counter()  # of replicas that have left
        for event in faults.replica_events():
            after(env, event.at_s - env.now, partial(self.begin_fault, event))

    # --- membership ------------------------------------------------------------------------------------------------

    def add(self, spec: ReplicaSpec, replica_id: str | None = None, *, ready: bool = False) -> str:
        """Order a replica; return its id. It costs money from now on, and takes requests once its cold start is over.

        `ready=True` skips the cold start, for replicas present at the start of a run. Raises: ValueError if the id is
        in use.
        """
        number = len(self._accounts)
        replica_id = f"r{number}" if replica_id is None else replica_id
        if replica_id in self._members:
            raise ValueError(f"replica id {replica_id!r} is already in use")
        member = self._members[replica_id] = self._member(spec, replica_id, number)
        member.on_ended = partial(self._ended, member)
        self._accounts.append(member.account)
        self._note(member, "added")
        if spec.spot and spec.interruptions_per_hour > 0:
            draw = uniform("spot", *member.random_key)
            reclaimed_s = -math.log1p(-draw) / spec.interruptions_per_hour * 3600
            after(self.env, reclaimed_s, partial(self._interrupt, member))
        self._start(member, provisioned=False, at_once=ready)
        return replica_id

    def _member(self, spec: ReplicaSpec, replica_id: str, number: int) -> SimMember:
        blocks = None if self._tier is None else TieredBlocks(self._tier, spec.cache)
        replica = SimReplica(
            self.env,
            replica_id,
            spec.scheduler,
            spec.cache,
            spec.step_time,
            max_model_len=spec.max_model_len,
            speed=spec.speed,
            single_step=self._single_step,
            turn=number,
            blocks=blocks,
            wait_s=None if blocks is None else blocks.take_wait_s,
        )
        account = Account(replica_id, spec.hardware, spec.spot, spec.usd_per_hour, self.env.now)
        if self._meter is not None:
            self._meter.rent(account, spec.version)
            replica.on_step = self._meter.spend
        namesakes = sum(earlier.replica_id == replica_id for earlier in self._accounts)
        return SimMember(replica_id, spec, replica, account, random_key=(self._seed, replica_id, namesakes))

    def drain(self, replica_id: str) -> None:
        """Send nothing new there, and remove the replica once its requests have finished. No effect if it has gone."""
        if (member := self._members.get(replica_id)) and not member.is_draining:
            member.is_draining = True
            member.set_state(ReplicaState.DRAINING)
            self._note(member, "draining")
            self._remove_if_drained(member)

    def remove(self, replica_id: str) -> None:
        """Give a replica back at once; requests still running there are cut off. No effect if it has gone."""
        if member := self._members.pop(replica_id, None):
            self._cache_use_before.update(member.cache_use())
            member.die(stopped())
            self._prober.forget(member)
            member.account.close(self.env.now)
            self._note(member, "removed")

    def mark_down(self, replica_id: str) -> None:
        """Mark a replica DOWN because its process was seen to die, without waiting for missed probes."""
        if member := self._members.get(replica_id):
            member.set_state(ReplicaState.DOWN)

    # --- views and accounts ----------------------------------------------------------------------------------------

    def view(self) -> FleetView:
        if self._prober.always_knows:
            for member in self._members.values():
                self._prober.look(member)
        return FleetView(tuple([member.view() for member in self._members.values()]), self.env.now)

    def members(self) -> tuple[SimMember, ...]:
        return tuple(self._members.values())

    def num_ready(self) -> int:
        return sum(member.state is ReplicaState.READY for member in self._members.values())

    def bill(self, until_s: float | None = None) -> Bill:
        """Return what all replicas have cost until `until_s` (default: now), including those that have left."""
        return bill(self._accounts, until_s or self.env.now)

    def ledger(self, until_s: float | None = None) -> Ledger | None:
        """Return who has caused that bill; None without a meter. Nothing may have been computed after `until_s`."""
        if self._meter is None:
            return None
        for member in self._members.values():
            member.replica.read_meter()
        return self._meter.ledger(self._accounts, until_s or self.env.now)

    def cache_use(self) -> dict[str, float]:
        """Return what all prefix caches have done until now, including those that have left."""
        use = Counter(self._cache_use_before)
        for member in self._members.values():
            use.update(member.cache_use())
        return dict(use)

    def every(self, period_s: float, tick: Callable[[float], object]) -> Callable[[], None]:
        """Run a control loop: call `tick(now_s)` after each period, before the probes and arrivals of that instant."""
        return every(self.env, period_s, tick, CONTROL)

    # --- requests --------------------------------------------------------------------------------------------------

    def start_attempt(self, send: Send) -> Attempt:
        """Send a request to a replica; it counts as outstanding until its `ended` fires.

        Raises: Unreachable if the replica is gone or cannot be reached, Overloaded if it drains or its queue is full,
            InvalidRequest if it can never fit; or the fault that the plan has for this attempt.
        """
        member = self._members.get(send.replica_id)
        if member is None:
            raise left_the_fleet(send.replica_id)
        one_way_s = self._distances.one_way_s(send.request.region, member.spec.region)
        if one_way_s > 0:
            attempt: Attempt = FarAttempt(self.env, one_way_s, partial(self._connect, member, send))
        else:
            attempt = self._connect(member, send)
        assert member.on_ended is not None
        attempt.ended.callbacks.append(member.on_ended)
        if member.outstanding == 0:
            member.account.begin_work(self.env.now)
        member.outstanding += 1
        member.forget_view()
        return attempt

    def _connect(self, member: SimMember, send: Send) -> Attempt:
        """Reach the replica itself, once any distance has been covered."""
        fault = None
        if self._faults is not None:
            fault = fault_of(self._faults, member.replica_id, send.request.request_id, send.attempt)
        if fault is not None and fault.after_tokens == 0:  # it fails on the way, whatever the replica would have said
            raise fault.error()
        if not member.can_be_reached:
            raise no_connection()
        if member.is_draining:
            raise draining()
        if fault is None:
            return self._submit(member, send, send.request)
        return CutAttempt(self._submit(member, send, shortened(send.request, fault)), fault)

    def _submit(self, member: SimMember, send: Send, request: Request) -> SimAttempt:
        attempt = member.replica.submit(request)
        if self._meter is not None:
            self._meter.begin(member.account, send, attempt.sequence)
        return attempt

    def _ended(self, member: SimMember, _: simpy.Event) -> None:
        member.outstanding -= 1
        member.forget_view()
        if member.outstanding == 0:
            member.account.end_work(self.env.now)
            self._remove_if_drained(member)

    def _remove_if_drained(self, member: SimMember) -> None:
        if member.is_draining and member.outstanding == 0 and self._is_here(member):
            self.remove(member.replica_id)

    # --- lives -----------------------------------------------------------------------------------------------------

    def _start(self, member: SimMember, *, provisioned: bool, at_once: bool = False) -> None:
        """Begin a life: one stage of the cold start after another."""
        stages = member.spec.cold_start.stages_s(*member.random_key, member.life, provisioned=provisioned)
        delay_s = 0.0
        if not at_once:
            for name, seconds in stages:
                delay_s += seconds
                if seconds > 0:
                    self._later(member, delay_s, partial(self._note, member, name))
        self._later(member, delay_s, partial(self._become_ready, member))

    def _become_ready(self, member: SimMember) -> None:
        member.is_up = True
        if member.account.ready_s is None:
            member.account.ready_s = self.env.now
        self._note(member, "ready")
        self._prober.watch(member)

    def crash(self, replica_id: str, restart_after_s: float | None = None) -> None:
        """End a replica's process: every attempt fails. It still costs money, until it is removed.

        With `restart_after_s` it comes back after that time plus a cold start without provisioning (it has its
        machine).
        """
        member = self._members.get(replica_id)
        if member is None:
            return
        member.die(broke_off())
        self._note(member, "crashed")
        if restart_after_s is not None:
            self._later(member, restart_after_s, partial(self._start, member, provisioned=True))

    def interrupt(self, replica_id: str) -> None:
        """Reclaim a spot machine: notice now, and the end `notice_s` later, however much work is left."""
        if member := self._members.get(replica_id):
            self._interrupt(member)

    def _interrupt(self, member: SimMember) -> None:
        if self._is_here(member):
            self._note(member, "spot notice")
            after(self.env, member.spec.notice_s, partial(self._take_back, member))
            self.drain(member.replica_id)

    def _take_back(self, member: SimMember) -> None:
        if self._is_here(member):
            self._note(member, "interrupted")
            self.remove(member.replica_id)

    # --- faults ----------------------------------------------------------------------------------------------------

    def begin_fault(self, event: ReplicaEvent) -> None:
        """Begin `event` now, whatever its `at_s`. No effect if the replica has left the fleet."""
        member = self._members.get(event.replica_id)
        if member is None:
            return
        if event.kind is ReplicaFault.CRASH:
            self.crash(event.replica_id, None if math.isinf(event.duration_s) else event.duration_s)
        elif event.kind is not ReplicaFault.HANG or member.is_up:  # nothing can hang where nothing runs
            self._trouble(member, Trouble(event.kind, event.factor), event.duration_s)

    def _trouble(self, member: SimMember, trouble: Trouble, duration_s: float) -> None:
        member.add_trouble(trouble)
        self._note(member, trouble.kind.value)
        if trouble.kind is ReplicaFault.PARTITION:
            member.replica.fail_all(cut_off())
        if not math.isinf(duration_s):
            after(self.env, duration_s, partial(self._recover, member, trouble))

    def _recover(self, member: SimMember, trouble: Trouble) -> None:
        if self._is_here(member) and trouble in member.troubles:
            member.recover(trouble)
            self._note(member, f"{trouble.kind.value} over")

    # --- small parts -----------------------------------------------------------------------------------------------

    def _is_here(self, member: SimMember) -> bool:
        return self._members.get(member.replica_id) is member

    def _later(self, member: SimMember, seconds: float, call: Callable[[], object]) -> None:
        """Call `call` in `seconds` (at once if 0), unless `member` has left or begun a new life by then."""
        # A restart reuses the member, so an id is not enough: a timer of the old life must not fire in the new one.
        life = member.life

        def if_still_alive() -> None:
            if self._is_here(member) and member.life == life:
                call()

        if seconds == 0:
            if_still_alive()
        else:
            after(self.env, seconds, if_still_alive)

    def _note(self, member: SimMember, what: str) -> None:
        self.log.append(LifecycleEvent(self.env.now, member.replica_id, what))
