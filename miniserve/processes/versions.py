"""The versions that came or went while the stack served, as pools: begun, retired, and there again after a restart.

A restart starts the pools that it is told to start, as they were left: with the versions that were added, and without
those that were retired. So a promoted version is what is served from the first request on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from miniserve.errors import SetupError
from miniserve.models.store import default_cache, resolve_model
from miniserve.operations.state_file import StateFile
from miniserve.processes.pools import Pool, Pools

log = logging.getLogger(__name__)

VERSIONS_FILE = "versions.json"


class KeptPools:
    """Which pools were added to those of the command line, like which, and which were retired. A file keeps it."""

    def __init__(self, pools: Sequence[Pool], file: StateFile | None = None) -> None:
        self.known = {pool.served_name: pool for pool in pools}  # the retired ones too
        self.retired: dict[str, None] = {}  # a set in order
        self._likes: dict[str, str] = {}  # of those that were added
        self._file = file
        state = None if file is None else file.load()
        try:
            self._restore(state)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            assert file is not None
            file.set_aside(None, error)

    def _restore(self, state: Any) -> None:
        if state is None:
            return
        added = {
            str(name): (str(one["like"]), int(one["replicas"]), Path(one["folder"])) for name, one in state["added"]
        }
        for name, (like, replicas, folder) in added.items():
            if like not in self.known:
                log.warning("%s is not started: it was to be like %s, which is not there any more", name, like)
            elif not folder.is_dir():
                log.error("%s is not started: its files in %s are gone; %s is served", name, folder, like)
            else:
                self._add(name, like, replicas, folder)
        gone = [str(name) for name in state["retired"] if name in self.known]
        served = {pool.name for name, pool in self.known.items() if name not in gone}
        self.retired = dict.fromkeys(name for name in gone if self.known[name].name in served)  # never the last one

    @property
    def current(self) -> list[Pool]:
        """The pools that a start is to have."""
        return [pool for name, pool in self.known.items() if name not in self.retired]

    def successor(self, name: str) -> str:
        """Return which version took the place of one that was retired; itself if it was not."""
        while name in self.retired and (likes := [one for one, like in self._likes.items() if like == name]):
            name = likes[-1]
        return name

    def add(self, new: str, like: str, replicas: int, folder: Path) -> Pool:
        """Note a version that is wanted, or wanted again. Raises: SetupError if there is no `like`."""
        pool = self._add(new, like, replicas, folder)
        self._keep()
        return pool

    def _add(self, new: str, like: str, replicas: int, folder: Path) -> Pool:
        model = self.known.get(like)
        if model is None:
            raise SetupError(f"there is no pool {like!r}; there are {', '.join(self.known)}")
        name, _, version = new.partition("@")
        pool = replace(model, name=name, version=version, replicas=replicas, folder=folder, prefix="")
        if new in self.known:  # its replicas keep their names
            pool = replace(self.known[new], replicas=replicas)
        else:
            self._likes[new] = like
        self.known[new] = pool
        self.retired.pop(new, None)
        return pool

    def retire(self, name: str) -> None:
        """Note that a version is wanted no more. One that was only tried is forgotten."""
        if name in self._likes and name not in self._likes.values():
            del self._likes[name], self.known[name]
        else:
            self.retired[name] = None
        self._keep()

    def _keep(self) -> None:
        if self._file is None:
            return
        added = [
            (name, {"like": like, "replicas": self.known[name].replicas, "folder": str(self.known[name].folder)})
            for name, like in self._likes.items()
        ]
        self._file.save({"added": added, "retired": list(self.retired)})


class PoolVersions:
    """`operations.workplace.Versions` for replicas that are processes of ours."""

    def __init__(self, crew: Pools, kept: KeptPools) -> None:
        self._crew = crew
        self._kept = kept

    def files(self, name: str, source: str | None = None) -> Path:
        """Return the model files of a version. Raises: SetupError if there are none."""
        if name in self._kept.known:
            return self._kept.known[name].folder
        return resolve_model(source or name, default_cache(), offline=True)

    def start_version(self, new: str, like: str, replicas: int, folder: Path) -> None:
        """Begin to start what `new` lacks of `replicas`. Raises: SetupError if there is no pool `like`."""
        pool = self._kept.add(new, like, replicas, folder)
        self._crew.open(pool)
        self._crew.fill(pool)

    def retire_version(self, name: str) -> None:
        """Drain all replicas of a version, in the background, and for good."""
        if name in self._kept.known:
            self._crew.close(self._kept.known[name])
            self._kept.retire(name)

    def trouble(self, name: str) -> str | None:
        """Return why no replica of a version could be started."""
        pool = self._kept.known.get(name)
        if pool is None or self._crew.is_starting(pool):
            return None
        return self._crew.troubles.get(name)
