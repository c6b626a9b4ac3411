"""What a foreign OpenAI-compatible server says: chunks, refusals, models, figures. No I/O.

Knows `/v1/completions` as OpenAI describes it, and the token ids and metrics that vLLM adds.

**Everything here is another program's word.** It is checked for shape and size before it means anything, and whatever
fails becomes an error that says what the backend did.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from miniserve.engine.scheduler import Counters
from miniserve.engine.stats import EngineStats
from miniserve.errors import InternalError, InvalidRequest, Overloaded, RateLimited, RequestError, UpstreamError
from miniserve.replica.wire import retry_after_in
from miniserve.types import FinishReason, TokenLogprob

LONGEST_MESSAGE = 500  # characters of a backend's error that we pass on
_MOST = 1 << 53  # as in `replica/wire.py`: any count beyond is nonsense
_PER_MILLE = 1000  # stands for a cache of unknown size, of which only the used share is told
_ENDS = {
    "stop": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "repetition": FinishReason.STOP,
    "content_filter": FinishReason.STOP,
    "length": FinishReason.LENGTH,
}
_SAMPLE = re.compile(r"^(vllm:\w+)(?:\{[^}]*\})? (\S+)", re.MULTILINE)


# --- what comes back ------------------------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Logprobs(_Strict):
    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(_Strict):
    text: str = ""
    token_ids: list[int] | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Details(_Strict):
    cached_tokens: int | None = Field(default=None, ge=0, le=_MOST)


class _Usage(_Strict):
    prompt_tokens_details: _Details | None = None


class _Chunk(_Strict):
    choices: list[_Choice]
    usage: _Usage | None = None


@dataclass(frozen=True, slots=True)
class BackendChunk:
    """One piece of a backend's answer, its shape checked."""

    text: str = ""
    token_ids: tuple[int, ...] | None = None  # None: the backend named none
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    cached_tokens: int = 0


def read_chunk(data: str | bytes) -> BackendChunk:
    """Raises: the error that the backend sent in a chunk's place; UpstreamError if it is neither."""
    try:
        chunk = _Chunk.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "body"
        raise _error_in(data) or UpstreamError(f"the backend sent no completion: {where}: {problem['msg']}") from None
    details = chunk.usage.prompt_tokens_details if chunk.usage else None
    cached_tokens = details.cached_tokens or 0 if details else 0
    if not chunk.choices:
        return BackendChunk(cached_tokens=cached_tokens)
    choice = chunk.choices[0]
    ids = None if choice.token_ids is None else tuple(choice.token_ids)
    logprobs = () if choice.logprobs is None else _logprobs(choice.logprobs)
    return BackendChunk(choice.text, ids, _end(choice.finish_reason), logprobs, cached_tokens)


def _end(reason: str | None) -> FinishReason | None:
    if reason is not None and reason not in _ENDS:
        raise UpstreamError(f"the backend ended the answer with {reason[:LONGEST_MESSAGE]!r}")
    return None if reason is None else _ENDS[reason]


def _logprobs(lists: _Logprobs) -> tuple[TokenLogprob, ...]:
    tops = lists.top_logprobs or [None] * len(lists.tokens)
    try:
        entries = zip(lists.tokens, lists.token_logprobs, tops, strict=True)
        return tuple(_logprob(token, logprob, top or {}) for token, logprob, top in entries)
    except ValueError:
        raise UpstreamError("the backend sent log-probabilities that cannot be read") from None


def _logprob(token: str, logprob: float | None, top: dict[str, float]) -> TokenLogprob:
    best = sorted(((_id_in(name), value) for name, value in top.items()), key=lambda pair: -pair[1])
    if logprob is None or not all(map(math.isfinite, (logprob, *(value for _, value in best)))):
        raise ValueError
    return TokenLogprob(_id_in(token), logprob, tuple(best))


def _id_in(name: str) -> int:
    prefix, _, number = name.partition(":")
    if prefix != "token_id" or not number.isdecimal() or len(number) > 10:
        raise ValueError
    return int(number)


# --- refusals -------------------------------------------------------------------------------------------------------


def refusal(status: int, body: bytes, retry_after: str | None = None) -> RequestError:
    """Return our error for a backend's HTTP answer that is no 200: whose fault it is, and what the backend said."""
    said = _message_in(body)
    what = f"the backend answered {status}" + (f": {said}" if said else "")
    wait_s = retry_after_in(retry_after)
    if status in (401, 403):
        return UpstreamError(f"{what}; check --backend-key-file")
    if status in (400, 413, 422):
        return InvalidRequest(what)
    if status == 429:
        return RateLimited(what, retry_after_s=wait_s)
    if status == 503:
        return Overloaded(what, retry_after_s=wait_s)
    return InternalError(what) if status == 500 else UpstreamError(what)


def _error_in(data: str | bytes) -> RequestError | None:
    """Return the error in an event of a stream that has begun with 200, by the status that it names."""
    fields = _object(data)
    error = None if fields is None else fields.get("error")
    if error is None:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and 400 <= code < 600:
        return refusal(code, data if isinstance(data, bytes) else data.encode())
    message = _message_in(data) or "no reason given"
    return UpstreamError(f"the backend sent an error inside its answer: {message}")


def _message_in(data: str | bytes) -> str:
    """Return the words of an error body in any of the usual shapes; "" if there are none."""
    said: object = _object(data) or {}
    for name in ("error", "message", "detail"):
        if isinstance(said, dict) and name in said:
            said = said[name]
    return said[:LONGEST_MESSAGE] if isinstance(said, str) else ""


def _object(data: str | bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


# --- what the backend is ---------------------------------------------------------------------------------------------


def read_models(body: bytes) -> dict[str, int | None]:
    """Return each model that `/v1/models` lists, with its context length if it is told. Raises: UpstreamError."""
    listed = (_object(body) or {}).get("data")
    if not isinstance(listed, list):
        raise UpstreamError("the backend's /v1/models is no list of models: is it an OpenAI-compatible server?")
    models: dict[str, int | None] = {}
    for entry in listed:
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            length = entry.get("max_model_len")
            models[entry["id"]] = length if type(length) is int and 0 < length <= _MOST else None
    return models


@dataclass(frozen=True, slots=True)
class BackendFigures:
    """What a backend's metrics tell of its load."""

    running: int = 0
    waiting: int = 0
    kv_used_fraction: float = 0.0
    generated_tokens: int = 0
    prompt_tokens: int = 0

    def stats(self, seen_events: int, tokens_per_s: float) -> EngineStats:
        """Return them as an engine's; what we have seen of its answers counts as steps too."""
        steps = seen_events + self.generated_tokens + self.prompt_tokens
        counters = Counters(steps, self.prompt_tokens, self.generated_tokens)
        used = round(self.kv_used_fraction * _PER_MILLE)
        return EngineStats(counters, self.running, self.waiting, _PER_MILLE, used, tokens_per_s=tokens_per_s)


def read_figures(text: str) -> BackendFigures | None:
    """Return vLLM's figures in a Prometheus exposition, over all its engines; None if there are none.

    Raises: UpstreamError for a figure that is no number, or an impossible one.
    """
    found: dict[str, list[float]] = {}
    for name, value in _SAMPLE.findall(text):
        if name in _FIGURES:
            found.setdefault(name, []).append(_figure(name, value))
    if not found:
        return None
    sums = {_FIGURES[name]: sum(values) for name, values in found.items()}
    kv_used_fraction = min(1.0, max(found.get(_KV_USED, [0.0])))
    counts = {field: int(value) for field, value in sums.items() if field != "kv_used_fraction"}
    return BackendFigures(**counts, kv_used_fraction=kv_used_fraction)


_KV_USED = "vllm:kv_cache_usage_perc"
_FIGURES = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    _KV_USED: "kv_used_fraction",
    "vllm:generation_tokens_total": "generated_tokens",
    "vllm:prompt_tokens_total": "prompt_tokens",
}


def _figure(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= _MOST / 16:
        raise UpstreamError(f"the backend's metrics say {name} {value[:40]}")
    return number
