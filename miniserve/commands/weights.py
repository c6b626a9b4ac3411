"""`miniserve weights`: fetch model files, list the cache, check it byte for byte, print where it is.

Results go to stdout, progress to stderr, so that `cd $(miniserve weights path)` works.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from miniserve.commands.options import DEFAULT_MODEL, add_cache_options, say
from miniserve.errors import WeightsError
from miniserve.models.store import NAMES, cached_models, discard_if_damaged, model_folder, resolve_model, verify_model
from miniserve.models.values import check_stored_model

_ACTIONS = ("list", "fetch", "verify", "path")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("action", nargs="?", choices=_ACTIONS, default="list", help="what to do (default: list)")
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help=f"{', '.join(NAMES)}, a .gguf file or a model folder (default {DEFAULT_MODEL}; verify: all in the cache)",
    )
    add_cache_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run one action; return 1 if `verify` found a problem."""
    if args.action == "list":
        return _list(args.cache)
    if args.action == "verify":
        return _verify(args.name, args.cache)
    name = args.name or DEFAULT_MODEL
    if args.action == "fetch" and name in NAMES:
        discard_if_damaged(name, args.cache, report=say)
    offline = args.offline or args.action == "path"  # `path` must not start a download
    print(resolve_model(name, args.cache, offline=offline, report=say))
    return 0


def _list(cache: Path) -> int:
    held = cached_models(cache)
    for model in held:
        state = model.problem or "ok"
        print(f"{model.name:<24} {model.size_bytes / 1e6:>8.1f} MB  from {model.source}  {state}")
    for name, description in NAMES.items():
        if name not in {model.name for model in held}:
            print(f"{name:<24} not in the cache: {description}; get it with `python -m miniserve weights fetch {name}`")
    return 0


def _verify(name: str | None, cache: Path) -> int:
    folders = [_cached_or_given(name, cache)] if name else [model.folder for model in cached_models(cache)]
    if not folders:
        raise WeightsError(f"{cache} holds no model; get one with `python -m miniserve weights fetch {DEFAULT_MODEL}`")
    problems = [problem for folder in folders for problem in _check(folder, cache)]
    for problem in problems:
        print(f"damaged: {problem}; `python -m miniserve weights fetch NAME` remakes a damaged model")
    return 1 if problems else 0


def _cached_or_given(name: str, cache: Path) -> Path:
    in_cache = model_folder(name, cache)
    if in_cache.is_dir() or name in NAMES:
        return in_cache
    return resolve_model(name, cache, offline=True, report=say)


def _check(folder: Path, cache: Path) -> list[str]:
    if folder.parent != model_folder(folder.name, cache).parent:
        check_stored_model(folder)  # not from our cache: no recorded hashes, so check what loading checks
        print(f"ok  {folder} (complete, all weights finite; no recorded hashes to compare with)")
        return []
    problems = verify_model(folder)
    if not problems:
        check_stored_model(folder)
        print(f"ok  {folder} (every file's SHA-256 is as recorded when it was made)")
    return problems
