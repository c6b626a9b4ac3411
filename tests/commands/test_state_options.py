"""Where a gateway keeps its state, and that a folder that is no use is found out before anything is loaded."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniserve.__main__ import main
from miniserve.commands.state_options import state_folder
from miniserve.errors import SetupError
from miniserve.operations.admin import TOKEN_FILE


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINISERVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_each_port_has_a_folder_of_its_own_with_a_token_in_it(sock: socket.socket, cache: Path) -> None:
    folder = state_folder(None, sock, passing=False)
    assert folder == cache / "state" / str(sock.getsockname()[1])
    assert (folder / TOKEN_FILE).stat().st_mode & 0o777 == 0o600


def test_a_passing_gateway_keeps_nothing_unless_it_is_told_where(sock: socket.socket, cache: Path) -> None:
    assert state_folder(None, sock, passing=True) is None
    assert not cache.exists()
    named = cache / "mine"
    assert state_folder(named, sock, passing=True) == named
    token = (named / TOKEN_FILE).read_text(encoding="ascii")
    assert state_folder(named, sock, passing=False) == named
    assert (named / TOKEN_FILE).read_text(encoding="ascii") == token, "a restart goes on with the token it had"


def test_a_folder_that_cannot_be_written_is_an_error(
    sock: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(SetupError, match="cannot keep the token"):
        state_folder(in_the_way, sock, passing=False)
    state_folder(tmp_path / "mine", sock, passing=False)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(SetupError, match="cannot be written; name another one"):
        state_folder(tmp_path / "mine", sock, passing=False)


@pytest.mark.parametrize("arguments", [["demo", "--once", "Hello"], ["serve", "--replica", "http://127.0.0.1:9"]])
def test_the_commands_say_so_in_one_line_before_they_load_anything(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    no_such = str(tmp_path / "no-such-model")
    assert main([*arguments, "--port", "0", "--model", no_such, "--state", str(in_the_way)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "cannot keep the token of the stack in" in printed.err
