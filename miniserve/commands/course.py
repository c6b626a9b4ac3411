"""`miniserve course`: build the notebooks (`build`), update a learner's (`update`), test the checks (`mutate`)."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions, each with its own options."""
    from miniserve.course.mutation import run as mutate
    from miniserve.course.notebook import build, update

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, module, about in (
        ("build", build, "build the notebooks from their sources"),
        ("mutate", mutate, "introduce mistakes into solutions, and see whether the checks notice"),
        ("update", update, "carry a notebook's answers over to the current chapter"),
    ):
        one = actions.add_parser(name, help=about, description=about, allow_abbrev=False)
        module.add_arguments(one)
        one.set_defaults(run_action=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the action and return its exit code."""
    code: int = args.run_action(args)
    return code
