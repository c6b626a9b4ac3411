"""Textbook queues built from simulated replicas, for `tests/queueing`.

A replica that runs one sequence at a time is a server: the whole prompt is one step, whose length is the service time,
and the one token of the answer comes at its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import simpy

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import Overloaded
from miniserve.hardware.spec import ReplicaSpec
from miniserve.observe.intervals import Interval, mean_interval
from miniserve.policies.routing.balancer import Balancer
from miniserve.sim.fleet import SimFleet
from miniserve.sim.replica import SimReplica
from miniserve.types import Priority, Request, SamplingParams, Send

Floats = npt.NDArray[np.float64]

GRAIN_S = 1e-4  # service time of one prompt token: what a service time is rounded to
LONGEST = 10**9  # tokens; no prompt comes near
FOREVER_S = 1e7  # one class of priority is worth so much waiting: as good as always


class Station(Protocol):
    """Where requests go."""

    def submit(self, request: Request) -> simpy.Event:
        """Take a request; the event fires when it has been served. Raises: Overloaded."""
        ...

    def present(self) -> int:
        """Return how many requests are there, by the station's own count."""
        ...


def server_spec(*, max_waiting: int = 10**9) -> ReplicaSpec:
    """Describe a replica that serves one request after the other."""
    return ReplicaSpec(
        StepTimeModel(0.0, GRAIN_S, GRAIN_S, 0.0, 0.0),  # a prompt of a single token counts as a decode row
        SchedulerConfig(
            max_running=1, max_batch_tokens=LONGEST, aging_s=FOREVER_S, turn_tokens=None, max_waiting=max_waiting
        ),
        CacheConfig(num_blocks=2, block_size=LONGEST, prefix_caching=False),
        max_model_len=LONGEST,
    )


def server(env: simpy.Environment, name: str = "r0", *, max_waiting: int = 10**9) -> SimReplica:
    """Return a replica that serves one request after the other."""
    spec = server_spec(max_waiting=max_waiting)
    return SimReplica(env, name, spec.scheduler, spec.cache, spec.step_time, max_model_len=spec.max_model_len)


def job(index: int, service_s: float, priority: Priority = Priority.STANDARD) -> Request:
    """Return a request that keeps a `server` busy for `service_s`."""
    tokens = max(1, round(service_s / GRAIN_S))
    return Request(str(index), "m", range(tokens), SamplingParams(max_tokens=1, ignore_eos=True), priority=priority)


class Alone:
    """One replica."""

    def __init__(self, replica: SimReplica) -> None:
        self._replica = replica

    def submit(self, request: Request) -> simpy.Event:
        return self._replica.submit(request).ended

    def present(self) -> int:
        return self._replica.num_waiting + self._replica.num_running


class CentralQueue:
    """Several servers behind one queue: a request goes to a server only when that one is idle."""

    def __init__(self, env: simpy.Environment, servers: int) -> None:
        self._env = env
        self._idle = deque(server(env, f"r{i}") for i in range(servers))
        self._queue: deque[tuple[Request, simpy.Event]] = deque()
        self._busy = 0

    def submit(self, request: Request) -> simpy.Event:
        done = self._env.event()
        self._queue.append((request, done))
        self._start()
        return done

    def present(self) -> int:
        return len(self._queue) + self._busy

    def _start(self) -> None:
        while self._queue and self._idle:
            (request, done), replica = self._queue.popleft(), self._idle.popleft()
            self._busy += 1
            replica.submit(request).ended.callbacks.append(
                lambda _, done=done, replica=replica: self._end(done, replica)
            )

    def _end(self, done: simpy.Event, replica: SimReplica) -> None:
        self._busy -= 1
        self._idle.append(replica)
        done.succeed()
        self._start()


class Balanced:
    """A fleet of servers with a queue each; a balancer sends every request to one of them at once."""

    def __init__(self, env: simpy.Environment, servers: int, balancer: Balancer) -> None:
        self._fleet = SimFleet(env, probe_interval_s=1e9)  # `outstanding` is fresh all the same
        self._balancer = balancer
        for _ in range(servers):
            self._fleet.add(server_spec(), ready=True)

    def submit(self, request: Request) -> simpy.Event:
        replica_id = self._balancer.choose(request, self._fleet.view().ready())
        assert replica_id is not None
        return self._fleet.start_attempt(Send(replica_id, request, attempt=0)).ended

    def present(self) -> int:
        return sum(view.outstanding for view in self._fleet.view().replicas)


@dataclass(frozen=True, slots=True, eq=False)
class Visits:
    """Who came when and left when; `ended_s` is nan for a request that was refused."""

    arrived_s: Floats
    ended_s: Floats
    area: float  # of the number present, over time

    @property
    def sojourn_s(self) -> Floats:
        return self.ended_s - self.arrived_s

    def settled(self) -> Floats:
        """Return the sojourns without the first tenth, in which the queue fills up, and without refusals."""
        sojourn_s = self.sojourn_s[len(self.sojourn_s) // 10 :]
        return sojourn_s[~np.isnan(sojourn_s)]


def visit(
    env: simpy.Environment,
    station: Station,
    requests: Iterable[Request],
    gaps_s: Sequence[float] | Floats,
    *,
    counted: bool = True,
) -> Visits:
    """Send the requests, one after each gap, whatever becomes of the others; return when all have left.

    `counted=False` leaves out the area, where asking a station of many servers for its count would be slow.
    """
    n = len(gaps_s)
    arrived_s, ended_s = np.full(n, np.nan), np.full(n, np.nan)
    area, seen, still_here, all_left = 0.0, (0.0, 0), n, env.event()

    def count() -> None:
        nonlocal area, seen
        if not counted:
            return
        since_s, present = seen
        area += present * (env.now - since_s)
        seen = env.now, station.present()

    def one_less() -> None:
        nonlocal still_here
        still_here -= 1
        if still_here == 0:
            all_left.succeed()

    def leave(i: int) -> Callable[[simpy.Event], None]:
        def left(_: simpy.Event) -> None:
            ended_s[i] = env.now
            count()
            one_less()

        return left

    def arrivals() -> Iterable[simpy.Event]:
        for i, (request, gap_s) in enumerate(zip(requests, gaps_s, strict=True)):
            yield env.timeout(gap_s)
            arrived_s[i] = env.now
            try:
                station.submit(request).callbacks.append(leave(i))
            except Overloaded:
                one_less()
            count()

    env.process(arrivals())
    env.run(until=all_left)
    return Visits(arrived_s, ended_s, area)


def over_seeds(
    run: Callable[[np.random.Generator], Sequence[float]], seeds: int = 20, confidence: float = 0.999
) -> list[Interval]:
    """Return the interval of the mean over independent seeds, for each of the figures that `run` returns."""
    runs = [run(np.random.default_rng([seed, 1])) for seed in range(seeds)]
    return [mean_interval(figures, confidence) for figures in zip(*runs, strict=True)]
