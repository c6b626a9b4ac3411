"""Bodies that are packed, marked, or in another encoding than UTF-8."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from miniserve.config import ApiConfig
from tests.api.conftest import CHAT, Edge, StartEdge
from tests.api.test_errors import JSON, check_error

PLAIN = json.dumps(CHAT).encode()
URL = "/v1/chat/completions"


def send(edge: Edge, body: bytes, **headers: str) -> object:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return edge.post(URL, content=body, headers={**JSON, **named})


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(PLAIN), "gzip"),
        (gzip.compress(PLAIN), "x-gzip"),
        (gzip.compress(PLAIN), "GZIP"),
        (gzip.compress(b"\xef\xbb\xbf" + PLAIN), "gzip"),
        (PLAIN, "identity"),
        (PLAIN, ""),
    ],
)
def test_a_gzipped_body_is_read(edge: Edge, body: bytes, encoding: str) -> None:
    assert send(edge, body, content_encoding=encoding).status_code == 200  # type: ignore[attr-defined]
    assert len(edge.backend.requests[-1].prompt_ids) == 10


@pytest.mark.parametrize("encoding", ["zstd", "br", "deflate", "gzip, br", "gzip, gzip", "nonsense" * 9])
def test_other_content_encodings_are_named(edge: Edge, encoding: str) -> None:
    check_error(send(edge, zlib.compress(PLAIN), content_encoding=encoding), 415, None, "content-encoding", "gzip")


def test_the_limit_is_on_what_comes_out(start_edge: StartEdge) -> None:
    edge = start_edge(config=ApiConfig(max_body_bytes=1000))
    fits, too_large = PLAIN.ljust(1000), PLAIN.ljust(1001)
    assert send(edge, gzip.compress(fits), content_encoding="gzip").status_code == 200  # type: ignore[attr-defined]
    for bomb in (too_large, b"\0" * 500_000, PLAIN + b" " * 500_000):
        packed = gzip.compress(bomb)
        assert len(packed) < 1000
        check_error(send(edge, packed, content_encoding="gzip"), 413, None, "unpacked", "1000 bytes")


def test_a_body_that_is_no_gzip_says_so(edge: Edge) -> None:
    check_error(send(edge, PLAIN, content_encoding="gzip"), 400, None, "content-encoding is gzip")
    check_error(send(edge, gzip.compress(PLAIN)[:-9], content_encoding="gzip"), 400, None, "too early")
    for more in (b"rest", gzip.compress(b"")):
        check_error(send(edge, gzip.compress(PLAIN) + more, content_encoding="gzip"), 400, None, "behind it")
    check_error(send(edge, gzip.compress(PLAIN)), 400, None, "UTF-8")


def test_a_byte_order_mark_is_no_part_of_the_json(edge: Edge) -> None:
    assert send(edge, b"\xef\xbb\xbf" + PLAIN).status_code == 200  # type: ignore[attr-defined]
    check_error(send(edge, b"\xef\xbb\xbf"), 400, None, "empty")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_wide_encoding_is_named(edge: Edge, encoding: str) -> None:
    for text in (json.dumps(CHAT), json.dumps({**CHAT, "user": "señor €"}, ensure_ascii=False)):
        answer = send(edge, text.encode(encoding), content_type="application/json; charset=utf-16")
        check_error(answer, 400, None, "UTF-8", "UTF-16" if "16" in encoding else "")


def test_latin_1_is_named(edge: Edge) -> None:
    body = json.dumps({**CHAT, "user": "señor"}, ensure_ascii=False).encode("latin-1")
    answer = send(edge, body)
    check_error(answer, 400, None, "UTF-8", "Latin-1")
    assert "or" not in answer.json()["error"]["message"].split("Latin-1")[1], "nothing of the body is quoted"  # type: ignore[attr-defined]
