"""TOML with lines: every key and list item knows where it stands, and so does what is laid over it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import SetupError
from miniserve.toml.source import Setting, TomlSource, dotted, parse, read_source_file

TEXT = '''\
# a comment with = and [brackets]
top = 1
"quoted key" = "a # that is no comment"

[a.b]      # header
x = 1
list = [
  10,   # ten
  20,
  [30, 31],
]
long = """
y = 5
not a key = 6
"""
inline = { p = 1, q = { r = 2 } }
dotted.key = true

[[items]]
name = "first"
[[items]]
name = 'second'
[items.more]
deep = 1
[[items.inner]]
z = 1
[[items.inner]]
z = 2
'''


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("top",), 2),
        (("quoted key",), 3),
        (("a", "b"), 5),
        (("a", "b", "x"), 6),
        (("a", "b", "list"), 7),
        (("a", "b", "list", 0), 8),
        (("a", "b", "list", 1), 9),
        (("a", "b", "list", 2, 1), 10),
        (("a", "b", "long"), 12),
        (("a", "b", "inline"), 16),
        (("a", "b", "inline", "q", "r"), 16),
        (("a", "b", "dotted", "key"), 17),
        (("items",), 19),
        (("items", 0), 19),
        (("items", 0, "name"), 20),
        (("items", 1), 21),
        (("items", 1, "name"), 22),
        (("items", 1, "more", "deep"), 24),
        (("items", 1, "inner", 0, "z"), 26),
        (("items", 1, "inner", 1, "z"), 28),
    ],
)
def test_every_place_knows_its_line(place: tuple[str | int, ...], line: int) -> None:
    assert parse(TEXT, "f.toml").where(place) == f"f.toml:{line}"


def test_what_has_no_line_has_that_of_what_it_is_in() -> None:
    assert parse(TEXT, "f.toml").where(("a", "b", "missing", "deeper")) == "f.toml:5"
    assert parse(TEXT, "f.toml").where(("missing",)) == "f.toml"


def lay_out(values: dict[str, object], prefix: str = "") -> str:
    """Write nested tables as TOML with the pairs of each table first."""
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    text = "".join(
        f"{key} = {str(value).lower() if isinstance(value, bool) else value!r}\n" for key, value in plain.items()
    )
    for key, value in values.items():
        if isinstance(value, dict):
            text += f"\n[{prefix}{key}]  # table\n" + lay_out(value, f"{prefix}{key}.")
    return text


keys = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
leaves = st.integers(0, 99) | st.booleans() | st.lists(st.integers(0, 9), max_size=3)
trees = st.recursive(
    st.dictionaries(keys, leaves, max_size=3), lambda inner: st.dictionaries(keys, inner | leaves, max_size=3)
)


@given(trees)
def test_the_line_found_is_a_line_with_that_key(tree: dict[str, object]) -> None:
    text = lay_out(tree)
    source = parse(text, "f")

    def check(values: dict[str, object], place: tuple[str, ...]) -> None:
        for key, value in values.items():
            line = text.splitlines()[source.lines[*place, key] - 1]
            assert line.startswith((f"{key} = ", f"[{'.'.join((*place, key))}]"))
            if isinstance(value, dict):
                check(value, (*place, key))

    check(tree, ())


def test_a_file_that_is_absent_or_no_toml_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"none\.toml does not exist"):
        read_source_file(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("a = 1\nb = = 2\n")
    with pytest.raises(SetupError, match=r"bad\.toml is not valid TOML: .*line 2"):
        read_source_file(bad)
    bad.write_bytes(b"a = '\xff'")
    with pytest.raises(SetupError, match="cannot be read"):
        read_source_file(bad)


# --- what is laid over ---------------------------------------------------------------------------------------------

VARIED = """\
[retry]
kind = "backoff"
base_s = 1
[fleet]
count = 2
[[fleet.groups]]
size = 1
[variants.naive.retry]
kind = "naive"
[variants.bigger]
fleet.count = 9
"""


def with_variant(name: str) -> TomlSource:
    source = parse(VARIED, "f.toml")
    return source.with_laid_over(source.values["variants"][name], ("variants", name))


def test_a_variant_lies_over_the_rest_and_keeps_its_own_lines() -> None:
    source = with_variant("bigger")
    assert source.values["fleet"] == {"count": 9, "groups": [{"size": 1}]}
    assert source.where(("fleet", "count")) == "f.toml:11"
    assert source.where(("fleet", "groups", 0, "size")) == "f.toml:7"


def test_a_table_that_names_its_kind_replaces_the_other_kinds_keys() -> None:
    source = with_variant("naive")
    assert source.values["retry"] == {"kind": "naive"}
    assert source.where(("retry", "kind")) == "f.toml:9"


def test_a_setting_reaches_into_tables_and_lists() -> None:
    source = parse(VARIED, "f.toml").with_setting(Setting.parse("fleet.groups.0.size=7"))
    source = source.with_setting(Setting.parse("new.key=a word"))
    assert source.values["fleet"]["groups"] == [{"size": 7}]
    assert source.values["new"] == {"key": "a word"}
    assert source.where(("fleet", "groups", 0, "size")) == "--set fleet.groups.0.size=7"
    assert source.where(("fleet", "count")) == "f.toml:5"


def test_what_was_laid_over_last_is_named() -> None:
    source = with_variant("bigger").with_setting(Setting.parse("fleet.count=11"))
    assert source.values["fleet"]["count"] == 11
    assert source.where(("fleet", "count")) == "--set fleet.count=11"


@pytest.mark.parametrize("setting", ["no equals", "=1", "a..b=1", "fleet.groups.5.size=1", "fleet.count.x=1"])
def test_a_setting_that_leads_nowhere_is_refused(setting: str) -> None:
    with pytest.raises(SetupError, match="--set"):
        parse(VARIED, "f.toml").with_setting(Setting.parse(setting))


def test_places_are_written_as_people_do() -> None:
    assert dotted(("fleet", "groups", 0, "count")) == "fleet.groups[0].count"
