"""Log-probabilities in OpenAI's two shapes: objects with bytes for chat, parallel lists for completions.

A token need not be whole characters. Chat says so with `bytes`; the older API writes such a token as
`bytes:\\xe2\\x82`. The older API also finds tokens by their names, so at each place every token has a name of its own:
a control token its spelling, and the less likely of two with one text `token_id:` and its number.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from miniserve.api.answers import ChatLogprob, ChatLogprobs, CompletionLogprobs, TopLogprob
from miniserve.api.backend import TextTokenizer
from miniserve.types import TokenLogprob

_FLOOR = -9999.0  # stands for minus infinity, which JSON cannot say (OpenAI's own convention)


def _names(tokenizer: TextTokenizer, entry: TokenLogprob) -> dict[int, str]:
    """Return a name for each token at one place: no two have the same, and the likelier has the plainer."""
    names: dict[int, str] = {}
    for token_id in (*(token_id for token_id, _ in entry.top), entry.token_id):
        if token_id not in names:
            name = tokenizer.control_token(token_id) or _text_or_bytes(tokenizer.token_bytes(token_id))
            names[token_id] = name if name and name not in names.values() else f"token_id:{token_id}"
    return names


def _text_or_bytes(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def chat_logprobs(tokenizer: TextTokenizer, logprobs: Sequence[TokenLogprob]) -> ChatLogprobs:
    """Return chat's shape: one object per token."""
    return ChatLogprobs(content=[_chat_logprob(tokenizer, entry) for entry in logprobs])


def _chat_logprob(tokenizer: TextTokenizer, entry: TokenLogprob) -> ChatLogprob:
    names = _names(tokenizer, entry)

    def one(token_id: int, logprob: float) -> TopLogprob:
        data = tokenizer.token_bytes(token_id)
        name = data.decode("utf-8", "replace") if names[token_id].startswith("bytes:") else names[token_id]
        return TopLogprob(token=name, logprob=max(logprob, _FLOOR), bytes=list(data))

    chosen, top = one(entry.token_id, entry.logprob), [one(token_id, logprob) for token_id, logprob in entry.top]
    return ChatLogprob(token=chosen.token, logprob=chosen.logprob, bytes=chosen.bytes, top_logprobs=top)


class CompletionLogprobLists:
    """The completions' shape for one choice; remembers how much text the tokens so far have made."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def take(self, logprobs: Sequence[TokenLogprob]) -> CompletionLogprobs:
        """Return the lists for the next tokens. An offset counts the whole characters before a token."""
        names = [_names(self._tokenizer, entry) for entry in logprobs]
        tops = [
            {name[token_id]: max(logprob, _FLOOR) for token_id, logprob in entry.top}
            for name, entry in zip(names, logprobs, strict=True)
        ]
        return CompletionLogprobs(
            tokens=[name[entry.token_id] for name, entry in zip(names, logprobs, strict=True)],
            token_logprobs=[max(entry.logprob, _FLOOR) for entry in logprobs],
            top_logprobs=tops if any(tops) else None,
            text_offset=[self._offset(entry.token_id) for entry in logprobs],
        )

    def _offset(self, token_id: int) -> int:
        before = self._characters
        self._characters += len(self._utf8.decode(self._tokenizer.token_bytes(token_id)))
        return before
