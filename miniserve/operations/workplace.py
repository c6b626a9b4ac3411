"""What a part has to work with: the gateway's own objects, and hands that reach the replicas' processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from miniserve.api.answered import AnsweredCall
from miniserve.api.catalogue import Catalogue
from miniserve.control.flags import FlagBook
from miniserve.gateway.drive import FleetBackend
from miniserve.gateway.fleet import Fleet
from miniserve.gateway.status import Processes
from miniserve.observe.recent import Recent
from miniserve.operations.events import EventLog
from miniserve.operations.part import DeskPart
from miniserve.operations.settings import OperatorSettings
from miniserve.policies.routing.router import VersionPin


class Hands(Protocol):
    """What a person may do to a replica process of ours.

    Each raises NotFound for an id that is none of ours, and Conflict while the replica has no process.
    """

    def kill(self, replica_id: str) -> None:
        """Send SIGKILL: it is gone at once, and the supervisor starts it anew."""

    def hang(self, replica_id: str, seconds: float) -> None:
        """Stop the process without ending it (SIGSTOP), and let it go on after `seconds`."""


class Versions(Protocol):
    """The versions of a model that have, or may get, replicas of their own. Names are served ones: NAME@VERSION."""

    def files(self, name: str, source: str | None = None) -> Path:
        """Return the model files of a version: those it has now, else of `source`, a shipped name or a folder.

        Reads the disk, so it belongs into a thread. Raises: SetupError if there are none.
        """

    def start_version(self, new: str, like: str, replicas: int, folder: Path) -> None:
        """Begin to start what `new` lacks of `replicas`, with the settings of the pool `like`.

        They show in the fleet's view. Raises: SetupError if there is no pool `like`.
        """

    def retire_version(self, name: str) -> None:
        """Drain all replicas of a version, in the background, and for good. No effect if there are none."""

    def trouble(self, name: str) -> str | None:
        """Return why no replica of a version could be started; None if one is there, or on its way."""


@dataclass(frozen=True)
class Workplace:
    """Passed to each part when it is made."""

    fleet: Fleet
    backend: FleetBackend
    catalogue: Catalogue
    recent: Recent
    events: EventLog
    part: Callable[[str], DeskPart | None]  # another part, by its name; only once all are made
    status: Callable[[], dict[str, object]]  # what `GET /status` answers
    token: str  # of the admin door; for our own page
    hands: Hands | None = None  # None: the replicas are not ours
    versions: Versions | None = None
    pin: VersionPin = field(default_factory=VersionPin)  # splits the traffic of models among their versions
    settings: OperatorSettings = OperatorSettings()  # noqa: RUF009  # frozen
    judged: Callable[[AnsweredCall, bool], None] = lambda call, good: None  # tell all parts of a client's verdict
    keep: Callable[[], None] = lambda: None  # write the parts' states down now: before who changed one is answered
    wall_clock: Callable[[], float] = lambda: 0.0  # seconds since 1970, for people; everything else uses fleet.clock
    processes: Processes = dict  # what a supervisor knows of the replicas; of foreign ones nothing
    flags: FlagBook = field(default_factory=FlagBook)  # the edge asks it about each call


MakePart = Callable[[Workplace], DeskPart]
