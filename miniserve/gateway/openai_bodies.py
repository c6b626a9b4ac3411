"""What a foreign OpenAI-compatible server is asked: one request as the body of a `/v1/completions`. No I/O.

Knows what OpenAI describes and what vLLM adds: prompts of token ids, `return_token_ids`, more ways to sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from miniserve.errors import InvalidRequest
from miniserve.types import Request, SamplingParams, TokenIds


class TokenSpelling(Protocol):
    """The part of a tokenizer that a backend needs (see `models.tokenizer.Tokenizer`)."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def token_bytes(self, token_id: int) -> bytes: ...

    def control_token(self, token_id: int) -> str | None: ...


def spelled(tokenizer: TokenSpelling, ids: TokenIds) -> str:
    """Return `ids` as the text that a server reads back as these tokens, control tokens by their names."""
    pieces = ((tokenizer.control_token(id_) or "").encode() or tokenizer.token_bytes(id_) for id_ in ids)
    return b"".join(pieces).decode("utf-8", "replace")


def id_body(request: Request, model: str, tokenizer: TokenSpelling) -> dict[str, Any]:
    """Return the body that asks for `request` in token ids, all of vLLM's parameters included.

    What an earlier attempt has brought is part of the prompt. Greedy continues as if nothing had happened. A foreign
    sampler begins its draws anew, and its penalties do not count what has become prompt.
    """
    sampling, done = request.sampling, len(request.resume_ids)
    body = {
        **_common_body(request, model),
        "prompt": [*request.prompt_ids, *request.resume_ids],
        "max_tokens": sampling.max_tokens - done,
        "return_token_ids": True,
        "min_tokens": max(0, sampling.min_tokens - done),
        "stop_token_ids": list(sampling.stop_token_ids),
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias} or None,
        "bad_words": _words(sampling, tokenizer),
    }
    if sampling.logprobs is not None:
        body |= {"logprobs": sampling.logprobs, "return_tokens_as_token_ids": True}
    return _without_defaults(body)


def text_body(request: Request, model: str, tokenizer: TokenSpelling) -> dict[str, Any]:
    """Return the body that asks for `request` in text. Raises: InvalidRequest for what has a meaning in ids only."""
    sampling = request.sampling
    for name in ("logprobs", "logit_bias", "stop_token_ids", "bad_words"):
        if getattr(sampling, name) not in (None, ()):
            message = f"{name} speaks of token ids, and the backend that serves this model speaks text only"
            raise InvalidRequest(message, param=name)
    body = {
        **_common_body(request, model),
        "prompt": spelled(tokenizer, request.prompt_ids),
        "max_tokens": sampling.max_tokens,
        "min_tokens": sampling.min_tokens,
    }
    return _without_defaults(body)


def _common_body(request: Request, model: str) -> dict[str, Any]:
    """Return what both ways of asking share. Stop strings are not sent: the gateway's edge cuts at them."""
    sampling = request.sampling
    return {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "ignore_eos": sampling.ignore_eos,
    }


_DEFAULTS = {
    "top_k": 0,
    "min_p": 0.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "repetition_penalty": 1.0,
    "ignore_eos": False,
    "min_tokens": 0,
}


def _without_defaults(body: dict[str, Any]) -> dict[str, Any]:
    """Leave out what asks for nothing: not every server knows the name."""
    return {
        name: value
        for name, value in body.items()
        if value is not None and value != [] and (name not in _DEFAULTS or value != _DEFAULTS[name])
    }


def _words(sampling: SamplingParams, tokenizer: TokenSpelling) -> list[str]:
    """Return the banned texts again: the edge has made runs of tokens of each, and vLLM makes its own."""
    texts = (spelled(tokenizer, run) for run in sampling.bad_words)
    return list(dict.fromkeys(text.lstrip() or text for text in texts))


def same_text(tokenizer: TokenSpelling, ids: Sequence[int], text: str) -> bool:
    """Whether `text` may be what `ids` say: the test of whether a backend's tokenizer is ours."""
    if not all(0 <= id_ < tokenizer.vocab_size for id_ in ids):
        return False
    ours = b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "replace")
    return ours.rstrip("\ufffd").strip() == text.rstrip("\ufffd").strip()
