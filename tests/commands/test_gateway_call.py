"""Commands that talk to a running gateway: they find its token, and say in one line what is wrong."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from miniserve.commands.gateway_call import add_gateway_options, call_gateway, gateway_state
from miniserve.errors import SetupError
from miniserve.operations.admin import kept_token


class _Gateway(BaseHTTPRequestHandler):
    """Tells what it was sent; /admin/no refuses, /text answers no JSON."""

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        told: object = {"token": self.headers.get("x-admin-token"), "body": body}
        status = 200
        if self.path == "/admin/no":
            status, told = 409, {"error": {"message": "a rollout is running already"}}
        content = b"hello" if self.path == "/text" else json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def options(*line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_gateway_options(parser)
    return parser.parse_args(line)


def test_the_token_is_sent_to_admin_routes_only(url: str, tmp_path: Path) -> None:
    token = kept_token(tmp_path)
    args = options("--url", url + "/v1/", "--state", str(tmp_path))

    assert call_gateway(args, "POST", "/admin/x", {"a": 1}) == {"token": token, "body": {"a": 1}}
    assert call_gateway(args, "POST", "/v1/feedback") == {"token": None, "body": None}


def test_without_a_state_folder_the_port_tells_where_the_token_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISERVE_CACHE", "cache")

    assert gateway_state("http://127.0.0.1:8000") == Path("cache/state/8000")
    assert gateway_state("http://127.0.0.1:8000", Path("mine")) == Path("mine")
    for bad in ("http://127.0.0.1", "http://127.0.0.1:x"):
        with pytest.raises(SetupError, match="names no port"):
            gateway_state(bad)


@pytest.mark.parametrize(
    ("path", "message"), [("/admin/no", "^a rollout is running already$"), ("/text", "answers /text with 200")]
)
def test_what_the_gateway_refuses_is_one_line(url: str, tmp_path: Path, path: str, message: str) -> None:
    kept_token(tmp_path)

    with pytest.raises(SetupError, match=message) as told:
        call_gateway(options("--url", url, "--state", str(tmp_path)), "POST", path)
    assert "\n" not in str(told.value)


def test_no_gateway_and_no_token_are_told_apart(url: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no gateway answers at http://127\.0\.0\.1:9 "):
        call_gateway(options("--url", "http://127.0.0.1:9"), "GET", "/status")
    with pytest.raises(SetupError, match=r"is not in .*admin-token"):
        call_gateway(options("--url", url, "--state", str(tmp_path)), "POST", "/admin/x")
