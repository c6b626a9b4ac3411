"""The model folder: which files and tensors it has, and whether they are complete.

Plain transformers layout: config.json, generation_config.json, tokenizer.json, tokenizer_config.json and the weights in
model.safetensors (or several shards with an index). Reads only headers, never weights; needs no torch.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniserve.errors import WeightsError
from miniserve.models.model_config import ModelConfig, read_config, read_json

_FLOAT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_MAX_HEADER_BYTES = 100 << 20  # the safetensors format's own limit
_HARMLESS = (".self_attn.rotary_emb.inv_freq",)  # old checkpoints store this, though it follows from rope_theta
_MARGIN_BYTES = 64 << 20  # disk space to leave free
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)  # what odd JSON leads to
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor as a safetensors header describes it."""

    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int = 0  # of its bytes in the file

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape (rows, columns) of every tensor in a model of this shape, in file order."""
    hidden, ffn = config.hidden_size, config.intermediate_size
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, hidden)}
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = (hidden,)
        shapes[prefix + "self_attn.q_proj.weight"] = (q, hidden)
        shapes[prefix + "self_attn.k_proj.weight"] = (kv, hidden)
        shapes[prefix + "self_attn.v_proj.weight"] = (kv, hidden)
        shapes[prefix + "self_attn.o_proj.weight"] = (hidden, q)
        shapes[prefix + "post_attention_layernorm.weight"] = (hidden,)
        shapes[prefix + "mlp.gate_proj.weight"] = (ffn, hidden)
        shapes[prefix + "mlp.up_proj.weight"] = (ffn, hidden)
        shapes[prefix + "mlp.down_proj.weight"] = (hidden, ffn)
    shapes["model.norm.weight"] = (hidden,)
    if not config.tie_embeddings:
        shapes[HEAD] = (config.vocab_size, hidden)
    return shapes


def check_folder(folder: Path) -> ModelConfig:
    """Return the configuration of a model folder, after checking that everything it needs is present and usable.

    Takes milliseconds: it compares each file's header with its size and with the configuration, and reads no weights
    (`values.check_stored_model` does).

    Raises: WeightsError naming the first file, tensor or key that is wrong.
    """
    config = read_config(folder)
    if not (folder / "tokenizer.json").is_file():
        raise WeightsError(f"{folder / 'tokenizer.json'} is missing: the tokenizer is needed in tokenizer.json format")
    check_shapes(folder, config, {name: tensor.shape for name, tensor in read_tensors(folder).items()})
    _check_tokens(folder, config)
    return config


def _check_tokens(folder: Path, config: ModelConfig) -> None:
    """Refuse a tokenizer with tokens for which the embedding has no row: any text that has one would break the step."""
    path = folder / "tokenizer.json"
    try:
        tokens = int(largest_token(read_json(path))) + 1
    except _DAMAGE as error:
        raise WeightsError(f"{path} is not a tokenizer: {type(error).__name__}: {error}") from None
    if tokens > config.vocab_size:
        raise WeightsError(
            f"{folder}: the tokenizer has {tokens} tokens, but the embedding {config.vocab_size} rows: a token was "
            "added and the model not resized, or the files belong to different models"
        )


def largest_token(tokenizer: dict[str, Any]) -> int:
    """Return the largest token id in a tokenizer.json; -1 if it has none."""
    vocab = (tokenizer.get("model") or {}).get("vocab") or {}
    ids = vocab.values() if isinstance(vocab, dict) else range(len(vocab))
    added = (token["id"] for token in tokenizer.get("added_tokens") or ())
    return max((*ids, *added), default=-1)


def check_shapes(source: Path, config: ModelConfig, shapes: dict[str, tuple[int, ...]]) -> None:
    """Compare the tensors in `source` with those that the configuration requires.

    Raises: WeightsError naming a tensor that is missing, has the wrong shape, or is not part of the Llama architecture.
    """
    expected = expected_shapes(config)
    for name, shape in expected.items():
        if name not in shapes:
            tied = " (a head tied to the embedding needs tie_word_embeddings in config.json)" if name == HEAD else ""
            raise WeightsError(f"{source}: tensor {name} of shape {list(shape)} is missing{tied}")
        if shapes[name] != shape:
            raise WeightsError(f"{source}: tensor {name} has shape {list(shapes[name])}, expected {list(shape)}")
    for name in shapes:
        if name not in expected and name != HEAD and not name.endswith(_HARMLESS):
            raise WeightsError(
                f"{source}: tensor {name} is not part of the plain Llama architecture, the only one run here"
            )


def tensor_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder: model.safetensors, or the shards named by the index."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not (folder / _INDEX).is_file():
        raise WeightsError(f"{folder} has no model.safetensors and no {_INDEX}: only safetensors folders are supported")
    names = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise WeightsError(f"{folder / _INDEX} has no weight_map")
    files = [folder / str(name) for name in sorted(set(names.values()))]
    if any(file.parent != folder for file in files):
        raise WeightsError(f"{folder / _INDEX} names a shard outside its own folder")
    return files


def read_tensors(folder: Path) -> dict[str, TensorEntry]:
    """Return the headers of all weight files: tensor name -> dtype, shape, file name.

    Raises: WeightsError if a file is missing, truncated, damaged, or holds a tensor that is not F32, F16 or BF16.
    """
    return {name: entry for file in tensor_files(folder) for name, entry in _read_header(file).items()}


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raises: WeightsError if the disk of `folder` has no room for `needed_bytes` more."""
    free, needed = shutil.disk_usage(folder).free, needed_bytes + _MARGIN_BYTES
    if free < needed:
        raise WeightsError(
            f"{folder} has {free / 1e9:.2f} GB free and {needed / 1e9:.2f} GB are needed: free some space or choose "
            "another cache folder"
        )


def _read_header(path: Path) -> dict[str, TensorEntry]:
    try:
        actual = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_MAX_HEADER_BYTES, actual):
                raise ValueError(f"a header of {length:,} bytes in a file of {actual:,}")
            header = json.loads(file.read(length))
        tensors = {name: value for name, value in header.items() if name != "__metadata__"}
        end = 8 + length + max((int(value["data_offsets"][1]) for value in tensors.values()), default=0)
        entries = {name: _entry(path, name, value, 8 + length) for name, value in tensors.items()}
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing") from None
    except (*_DAMAGE, OSError, struct.error) as error:
        raise WeightsError(f"{path} is not a safetensors file, or a damaged one: {error}") from error
    if end != actual:
        raise WeightsError(
            f"{path} is incomplete: it has {actual:,} bytes, its header promises {end:,}; fetch it again"
        )
    return entries


def _entry(path: Path, name: str, value: dict[str, Any], data_at: int) -> TensorEntry:
    dtype, shape = value["dtype"], tuple(int(size) for size in value["shape"])
    if dtype not in _FLOAT_BYTES:
        raise WeightsError(f"{path}: tensor {name} has dtype {dtype}; only {', '.join(_FLOAT_BYTES)} are supported")
    start, end = value["data_offsets"]
    if end - start != math.prod(shape) * _FLOAT_BYTES[dtype]:
        raise ValueError(f"tensor {name} of shape {list(shape)} is given {end - start:,} bytes")
    return TensorEntry(dtype, shape, path.name, data_at + int(start))
