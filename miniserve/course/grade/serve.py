"""Runs as a script inside the sandbox: a Jupyter kernel that listens on sockets which it got from outside.

    python serve.py CONNECTION_FILE PORT=FD ...

If the kernel made its sockets itself, it would need a folder on a disk that both sides can write to, and could fill it.
Imports nothing from the package.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import zmq


def main(argv: list[str]) -> None:
    """Bind each socket to what is given for its port, then start the kernel as `python -m ipykernel_launcher` does."""
    given = {port: int(fd) for port, _, fd in (pair.partition("=") for pair in argv[1:])}
    bind = zmq.Socket.bind

    def bind_given(self: Any, address: str) -> Any:
        port = address.rpartition("-")[2]
        if address.startswith("ipc:") and port in given:
            fd = given.pop(port)
            os.set_inheritable(fd, False)
            self.setsockopt(zmq.USE_FD, fd)
        return bind(self, address)

    setattr(zmq.Socket, "bind", bind_given)  # noqa: B010  # its type is more general
    shutil.copyfile(argv[0], "k.json")  # ipykernel writes to its connection file
    sys.argv[1:] = ["-f", "k.json"]
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


if __name__ == "__main__":
    main(sys.argv[1:])
