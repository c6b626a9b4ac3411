"""The bytes of a body as they were meant: unpacked, and known to be UTF-8.

A body that is not is refused by the name of what is wrong with it: "not valid JSON" would send its sender looking in
the wrong place. No byte of it is quoted.
"""

from __future__ import annotations

import zlib

from miniserve.errors import InvalidRequest, PayloadTooLarge, UnsupportedEncoding

_GZIP = 16 + zlib.MAX_WBITS  # what zlib calls a gzip header
_MARK = b"\xef\xbb\xbf"  # UTF-8's byte order mark; PowerShell writes it
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")


def plain_utf8(body: bytes, content_encoding: str, limit_bytes: int) -> bytes:
    """Return the UTF-8 that `body` holds, without a byte order mark.

    Raises: UnsupportedEncoding if it is packed in another way than gzip; PayloadTooLarge if more than `limit_bytes`
        come out; InvalidRequest if it is no gzip, or not UTF-8.
    """
    name = content_encoding.strip().lower()
    if name in ("gzip", "x-gzip"):
        body = _unzipped(body, limit_bytes)
    elif name not in ("", "identity"):
        raise UnsupportedEncoding(f"content-encoding {name[:20]!r} is not read here; send gzip, once, or none")
    body = body.removeprefix(_MARK)
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(body, f"byte {error.start} is none; Latin-1 has such bytes") from None
    if b"\0" in body[:4]:  # UTF-8 to the letter, but no JSON begins so
        raise _not_utf8(body)
    return body


def _unzipped(body: bytes, limit_bytes: int) -> bytes:
    """Return what `body` was before gzip. Never holds more than a byte beyond the limit.

    One gzip stream, with nothing behind it: a megabyte of empty streams would keep us busy for minutes.
    """
    unpacking = zlib.decompressobj(_GZIP)
    try:
        out = unpacking.decompress(body, limit_bytes + 1)
    except zlib.error:
        raise InvalidRequest("content-encoding is gzip, but the body is not") from None
    if len(out) > limit_bytes:
        raise PayloadTooLarge(f"the body is larger once unpacked; at most {limit_bytes} bytes are read")
    if not unpacking.eof:
        raise InvalidRequest("content-encoding is gzip, but the body ends too early")
    if unpacking.unused_data:
        raise InvalidRequest("content-encoding is gzip, but something stands behind it in the body")
    return out


def _not_utf8(body: bytes, otherwise: str = "") -> InvalidRequest:
    wide = body[:2] in _WIDE_MARKS or b"\0" in body[:4]
    seen = "this looks like UTF-16 or UTF-32" if wide else otherwise
    return InvalidRequest(f"the body is not valid JSON: it must be encoded in UTF-8, and {seen}")
