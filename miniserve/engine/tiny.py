"""A complete Llama model of about 100,000 random weights, for tests and for looking inside.

It answers nonsense, but deterministically and through the very same code as a real one: same files, tensor names,
grouped-query attention, byte-level tokenizer and chat template. Its few merges are chosen so that characters are cut
into tokens at awkward places.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from miniserve.engine.tokenizer import byte_alphabet

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
EOS_ID = 2  # <|im_end|>
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_MERGED = (
    *((b" ", b"t"), (b"h", b"e"), (b" t", b"he"), (b"i", b"n"), (b"e", b"r"), (b" ", b"a"), (b"o", b"u"), (b"l", b"l")),
    *((b"\xf0", b"\x9f"), (b"\xf0\x9f", b"\x98")),  # the first two and three of an emoji's four bytes
    *((b"\xe4", b"\xb8"), (b"\xe2", b"\x82")),  # two of three bytes
    (b"\xa9", b"\xc3"),  # the end of one character and the start of the next, as in "éé"
    (b"\xc3", b"\xb6"),  # one whole character, "ö"
)


def write_tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    ffn: int = 128,
    context: int = 512,
    tie_embeddings: bool = False,
) -> Path:
    """Write a model folder (transformers layout, fp32) and return it. Same arguments, same bytes.

    `heads` must be divisible by `kv_heads`, and `hidden` by twice `heads` (rotary embeddings turn pairs).
    """
    if heads % kv_heads or hidden % (2 * heads):
        raise ValueError(
            f"{heads} heads need a divisor as kv_heads, not {kv_heads}, and an even share of hidden {hidden}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(tokenizer["model"]["vocab"]),
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "intermediate_size": ffn,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "max_position_embeddings": context,
        "tie_word_embeddings": tie_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 1,
        "eos_token_id": EOS_ID,
        "dtype": "float32",
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": EOS_ID})
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "tokenizer.json", tokenizer)
    save_file(_tensors(config, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _tokenizer() -> dict[str, Any]:
    """A byte-level BPE tokenizer: the control tokens, the 256 bytes, then one token per merge."""
    alphabet = byte_alphabet()
    spelled = [["".join(alphabet[byte] for byte in half) for half in pair] for pair in _MERGED]
    tokens = [*SPECIAL_TOKENS, *alphabet.values(), *("".join(pair) for pair in spelled)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token, **flags} for i, token in enumerate(SPECIAL_TOKENS)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": spelled,
        },
    }


def _tensors(config: dict[str, Any], seed: int) -> dict[str, NDArray[np.float32]]:
    """Random weights, each row scaled so that activations keep their size from layer to layer."""
    random = np.random.default_rng(seed)
    vocab, hidden, ffn = config["vocab_size"], config["hidden_size"], config["intermediate_size"]
    kv = config["num_key_value_heads"] * config["head_dim"]

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return np.asarray(random.standard_normal((rows, columns)) / math.sqrt(columns), dtype=np.float32)

    def norm() -> NDArray[np.float32]:
        return np.asarray(1 + 0.1 * random.standard_normal(hidden), dtype=np.float32)

    tensors = {"model.embed_tokens.weight": matrix(vocab, hidden) * np.float32(4)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        tensors[prefix + "input_layernorm.weight"] = norm()
        tensors[prefix + "self_attn.q_proj.weight"] = matrix(hidden, hidden) * np.float32(2)
        tensors[prefix + "self_attn.k_proj.weight"] = matrix(kv, hidden) * np.float32(2)
        tensors[prefix + "self_attn.v_proj.weight"] = matrix(kv, hidden)
        tensors[prefix + "self_attn.o_proj.weight"] = matrix(hidden, hidden)
        tensors[prefix + "post_attention_layernorm.weight"] = norm()
        tensors[prefix + "mlp.gate_proj.weight"] = matrix(ffn, hidden)
        tensors[prefix + "mlp.up_proj.weight"] = matrix(ffn, hidden)
        tensors[prefix + "mlp.down_proj.weight"] = matrix(hidden, ffn)
    tensors["model.norm.weight"] = norm()
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = matrix(vocab, hidden) * np.float32(2)
    return tensors
