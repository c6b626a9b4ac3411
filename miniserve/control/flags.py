"""Which features are on for whom, and which version of a model they bring. Pure: the user and the settings decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from miniserve.abtest.assignment import Flag
from miniserve.errors import SetupError

MOST_FLAGS = 50  # each is asked for every request


@dataclass(frozen=True, slots=True)
class FlagSetting:
    """A flag as it was set: `abtest.assignment.Flag`, and what it serves."""

    name: str
    share: float = 0.0  # of all users
    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    cohorts: Mapping[str, float] = field(default_factory=dict)
    serves: str = ""  # NAME@VERSION: who has the flag and asks for NAME gets this version; "": it is only told


class FlagBook:
    """All flags of a gateway, in the order in which they were set first."""

    def __init__(self) -> None:
        self._flags: dict[str, tuple[FlagSetting, Flag]] = {}

    def put(self, setting: FlagSetting) -> None:
        """Set a flag, in place of the one of that name. Raises: SetupError for what cannot be."""
        if setting.name not in self._flags and len(self._flags) >= MOST_FLAGS:
            raise SetupError(f"there are {MOST_FLAGS} flags already: clear one that is no longer needed")
        if setting.serves and not all(setting.serves.partition("@")):
            raise SetupError(f"flag {setting.name!r} must serve a version, as large@2, not {setting.serves!r}")
        flag = Flag(setting.name, setting.share, on=setting.on, off=setting.off, cohorts=setting.cohorts)
        self._flags[setting.name] = setting, flag

    def drop(self, name: str) -> None:
        """Forget a flag. Raises: LookupError if there is none of that name."""
        del self._flags[name]

    def settings(self) -> dict[str, FlagSetting]:
        """Return all flags by name."""
        return {name: setting for name, (setting, _) in self._flags.items()}

    def on_for(self, user: str, cohort: str) -> tuple[str, ...]:
        """Return the flags that this user has."""
        return tuple(name for name, (_, flag) in self._flags.items() if flag.is_on(user, cohort))

    def version_of(self, model: str, flags: tuple[str, ...], can_serve: Callable[[str], bool]) -> str:
        """Return what answers who has these flags and asks for `model`: a flag's version, of several the first set.

        One that cannot serve now takes nobody: a flag never costs an answer. Who asks for a version by name has it.
        """
        versions = (self._flags[name][0].serves for name in flags)
        fitting = (version for version in versions if version.partition("@")[0] == model and can_serve(version))
        return next(fitting, model)
