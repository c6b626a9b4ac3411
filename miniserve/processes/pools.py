"""Several kinds of replicas behind one gateway: which there are, and starting and retiring them while it serves.

    Pool("large", folder, version="1", replicas=2, pace="default")   ->  processes large@1-0 and large@1-1

A `Crew` for the autoscaler: what it is asked for begins at once, is seen in the fleet's view at once, and goes on in
the background. A replica that is retired first gets nothing new, then finishes what it runs, then goes. One that cannot
be started (a damaged version, no memory left) is a line in the log; the others go on serving.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from types import TracebackType

from miniserve.config import CacheConfig
from miniserve.errors import SetupError
from miniserve.gateway.fleet import Fleet
from miniserve.gateway.remote import RemoteReplica
from miniserve.models.folder import tensor_files
from miniserve.models.model_config import read_config
from miniserve.processes.backends import BackendMaker, BackendOptions, VllmOptions
from miniserve.processes.child import ChildSpec
from miniserve.processes.memory import ReplicaNeed, replica_need, require_memory
from miniserve.processes.supervisor import Supervisor
from miniserve.types import ReplicaState, ReplicaView

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pool:
    """Equal replicas. `pace`: of each step, as `miniserve replica --pace` takes it; None: as fast as it can."""

    name: str  # of the model
    folder: Path
    version: str = ""
    replicas: int = 1
    pace: str | None = None
    region: str = ""
    weight: float = 1.0  # of each replica, for balancers that weigh
    nice: int = 0  # added to our own: the system gives these processes the processor after others
    prefix: str = ""  # of its replicas' ids; by default the served name and "-"
    arguments: tuple[str, ...] = ()  # further ones for `miniserve replica`
    vllm: VllmOptions | None = None  # run vLLM instead of our own engine

    def __post_init__(self) -> None:
        if self.replicas < 0 or not self.weight > 0 or not 0 <= self.nice <= 19:
            raise SetupError(
                f"pool {self.served_name}: replicas ({self.replicas}) must be at least 0, weight ({self.weight:g}) "
                f"above 0, and nice ({self.nice}) 0 to 19"
            )

    @property
    def served_name(self) -> str:
        """What its replicas report as their model: NAME, or NAME@VERSION."""
        return f"{self.name}@{self.version}" if self.version else self.name

    @property
    def id_prefix(self) -> str:
        return self.prefix or f"{self.served_name}-"

    def child(self, replica_id: str) -> ChildSpec:
        """Return how to start one of its replicas, which then dies with us, on a port it chooses itself."""
        if self.vllm is not None:
            return ChildSpec(replica_id, tuple(self.vllm.command(self.served_name, self.folder)), self.nice)
        pace = () if self.pace is None else ("--pace", self.pace)
        command = replica_command_line(self.served_name, self.folder, (*pace, *self.arguments))
        return ChildSpec(replica_id, tuple(command), self.nice)

    def need(self) -> ReplicaNeed:
        """Return how much memory one replica takes. Raises: WeightsError for a folder that is none of a model."""
        file_bytes = sum(file.stat().st_size for file in tensor_files(self.folder))
        return replica_need(file_bytes, read_config(self.folder), CacheConfig())


def replica_command_line(served_name: str, folder: Path, more: Sequence[str] = ()) -> list[str]:
    model = ["--model", str(folder), "--served-name", served_name]
    return [sys.executable, "-m", "miniserve", "replica", "--port", "0", "--die-with-parent", *model, *more]


def _maker(pool: Pool) -> BackendMaker:
    return BackendMaker(pool.served_name, pool.folder, BackendOptions())


class Pools:
    """`async with Pools(...)` inside the supervisor's block: what runs in the background ends with it."""

    def __init__(
        self,
        fleet: Fleet,
        pools: Sequence[Pool],
        *,
        drain_timeout_s: float,
        available_bytes: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.pools = tuple(pools)
        self.lost: set[str] = set()  # served names of pools that could not be started
        self.troubles: dict[str, str] = {}  # served name -> why the last replica of it could not be started
        self._retired: set[str] = set()  # served names of pools that get no replica any more
        self._fleet = fleet
        self._drain_timeout_s = drain_timeout_s
        self._available_bytes = available_bytes
        self._supervisor: Supervisor | None = None
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._makers = {pool.id_prefix: _maker(pool) for pool in pools if pool.vllm}  # of how another make is reached

    # --- as the supervisor's listener ------------------------------------------------------------------------------

    async def up(self, replica_id: str, url: str) -> None:
        pool = self._pool_of(replica_id)
        upstream = self._makers.get(pool.id_prefix, RemoteReplica)(url)
        await self._fleet.put(replica_id, upstream, weight=pool.weight, region=pool.region)

    def down(self, replica_id: str) -> None:
        self._fleet.mark_down(replica_id)

    # --- the first replicas ----------------------------------------------------------------------------------------

    async def start_first(self, supervisor: Supervisor) -> None:
        """Start every pool's replicas, and return when they are up.

        A pool that cannot start is left out, with an error in the log. Raises: SetupError if that leaves none.
        """
        self._supervisor = supervisor
        results = await asyncio.gather(*(self._start_pool(pool) for pool in self.pools), return_exceptions=True)
        errors = [result for result in results if result is not None]
        for error in errors:
            if not isinstance(error, SetupError) or len(errors) == len(self.pools):
                raise error
            log.error("%s; the other models are served without it", error)
        failed = zip(self.pools, results, strict=True)
        self.troubles |= {pool.served_name: str(result) for pool, result in failed if result is not None}
        self.lost = set(self.troubles)
        self.pools = tuple(pool for pool in self.pools if pool.served_name not in self.lost)

    async def _start_pool(self, pool: Pool) -> None:
        assert self._supervisor is not None
        ids = [f"{pool.id_prefix}{i}" for i in range(pool.replicas)]
        await self._supervisor.start([pool.child(replica_id) for replica_id in ids])

    # --- at run time -----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Pools:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()  # the supervisor lets the processes drain
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def open(self, pool: Pool) -> None:
        """Have another pool, without replicas as yet, or one again that was closed."""
        self._retired.discard(pool.served_name)
        self.troubles.pop(pool.served_name, None)
        self.pools = (*(one for one in self.pools if one.served_name != pool.served_name), pool)
        if pool.vllm:
            self._makers[pool.id_prefix] = _maker(pool)

    def fill(self, pool: Pool) -> None:
        """Start what the pool lacks of its replicas."""
        states = {view.replica_id: view.state for view in self._fleet.view().replicas if self._is_of(pool, view)}
        lacking = pool.replicas - sum(state is not ReplicaState.DRAINING for state in states.values())
        free = (f"{pool.id_prefix}{i}" for i in count() if f"{pool.id_prefix}{i}" not in states)
        for replica_id in islice(free, max(0, lacking)):
            self.start(replica_id)

    def close(self, pool: Pool) -> None:
        """Retire all replicas of a pool in the background; it gets none any more."""
        self._retired.add(pool.served_name)
        for view in self._fleet.view().replicas:
            if self._is_of(pool, view):
                self.drain(view.replica_id)

    def is_starting(self, pool: Pool) -> bool:
        """Return whether a replica of the pool is on its way."""
        return any(self._pool_of(replica_id).served_name == pool.served_name for replica_id in self._starts)

    def _is_of(self, pool: Pool, view: ReplicaView) -> bool:
        number = view.replica_id.removeprefix(pool.id_prefix)
        return number != view.replica_id and number.isdigit()

    def start(self, replica_id: str) -> None:
        """Start another replica of the pool that its id names; it is STARTING until it answers."""
        pool = self._pool_of(replica_id)
        if pool.served_name in self._retired:
            log.info("no further replica of %s: it was retired", pool.served_name)
            return
        try:
            self._require_memory(pool)
        except (SetupError, OSError) as error:
            self.troubles[pool.served_name] = str(error)
            log.error("no further replica of %s: %s", pool.served_name, error)
            return
        self._fleet.announce(replica_id, weight=pool.weight, region=pool.region)
        self._starts[replica_id] = self._in_background(self._start_one(pool, replica_id), f"start {replica_id}")

    def _require_memory(self, pool: Pool) -> None:
        """Ask for what this one takes, and for what those take that are on their way and have not taken it yet."""
        others = sum(self._pool_of(replica_id).need().total for replica_id in self._starts)
        available = self._available_bytes()
        require_memory(pool.need(), 1, None if available is None else max(0, available - others))

    async def _start_one(self, pool: Pool, replica_id: str) -> None:
        assert self._supervisor is not None
        try:
            await self._supervisor.start([pool.child(replica_id)])
        except SetupError as error:
            self.troubles[pool.served_name] = str(error)
            log.error("%s; the other replicas go on", error)
            await self._fleet.remove(replica_id)
        finally:
            self._starts.pop(replica_id, None)

    def drain(self, replica_id: str) -> None:
        """Retire a replica in the background. No effect if it has gone, or is going."""
        self._fleet.drain(replica_id)
        if not any(task.get_name() == f"retire {replica_id}" for task in self._tasks):
            self._in_background(self.retire(replica_id), f"retire {replica_id}")

    async def retire(self, replica_id: str) -> None:
        """Send nothing new to a replica, let it finish what it runs, and forget it; one that is starting ends at once.

        What still runs after the drain timeout is cut off, and so continued elsewhere.
        """
        assert self._supervisor is not None
        self._fleet.drain(replica_id)
        if (start := self._starts.get(replica_id)) is not None:
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
        await self._supervisor.retire(replica_id)
        await self._fleet.remove_drained(replica_id, self._drain_timeout_s)
        log.info("replica %s has left", replica_id)

    def named(self, name: str) -> Pool:
        """Return the pool of that served name. Raises: SetupError when there is none."""
        for pool in self.pools:
            if pool.served_name == name:
                return pool
        raise SetupError(f"there is no pool {name!r}; there are {', '.join(pool.served_name for pool in self.pools)}")

    def _pool_of(self, replica_id: str) -> Pool:
        for pool in self.pools:
            if replica_id.startswith(pool.id_prefix) and replica_id.removeprefix(pool.id_prefix).isdigit():
                return pool
        raise SetupError(f"no pool has a replica {replica_id}; there are {', '.join(p.id_prefix for p in self.pools)}")

    def _in_background(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s broke", task.get_name(), exc_info=error)
