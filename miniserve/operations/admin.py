"""Who may press the buttons: a program with the token, and no page but our own.

The gateway listens on loopback only, but any web page that is open in a browser on this machine can send requests
there. So what changes the stack needs a token that another site's page cannot read, and comes from our own page
(`Origin`) under a loopback name (`Host`: a foreign name that was pointed at 127.0.0.1 is refused). The command line
finds the token in a file that only its owner can read.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from miniserve.errors import Forbidden, SetupError, Unauthorized

TOKEN_HEADER = "x-admin-token"
TOKEN_FILE = "admin-token"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class AdminDoor:
    """Checks requests that change the stack."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token or secrets.token_urlsafe(24)

    def check(self, headers: Headers) -> None:
        """Raises: Forbidden for a foreign page; Unauthorized without the token."""
        self.check_page(headers)
        if not secrets.compare_digest(headers.get(TOKEN_HEADER, "").encode(), self.token.encode()):
            raise Unauthorized(
                f"this needs the token of the stack in the header {TOKEN_HEADER}; "
                f"it lies in the file {TOKEN_FILE} of the gateway's state folder"
            )

    def check_page(self, headers: Headers) -> None:
        """Raises: Forbidden for another site's page, even where `--cors` lets it call the API."""
        self.check_host(headers)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            raise Forbidden("a page of another site may neither change this stack nor read what its own page gets")

    def check_host(self, headers: Headers) -> None:
        """Raises: Forbidden unless the gateway was called by a name of loopback."""
        if urlsplit(f"//{headers.get('host', '')}").hostname not in _LOOPBACK:
            raise Forbidden("call this gateway 127.0.0.1 or localhost: it answers to no other name here")


def kept_token(state_dir: Path) -> str:
    """Return the token that is kept in `state_dir`; the first call makes it. Raises: SetupError."""
    path = state_dir / TOKEN_FILE
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(24))
        path.chmod(0o600)
        if token := path.read_text(encoding="ascii").strip():
            return token
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot keep the token of the stack in {path}: {error}") from error
    raise SetupError(f"the token file {path} is empty; delete it, and another one is made")
