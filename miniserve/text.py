"""Tokens to text: only whole characters, and nothing beyond the first stop string. No I/O.

However the tokens are split into pieces, the joined pieces give the same text. Knows UTF-8 and stop strings.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable


class StopFilter:
    """Text in, text out up to the first stop string; a possible start of one is held back until it is decided.

    "First" is the stop string that is completed first; if two end together, the longer. This can be decided as the text
    arrives, so it does not depend on how the text is split.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        assert all(stop), "an empty stop string would stop everything: the API refuses it"
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
        """Return what was held back, now that the text has ended."""
        text, self._held = self._held, ""
        return text

    def _held_length(self, text: str) -> int:
        """Return the length of the longest suffix of `text` that begins a stop string."""
        return max((_overlap(text, stop) for stop in self._stop), default=0)


def _overlap(text: str, stop: str) -> int:
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class Detokenizer:
    """Token ids in, text out as soon as it is certain: whole characters, up to the first stop string.

    Invariant: everything `push` returns plus `flush` is the text of all tokens decoded at once, cut at the first stop
    string. `stopped` becomes true with the token that completes it; further tokens give nothing.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], stop: tuple[str, ...] = (), min_tokens: int = 0) -> None:
        """What the first `min_tokens` tokens say is not searched for stop strings."""
        self._token_bytes = token_bytes
        self._unsearched = min_tokens
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._filter = StopFilter(stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has been completed."""
        return self._filter.stopped

    def push(self, token_id: int) -> str:
        """Take the next token; return the text that can be shown now, often one token's, sometimes none."""
        text = self._utf8.decode(self._token_bytes(token_id))
        if self._unsearched:
            self._unsearched -= 1
            return text
        return self._filter.push(text)

    def push_text(self, text: str) -> str:
        """Take text of a backend that speaks text instead of token ids; stop strings apply to it all the same."""
        return self._filter.push(text)

    def flush(self) -> str:
        """Return the rest, now that the tokens have ended. An incomplete character becomes U+FFFD."""
        return self._filter.push(self._utf8.decode(b"", final=True)) + self._filter.flush()
