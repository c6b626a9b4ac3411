"""From what a client said to what the engine is asked: text becomes token ids, absent fields get their defaults.

Here the limits of the model that was asked for apply: its vocabulary, its context. What is absent and random (the seed)
is drawn here, so that everything behind the edge is deterministic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from miniserve.api.backend import TextTokenizer
from miniserve.api.bodies import too_long
from miniserve.api.exchange import Exchange
from miniserve.api.hints import read_hints
from miniserve.api.not_served import UNSUPPORTED
from miniserve.api.parts import Parts
from miniserve.api.requests import ChatCompletionRequest, CompletionRequest, GenerationBody, content_text
from miniserve.errors import InvalidRequest, prompt_too_long
from miniserve.types import Priority, Request, SamplingParams

_LONG_TEXT = 4_000  # characters of a whole request; tokenizing more takes long enough to be felt by other streams
_COSTLY_TEXT = 100_000  # characters: tokenizing more is not worth the exact number for an error's message
_TEMPLATE = 20  # characters that a chat template adds to a message, more or less
_SEED_BITS = 32
_INT64 = 1 << 63
A = TypeVar("A")
B = TypeVar("B")


async def chat_requests(parts: Parts, body: ChatCompletionRequest, exchange: Exchange) -> list[Request]:
    """Return the requests that a chat completion asks for: one for each choice.

    Raises: InvalidRequest for what does not fit the model.
    """
    roles = {"developer": "system"}  # OpenAI's newer name for it, which no chat template here knows
    messages = [{"role": roles.get(m.role, m.role), "content": content_text(m.content)} for m in body.messages]
    if len(messages) > parts.model.max_model_len:
        raise too_long(f"there are {len(messages)} messages", parts.model.max_model_len, "messages")
    length = sum(len(message["content"]) for message in messages)
    _check_length(parts, length, "messages")
    length += _TEMPLATE * len(messages)
    ids = await _aside(length, parts.model.tokenizer.encode_chat, messages)
    return _requests(parts, body, _common(parts, body, exchange), ids, "messages", 0)


async def completion_requests(parts: Parts, body: CompletionRequest, exchange: Exchange) -> list[Request]:
    """Return the requests for each prompt in turn, one for each of its choices.

    Raises: as `chat_request`.
    """
    prompts = body.prompts()
    params = ["prompt"] if len(prompts) == 1 else [f"prompt[{index}]" for index in range(len(prompts))]
    named = list(zip(prompts, params, strict=True))
    for prompt, param in named:
        if isinstance(prompt, str):
            _check_length(parts, len(prompt), param)
    ids = await _aside(sum(len(prompt) for prompt in prompts), partial(_ids_of_all, parts), named)
    requests: list[Request] = []
    common = _common(parts, body, exchange)
    for one, param in zip(ids, params, strict=True):
        requests += _requests(parts, body, common, one, param, len(requests))
    return requests


def _check_length(parts: Parts, characters: int, param: str) -> None:
    """Refuse at once a text that cannot fit, however its tokens fall: each is of so many bytes at most.

    Raises: InvalidRequest.
    """
    longest, context = parts.model.longest_token_bytes, parts.model.max_model_len
    if longest is not None and characters > max(_COSTLY_TEXT, longest * context):  # a character is a byte or more
        raise too_long(f"the text has {characters} characters", context, param)


def _ids_of_all(parts: Parts, prompts: Sequence[tuple[str | list[int], str]]) -> list[list[int]]:
    """Return the token ids of each (prompt, its name)."""
    return [_prompt_ids(parts, prompt, param) for prompt, param in prompts]


def _prompt_ids(parts: Parts, prompt: str | list[int], param: str) -> list[int]:
    if isinstance(prompt, str):
        return parts.model.tokenizer.encode(prompt)
    _check_vocabulary(parts, prompt, param)
    return prompt


def _check_vocabulary(parts: Parts, ids: Iterable[int], param: str) -> None:
    largest, size = max(ids, default=0), parts.model.tokenizer.vocab_size
    if largest >= size:
        raise InvalidRequest(f"{param}: token id {largest} is not in the vocabulary (0 to {size - 1})", param=param)


async def _aside(length: int, encode: Callable[[A], B], text: A) -> B:
    """Encode what is short at once; what is long in a thread, so that the event loop goes on serving."""
    return encode(text) if length < _LONG_TEXT else await asyncio.to_thread(encode, text)


def _common(parts: Parts, body: GenerationBody, exchange: Exchange) -> Request:
    """Return what all requests of a call have in common, under the id of the first; prompt, length and seed follow."""
    if body.best_of not in (None, 1, body.n):
        raise InvalidRequest(f"best_of={body.best_of} is not supported here: {UNSUPPORTED['best_of']}", param="best_of")
    hints = read_hints(exchange.hints)
    limits = [seconds for seconds in (hints.timeout_s, body.timeout) if seconds is not None]
    priority = hints.priority if body.priority is None else Priority(body.priority)
    return Request(
        request_id=exchange.request_id,
        model=parts.model.name,
        prompt_ids=(),
        sampling=_sampling(parts, body),
        arrived_s=exchange.started_s,
        deadline_s=exchange.started_s + min(limits) if limits else None,
        tenant=hints.tenant,
        priority=Priority.STANDARD if priority is None else priority,
        session_key=hints.session_key or body.user,
        region=hints.region,
        feature=hints.feature,
        seen=lambda: exchange.begun,
    )


def _requests(
    parts: Parts, body: GenerationBody, common: Request, ids: list[int], param: str, first: int
) -> list[Request]:
    """Return the requests for one prompt, the call's choices from number `first` on. They differ in id and seed."""
    max_tokens = _max_tokens(parts, body, len(ids), param)
    min_tokens = min(common.sampling.min_tokens, max_tokens)
    sampling = replace(common.sampling, max_tokens=max_tokens, min_tokens=min_tokens)
    request = replace(common, prompt_ids=tuple(ids), sampling=sampling)
    seed = parts.rng.getrandbits(_SEED_BITS) if body.seed is None else body.seed
    return [_choice(request, first + i, _after(seed, i)) for i in range(body.n or 1)]


def _choice(request: Request, number: int, seed: int) -> Request:
    request_id = f"{request.request_id}-{number}" if number else request.request_id
    return replace(request, request_id=request_id, sampling=replace(request.sampling, seed=seed))


def _after(seed: int, steps: int) -> int:
    """Return the seed `steps` further on, which a client may name as well: past the largest comes the smallest."""
    return (seed + steps + _INT64) % (2 * _INT64) - _INT64


def _max_tokens(parts: Parts, body: GenerationBody, prompt_tokens: int, param: str) -> int:
    """Return the limit of the answer: what was asked for, cut to what the context leaves."""
    room = parts.model.max_model_len - prompt_tokens
    if room < 1:
        raise prompt_too_long(prompt_tokens, parts.model.max_model_len, param)
    asked = body.token_limit()
    return min(parts.config.default_max_tokens if asked is None else asked, room)


def _sampling(parts: Parts, body: GenerationBody) -> SamplingParams:
    biases = {int(token): bias for token, bias in (body.logit_bias or {}).items()}
    _check_vocabulary(parts, biases, "logit_bias")
    _check_vocabulary(parts, body.stop_token_ids or (), "stop_token_ids")
    return SamplingParams(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=max(0, body.top_k or 0),
        stop=body.stop_strings(),
        ignore_eos=bool(body.ignore_eos),
        logprobs=body.logprob_count(),
        min_p=body.min_p or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        repetition_penalty=body.repetition_penalty or 1.0,
        logit_bias=tuple((token, bias) for token, bias in biases.items() if bias),
        bad_words=_bad_words(parts.model.tokenizer, body.bad_words or []),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        min_tokens=body.min_tokens or 0,
    )


def _bad_words(tokenizer: TextTokenizer, texts: list[str]) -> tuple[tuple[int, ...], ...]:
    """Return the runs of tokens that each text may be, at the start of a line and behind a space.

    As in vLLM: the second is left out where it is the first with a token for the space before it, since then the ban of
    the first is enough.
    """
    runs: list[tuple[int, ...]] = []
    for text in texts:
        plain = tuple(tokenizer.encode(text.lstrip() or text))
        spaced = tuple(tokenizer.encode(" " + text.lstrip()))
        runs.append(plain)
        if len(spaced) == len(plain) and spaced[0] != plain[0]:
            runs.append(spaced)
    return tuple(run for run in runs if run)
