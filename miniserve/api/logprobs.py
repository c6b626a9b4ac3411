"""Log-probabilities in OpenAI's two shapes: objects with bytes for chat, parallel lists for completions.

A token need not be whole characters. Chat says so with `bytes`; the older API writes such a token as
`bytes:\\xe2\\x82`.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

from miniserve.api.answers import ChatLogprob, ChatLogprobs, CompletionLogprobs, TopLogprob
from miniserve.types import TokenLogprob

TokenBytes = Callable[[int], bytes]
_FLOOR = -9999.0  # stands for minus infinity, which JSON cannot say (OpenAI's own convention)


def chat_logprobs(token_bytes: TokenBytes, logprobs: Sequence[TokenLogprob]) -> ChatLogprobs:
    """Return chat's shape: one object per token."""
    return ChatLogprobs(content=[_chat_logprob(token_bytes, entry) for entry in logprobs])


def _chat_logprob(token_bytes: TokenBytes, entry: TokenLogprob) -> ChatLogprob:
    chosen = _top_logprob(token_bytes, entry.token_id, entry.logprob)
    top = [_top_logprob(token_bytes, token_id, logprob) for token_id, logprob in entry.top]
    return ChatLogprob(token=chosen.token, logprob=chosen.logprob, bytes=chosen.bytes, top_logprobs=top)


def _top_logprob(token_bytes: TokenBytes, token_id: int, logprob: float) -> TopLogprob:
    data = token_bytes(token_id)
    return TopLogprob(token=data.decode("utf-8", "replace"), logprob=max(logprob, _FLOOR), bytes=list(data))


class CompletionLogprobLists:
    """The completions' shape for one choice; remembers how much text the tokens so far have made."""

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def take(self, logprobs: Sequence[TokenLogprob]) -> CompletionLogprobs:
        """Return the lists for the next tokens. An offset counts the whole characters before a token."""
        tops = [{self._name(token_id): max(logprob, _FLOOR) for token_id, logprob in entry.top} for entry in logprobs]
        return CompletionLogprobs(
            tokens=[self._name(entry.token_id) for entry in logprobs],
            token_logprobs=[max(entry.logprob, _FLOOR) for entry in logprobs],
            top_logprobs=tops if any(tops) else None,
            text_offset=[self._offset(entry.token_id) for entry in logprobs],
        )

    def _offset(self, token_id: int) -> int:
        before = self._characters
        self._characters += len(self._utf8.decode(self._token_bytes(token_id)))
        return before

    def _name(self, token_id: int) -> str:
        data = self._token_bytes(token_id)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
