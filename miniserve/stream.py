"""Tokens to text to server-sent events, and back: the last station of an answer, without any I/O.

Three machines that are fed pieces and give out what is complete: `Detokenizer` (tokens in, text out), `SSEDecoder`
(bytes in, events out) and the `encode_*` functions that are its inverse. However the input is cut into pieces, the
output put together is the same.

Knows UTF-8, stop strings and the event-stream format. Knows nothing of HTTP, of JSON, or of what the text means.
Source: WHATWG HTML, "Server-sent events" (the event stream format).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

_LINE_END = re.compile(r"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


def encode_event(data: str) -> bytes:
    """Return the bytes of one event; line ends inside `data` become several `data:` lines (and come back as LF)."""
    return "".join(f"data: {line}\n" for line in _LINE_END.split(data)).encode() + b"\n"


def encode_comment(text: str) -> bytes:
    """Return a comment, which every reader skips: bytes on the wire that keep an idle connection alive."""
    return "".join(f": {line}\n" for line in _LINE_END.split(text)).encode() + b"\n"


class SSEDecoder:
    """Bytes of an event stream in, `data` of its complete events out.

    Comments and the fields `event`, `id` and `retry` are skipped; an event that the stream breaks off is never given
    out. Bytes that are not UTF-8 become U+FFFD, as the standard asks.
    """

    def __init__(self) -> None:
        self._tail = b""  # the line that has not ended yet
        self._data: list[str] = []
        self._after_cr = False  # the last line ended in CR: an LF that follows belongs to it
        self._at_start = True

    def feed(self, chunk: bytes) -> list[str]:
        """Take the next bytes of the stream, cut anywhere; return the events that they complete, in order."""
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


class StopFilter:
    """Text in, text out up to the first stop string; what may be the start of one is held back until it is clear.

    "First" is the stop string that is complete first; of two that end together, the longer. This can be decided as
    the text arrives, so it does not depend on how the text is cut.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        assert all(stop), "an empty stop string would stop everything: the edge refuses it"
        self._stop = stop
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Take more text; return what can be shown now."""
        if self.stopped or not text:
            return ""
        text = self._held + text
        found = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        keep = self._held_length(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The text has ended: return what was held back."""
        text, self._held = self._held, ""
        return text

    def _held_length(self, text: str) -> int:
        """Return the length of the longest end of `text` that begins a stop string."""
        return max((_overlap(text, stop) for stop in self._stop), default=0)


def _overlap(text: str, stop: str) -> int:
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class Detokenizer:
    """Token ids in, text out as soon as it is certain: whole characters, before the first stop string.

    Invariant: all that `push` returned plus `flush` is the text of all tokens decoded at once, cut at the first stop
    string. `stopped` turns true with the token that completes it; further tokens give nothing.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], stop: tuple[str, ...] = ()) -> None:
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._filter = StopFilter(stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has been completed."""
        return self._filter.stopped

    def push(self, token_id: int) -> str:
        """Take the next token; return the text that can be shown now, often one token's, sometimes none."""
        return self._filter.push(self._utf8.decode(self._token_bytes(token_id)))

    def push_text(self, text: str) -> str:
        """Take text of a backend that speaks text instead of token ids; stop strings apply to it all the same."""
        return self._filter.push(text)

    def flush(self) -> str:
        """The tokens have ended: return the rest. A character left incomplete becomes U+FFFD."""
        return self._filter.push(self._utf8.decode(b"", final=True)) + self._filter.flush()
