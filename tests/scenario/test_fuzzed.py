"""Scenario files with values that nobody means: each is simulated, or refused in a sentence; none hangs."""

from __future__ import annotations

import re
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from miniserve.__main__ import main

FOLDER = Path(__file__).resolve().parents[2] / "data" / "scenarios"
FILES = sorted(FOLDER.glob("*.toml"))
VALUES = (
    "inf", "-inf", "nan", "0", "-1", "1", "0.0", "-0.0", "1e-9", "1e-308", "5e-324", "1e9", "1e30", "1e300", "1.8e308",
    "100000000000000000000", "9223372036854775808", "-9223372036854775808", "true", '""', '"x"', '"p2c"', '"\\u0000"',
    "[]", "[1]", "[[0, 1]]", "[[0, 1], [inf, 2]]", "[nan]", "{}", '{ kind = "constant" }', '{ kind = "x" }',
    '{ kind = "constant", tokens = 1e12 }', '{ kind = "poisson", rate_per_s = 1e-300 }', '[{ kind = "p2c" }]',
    "2026-01-01", "2026-01-01T00:00:00Z", "12:00:00", "0x10", "1_000",
)  # fmt: skip
LIMIT_CPU_S = 120  # a thousand replicas over an hour with twenty requests take half a minute: long, but no hang
_VALUE = re.compile(r'(?<![\w."])([\w-]+)( *= *)("[^"\n]*"|\[[^\[\]\n]*\]|[-+\w.]+)')


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what runs longer, by this process's own CPU time: a busy machine changes nothing."""

    def ends(*_: object) -> None:
        raise TimeoutError(f"it ran for more than {seconds} s of CPU time")

    before = signal.signal(signal.SIGPROF, ends)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def simulated(path: Path, capsys: pytest.CaptureFixture[str], what: str, *options: str) -> None:
    """Simulate a file: it must end with a result, or with one sentence that names the file."""
    fault = ""
    with cpu_limit(LIMIT_CPU_S):
        try:
            code = main(["simulate", str(path), "--requests", "20", "--cost", "replica", *options])
        except SystemExit as end:  # argparse refuses an option's text
            code = int(str(end.code))
        except BaseException as error:  # told as text: where a signal has struck, pytest cannot show the traceback
            fault = f"{type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-4:])}"
    assert not fault, f"{what}: {fault}"
    said = capsys.readouterr().err
    assert "Traceback" not in said, what
    assert code in (0, 1, 2), what
    if code == 2:
        assert said.strip(), what


def with_value(text: str, rng: Random) -> tuple[str, str]:
    """Return a scenario with one other value, and that as a line."""
    found = rng.choice(list(_VALUE.finditer(text)))
    value = rng.choice(VALUES)
    return f"{text[: found.start()]}{found[1]}{found[2]}{value}{text[found.end() :]}", f"{found[1]} = {value}"


def damaged(raw: bytes, rng: Random) -> bytes:
    """Return a file's bytes cut, changed, or in another encoding."""
    kind = rng.randrange(6)
    if kind == 0:
        return raw[: rng.randint(0, len(raw))]
    if kind == 1:
        changed = bytearray(raw)
        for _ in range(rng.randint(1, 9)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    if kind == 2:
        lines = raw.split(b"\n")
        rng.shuffle(lines)
        return b"\n".join(lines)
    if kind == 3:
        return raw.decode().encode("utf-16")
    if kind == 4:
        return rng.choice((b"", b"\xef\xbb\xbf" + raw, raw + raw, b"\0" * 100, b"[" * 9_000, b"x = " + b"[" * 9_000))
    return raw.replace(b"\n", b"\r")


def fuzz_values(count: int, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, texts = Random(seed), {path.name: path.read_text(encoding="utf-8") for path in FILES}
    for _ in range(count):
        name = rng.choice(list(texts))
        text, what = with_value(texts[name], rng)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        simulated(path, capsys, f"{name} with {what}")


def fuzz_files(count: int, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = Random(seed)
    for number in range(count):
        source = rng.choice(FILES)
        path = tmp_path / source.name
        path.write_bytes(damaged(source.read_bytes(), rng))
        simulated(path, capsys, f"damaged file {number} of seed {seed} from {source.name}")


def test_a_value_that_nobody_means_is_simulated_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fuzz_values(60, 1, tmp_path, capsys)


def test_a_damaged_file_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fuzz_files(65, 1, tmp_path, capsys)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2, 12))
def test_thousands_of_values_are_simulated_or_refused(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> None:
    fuzz_values(500, seed, tmp_path, capsys)
    record_property("values", 500)
