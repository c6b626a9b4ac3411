"""From what a client said to what the engine is asked: text becomes token ids, absent fields get their defaults.

Here the limits of the served model apply: its name, its vocabulary, its context. What is absent and random (the seed)
is drawn here, so that everything behind the edge is deterministic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from miniserve.api.backend import TextTokenizer
from miniserve.api.bodies import too_long
from miniserve.api.exchange import Exchange
from miniserve.api.parts import Parts
from miniserve.api.requests import ChatCompletionRequest, CompletionRequest, GenerationBody
from miniserve.errors import InvalidRequest, NotFound
from miniserve.types import Priority, Request, SamplingParams

_LONG_TEXT = 4_000  # characters of a whole request; tokenizing more takes long enough to be felt by other streams
_COSTLY_TEXT = 100_000  # characters: tokenizing more is not worth the exact number for an error's message
_TEMPLATE = 20  # characters that a chat template adds to a message, more or less
_SEED_BITS = 32
A = TypeVar("A")
B = TypeVar("B")


async def chat_request(parts: Parts, body: ChatCompletionRequest, exchange: Exchange) -> Request:
    """Return the one request that a chat completion asks for.

    Raises: NotFound for an unknown model; InvalidRequest for what does not fit the model.
    """
    check_model(parts, body.model)
    roles = {"developer": "system"}  # OpenAI's newer name for it, which no chat template here knows
    messages = [{"role": roles.get(m.role, m.role), "content": m.text()} for m in body.messages]
    if len(messages) > parts.model.max_model_len:
        raise too_long(f"there are {len(messages)} messages", parts.model.max_model_len, "messages")
    length = sum(len(message["content"]) for message in messages)
    _check_length(parts, length, "messages")
    length += _TEMPLATE * len(messages)
    ids = await _aside(length, parts.model.tokenizer.encode_chat, messages)
    return _request(parts, body, exchange, ids, "messages", 0)


async def completion_requests(parts: Parts, body: CompletionRequest, exchange: Exchange) -> list[Request]:
    """Return one request per prompt, in order.

    Raises: as `chat_request`.
    """
    check_model(parts, body.model)
    prompts = body.prompts()
    params = ["prompt"] if len(prompts) == 1 else [f"prompt[{index}]" for index in range(len(prompts))]
    named = list(zip(prompts, params, strict=True))
    for prompt, param in named:
        if isinstance(prompt, str):
            _check_length(parts, len(prompt), param)
    encode = partial(_ids_of_all, parts.model.tokenizer)
    ids = await _aside(sum(len(prompt) for prompt in prompts), encode, named)
    return [
        _request(parts, body, exchange, one, param, index)
        for index, (one, param) in enumerate(zip(ids, params, strict=True))
    ]


def check_model(parts: Parts, name: str) -> None:
    """Raises: NotFound if `name` is not the served model's."""
    if name != parts.model.name:
        message = f"The model `{name[:200]}` does not exist. Valid models: `{parts.model.name}`."
        raise NotFound(message, param="model", code="model_not_found")


def _check_length(parts: Parts, characters: int, param: str) -> None:
    """Refuse at once a text that cannot fit, however its tokens fall: each is of so many bytes at most.

    Raises: InvalidRequest.
    """
    longest, context = parts.model.longest_token_bytes, parts.model.max_model_len
    if longest is not None and characters > max(_COSTLY_TEXT, longest * context):  # a character is a byte or more
        raise too_long(f"the text has {characters} characters", context, param)


def _ids_of_all(tokenizer: TextTokenizer, prompts: Sequence[tuple[str | list[int], str]]) -> list[list[int]]:
    """Return the token ids of each (prompt, its name)."""
    return [_prompt_ids(tokenizer, prompt, param) for prompt, param in prompts]


def _prompt_ids(tokenizer: TextTokenizer, prompt: str | list[int], param: str) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    largest, size = max(prompt), tokenizer.vocab_size
    if largest >= size:
        raise InvalidRequest(f"{param}: token id {largest} is not in the vocabulary (0 to {size - 1})", param=param)
    return prompt


async def _aside(length: int, encode: Callable[[A], B], text: A) -> B:
    """Encode what is short at once; what is long in a thread, so that the event loop goes on serving."""
    return encode(text) if length < _LONG_TEXT else await asyncio.to_thread(encode, text)


def _request(parts: Parts, body: GenerationBody, exchange: Exchange, ids: list[int], param: str, index: int) -> Request:
    max_tokens = _max_tokens(parts, body, len(ids), param)
    return Request(
        request_id=exchange.request_id if index == 0 else f"{exchange.request_id}-{index}",
        model=parts.model.name,
        prompt_ids=tuple(ids),
        sampling=_sampling(parts, body, max_tokens),
        arrived_s=exchange.started_s,
        priority=Priority.STANDARD if body.priority is None else Priority(body.priority),
        session_key=body.user,
        seen=lambda: exchange.begun,
    )


def _max_tokens(parts: Parts, body: GenerationBody, prompt_tokens: int, param: str) -> int:
    """Return the limit of the answer: what was asked for, cut to what the context leaves."""
    context = parts.model.max_model_len
    field, asked = body.token_limit()
    if asked is not None and asked > context:
        raise InvalidRequest(
            f"{field}={asked} cannot be greater than the context of {context} tokens; ask for fewer", param=field
        )
    room = context - prompt_tokens
    if room < 1:
        raise InvalidRequest(
            f"the prompt has {prompt_tokens} tokens, but the context holds {context} with at least one for the answer; "
            "shorten the prompt",
            param=param,
            code="context_length_exceeded",
        )
    return min(asked if asked is not None else parts.config.default_max_tokens, room)


def _sampling(parts: Parts, body: GenerationBody, max_tokens: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=max(0, body.top_k or 0),
        seed=parts.rng.getrandbits(_SEED_BITS) if body.seed is None else body.seed,
        stop=body.stop_strings(),
        ignore_eos=bool(body.ignore_eos),
        logprobs=body.logprob_count(),
    )
