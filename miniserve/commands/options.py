"""Options that several commands share: the model and its files, the engine, the log."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from miniserve.errors import SetupError
from miniserve.models.store import default_cache

DEFAULT_MODEL = "smollm2"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add --model, --served-name, --cache, --offline."""
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="smollm2 (default), large, small, tiny, a .gguf file, or a model folder"
    )
    parser.add_argument("--served-name", metavar="NAME", help="the model's name in the API (default: as in --model)")
    add_cache_options(parser)


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """Add --cache, --offline."""
    add_cache_option(parser)
    parser.add_argument("--offline", action="store_true", help="never download: use what is in the cache")


def add_cache_option(parser: argparse.ArgumentParser) -> None:
    """Add --cache."""
    parser.add_argument(
        "--cache",
        type=Path,
        default=default_cache(),
        metavar="DIR",
        help="where model files are kept (default: %(default)s)",
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add --quant, --device, --attention."""
    parser.add_argument("--quant", default="fp16", choices=("fp32", "fp16", "int8"), help="weights in memory (fp16)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument(
        "--attention",
        default="auto",
        choices=("auto", "torch", "numba", "triton"),
        help="how attention is computed (default: Triton on a GPU, numba on a CPU)",
    )


def engine_arguments(args: argparse.Namespace) -> list[str]:
    """Return the engine options as a replica's command line."""
    return ["--quant", args.quant, "--device", args.device, "--attention", args.attention]


def add_cors_option(parser: argparse.ArgumentParser) -> None:
    """Add --cors."""
    parser.add_argument(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let web pages of this origin (http://localhost:5173, or * for all) call the API; repeat for each one",
    )


def add_vllm_option(parser: argparse.ArgumentParser) -> None:
    """Add --vllm-metrics."""
    parser.add_argument("--vllm-metrics", action="store_true", help="add metrics under vLLM's names, for other routers")


def add_log_option(parser: argparse.ArgumentParser) -> None:
    """Add --log-level."""
    levels = ("debug", "info", "warning", "error")
    parser.add_argument("--log-level", default="info", choices=levels, help="level of the log on stderr (default info)")


def add_drain_option(parser: argparse.ArgumentParser) -> None:
    """Add --drain-timeout."""
    about = "seconds allowed to finish running requests (default %(default)g)"
    parser.add_argument("--drain-timeout", type=float, default=30.0, metavar="S", help=about)


def say(line: str) -> None:
    """Tell the person at the terminal, on stderr."""
    print(line, file=sys.stderr, flush=True)


def log_to_stderr(level: str) -> None:
    """Send the log to stderr, where it never mixes with the output on stdout."""
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every probe


def served_name(args: argparse.Namespace) -> str:
    """Return the name that clients use: --served-name, or the model's own without folders and extension."""
    name: str = args.served_name or Path(args.model).name.removesuffix(".gguf")
    if not name:
        raise SetupError(f"--model {args.model} has no name of its own; give one with --served-name")
    return name


def port(text: str) -> int:
    """Parse a port number for argparse."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"a port must be between 0 and 65535, not {number}")
    return number


def check_outputs(plot: Path | None = None, *others: Path | None) -> None:
    """Raise SetupError, before anything runs, if a result could not be written at the end."""
    for path in (plot, *others):
        if path is not None and not path.absolute().parent.is_dir():
            raise SetupError(f"{path}: the folder {path.absolute().parent} does not exist")
        if path is not None and path.is_dir():
            raise SetupError(f"{path} is a folder: name a file in it")
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise SetupError(f"--plot {plot}: the name must end in .png, .svg or .pdf")


def at_least_one(text: str) -> int:
    """Parse a count for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def share(text: str) -> float:
    """Parse a share for argparse."""
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, not {text}")
    return number
