"""A complete Llama model of about 100,000 random weights, for tests and for looking inside.

It answers nonsense, but deterministically and through the very same code as a real one: same files, tensor names,
grouped-query attention, byte-level tokenizer and chat template. Its few merges are chosen so that characters are cut
into tokens at awkward places.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from miniserve.models.folder import expected_shapes
from miniserve.models.model_config import ModelConfig, config_json, write_json
from miniserve.models.tokenizer import byte_alphabet
from miniserve.models.tokenizer_json import byte_level_bpe

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BOS_ID = 1  # <|im_start|>
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
    config = ModelConfig(
        vocab_size=len(tokenizer["model"]["vocab"]),
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=hidden // heads,
        intermediate_size=ffn,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        max_position=context,
        tie_embeddings=tie_embeddings,
        eos_ids=(EOS_ID,),
        bos_id=BOS_ID,
    )
    write_json(folder / "config.json", config_json(config))
    write_json(folder / "generation_config.json", {"bos_token_id": BOS_ID, "eos_token_id": [EOS_ID]})
    write_json(folder / "tokenizer_config.json", _tokenizer_settings(context))
    write_json(folder / "tokenizer.json", tokenizer)
    save_file(_tensors(config, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _tokenizer_settings(context: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _tokenizer() -> dict[str, Any]:
    """A byte-level BPE tokenizer: the control tokens, the 256 bytes, then one token per merge."""
    alphabet = byte_alphabet()
    spelled = [["".join(alphabet[byte] for byte in half) for half in pair] for pair in _MERGED]
    tokens = [*SPECIAL_TOKENS, *alphabet.values(), *("".join(pair) for pair in spelled)]
    return byte_level_bpe(tokens, spelled, SPECIAL_TOKENS)


def _tensors(config: ModelConfig, seed: int) -> dict[str, NDArray[np.float32]]:
    """Random weights, scaled so that activations keep their size from layer to layer and attention has preferences."""
    random = np.random.default_rng(seed)
    louder = {"model.embed_tokens": 4.0, "q_proj": 2.0, "k_proj": 2.0, "lm_head": 2.0}

    def tensor(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        noise = random.standard_normal(shape)
        if len(shape) == 1:  # a norm's gain
            return np.asarray(1 + 0.1 * noise, dtype=np.float32)
        scale = next((factor for part, factor in louder.items() if part in name), 1.0)
        return np.asarray(noise * scale / math.sqrt(shape[1]), dtype=np.float32)

    return {name: tensor(name, shape) for name, shape in expected_shapes(config).items()}
