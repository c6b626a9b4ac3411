"""From a table of a file to an object: the keys are the parameters of whatever makes the object.

A dataclass, a policy's constructor and a plain function are read alike: by their signature. So a policy's keyword
arguments are its keys in a file, and nothing is written down twice. What is asked for by a role (a `Balancer`, an
`Arrivals`) is chosen by `kind` from a register of names:

    arrivals = {kind = "poisson", rate_per_s = 4}          balancer = "p2c"          (short for {kind = "p2c"})

Every refusal names file, line and key, the value, and what would be allowed. Nothing is guessed and nothing ignored.
"""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, is_dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from miniserve.errors import SetupError
from miniserve.toml.numbers import endless_keys, size_problem
from miniserve.toml.source import Place, TomlSource, first_named
from miniserve.toml.units import UNITS, split_unit

Role = TypeVar("Role")
_LISTS = (tuple, list, Sequence, Collection)


@dataclass(frozen=True, slots=True)
class Range:
    """Which numbers are allowed."""

    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        limits = (("above", self.above), ("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{word} {limit:g}" for word, limit in limits if limit is not None)


Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(at_least=0)]
Fraction = Annotated[float, Range(at_least=0, at_most=1)]
Count = Annotated[int, Range(at_least=1)]


@dataclass(frozen=True, slots=True)
class Recipe(Generic[Role]):
    """How to make an object with a state of its own: each run makes a fresh one."""

    name: str
    make: Callable[..., Role]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def build(self, **run: Any) -> Role:
        """Make one. What the run has to give (`FROM_THE_RUN`) goes to those that take it."""
        taken = {key: value for key, value in run.items() if key in inspect.signature(self.make).parameters}
        return self.make(**self.arguments, **taken)


FROM_THE_RUN = ("seed", "latency_s")  # parameters of policies that a file does not set for each of them

Loader = Callable[[str], Callable[..., Any]]  # "file.py:Class" to the class


@dataclass(frozen=True)
class Reader:
    """Reads values of one source.

    `kinds` are the names of each role; `load` finds a user's own class for a role; `makers` are what to call, instead
    of the type itself, for types whose keys in a file are not their fields.
    """

    source: TomlSource
    kinds: Mapping[Any, Mapping[str, Any]] = field(default_factory=dict)
    load: Mapping[Any, Loader] = field(default_factory=dict)
    makers: Mapping[Any, Callable[..., Any]] = field(default_factory=dict)
    endless: bool = False  # whether infinity means something here: never, or no end

    def read(self, wanted: Any, value: Any, place: Place = ()) -> Any:
        """Return `value` as the type or role `wanted`. Raises: SetupError."""
        origin, inner = get_origin(wanted), get_args(wanted)
        if wanted is Any:
            return value
        if wanted in self.kinds:
            return self._recipe(wanted, value, place).build()
        if origin is Recipe:
            return self._recipe(inner[0], value, place)
        if origin is Annotated:
            return self._in_range(inner, value, place)
        if origin in (Union, types.UnionType):
            return self._one_of(inner, value, place)
        if origin is Literal:
            return self._choice({choice: choice for choice in inner}, value, place)
        if origin in _LISTS:
            return self._items(inner, value, place)
        if origin in (Mapping, dict):
            self._check(value, dict, wanted, place)
            return {self.read(inner[0], k, place): self.read(inner[1], v, (*place, k)) for k, v in value.items()}
        if isinstance(wanted, type) and issubclass(wanted, Enum):
            return self._choice({item.name.lower(): item for item in wanted}, value, place)
        if wanted in (bool, int, float, str):
            return self._scalar(wanted, value, place)
        self._check(value, dict, wanted, place)
        return self.construct(self.makers.get(wanted, wanted), value, place)

    def construct(self, make: Callable[..., Any], table: Mapping[str, Any], place: Place = ()) -> Any:
        """Call `make` with the values of `table`."""
        arguments = self.arguments(make, table, place)
        try:
            return make(**arguments)
        except (ValueError, SetupError) as error:
            raise self._constructor_error(error, table, place) from None

    def arguments(
        self, make: Callable[..., Any], table: Mapping[str, Any], place: Place, hidden: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return the keyword arguments for `make` that `table` holds, all checked. What is `hidden` is no key."""
        parameters = {key: item for key, item in keys_of(make).items() if key not in hidden and self._is_data(item[0])}
        for key in table:
            if key not in parameters:
                hint = "the run gives it to every policy" if key in hidden else suggestion(key, parameters)
                raise self.source.error((*place, key), f"unknown key; {hint}")
        for key, (wanted, required) in parameters.items():
            if required and key not in table:
                raise self.source.error(place, f"`{key}` is missing; it must be {describe(wanted, self.kinds)}")
        readers = {key: replace(self, endless=key in endless_keys(make)) for key in table}
        return {key: readers[key].read(parameters[key][0], value, (*place, key)) for key, value in table.items()}

    def _constructor_error(self, error: Exception, table: Mapping[str, Any], place: Place) -> SetupError:
        """Say where: at the first of the table's keys that the message speaks of."""
        key = first_named(str(error), table)
        return self.source.error(place if key is None else (*place, key), str(error))

    def _is_data(self, wanted: Any) -> bool:
        """Say whether a file could give it: a function that has no register of names cannot come from one."""
        return wanted in self.kinds or get_origin(wanted) is not collections.abc.Callable

    # --- what is not a table ---------------------------------------------------------------------------------------

    def _scalar(self, wanted: type, value: Any, place: Place) -> Any:
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and wanted is not bool) or value != value:
            raise self._wrong_type(value, wanted, place)
        if wanted in (int, float) and (problem := size_problem(value, whole=wanted is int, endless=self.endless)):
            raise self.source.error(place, f"{shown(value)} {problem}")
        return float(value) if wanted is float else value

    def _in_range(self, inner: tuple[Any, ...], value: Any, place: Place) -> Any:
        plain, *checks = inner
        result = self.read(plain, value, place)
        for check in checks:
            if isinstance(check, Range) and result not in check:
                raise self.source.error(place, f"{shown(value)} is not allowed; it must be {check}")
        return result

    def _one_of(self, inner: tuple[Any, ...], value: Any, place: Place) -> Any:
        choices = [choice for choice in inner if choice is not type(None)]
        fitting = [choice for choice in choices if _is_list(choice) == isinstance(value, list)]
        if isinstance(value, dict):
            fitting = [choice for choice in choices if is_dataclass(choice)] or fitting
        if len(choices) == 1 or len(fitting) == 1:  # then its own error says more than that none of them fits
            return self.read((fitting or choices)[0], value, place)
        for choice in choices:
            with suppress(SetupError):
                return self.read(choice, value, place)
        raise self._wrong_type(value, Union[tuple(choices)], place)  # noqa: UP007 - built at run time

    def _choice(self, choices: Mapping[Any, Any], value: Any, place: Place) -> Any:
        if not isinstance(value, str | int) or value not in choices:
            hint = suggestion(value, choices) if isinstance(value, str) else _choices(choices)
            raise self.source.error(place, f"there is no {shown(value)}; {hint}")
        return choices[value]

    def _items(self, inner: tuple[Any, ...], value: Any, place: Place) -> tuple[Any, ...]:
        self._check(value, list, tuple, place)
        wanted = inner if Ellipsis not in inner and len(inner) > 1 else (inner[0],) * len(value)
        if len(wanted) != len(value):
            raise self.source.error(place, f"needs {len(wanted)} items, not {len(value)}: {shown(value)}")
        return tuple(self.read(w, v, (*place, i)) for i, (w, v) in enumerate(zip(wanted, value, strict=True)))

    def _check(self, value: Any, container: type, wanted: Any, place: Place) -> None:
        if not isinstance(value, container):
            raise self._wrong_type(value, wanted, place)

    def _wrong_type(self, value: Any, wanted: Any, place: Place) -> SetupError:
        hint = ""
        if isinstance(value, str) and wanted in (int, float):
            hint = " (the unit is part of the key's name: write the bare number)" if value[:1].isdigit() else ""
        return self.source.error(place, f"{shown(value)} is not {describe(wanted, self.kinds)}{hint}")

    # --- roles -----------------------------------------------------------------------------------------------------

    def _recipe(self, role: Any, value: Any, place: Place) -> Recipe[Any]:
        known = self.kinds.get(role, {})
        table = {"kind": value} if isinstance(value, str) else value
        self._check(table, dict, role, place)
        name = table.get("kind", self._only(known))
        if name is None:
            raise self.source.error(place, f"`kind` is missing; {_choices(known)}")
        named_at: Place = (*place, "kind") if isinstance(value, dict) and "kind" in value else place
        make = self._maker(role, name, known, named_at)
        if get_origin(role) is not None:  # a register of functions, not of things to make
            return Recipe(name, lambda: make)
        rest = {key: item for key, item in table.items() if key != "kind"}
        recipe = Recipe(name, make, self.arguments(make, rest, place, hidden=FROM_THE_RUN))
        try:
            recipe.build()  # a wrong number is refused now, not in the middle of a comparison
        except (ValueError, SetupError) as error:
            raise self._constructor_error(error, rest, place) from None
        return recipe

    def _maker(self, role: Any, name: Any, known: Mapping[str, Any], place: Place) -> Any:
        if role not in self.load or not isinstance(name, str) or ":" not in name:
            return self._choice(known, name, place)
        try:
            return self.load[role](name)
        except SetupError as error:
            raise self.source.error(place, str(error)) from None

    def _only(self, known: Mapping[str, Any]) -> str | None:
        """Return the name that need not be said: the only one there is, besides "off"."""
        names = [name for name in known if name != "off"]
        return names[0] if len(names) == 1 else None


def check_name(name: str, known: Mapping[str, Any], source: TomlSource, place: Place) -> None:
    """Raise SetupError if `name`, which stands at `place`, is not one of `known`."""
    if name not in known:
        raise source.error(place, f"there is no {shown(name)}; {suggestion(name, known)}")


def _is_list(wanted: Any) -> bool:
    return wanted is tuple or get_origin(wanted) in _LISTS


# --- words ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def keys_of(make: Callable[..., Any]) -> dict[str, tuple[Any, bool]]:
    """Return the keys that a table for `make` may have: name -> (type, required)."""
    made = inspect.unwrap(make)
    of = made.__init__ if inspect.isclass(made) else made
    hints = get_type_hints(of, include_extras=True)
    return {
        name: (hints.get(name, Any), parameter.default is inspect.Parameter.empty)
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def suggestion(key: str, known: Mapping[str, Any]) -> str:
    """Say what may have been meant: the same thing in another unit, a similar word, or all there is."""
    stem, unit = split_unit(key)
    for other in known:
        other_stem, other_unit = split_unit(other)
        if other_stem == stem and other_unit != unit:
            return f"the unit is wrong: write `{other}` ({UNITS[other_unit]})"
    close = difflib.get_close_matches(key, known, n=1)
    return (f"did you mean `{close[0]}`? " if close else "") + _choices(known)


def _choices(known: Mapping[str, Any]) -> str:
    return f"allowed: {', '.join(map(str, known))}" if known else "nothing is allowed here"


def shown(value: Any) -> str:
    """Return a value as a file would have it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case float() if math.isfinite(value):
            return f"{value:g}"
        case dict():
            return "a table"
        case list():
            return f"a list of {len(value)}"
        case _:
            return str(value)


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}


def describe(wanted: Any, kinds: Mapping[Any, Mapping[str, Any]]) -> str:
    """Say in words what a key wants."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted in _WORDS:
        return _WORDS[wanted]
    if wanted in kinds or origin is Recipe:
        known = kinds.get(inner[0] if origin is Recipe else wanted, {})
        return f"one of {', '.join(known)}, or a table with such a `kind`"
    if origin is Annotated:
        return " ".join([describe(inner[0], kinds), *(str(check) for check in inner[1:])])
    if origin in (Union, types.UnionType):
        return " or ".join(describe(choice, kinds) for choice in inner if choice is not type(None))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if _is_list(wanted):
        return "a list"
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return f"one of {', '.join(item.name.lower() for item in wanted)}"
    return "a table" if wanted is not typing.Any else "anything"
