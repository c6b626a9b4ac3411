"""How the gateway of a simulated fleet learns about its replicas: it probes each one repeatedly.

A replica that answers is READY (or DRAINING) and reports its queue; one that misses `misses_until_down` probes in a row
is DOWN; between two probes nothing is learned. The rules are those of `gateway.fleet`, with probes that take no time.
`interval_s=0` stands for a gateway that always knows.
"""

from __future__ import annotations

import simpy

from miniserve.errors import SetupError
from miniserve.sim.member import SimMember
from miniserve.sim.timers import every
from miniserve.types import ReplicaState


class Prober:
    """Probes the members of one fleet."""

    def __init__(self, env: simpy.Environment, interval_s: float, misses_until_down: int) -> None:
        if not interval_s >= 0 or misses_until_down < 1:
            raise SetupError(
                f"probe_interval_s ({interval_s}) must be at least 0, misses_until_down ({misses_until_down}) 1"
            )
        self.always_knows = interval_s == 0
        self._env = env
        self._interval_s = interval_s
        self._misses_until_down = misses_until_down

    def watch(self, member: SimMember) -> None:
        """Probe now, and then after each interval."""
        self.forget(member)  # a restarted member must not be probed by two loops
        self._probe(member)
        if not self.always_knows:
            member.stop_probing = every(self._env, self._interval_s, lambda _: self._probe(member))

    def forget(self, member: SimMember) -> None:
        """Stop probing it."""
        if member.stop_probing is not None:
            member.stop_probing()
            member.stop_probing = None

    def look(self, member: SimMember) -> None:
        """Learn the truth, as if a probe were never late."""
        if member.can_be_reached:
            self._probe(member)
        elif member.state is not ReplicaState.STARTING:
            member.set_state(ReplicaState.DOWN)

    def _probe(self, member: SimMember) -> None:
        if member.can_be_reached:
            member.misses = 0
            member.read_report(self._env.now)
            member.set_state(ReplicaState.DRAINING if member.is_draining else ReplicaState.READY)
            return
        member.misses += 1
        if member.misses >= self._misses_until_down:
            member.set_state(ReplicaState.DOWN)
