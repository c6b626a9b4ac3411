"""`python -m miniserve [command]`: the entry point; without a command it starts the demo.

Each command is a module in `commands/`, imported only when it is used, so that `--help` answers at once. Here errors
become one line and an exit code: 2 if the program cannot start, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from miniserve import __version__
from miniserve.errors import SetupError

COMMANDS = {
    "demo": "start the whole stack: replicas, gateway, live table (the default)",
    "serve": "run a gateway in front of replicas that are already running",
    "replica": "run one replica (an engine with its own OpenAI API)",
    "status": "show what a running gateway does: its replicas, and what its clients get",
    "experiment": "compare two versions on the users of a running gateway: start, report, stop",
    "flags": "features that are on for some users of a running gateway: set, list, clear",
    "rollout": "introduce a new version on a running gateway: start, status, promote, rollback",
    "simulate": "run a scenario in virtual time; compare policies",
    "load": "send a scenario's requests to a running server, open-loop",
    "demo-load": "ask a running gateway graded questions, as the demo does by itself",
    "chaos": "carry a scenario's faults out on real processes, under its load",
    "bench": "measure this machine: engine, stack, simulator, against peers",
    "train": "remake the shipped models from their seeds",
    "eval": "score a model on the evaluation sets",
    "weights": "fetch, check and list model files",
    "course": "build the course's notebooks; update a learner's notebook",
    "grade": "grade submitted notebooks",
    "doctor": "examine this machine and say what will work",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the process's exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except SetupError as error:
        print(f"miniserve: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise the flush at exit complains
        return 1


def _run(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        print(_usage())
        return 0
    if arguments[:1] == ["--version"]:
        print(f"miniserve {__version__}")
        return 0
    name, rest = _split(arguments)
    command = import_module(f"miniserve.commands.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(prog=f"miniserve {name}", description=COMMANDS[name], allow_abbrev=False)
    command.add_arguments(parser)
    code: int = command.run(parser.parse_args(rest))
    return code


def _split(arguments: list[str]) -> tuple[str, list[str]]:
    if not arguments or arguments[0].startswith("-"):
        return "demo", arguments
    if arguments[0] not in COMMANDS:
        raise SetupError(f"there is no command {arguments[0]!r}; the commands are {', '.join(COMMANDS)}")
    return arguments[0], arguments[1:]


def _usage() -> str:
    lines = [f"  {name:<9} {text}" for name, text in COMMANDS.items()]
    head = "usage: miniserve [command] [options]\n\nServe a language model, from one request to a fleet.\n\ncommands:"
    foot = "options of one command: miniserve COMMAND --help;  --version prints the version"
    return "\n".join([head, *lines, "", foot])


if __name__ == "__main__":
    sys.exit(main())
