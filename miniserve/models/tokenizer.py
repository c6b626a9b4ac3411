"""Text to token ids on the way in, token ids to bytes on the way out.

A token is a run of *bytes*, not of characters: an emoji may be spread over four tokens, and one token may hold the end
of one character and the start of the next. So `token_bytes` is the exact inverse, and code that shows text before it is
complete must join bytes first (see `text.Detokenizer`).

Control tokens such as `<|im_end|>` belong to the chat template. A user who types those ten characters means the
characters, so `encode` never turns text into a control token; `encode_chat` does so only where the template itself put
one. Knows the files of a model folder (tokenizer.json, tokenizer_config.json); needs no torch.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import tokenizers
from jinja2 import TemplateError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from miniserve.errors import InvalidRequest, WeightsError
from miniserve.models.model_config import read_eos_ids, read_json

_METASPACE = "\u2581"  # how sentencepiece writes a space
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how sentencepiece writes a byte that is in no token
_LONG_TEXT = 2_000  # characters
_FIRST_SHIELD, _SHIELDS = 0xD800, 2048  # lone surrogates: a Python str can hold them, valid text cannot


def byte_alphabet() -> dict[int, str]:
    """Return the printable character that stands for each byte in a byte-level vocabulary (256 entries, as in GPT-2).

    Printable Latin-1 bytes stand for themselves; the other 68 follow in order from U+0100, so that a space is `Ġ`.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    shifted = {byte: chr(0x100 + i) for i, byte in enumerate(others)}
    return {byte: shifted.get(byte, chr(byte)) for byte in range(256)}


_BYTE_OF_CHAR = {char: bytes([byte]) for byte, char in byte_alphabet().items()}


class Tokenizer:
    """The tokenizer of one model folder. Immutable after loading, so any thread may use it."""

    def __init__(self, fast: tokenizers.Tokenizer, settings: dict[str, Any], eos_ids: tuple[int, ...]) -> None:
        """`settings` is tokenizer_config.json, with `chat_template` as one string if there is one."""
        fast.encode_special_tokens = True  # means: text that looks like a control token is encoded as text
        fast.no_truncation()
        fast.no_padding()
        self._fast = fast
        self._inner = _without_first_space(fast)
        self._byte_level = "ByteLevel" in repr(fast.decoder)
        added = fast.get_added_tokens_decoder()
        self._special = {token.content: id_ for id_, token in added.items() if token.special}
        self._control = {id_: text for text, id_ in self._special.items()}
        self._added = {id_: b"" if token.special else token.content.encode() for id_, token in added.items()}
        self._shields = {text: chr(_FIRST_SHIELD + i) for i, text in enumerate(self._special)}
        if len(self._shields) > _SHIELDS:
            raise WeightsError(
                f"tokenizer.json has {len(self._shields)} control tokens; at most {_SHIELDS} are supported"
            )
        self._splitter, self._split_ids = _splitter({id_: t for id_, t in added.items() if t.special})
        self._template = _compile_template(settings.get("chat_template"))
        self._template_tokens = {
            name: _content(settings[name])
            for name in ("bos_token", "eos_token", "unk_token", "pad_token")
            if settings.get(name) is not None
        }
        self.eos_ids = eos_ids
        self.vocab_size: int = fast.get_vocab_size(with_added_tokens=True)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read tokenizer.json, tokenizer_config.json and the end-of-sequence ids of a model folder.

        Raises: WeightsError if tokenizer.json is missing or unreadable.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise WeightsError(f"{path} is missing: the model folder needs the tokenizer in tokenizer.json format")
        try:
            fast = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise WeightsError(f"{path} cannot be read as a tokenizer: {error}") from error
        return cls(fast, _read_settings(folder), read_eos_ids(folder))

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, without recognising control tokens.

        What the tokenizer's own post-processor puts around a text, such as a beginning-of-sequence token, is there, as
        in transformers: base models that were trained with it answer worse without.

        Raises: InvalidRequest if `text` contains a lone surrogate, which is not a character.
        """
        _refuse_surrogates(text)
        return _ids(self._fast, text, add_special_tokens=True)

    def encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Return the prompt that asks the assistant to answer `messages`, as written by the model's chat template.

        Control tokens are recognised only where the template put them: inside a message they stay plain text.

        Raises: InvalidRequest if the model has no chat template or the template refuses the messages.
        """
        if self._template is None:
            raise InvalidRequest("this model has no chat template: use /v1/completions instead", param="messages")
        shielded = [{key: self._shield(value) for key, value in message.items()} for message in messages]
        try:
            text = self._template.render(messages=shielded, add_generation_prompt=True, **self._template_tokens)
        except (TemplateError, TypeError) as error:
            message = f"the model's chat template refuses these messages: {error}"
            raise InvalidRequest(message, param="messages") from error
        return self._encode_rendered(text)

    def token_bytes(self, token_id: int) -> bytes:
        """Return what the token adds to the text; b"" for control tokens and unknown ids."""
        if token_id in self._added:
            return self._added[token_id]
        token = self._fast.id_to_token(token_id) if 0 <= token_id < 1 << 32 else None
        if token is None:
            return b""
        if self._byte_level:
            return b"".join(_BYTE_OF_CHAR.get(char) or char.encode() for char in token)
        byte = _BYTE_TOKEN.fullmatch(token)
        return bytes.fromhex(byte[1]) if byte else token.replace(_METASPACE, " ").encode()

    def control_token(self, token_id: int) -> str | None:
        """Return how a control token is spelled, such as `<|im_end|>`; None for all others."""
        return self._control.get(token_id)

    def longest_token_bytes(self) -> int | None:
        """Return how many bytes of text a token stands for at most; None if the tokenizer rewrites text beforehand."""
        if self._fast.normalizer is not None:
            return None
        return max(len(self.token_bytes(id_)) for id_ in range(self.vocab_size))

    def decode(self, ids: list[int]) -> str:
        """Return the text of `ids` without control tokens; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def _shield(self, text: str) -> str:
        """Replace control tokens spelled out in a message by placeholders that no message can contain."""
        _refuse_surrogates(text)
        return self._splitter.sub(self._shield_match, text) if self._special else text

    def _shield_match(self, match: re.Match[str]) -> str:
        token = match[match.lastindex or 0]
        return match[0].replace(token, self._shields[token])

    def _unshield(self, text: str) -> str:
        for token, shield in self._shields.items():
            text = text.replace(shield, token)
        return text

    def _encode_rendered(self, text: str) -> list[int]:
        ids: list[int] = []
        position = 0
        for match in self._splitter.finditer(text) if self._special else ():
            ids += self._encode_piece(text[position : match.start()], first=position == 0)
            ids.append(self._split_ids[(match.lastindex or 1) - 1])
            position = match.end()
        return ids + self._encode_piece(text[position:], first=position == 0)

    def _encode_piece(self, text: str, first: bool) -> list[int]:
        if not text:
            return []
        fast = self._fast if first else self._inner
        return _ids(fast, self._unshield(text))


def _ids(fast: tokenizers.Tokenizer, text: str, *, add_special_tokens: bool = False) -> list[int]:
    if len(text) < _LONG_TEXT:
        return list(fast.encode(text, add_special_tokens=add_special_tokens).ids)
    # only this call lets other threads run
    return list(fast.encode_batch([text], add_special_tokens=add_special_tokens)[0].ids)


def _splitter(special: dict[int, Any]) -> tuple[re.Pattern[str], list[int]]:
    """Return a pattern with one group per control token, longest first, and the id for each group."""
    ordered = sorted(special.items(), key=lambda item: -len(item[1].content))
    alternatives = (
        (r"\s*" if token.lstrip else "") + f"({re.escape(token.content)})" + (r"\s*" if token.rstrip else "")
        for _, token in ordered
    )
    return re.compile("|".join(alternatives)), [id_ for id_, _ in ordered]


def _without_first_space(fast: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return the tokenizer for text that does not begin the prompt.

    This matters only for a sentencepiece-style tokenizer with the "first" scheme: it puts a space before the very first
    word of a prompt, which the piece after a control token is not.
    """
    if "prepend_scheme=first" not in repr(fast.pre_tokenizer):
        return fast
    copy = json.loads(fast.to_str())
    _set_prepend_scheme(copy["pre_tokenizer"], "never")
    inner = tokenizers.Tokenizer.from_str(json.dumps(copy))
    inner.encode_special_tokens = True
    return inner


def _set_prepend_scheme(node: Any, scheme: str) -> None:
    if node.get("type") == "Metaspace":
        node["prepend_scheme"] = scheme
    for child in node.get("pretokenizers", ()):
        _set_prepend_scheme(child, scheme)


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"character {error.start} of the text is a lone surrogate, which is not valid Unicode"
        ) from None


def _compile_template(source: str | None) -> Any:
    if source is None:
        return None
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationTag]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = _raise_from_template
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # some templates tell the date
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise WeightsError(f"the chat template in tokenizer_config.json cannot be compiled: {error}") from error


class _GenerationTag(Extension):
    """`{% generation %}` marks for training what the assistant said; for serving, only what it encloses counts."""

    tags = {"generation"}  # noqa: RUF012 - as jinja declares it

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        inside: list[Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return inside


def _raise_from_template(message: str) -> None:
    raise TemplateError(message)


def _content(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    template = settings.get("chat_template")
    separate = folder / "chat_template.jinja"  # where newer transformers releases put it
    if separate.is_file():
        template = separate.read_text(encoding="utf-8")
    if isinstance(template, list):  # several named templates
        template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
    return {**settings, "chat_template": template}
