"""From tables to objects: types, ranges, roles; each refusal says where, what, and what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal, Protocol

import pytest

from miniserve.errors import SetupError
from miniserve.toml.reader import Count, Fraction, Positive, Range, Reader, Recipe, suggestion
from miniserve.toml.source import Setting, parse
from miniserve.toml.units import split_unit


class Colour(Enum):
    RED = 1
    BLUE = 2


class Role(Protocol):
    def act(self) -> str: ...


class Eager:
    def __init__(self, *, patience_s: float = 1.0, seed: int = 0) -> None:
        if patience_s < 0:
            raise SetupError(f"patience_s ({patience_s}) must not be negative")
        self.patience_s, self.seed = patience_s, seed

    def act(self) -> str:
        return "eager"


class Lazy:
    def act(self) -> str:
        return "lazy"


Sum = Callable[[int, int], int]


def plus(a: int, b: int) -> int:
    return a + b


@dataclass(frozen=True)
class Inner:
    size: Count
    share: Fraction = 0.5


@dataclass(frozen=True)
class Everything:
    rate_per_s: Positive
    name: str = "x"
    on: bool = False
    mode: Literal["fast", "slow"] = "fast"
    colour: Colour = Colour.RED
    maybe_s: float | None = None
    either: int | str = 0
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()
    pair: tuple[float, int] = (0.0, 0)
    shares: Mapping[str, float] = field(default_factory=dict)
    role: Role = field(default_factory=Lazy)
    recipe: Recipe[Role] | None = None
    add: Sum = plus
    small: Annotated[int, Range(at_least=0, at_most=9)] = 0
    hidden: int = field(init=False, default=0)


KINDS: dict[Any, dict[str, Any]] = {
    Role: {"eager": Eager, "lazy": Lazy},
    Sum: {"plus": plus, "minus": lambda a, b: a - b},
}


def read(text: str) -> Everything:
    source = parse("rate_per_s = 1\n" + text, "f.toml")
    result = Reader(source, KINDS).construct(Everything, source.values)
    assert isinstance(result, Everything)
    return result


def test_all_types_are_read() -> None:
    got = read(
        """
name = "n"
on = true
mode = "slow"
colour = "blue"
maybe_s = 3
either = "text"
inner = { size = 2 }
inners = [{ size = 1 }, { size = 3, share = 1 }]
pair = [1, 2]
shares = { a = 1, b = 0.5 }
role = { kind = "eager", patience_s = 4 }
recipe = "lazy"
add = "minus"
"""
    )
    assert (got.rate_per_s, got.name, got.on, got.mode, got.colour) == (1.0, "n", True, "slow", Colour.BLUE)
    assert (got.maybe_s, got.either, got.inner, got.pair) == (3.0, "text", Inner(2), (1.0, 2))
    assert isinstance(got.maybe_s, float)
    assert got.inners == (Inner(1), Inner(3, 1.0))
    assert got.shares == {"a": 1.0, "b": 0.5}
    assert isinstance(got.role, Eager)
    assert got.role.patience_s == 4.0
    assert got.recipe is not None
    assert got.recipe.build().act() == "lazy"
    assert got.add(3, 1) == 2


def test_a_recipe_makes_a_fresh_object_each_time_and_passes_the_seed() -> None:
    recipe = read('recipe = { kind = "eager", patience_s = 2 }').recipe
    assert recipe is not None
    first, second = recipe.build(seed=7), recipe.build(seed=8)
    assert isinstance(first, Eager)
    assert isinstance(second, Eager)
    assert (first.seed, second.seed, first.patience_s) == (7, 8, 2.0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nmae = 1", r"f\.toml:2: nmae: unknown key; did you mean `name`\? allowed: rate_per_s, name, .*add"),
        (
            "rate_per_min = 1",
            r"f\.toml:2: rate_per_min: unknown key; the unit is wrong: write `rate_per_s` \(per second",
        ),
        ("maybe_ms = 1", r"maybe_ms: unknown key; the unit is wrong: write `maybe_s` \(seconds\)"),
        ("maybe = 1", r"maybe: unknown key; the unit is wrong: write `maybe_s` \(seconds\)"),
        ("hidden = 1", r"hidden: unknown key"),
        ("name = 1", r"f\.toml:2: name: 1 is not text in quotes"),
        ("on = 1", r"on: 1 is not true or false"),
        (
            'maybe_s = "30s"',
            r'maybe_s: "30s" is not a number \(the unit is part of the key\'s name: write the bare number',
        ),
        ("maybe_s = true", r"maybe_s: true is not a number"),
        ("maybe_s = nan", r"maybe_s: nan is not a number"),
        ("inner = { size = 1.5 }", r"inner\.size: 1\.5 is not a whole number"),
        ("inner = { size = 0 }", r"inner\.size: 0 is not allowed; it must be at least 1"),
        (
            "inner = { size = 1, share = 1.5 }",
            r"inner\.share: 1\.5 is not allowed; it must be at least 0 and at most 1",
        ),
        ("inner = {}", r"inner: `size` is missing; it must be a whole number at least 1"),
        ("inner = 3", r"inner: 3 is not a table"),
        ("inners = [\n{ size = 1 },\n{ size = -1 }]", r"f\.toml:4: inners\[1\]\.size: -1 is not allowed"),
        ("inners = 1", r"inners: 1 is not a list"),
        ("pair = [1]", r"pair: needs 2 items, not 1"),
        ('mode = "medium"', r'mode: there is no "medium"; allowed: fast, slow'),
        ('colour = "bleu"', r'colour: there is no "bleu"; did you mean `blue`\? allowed: red, blue'),
        ("either = 1.5", r"either: 1\.5 is not a whole number or text in quotes"),
        ("shares = { a = 'x' }", r'shares\.a: "x" is not a number'),
        ('role = "eagre"', r'role: there is no "eagre"; did you mean `eager`\? allowed: eager, lazy'),
        ("role = 1", r"role: 1 is not one of eager, lazy, or a table with such a `kind`"),
        ("role = { patience_s = 1 }", r"role: `kind` is missing; allowed: eager, lazy"),
        ('role = { kind = "lazy", patience_s = 1 }', r"role\.patience_s: unknown key; nothing is allowed here"),
        (
            '[recipe]\nkind = "eager"\npatience_s = -1',
            r"f\.toml:4: recipe\.patience_s: patience_s \(-1\.0\) must not be",
        ),
        ('recipe = { kind = "eager", seed = 1 }', r"recipe\.seed: unknown key; the run gives it to every policy"),
        ("small = 10", r"small: 10 is not allowed; it must be at least 0 and at most 9"),
    ],
)
def test_refusals_say_where_what_and_what_is_allowed(text: str, problem: str) -> None:
    with pytest.raises(SetupError, match=problem):
        read(text)


@pytest.mark.parametrize("value", ["inf", "-inf", "1e999", "1e300", "1e-300", str(10**400)])
@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("rate_per_s = V", "rate_per_s"),
        ("maybe_s = V", "maybe_s"),
        ("pair = [V, 1]", r"pair\[0\]"),
        ("shares = { a = V }", r"shares\.a"),
        ('role = { kind = "eager", patience_s = V }', r"role\.patience_s"),
        ('recipe = { kind = "eager", patience_s = V }', r"recipe\.patience_s"),
        ("inner = { size = 1, share = V }", r"inner\.share"),
    ],
)
def test_numbers_without_a_use_are_refused_wherever_a_number_is_read(key: str, place: str, value: str) -> None:
    text = key.replace("V", value)
    for source, where in (
        (parse("name = 'x'\n" + text, "f.toml"), r"f\.toml:2"),
        (parse("", "f.toml").with_setting(Setting.parse(text.replace(" = ", "=", 1))), "--set "),
    ):
        with pytest.raises(SetupError, match=where) as refused:
            Reader(source, KINDS).construct(Everything, {"rate_per_s": 1.0, **source.values})
        assert re.search(f"{place}: .* is too (large; at most|close to 0; write 0)", str(refused.value))


@pytest.mark.parametrize("value", [str(10**20), str(-(10**400))])
def test_counts_beyond_64_bits_are_refused(value: str) -> None:
    with pytest.raises(SetupError, match=r"f\.toml:2: either: |f\.toml:2: inner\.size: .* is too large; at most 9"):
        read(f"inner = {{ size = {value} }}")


def test_infinity_is_read_where_it_is_the_default() -> None:
    def make(until_s: float = math.inf, at: tuple[float, float] = (math.inf, 1.0), rate: float = 1.0) -> object:
        return until_s, at, rate

    source = parse("until_s = inf\nat = [inf, 2.0]", "f.toml")
    assert Reader(source).construct(make, source.values) == (math.inf, (math.inf, 2.0), 1.0)
    source = parse("rate = inf", "f.toml")
    with pytest.raises(SetupError, match=r"f\.toml:1: rate: inf is too large"):
        Reader(source).construct(make, source.values)


def test_a_missing_top_level_key_is_named_with_the_file() -> None:
    with pytest.raises(SetupError, match=r"^f\.toml: `rate_per_s` is missing; it must be a number above 0$"):
        Reader(parse("", "f.toml"), KINDS).construct(Everything, {})


def test_units_are_told_from_names() -> None:
    assert split_unit("rate_per_s") == ("rate", "per_s")
    assert split_unit("timeout_ms") == ("timeout", "ms")
    assert split_unit("count") == ("count", "")
    assert suggestion("timeout_ms", {"timeout_s": 0}).startswith("the unit is wrong: write `timeout_s` (seconds)")
