"""Options of the commands that put servers of another make behind the gateway."""

from __future__ import annotations

import argparse
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from miniserve.errors import SetupError

if TYPE_CHECKING:
    from miniserve.processes.backends import BackendOptions, VllmOptions

MOST_KEY_BYTES = 4096


def add_backend_options(parser: argparse.ArgumentParser) -> None:
    """Add --backend and what goes with it."""
    parser.add_argument(
        "--backend",
        action="append",
        default=[],
        metavar="URL",
        dest="backends",
        help="address of any OpenAI-compatible server that serves --model, such as vLLM; repeat for each one",
    )
    parser.add_argument("--backend-model", default="", metavar="NAME", help="the model's name there, if it is another")
    parser.add_argument("--backend-key-file", type=Path, metavar="FILE", help="holds the API key that backends ask for")
    parser.add_argument(
        "--backend-speaks",
        choices=("token-ids", "text"),
        help="whether backends take and give token ids, as vLLM does, or text only (default: each is asked)",
    )


def add_vllm_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add --engine and what goes with vLLM's."""
    parser.add_argument(
        "--engine", default="miniserve", choices=("miniserve", "vllm"), help="what replica processes run (miniserve)"
    )
    parser.add_argument("--vllm-bin", default="vllm", metavar="PATH", help="vLLM's program (default: the one on PATH)")
    parser.add_argument(
        "--vllm-args", default="", metavar="ARGS", help='further arguments of "vllm serve", in one quoted string'
    )


def backend_options(args: argparse.Namespace) -> BackendOptions | None:
    """Return the backends that the options name; None for none. Raises: SetupError for a key that cannot be read."""
    from miniserve.gateway.openai_replica import Speech
    from miniserve.processes.backends import BackendOptions

    if not args.backends:
        return None
    key = "" if args.backend_key_file is None else _key(args.backend_key_file)
    speech = None if args.backend_speaks is None else Speech(args.backend_speaks)
    return BackendOptions(tuple(args.backends), args.backend_model, key, speech)


def vllm_engine(args: argparse.Namespace) -> VllmOptions | None:
    """Return how vLLM is to be started; None for our own engine. Raises: SetupError if there is no vLLM."""
    from miniserve.processes.backends import VllmOptions

    if args.engine != "vllm":
        return None
    if args.pace is not None:
        raise SetupError("--pace is for our own engine: vLLM is as fast as it is")
    return VllmOptions(_program(args.vllm_bin), tuple(shlex.split(args.vllm_args)))


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SetupError(f"--engine vllm: there is no program {name}; say where it is with --vllm-bin")
    return found


def _key(path: Path) -> str:
    try:
        with path.open("rb") as file:
            key = file.read(MOST_KEY_BYTES + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"--backend-key-file {path}: {error}") from None
    if not key or len(key) > MOST_KEY_BYTES or len(key.split()) != 1:
        raise SetupError(f"--backend-key-file {path}: must hold one key and nothing else")
    return key
