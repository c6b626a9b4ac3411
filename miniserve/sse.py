"""Server-sent events: `encode_*` writes them, `SSEDecoder` reads them from chunks split anywhere. No I/O.

Knows the event-stream format, but nothing about HTTP, JSON, or the meaning of events.
Source: WHATWG HTML, "Server-sent events" (the event stream format).
"""

from __future__ import annotations

import re

_LINE_END = re.compile(r"\r\n|\r|\n")
_LINE_ENDS_OF_OTHERS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
_BOM = b"\xef\xbb\xbf"


def encode_event(data: str) -> bytes:
    """Return the bytes of one event; each line of `data` becomes a `data:` line (line ends are read back as LF)."""
    return "".join(f"data: {line}\n" for line in _LINE_END.split(data)).encode() + b"\n"


def one_line(json_text: str) -> str:
    """Return the same JSON with U+0085, U+2028 and U+2029 escaped.

    They may stand in a JSON text as they are, but Python's `splitlines`, and so many a client, takes them for line ends
    and cuts the event in two. (All other line ends are control characters, which JSON escapes anyway.)
    """
    return json_text if json_text.isascii() else json_text.translate(_LINE_ENDS_OF_OTHERS)


def encode_comment(text: str) -> bytes:
    """Return a comment, which every reader skips: bytes that keep an idle connection alive."""
    return "".join(f": {line}\n" for line in _LINE_END.split(text)).encode() + b"\n"


class SSEDecoder:
    """Bytes of an event stream in, the `data` of its complete events out.

    Comments and the fields `event`, `id` and `retry` are skipped; an event that is cut off is never returned. Bytes
    that are not UTF-8 become U+FFFD, as the standard requires.
    """

    def __init__(self) -> None:
        self._tail = b""  # the line that has not ended yet
        self._data: list[str] = []
        self._after_cr = False  # the last line ended in CR: an LF that follows belongs to it
        self._at_start = True

    def feed(self, chunk: bytes) -> list[str]:
        """Take the next bytes of the stream, split anywhere; return the events they complete, in order."""
        return [event for line in self._lines(chunk) if (event := self._take(line)) is not None]

    def _lines(self, chunk: bytes) -> list[bytes]:
        if not chunk:
            return []
        if self._after_cr:
            chunk, self._after_cr = chunk.removeprefix(b"\n"), False
        buffer = self._tail + chunk
        if self._at_start:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                self._tail = buffer  # may be a byte order mark: wait for the rest
                return []
            buffer, self._at_start = buffer.removeprefix(_BOM), False
        self._after_cr = buffer.endswith(b"\r")
        lines = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._tail = lines.pop()
        return lines

    def _take(self, line: bytes) -> str | None:
        if not line:
            event = "\n".join(self._data) if self._data else None
            self._data = []
            return event
        field, _, value = line.decode("utf-8", "replace").partition(":")
        if field == "data":
            self._data.append(value.removeprefix(" "))
        return None
