"""The parts of a tokenizer.json, as the `tokenizers` library reads it.

The tiny model, the models trained here and the converter of GGUF files put theirs together from these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Part = dict[str, Any]


def byte_level_bpe(
    tokens: Sequence[str], merges: Sequence[Sequence[str]], special: Sequence[str], **rules: Any
) -> Part:
    """Return a whole tokenizer.json: byte-level BPE as in GPT-2. `tokens` begin with the `special` ones.

    `rules` are the model's own, such as `ignore_merges`.
    """
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(id_, token) for id_, token in enumerate(special)],
        "normalizer": None,
        "pre_tokenizer": byte_level(),
        "post_processor": None,
        "decoder": byte_level(),
        "model": bpe(tokens, merges, **rules),
    }


def byte_level(use_regex: bool = True) -> Part:
    """Return the step between text and bytes; `use_regex` cuts the text into words as GPT-2 does."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def added_token(id_: int, token: str, special: bool = True) -> Part:
    """Return a token that is found in text before anything is merged; a `special` one is no part of the text."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return {"id": id_, "content": token, **flags}


def bpe(tokens: Sequence[str], merges: Sequence[Sequence[str]], **rules: Any) -> Part:
    """Return the model: the vocabulary, with ids in order, and the merges, the first one first."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        **rules,
        "vocab": {token: id_ for id_, token in enumerate(tokens)},
        "merges": merges,
    }
