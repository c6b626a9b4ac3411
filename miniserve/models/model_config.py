"""The numbers that describe a Llama model: config.json in, `ModelConfig` out, and back.

Only the Llama architecture is run, and only in the form whose arithmetic we implement: any setting that would make the
model compute something else is refused by name, because a model that is *nearly* right gives fluent, wrong answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniserve.errors import WeightsError

_MOST = 1 << 31  # of any size in a configuration: beyond, it is a damaged file, and would be counted up to for ever
_MOST_LAYERS = 10_000
_MOST_REAL = 1e30


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a Llama model. Head counts are per layer; `max_position` is the context in tokens."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    rope_theta: float
    rms_norm_eps: float
    max_position: int
    tie_embeddings: bool
    eos_ids: tuple[int, ...]
    bos_id: int | None = None


def config_json(config: ModelConfig) -> dict[str, Any]:
    """Return config.json for `config` (weights in fp32), readable by transformers 4 and 5."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,  # transformers 4
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},  # transformers 5
        "max_position_embeddings": config.max_position,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": config.bos_id,
        "eos_token_id": list(config.eos_ids),
        "dtype": "float32",
    }


def read_config(folder: Path) -> ModelConfig:
    """Read config.json, and the end-of-sequence ids of the folder (`read_eos_ids`).

    Raises: WeightsError naming the key and value that is missing, malformed, or not implemented here.
    """
    path = folder / "config.json"
    raw = read_json(path)
    _refuse_unsupported(path, raw)
    heads = _positive(path, raw, "num_attention_heads")
    hidden = _positive(path, raw, "hidden_size")
    kv_heads = _positive(path, raw, "num_key_value_heads", heads)
    head_dim = _positive(path, raw, "head_dim", hidden // heads)
    if heads % kv_heads or head_dim % 2:
        raise WeightsError(
            f"{path}: {heads} heads cannot share {kv_heads} KV heads evenly, or head_dim {head_dim} is odd"
        )
    bos_id = raw.get("bos_token_id")
    return ModelConfig(
        vocab_size=_positive(path, raw, "vocab_size"),
        hidden_size=hidden,
        num_layers=_positive(path, raw, "num_hidden_layers", most=_MOST_LAYERS),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=_positive(path, raw, "intermediate_size"),
        rope_theta=_number(path, {**raw, **_rope(raw)}, "rope_theta", 10000.0),
        rms_norm_eps=_number(path, raw, "rms_norm_eps", 1e-6),
        max_position=_positive(path, raw, "max_position_embeddings"),
        tie_embeddings=bool(raw.get("tie_word_embeddings", False)),
        eos_ids=read_eos_ids(folder),
        bos_id=int(bos_id) if isinstance(bos_id, int) else None,
    )


def read_eos_ids(folder: Path) -> tuple[int, ...]:
    """Return the tokens that end a generation: those of generation_config.json, else of config.json; and the
    tokenizer's own `eos_token`, which chat models end with even where the other files name only the base model's.
    """
    return tuple(dict.fromkeys((*_configured_eos_ids(folder), *_tokenizer_eos_ids(folder))))


def _configured_eos_ids(folder: Path) -> tuple[int, ...]:
    for path in (folder / "generation_config.json", folder / "config.json"):
        value = read_json(path).get("eos_token_id") if path.is_file() else None
        if value is not None:
            ids = value if isinstance(value, list) else [value]
            if not all(isinstance(id_, int) and id_ >= 0 for id_ in ids):
                raise WeightsError(f"{path}: eos_token_id is {value!r}; a token id or a list of them is needed")
            return tuple(ids)
    return ()


def _tokenizer_eos_ids(folder: Path) -> tuple[int, ...]:
    if not (folder / "tokenizer_config.json").is_file() or not (folder / "tokenizer.json").is_file():
        return ()
    token = read_json(folder / "tokenizer_config.json").get("eos_token")
    content = token.get("content") if isinstance(token, dict) else token
    path = folder / "tokenizer.json"
    added = read_json(path).get("added_tokens") or ()
    try:
        return tuple(int(each["id"]) for each in added if each["content"] == content)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise WeightsError(f"{path}: added_tokens is no list of tokens: {type(error).__name__}: {error}") from None


def _rope(raw: dict[str, Any]) -> dict[str, Any]:
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    return rope if isinstance(rope, dict) else {"rope_type": rope}


def _refuse_unsupported(path: Path, raw: dict[str, Any]) -> None:
    """Refuse the first key that asks for arithmetic other than plain Llama's."""
    rope = _rope(raw)
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    checks = (
        ("model_type", raw.get("model_type"), raw.get("model_type") == "llama", "llama"),
        ("rope_parameters.rope_type", rope_type, rope_type == "default", "default"),
        ("hidden_act", raw.get("hidden_act", "silu"), raw.get("hidden_act", "silu") == "silu", "silu"),
        (
            "partial_rotary_factor",
            raw.get("partial_rotary_factor"),
            raw.get("partial_rotary_factor") in (None, 1.0),
            "1.0",
        ),
        *(
            (key, raw.get(key), not raw.get(key), "none")
            for key in ("attention_bias", "mlp_bias", "quantization_config")
        ),
    )
    for key, value, supported, only in checks:
        if not supported:
            raise WeightsError(f"{path}: {key} is {value!r}; only {only} is supported")


def _positive(path: Path, raw: dict[str, Any], key: str, default: int | None = None, most: int = _MOST) -> int:
    value = raw.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise WeightsError(f"{path}: {key} is {value!r}; a positive whole number is needed, at most {most:,}")
    return value


def _number(path: Path, raw: dict[str, Any], key: str, default: float) -> float:
    value = raw.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < _MOST_REAL:
        raise WeightsError(f"{path}: {key} is {value!r}; a positive number is needed")
    return float(value)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`. Raises: WeightsError if the file is missing or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` in readable form, without escaping characters."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
