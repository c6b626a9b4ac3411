"""The tokenizer that all shipped models share: the 256 bytes, and the words that questions are made of.

A word of a question ("What", " capital") is one token; everything that must be looked at letter by letter (numbers,
names, strings, any text it was not made for) falls apart into bytes. So prompts are short and nothing is unreadable.
The format is that of any byte-level BPE; there are no merges, a word is in the vocabulary or it is not
(`ignore_merges`, as in Llama 3).
"""

from __future__ import annotations

from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

from miniserve.models.model_config import ModelConfig, config_json, write_json
from miniserve.models.tokenizer import byte_alphabet
from miniserve.models.tokenizer_json import byte_level_bpe
from miniserve.training.tasks import wordings

SPECIAL_TOKENS = ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
EOS_ID = 0  # <|end|>
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_SLOTS = {"x", "X", "1"}  # what `wordings` puts where numbers and names go


def words() -> list[str]:
    """Return the words that are one token each, spelled in the byte alphabet (a space is `Ġ`)."""
    split = ByteLevel(add_prefix_space=False, use_regex=True)
    pieces = {piece for text in wordings() for piece, _ in split.pre_tokenize_str(text)}
    return sorted(piece for piece in pieces if len(piece) > 1 and piece.strip("Ġ") not in _SLOTS)


def vocabulary() -> list[str]:
    """Return all tokens in the order of their ids: control tokens, bytes, words."""
    return [*SPECIAL_TOKENS, *byte_alphabet().values(), *words()]


def write_tokenizer(folder: Path, config: ModelConfig) -> None:
    """Write everything of a model folder but its weights."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|end|>",
        "model_max_length": config.max_position,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {**config_json(config), "dtype": "float16"})
    write_json(folder / "generation_config.json", {"eos_token_id": [EOS_ID]})
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "tokenizer.json", byte_level_bpe(vocabulary(), [], SPECIAL_TOKENS, ignore_merges=True))
