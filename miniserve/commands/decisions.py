"""The file that `--decisions` writes: a line of JSON for each decision of a policy, live and simulated alike."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from miniserve.commands.options import check_outputs
from miniserve.errors import SetupError

if TYPE_CHECKING:
    from miniserve.policies.decision_log import Decision, OnDecision

log = logging.getLogger(__name__)


def add_decisions_option(parser: argparse.ArgumentParser) -> None:
    """Add --decisions."""
    about = "write every decision of the policies to FILE, as lines of JSON"
    parser.add_argument("--decisions", type=Path, metavar="FILE", help=about)


@contextmanager
def decisions_to(path: Path | None) -> Iterator[OnDecision | None]:
    """Yield what is to be told of decisions, None without a file. Raises: SetupError if it cannot be written.

    Should the disk fill up later, requests are served on, and the log says that the file has ended.
    """
    if path is None:
        yield None
        return
    check_outputs(None, path)
    from miniserve.policies.decision_log import decision_line

    broken = False

    def write(decision: Decision) -> None:
        nonlocal broken
        try:
            if not broken:
                file.write(decision_line(decision) + "\n")
        except OSError as error:
            broken = True
            log.error("%s cannot be written any further: %s", path, error)

    try:
        file = path.open("w", encoding="utf-8", buffering=1)  # by lines, so that it can be followed
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}") from None
    with file:
        yield write
