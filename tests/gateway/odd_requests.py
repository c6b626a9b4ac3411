"""HTTP requests as no client means them: odd values, odd bodies, odd heads, at random."""

from __future__ import annotations

import copy
import gzip
import json
from random import Random
from typing import Any

CHAT: dict[str, Any] = {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}
TEXT: dict[str, Any] = {"model": "tiny", "max_tokens": 4, "prompt": "abc"}
PATHS = (
    "/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics", "/version", "/v1/chat/completions/",
    "//v1/completions", "/v1//completions", "/", "/%00", "/v1/models/x%2fy", "/v1/completions?a=%ff",
    "/internal/report",
    "/docs", "/openapi.json", "*", "http://127.0.0.1/v1/models",
)  # fmt: skip
FIELDS = (
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "n",
    "seed", "stop", "stream", "stream_options", "logprobs", "top_logprobs", "logit_bias", "frequency_penalty",
    "presence_penalty", "repetition_penalty", "min_tokens", "stop_token_ids", "bad_words", "ignore_eos",
    "user", "tools",
    "response_format", "echo", "best_of", "priority", "timeout", "reasoning_effort", "metadata", "allowed_token_ids",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 16, 17, 0.5, 1e-310, 1e308, -1e308, 2**31, 2**63, 2**64, 10**30, "", "x", "1", "\0",
    "\ud800", "\u2028", "é" * 50, "a" * 3000, [], [[]], {}, [None], [0], [-1], [272], [273], [2**40], ["a", 1],
    [[1], ["a"]],
    {"1": 1}, {"100000": 5}, {"x": "y"}, {"1": 1e308}, [""], ["a"] * 40, {"include_usage": True}, {"type": "text"},
    {"type": "json_object"}, [{"role": "user"}], [{"role": "x", "content": "y"}], [{"role": "user", "content": None}],
    [{"role": "user", "content": [{"type": "text", "text": "a"}]}], [{"role": "assistant", "tool_calls": [{}]}],
    [{}] * 500, "<|im_start|>", [1] * 511, [1] * 512, float("nan"), float("inf"),
)  # fmt: skip
HEADERS = (
    "content-length: 5", "content-length: -1", "content-length: 99999999999", "content-length: abc", "host:",
    "transfer-encoding: chunked", "transfer-encoding: identity", "content-encoding: gzip", "content-encoding: zstd",
    "content-type: text/plain", "content-type: application/json; charset=utf-16", "connection: close",
    "expect: 100-continue",
    "upgrade: h2c\r\nconnection: upgrade", "x-request-id: " + "a" * 300, "x-request-id: \xff",
    "accept: image/png", "a b: c",
    "authorization: Bearer x", "x-request-timeout-s: nan", "x-request-timeout-s: 1e400", "range: bytes=0-1",
    "x: " + "y" * 9000,
    "origin: http://evil.example", "cookie: " + "c" * 2000,
)  # fmt: skip


def odd_request(rng: Random) -> bytes:
    """Return the bytes of one request."""
    path, plain = rng.choice(((PATHS[0], CHAT), (PATHS[1], TEXT)))
    body = _odd_body(plain, rng)
    method = rng.choice(
        ("POST",) * 40 + ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "get", "P\x00ST")
    )
    path = path if rng.random() < 0.9 else rng.choice(PATHS)
    version = "HTTP/1.1" if rng.random() < 0.95 else rng.choice(("HTTP/1.0", "HTTP/2.0", "HTTP/9", "", "JUNK"))
    lines = [f"{method} {path} {version}"]
    lines += ["host: localhost"] if rng.random() < 0.98 else []
    lines += ["content-type: application/json"] if rng.random() < 0.95 else []
    odd = [rng.choice(HEADERS) for _ in range(rng.choice((0,) * 8 + (1, 1, 2)))]
    lines += odd if any("content-length" in line for line in odd) else [*odd, f"content-length: {len(body)}"]
    head = "\r\n".join(lines).encode("latin-1")
    raw = head + b"\r\n\r\n" + body
    return _damaged(raw, rng) if rng.random() < 0.1 else raw


def _odd_body(plain: dict[str, Any], rng: Random) -> bytes:
    made = copy.deepcopy(plain)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        made[rng.choice(FIELDS)] = rng.choice(VALUES)
    if isinstance(messages := made.get("messages"), list) and messages and rng.random() < 0.15:
        messages.append({rng.choice(("role", "content", "name", "tool_calls", "x")): rng.choice(VALUES)})
    text = json.dumps(made, ensure_ascii=rng.random() < 0.7)
    raw = text.encode("utf-8", "surrogatepass")
    return rng.choice(_BODIES)(raw, rng) if rng.random() < 0.2 else raw


def _nested(raw: bytes, rng: Random) -> bytes:
    return b'{"model":"tiny","prompt":' + b"[" * 20_000 + b"]" * rng.choice((0, 20_000)) + b"}"


_BODIES = (
    lambda raw, rng: raw[: rng.randint(0, len(raw))],
    lambda raw, rng: b"\xef\xbb\xbf" + raw,
    lambda raw, rng: raw.decode("utf-8", "replace").encode("utf-16"),
    lambda raw, rng: gzip.compress(raw),
    lambda raw, rng: rng.randbytes(rng.randint(0, 200)),
    lambda raw, rng: rng.choice((b"", b"null", b"[]", b"1", b'"x"', b"{}", b"NaN", b"{'a': 1}", raw + raw)),
    lambda raw, rng: raw.replace(b":", b": ", 1) + b" " * 50_000,
    _nested,
)


def _damaged(raw: bytes, rng: Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed))
        if rng.random() < 0.5:
            changed[at] = rng.randrange(256)
        else:
            del changed[at : at + rng.randint(1, 20)]
    return bytes(changed)
