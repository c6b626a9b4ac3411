"""`miniserve course`: make the notebooks (`build`), bring a learner's up to date (`update`), test checks (`mutate`)."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions, each with its own options."""
    from miniserve.course.mutation import run as mutate
    from miniserve.course.notebook import build, update

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, module, about in (
        ("build", build, "make the notebooks from their sources"),
        ("mutate", mutate, "spoil solutions, and see whether the checks notice"),
        ("update", update, "carry the answers of a notebook over to the chapter as it is now"),
    ):
        one = actions.add_parser(name, help=about, description=about, allow_abbrev=False)
        module.add_arguments(one)
        one.set_defaults(run_action=module.run)


def run(args: argparse.Namespace) -> int:
    """Do the action; its exit code is the command's."""
    code: int = args.run_action(args)
    return code
