"""Where a gateway keeps what must survive its restart: the token of its door, and what its parts have learned."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

from miniserve.errors import SetupError
from miniserve.models.store import default_cache


def add_state_option(parser: argparse.ArgumentParser) -> None:
    """Add --state."""
    about = (
        "where the gateway keeps what must survive a restart (default: state/PORT in the cache; nothing is kept with "
        "--port 0 or --once unless you name a folder)"
    )
    parser.add_argument("--state", type=Path, metavar="DIR", help=about)


def state_folder(named: Path | None, sock: socket.socket, *, passing: bool) -> Path | None:
    """Return the folder of the gateway on `sock`, which can be written; None: nothing is kept.

    `passing`: a gateway that nobody will look for again, so it keeps nothing unless a folder is named. The port is
    bound, so no other gateway of ours uses the default folder of this one. Raises: SetupError, before anything is
    loaded.
    """
    from miniserve.operations.admin import kept_token

    if named is None and passing:
        return None
    folder = (named or default_cache() / "state" / str(sock.getsockname()[1])).expanduser().absolute()
    kept_token(folder)
    if not os.access(folder, os.W_OK):
        raise SetupError(f"--state {folder}: this folder cannot be written; name another one")
    return folder
