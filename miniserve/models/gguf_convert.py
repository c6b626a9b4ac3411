"""A GGUF file becomes a model folder: weights dequantized to fp32, under their transformers names.

GGUF differs in three ways: blocks of weights are quantized, tensors have other names, and the rows of the q and k
projections are interleaved so that rotary embeddings rotate neighbours instead of halves. All three are undone here, so
the engine and the reference implementation read exactly the same numbers. Knows only llama.cpp's `llama` architecture
in its plain form; writes into a folder that the caller publishes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from miniserve.errors import WeightsError
from miniserve.models.folder import check_shapes, require_space
from miniserve.models.gguf_tokenizer import eos_ids, tokenizer_config, tokenizer_json
from miniserve.models.model_config import ModelConfig, config_json, write_json

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def convert_gguf(path: Path, folder: Path, report: Callable[[str], None]) -> ModelConfig:
    """Write the model in `path` to the existing `folder`. Needs the model's fp32 size in memory (0.54 GB for 135M).

    Raises: WeightsError naming the key or tensor that cannot be converted, and its value.
    """
    reader = _open(path)
    keys = _Keys(path, reader)
    try:
        config = _config(path, keys, reader.tensors)
        tensors = {_hf_name(path, tensor.name): tensor for tensor in reader.tensors}
        check_shapes(path, config, {name: _shape(tensor) for name, tensor in tensors.items()})
        _write_settings(folder, keys, config)
    except WeightsError as error:
        raise error if str(path) in str(error) else WeightsError(f"{path}: {error}") from error
    report(f"converting {path.name} to fp32: {len(tensors)} tensors, {_parameters(tensors) / 1e6:.1f}M weights")
    require_space(folder, 4 * _parameters(tensors))
    weights = {name: _weights(path, name, tensor, config) for name, tensor in tensors.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return config


class _Keys(dict[str, Any]):
    """The metadata of a GGUF file, with errors that name file and key."""

    def __init__(self, path: Path, reader: gguf.GGUFReader) -> None:
        super().__init__({name: field.contents() for name, field in reader.fields.items()})
        self._path = path

    def need(self, key: str) -> Any:
        if self.get(key) is None:
            raise WeightsError(f"{self._path}: key {key} is missing")
        return self[key]

    def count(self, key: str, default: int | None = None) -> int:
        """Return a number of things. Some files list it per layer, which is fine if all layers have the same.

        Raises: WeightsError naming the key if it is missing, differs between layers, or is no whole number above 0.
        """
        value = self.need(key) if default is None else self.get(key, default)
        if isinstance(value, list) and value and all(each == value[0] for each in value):
            value = value[0]
        if isinstance(value, list):
            raise WeightsError(f"{self._path}: {key} differs between layers ({value}); only equal layers are supported")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise WeightsError(f"{self._path}: {key} is {value!r}; a whole number above 0 is needed")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """Return a number above 0. Raises: WeightsError naming the key if it is missing or something else."""
        value = self.need(key) if default is None else self.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise WeightsError(f"{self._path}: {key} is {value!r}; a number above 0 is needed")
        return float(value)

    def refuse_unless(self, key: str, *allowed: Any) -> None:
        if self.get(key) not in (None, *allowed):
            raise WeightsError(f"{self._path}: {key} is {self[key]!r}; only {allowed[0]!r} is supported")


def _open(path: Path) -> gguf.GGUFReader:
    try:
        return gguf.GGUFReader(path)
    except Exception as error:  # the parser can raise anything on a damaged file
        raise WeightsError(f"{path} is not a GGUF file, or a truncated one: {error}") from error


def _config(path: Path, keys: _Keys, tensors: list[gguf.ReaderTensor]) -> ModelConfig:
    if keys.need("general.architecture") != "llama":
        raise WeightsError(
            f"{path}: general.architecture is {keys['general.architecture']!r}; only 'llama' is supported"
        )
    keys.refuse_unless("llama.rope.scaling.type", "none")
    keys.refuse_unless("llama.expert_count", 0)
    keys.refuse_unless("split.count", 1)
    shapes = {tensor.name: _shape(tensor) for tensor in tensors}
    if "rope_freqs.weight" in shapes:
        raise WeightsError(f"{path}: tensor rope_freqs.weight asks for rope scaling, which is not supported")
    hidden, heads = keys.count("llama.embedding_length"), keys.count("llama.attention.head_count")
    head_dim = keys.count("llama.attention.key_length", hidden // heads)
    keys.refuse_unless("llama.rope.dimension_count", head_dim)
    keys.refuse_unless("llama.attention.value_length", head_dim)
    return ModelConfig(
        vocab_size=shapes.get("token_embd.weight", (len(keys.need("tokenizer.ggml.tokens")),))[0],
        hidden_size=hidden,
        num_layers=keys.count("llama.block_count"),
        num_heads=heads,
        num_kv_heads=keys.count("llama.attention.head_count_kv", heads),
        head_dim=head_dim,
        intermediate_size=keys.count("llama.feed_forward_length"),
        rope_theta=keys.positive("llama.rope.freq_base", 10000.0),
        rms_norm_eps=_shortest(keys.positive("llama.attention.layer_norm_rms_epsilon")),
        max_position=keys.count("llama.context_length"),
        tie_embeddings="output.weight" not in shapes,
        eos_ids=eos_ids(keys),
        bos_id=keys.get("tokenizer.ggml.bos_token_id"),
    )


def _shortest(value: float) -> float:
    """Undo a float's round trip through 32 bits: 9.999999747378752e-06 was written as 1e-05."""
    return float(str(np.float32(value)))


def _hf_name(path: Path, name: str) -> str:
    stem, _, kind = name.rpartition(".")
    block = _BLOCK_NAME.fullmatch(name)
    if block and block[2] in _BLOCK:
        return f"model.layers.{block[1]}.{_BLOCK[block[2]]}.{block[3]}"
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    raise WeightsError(f"{path}: tensor {name} is not part of the plain Llama architecture, the only one run here")


def _shape(tensor: gguf.ReaderTensor) -> tuple[int, ...]:
    return tuple(int(size) for size in reversed(tensor.shape.tolist()))  # GGUF counts the fastest dimension first


def _parameters(tensors: dict[str, gguf.ReaderTensor]) -> int:
    return sum(int(tensor.n_elements) for tensor in tensors.values())


def _write_settings(folder: Path, keys: _Keys, config: ModelConfig) -> None:
    write_json(folder / "config.json", config_json(config))
    write_json(folder / "generation_config.json", {"bos_token_id": config.bos_id, "eos_token_id": list(config.eos_ids)})
    write_json(folder / "tokenizer.json", tokenizer_json(keys))
    write_json(folder / "tokenizer_config.json", tokenizer_config(keys, config.max_position))


def _weights(path: Path, name: str, tensor: gguf.ReaderTensor, config: ModelConfig) -> NDArray[np.float32]:
    try:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError:
        raise WeightsError(f"{path}: tensor {tensor.name} has the unsupported type {tensor.tensor_type.name}") from None
    values = np.asarray(values, dtype=np.float32)
    if name.endswith("q_proj.weight"):
        values = halves_from_pairs(values, config.num_heads)
    elif name.endswith("k_proj.weight"):
        values = halves_from_pairs(values, config.num_kv_heads)
    return np.ascontiguousarray(values)


def halves_from_pairs(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of a q or k projection, head by head, from x0 y0 x1 y1 ... to x0 x1 ... y0 y1 ...

    Rotary embeddings rotate each (x, y). llama.cpp keeps the two side by side, transformers half a head apart.
    """
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
