"""What commands share that talk to a running gateway: its address, the token of its state folder, and plain errors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from miniserve.errors import SetupError
from miniserve.models.store import default_cache

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 10.0


def add_gateway_options(parser: argparse.ArgumentParser) -> None:
    """Add --url and --state."""
    parser.add_argument("--url", default=DEFAULT_URL, help="of the gateway (default %(default)s)")
    about = "the gateway's state folder, if it was started with --state DIR: its token lies there"
    parser.add_argument("--state", type=Path, metavar="DIR", help=about)


def call_gateway(args: argparse.Namespace, method: str, path: str, body: object = None) -> Any:
    """Send one request to the gateway of `args` and return its JSON answer; below /admin/ with the token.

    Raises: SetupError, one line, if no gateway answers, or with what it says is wrong.
    """
    import httpx

    where = args.url.rstrip("/").removesuffix("/v1")
    headers = _token_header(where, args.state) if path.startswith("/admin/") else {}
    content: dict[str, Any] = {} if body is None else {"json": body}
    try:
        answer = httpx.request(method, where + path, headers=headers, timeout=TIMEOUT_S, trust_env=False, **content)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise SetupError(
            f"no gateway answers at {where} ({type(error).__name__}): start one with `miniserve demo`, or name another "
            "with --url"
        ) from None
    try:
        told: Any = answer.json()
    except ValueError:
        told = None
    if answer.is_success and told is not None:
        return told
    raise SetupError(_refusal(where, path, answer.status_code, told))


def gateway_state(url: str, state: Path | None = None) -> Path:
    """Return the folder in which the gateway at `url` keeps its state and its token, unless `state` names it."""
    if state is not None:
        return state
    try:
        port = urlsplit(url).port
    except ValueError:
        port = None
    if port is None:
        raise SetupError(f"--url {url} names no port; give it as http://127.0.0.1:PORT")
    return default_cache() / "state" / str(port)


def _token_header(url: str, state: Path | None) -> dict[str, str]:
    from miniserve.operations.admin import TOKEN_FILE, TOKEN_HEADER

    path = gateway_state(url, state) / TOKEN_FILE
    try:
        return {TOKEN_HEADER: path.read_text(encoding="ascii").strip()}
    except (OSError, ValueError):
        raise SetupError(
            f"the token of the gateway at {url} is not in {path}: is it running? If it was started with --state DIR, "
            "say the same here"
        ) from None


def _refusal(where: str, path: str, status: int, told: object) -> str:
    """Return what the gateway says is wrong; a server that says it otherwise is none of ours."""
    error = told.get("error") if isinstance(told, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return str(message) if message else f"{where} answers {path} with {status}: it is no gateway of this version"
