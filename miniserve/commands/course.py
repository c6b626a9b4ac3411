"""`miniserve course`: make the notebooks (`build`), carry answers over to a newer chapter (`update`)."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions, each with its own options."""
    from miniserve.course import build, update

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for module, about in (
        (build, "make the notebooks from their sources, as python -m miniserve.course.build does"),
        (update, "carry the answers of a notebook over to the chapter as it is now"),
    ):
        one = actions.add_parser(module.__name__.rpartition(".")[2], help=about, description=about, allow_abbrev=False)
        module.add_arguments(one)
        one.set_defaults(run_action=module.run)


def run(args: argparse.Namespace) -> int:
    """Do the action; its exit code is the command's."""
    code: int = args.run_action(args)
    return code
