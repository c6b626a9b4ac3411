"""The tokenizer inside a GGUF file, rewritten as tokenizer.json.

GGUF stores the vocabulary, the merges and a *name* for the rule that cuts text into words before merging; the rule
itself lives in the reader's code, so a name that is not known here is refused: a near miss would give other tokens.
Two kinds exist in the Llama family: byte-level BPE ("gpt2" in GGUF) and sentencepiece BPE ("llama").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from miniserve.errors import WeightsError
from miniserve.models.tokenizer_json import added_token, bpe, byte_level

Keys = Mapping[str, Any]  # GGUF metadata: key -> value

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # GGUF's token types; 1 is normal, 5 unused, 6 byte
_END_MARKS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|end_of_text|>", "<|endoftext|>", "</s>")
_LLAMA3_WORDS = (  # the published pattern of the Llama 3 tokenizer
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


_DIGITS = _sequence({"type": "Digits", "individual_digits": True}, byte_level())  # each digit a word of its own
_LLAMA3 = _sequence(
    {"type": "Split", "pattern": {"Regex": _LLAMA3_WORDS}, "behavior": "Isolated", "invert": False},
    byte_level(use_regex=False),
)
_WORDS = {
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "gpt-2": byte_level(),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
}


def tokenizer_json(keys: Keys) -> dict[str, Any]:
    """Return tokenizer.json for the tokenizer that GGUF metadata describe.

    Raises: WeightsError naming the key if the tokenizer is of a kind that is not known here.
    """
    kind = keys.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise WeightsError(f"tokenizer.ggml.model is {kind!r}; only 'gpt2' (byte-level BPE) and 'llama' are supported")
    tokens, types = _tokens(keys)
    parts = _byte_level_parts(keys, tokens) if kind == "gpt2" else _sentencepiece_parts(keys, tokens)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(tokens, types),
        **parts,
        "post_processor": _post_processor(keys, tokens, default=kind == "llama"),
    }


def tokenizer_config(keys: Keys, max_position: int) -> dict[str, Any]:
    """Return tokenizer_config.json: the names of the control tokens and the chat template."""
    tokens, _ = _tokens(keys)
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {name: keys.get(f"tokenizer.ggml.{key}_token_id") for name, key in names.items()}
    template = keys.get("tokenizer.chat_template")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: tokens[id_] for name, id_ in ids.items() if id_ is not None and id_ < len(tokens)},
        "model_max_length": max_position,
        "clean_up_tokenization_spaces": False,
        **({"chat_template": template} if template else {}),
    }


def eos_ids(keys: Keys) -> tuple[int, ...]:
    """Return every token that ends a generation: the declared one first, then control tokens with a well-known name."""
    tokens, types = _tokens(keys)
    declared = [keys.get("tokenizer.ggml.eos_token_id"), keys.get("tokenizer.ggml.eot_token_id")]
    control = {token: id_ for id_, token in enumerate(tokens) if types[id_] == _CONTROL}
    known = [control.get(mark) for mark in _END_MARKS]
    return tuple(dict.fromkeys(int(id_) for id_ in [*declared, *known] if id_ is not None))


def _tokens(keys: Keys) -> tuple[list[str], list[int]]:
    tokens = keys.get("tokenizer.ggml.tokens")
    if not tokens:
        raise WeightsError("tokenizer.ggml.tokens is missing: the GGUF file has no vocabulary")
    types = keys.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    if len(types) != len(tokens):
        raise WeightsError(f"tokenizer.ggml.token_type has {len(types)} entries for {len(tokens)} tokens")
    return tokens, types


def _added_tokens(tokens: list[str], types: list[int]) -> list[dict[str, Any]]:
    return [
        added_token(id_, token, special=types[id_] != _USER_DEFINED)
        for id_, token in enumerate(tokens)
        if types[id_] in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]


def _byte_level_parts(keys: Keys, tokens: list[str]) -> dict[str, Any]:
    name = keys.get("tokenizer.ggml.pre")
    if name not in _WORDS:
        raise WeightsError(f"tokenizer.ggml.pre is {name!r}; only {', '.join(map(repr, _WORDS))} are supported")
    merges = [merge.split(" ", 1) for merge in keys.get("tokenizer.ggml.merges") or ()]
    if not merges:
        raise WeightsError("tokenizer.ggml.merges is missing: byte-level BPE cannot work without it")
    return {
        "normalizer": None,
        "pre_tokenizer": _WORDS[name],
        "decoder": byte_level(),
        "model": bpe(tokens, merges, ignore_merges=_WORDS[name] is _LLAMA3),
    }


def _sentencepiece_parts(keys: Keys, tokens: list[str]) -> dict[str, Any]:
    scores = keys.get("tokenizer.ggml.scores")
    if not scores or len(scores) != len(tokens):
        raise WeightsError("tokenizer.ggml.scores is missing or does not fit tokenizer.ggml.tokens")
    spaces = [{"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]
    prefix = [{"type": "Prepend", "prepend": "\u2581"}] if keys.get("tokenizer.ggml.add_space_prefix", True) else []
    unknown = keys.get("tokenizer.ggml.unknown_token_id", 0)
    decoders = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}]
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, *spaces]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [*decoders, {"type": "Fuse"}, *strip]},
        "model": bpe(
            tokens, _merges_by_score(tokens, scores), unk_token=tokens[unknown], fuse_unk=True, byte_fallback=True
        ),
    }


def _merges_by_score(tokens: list[str], scores: list[float]) -> list[list[str]]:
    """Return the merges that sentencepiece leaves implicit: any two pieces that make a third, best score first."""
    ids = {token: id_ for id_, token in enumerate(tokens)}
    found = []
    for id_, token in enumerate(tokens):
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                found.append((-scores[id_], ids[left], ids[right], [left, right]))
    return [merge for *_, merge in sorted(found, key=lambda item: item[:3])]


def _post_processor(keys: Keys, tokens: list[str], default: bool) -> dict[str, Any] | None:
    """Return the rule that puts the beginning-of-sequence token first, where the file asks for one."""
    bos_id = keys.get("tokenizer.ggml.bos_token_id")
    if bos_id is None or not keys.get("tokenizer.ggml.add_bos_token", default):
        return None
    bos = tokens[bos_id]
    first = {"SpecialToken": {"id": bos, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [first, {"Sequence": {"id": "A", "type_id": 0}}, first, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
    }
