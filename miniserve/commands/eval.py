"""`miniserve eval MODEL`: score a model on the evaluation sets, through the serving engine.

The table goes to stdout, the progress bar to stderr. `--record` saves the result with machine, versions and commit.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniserve.commands.options import add_cache_options, add_engine_options, at_least_one
from miniserve.errors import SetupError
from miniserve.models.store import SHIPPED_FOLDER

if TYPE_CHECKING:
    from rich.table import Table

    from miniserve.training.score import Scored
    from miniserve.training.tasks import TaskItem

SETS_FOLDER = SHIPPED_FOLDER.parent / "eval"
RESULTS_FOLDER = Path("data/results")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a name (small, large, large@2, ...) or a folder")
    parser.add_argument("--items", type=at_least_one, metavar="N", help="items of each difficulty (default: all 2,000)")
    add_engine_options(parser)
    parser.add_argument("--threads", type=at_least_one, default=1, help="threads of the engine (default %(default)s)")
    parser.add_argument(
        "--sets", type=Path, default=SETS_FOLDER, metavar="DIR", help="the evaluation sets (default: data/eval)"
    )
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS_FOLDER}/<date>-eval-<model>.json")
    parser.add_argument("--results", type=Path, default=RESULTS_FOLDER, metavar="DIR", help="where --record writes")
    parser.add_argument("--write-sets", action="store_true", help="remake the evaluation sets from their seed")
    add_cache_options(parser)


def run(args: argparse.Namespace) -> int:
    """Score one model, or write the sets."""
    if args.write_sets:
        from miniserve.training.evalset import write_sets

        write_sets(args.sets)
        print(f"wrote the evaluation sets to {args.sets}")
    if args.model is None:
        if args.write_sets:
            return 0
        raise SetupError("name the model to score, such as `python -m miniserve eval small`")
    _score(args)
    return 0


def _score(args: argparse.Namespace) -> None:
    from rich.console import Console

    from miniserve.bench.record import save_record
    from miniserve.config import EngineConfig
    from miniserve.engine.engine import load_engine
    from miniserve.models.store import resolve_model
    from miniserve.models.tokenizer import Tokenizer

    items = _items(args.sets, args.items)
    folder = resolve_model(args.model, args.cache, offline=args.offline)
    engine = load_engine(folder, quant=args.quant, config=EngineConfig(threads=args.threads))
    result = _result(args, folder, _with_bar(engine, Tokenizer.load(folder), items))
    Console().print(_table(result))
    if args.record:
        print(f"recorded in {save_record('eval-' + result['model'], result, args.results)}")


def _items(folder: Path, count: int | None) -> list[TaskItem]:
    from miniserve.training.evalset import SIZES, read_set

    return [item for difficulty in SIZES for item in read_set(folder, difficulty)[:count]]


def _with_bar(engine: Any, tokenizer: Any, items: list[TaskItem]) -> Scored:
    from rich.console import Console
    from rich.progress import Progress

    from miniserve.training.score import score

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("answering", total=len(items))
        return score(engine, tokenizer, items, lambda: progress.advance(task))


def _result(args: argparse.Namespace, folder: Path, scored: Scored) -> dict[str, Any]:
    from miniserve.training.cost import decode_seconds_per_token
    from miniserve.training.score import summary

    return {
        "model": Path(args.model).name.replace("@", "-"),
        "quant": args.quant,
        "threads": args.threads,
        "generated_tokens": scored.tokens,
        "seconds": round(scored.seconds, 2),
        "tokens_per_s": round(scored.tokens / scored.seconds, 1),
        "decode_us_per_token_8_streams": round(decode_seconds_per_token(folder, args.quant, args.threads) * 1e6, 1),
        "scores": summary(scored),
    }


def _table(result: dict[str, Any]) -> Table:
    from rich.table import Table

    cost = f"{result['decode_us_per_token_8_streams']:,.0f} us per decoded token at 8 streams"
    table = Table(title=f"{result['model']} ({result['quant']}): {result['tokens_per_s']:,.0f} tokens/s, {cost}")
    for heading in ("items", "task", "number", "right", "95 % interval", "answer length"):
        table.add_column(heading, justify="left" if heading in ("items", "task") else "right")
    for row in result["scores"]:
        low, high = row["interval_95"]
        cells = (f"{row['accuracy']:.1%}", f"{low:.1%} - {high:.1%}", f"{row['mean_answer_characters']:.1f}")
        table.add_row(row["difficulty"], row["task"], f"{row['items']:,}", *cells)
    return table
