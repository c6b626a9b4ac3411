"""Small GGUF files made in code, from the tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

GgufMaker = Callable[..., Path]
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _NAMES:
        return _NAMES[stem] + ".weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest]}.weight"


def _pairs_from_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to q and k: row i of head h goes to 2i, row i + half to 2i + 1."""
    head_dim = len(rows) // heads
    order = [
        h * head_dim + i + half * head_dim // 2 for h in range(heads) for i in range(head_dim // 2) for half in (0, 1)
    ]
    return rows[order]


@pytest.fixture
def make_gguf(tiny_folder: Path, tmp_path: Path) -> GgufMaker:
    """Return a function that writes the tiny model as a GGUF file.

    `keys` replaces or (value None) leaves out metadata; `tensors` does the same by GGUF name; `quantize` quantizes
    every matrix.
    """

    def make(
        keys: dict[str, Any] | None = None,
        tensors: dict[str, np.ndarray | None] | None = None,
        quantize: gguf.GGMLQuantizationType | None = None,
        name: str = "tiny.gguf",
    ) -> Path:
        weights = {
            _gguf_name(n): _pairs_from_halves(w, 4 if "q_proj" in n else 2) if ("q_proj" in n or "k_proj" in n) else w
            for n, w in load_file(tiny_folder / "model.safetensors").items()
        }
        writer = gguf.GGUFWriter(tmp_path / name, arch=(keys or {}).get("general.architecture", "llama"))
        for key, value in {**_metadata(tiny_folder), **(keys or {})}.items():
            if key != "general.architecture" and value is not None:
                _add(writer, key, value)
        for tensor, values in {**weights, **(tensors or {})}.items():
            if values is None:
                continue
            if quantize is not None and values.ndim == 2:
                writer.add_tensor(tensor, gguf.quantize(values, quantize), raw_dtype=quantize)
            else:
                writer.add_tensor(tensor, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / name

    return make


def _metadata(folder: Path) -> dict[str, Any]:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    return {
        "llama.block_count": 2,
        "llama.context_length": 512,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 128,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "llama.rope.dimension_count": 16,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": list(vocab),
        "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(vocab) - 3),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in tokenizer["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": settings["chat_template"],
    }


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
