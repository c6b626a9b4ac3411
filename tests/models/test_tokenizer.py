"""Tokens are bytes, text round-trips, and nobody but the chat template writes control tokens."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import InvalidRequest, WeightsError
from miniserve.models.tiny import SPECIAL_TOKENS, write_tiny_model
from miniserve.models.tokenizer import Tokenizer, byte_alphabet

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
HOSTILE = st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", "im_end", " ", "\n", "é", "<|im_", "end|>", "user\n"]))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(write_tiny_model(tmp_path_factory.mktemp("model")))


def user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


# --- bytes ---------------------------------------------------------------------------------------------------------


def test_byte_alphabet_is_one_printable_character_per_byte() -> None:
    alphabet = byte_alphabet()
    assert sorted(alphabet) == list(range(256))
    assert len(set(alphabet.values())) == 256
    assert all(len(char) == 1 and char.isprintable() and not char.isspace() for char in alphabet.values())
    assert (alphabet[ord("a")], alphabet[ord(" ")], alphabet[ord("\n")]) == ("a", "Ġ", "Ċ")


@given(text=TEXTS)
def test_token_bytes_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert b"".join(tokenizer.token_bytes(i) for i in ids) == text.encode()
    assert tokenizer.decode(ids) == text


@given(ids=st.lists(st.integers(0, 300)))
def test_decode_is_the_bytes_of_any_ids_with_replacement(tokenizer: Tokenizer, ids: list[int]) -> None:
    assert tokenizer.decode(ids) == b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "replace")


@pytest.mark.parametrize("token_id", [0, 1, 2, 10**6, 2**40, -1])
def test_control_tokens_and_unknown_ids_add_nothing(tokenizer: Tokenizer, token_id: int) -> None:
    assert tokenizer.token_bytes(token_id) == b""


def test_control_tokens_have_a_spelling_and_others_none(tokenizer: Tokenizer) -> None:
    names = [tokenizer.control_token(token_id) for token_id in (0, 1, 2, 3, 100, 10**6)]
    assert all(name and name.startswith("<|") for name in names[:3])
    assert len(set(names[:3])) == 3
    assert names[3:] == [None, None, None]


def test_sizes_and_end_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.eos_ids == (2,)
    assert tokenizer.vocab_size == 3 + 256 + 14
    assert tokenizer.token_bytes(tokenizer.vocab_size - 1) != b""


def test_a_lone_surrogate_is_the_clients_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="character 2"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(InvalidRequest, match="surrogate"):
        tokenizer.encode_chat(user("\udfff"))


# --- control tokens ------------------------------------------------------------------------------------------------


@given(pieces=HOSTILE)
def test_text_never_becomes_a_control_token(tokenizer: Tokenizer, pieces: list[str]) -> None:
    text = "".join(pieces)
    ids = tokenizer.encode(text)
    assert not set(ids) & {0, 1, 2}
    assert tokenizer.decode(ids) == text


@given(pieces=HOSTILE, role_end=HOSTILE)
def test_messages_never_become_control_tokens(tokenizer: Tokenizer, pieces: list[str], role_end: list[str]) -> None:
    content, role = "".join(pieces), "user" + "".join(role_end)
    ids = tokenizer.encode_chat([{"role": role, "content": content}])
    assert [i for i in ids if i < 3] == [1, 2, 1]  # what the template writes, and no more
    assert tokenizer.decode(ids) == f"{role}\n{content}\nassistant\n"


def test_chat_prompt_is_what_transformers_makes_of_it(tiny_folder: Path, tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(tiny_folder)
    for content in ("hi", "\n\nthe  then\n", "", "  é😀 中文 12", "a\r\nb"):
        messages = [{"role": "system", "content": "Be brief."}, *user(content), {"role": "assistant", "content": "ok"}]
        expected = reference.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert tokenizer.encode_chat(messages) == expected


# --- chat templates ------------------------------------------------------------------------------------------------


def with_settings(source: Path, target: Path, **changes: Any) -> Tokenizer:
    shutil.copytree(source, target, dirs_exist_ok=True)
    path = target / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
    return Tokenizer.load(target)


def test_a_template_may_look_at_and_trim_contents(tiny_folder: Path, tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] | trim | upper }}{% endfor %}{{ eos_token }}"
    chat = with_settings(tiny_folder, tmp_path, chat_template=template)
    ids = chat.encode_chat(user("  a <|im_end|> b \n"))
    assert ids[0] == 1
    assert ids[-1] == 2
    assert ids[1:-1] == chat.encode("A <|im_end|> B")


def test_template_list_and_separate_template_file(tiny_folder: Path, tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    chat = with_settings(tiny_folder, tmp_path, chat_template=named)
    assert chat.decode(chat.encode_chat(user("x"))) == "yes"
    (tmp_path / "chat_template.jinja").write_text("from the file", encoding="utf-8")
    chat = Tokenizer.load(tmp_path)
    assert chat.decode(chat.encode_chat(user("x"))) == "from the file"


def test_a_model_without_template_says_so(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no chat template") as caught:
        with_settings(tiny_folder, tmp_path, chat_template=None).encode_chat(user("x"))
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0]['missing'].strip() }}", "missing"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),  # the sandbox holds
    ],
)
def test_a_template_that_refuses_is_the_clients_error(
    tiny_folder: Path, tmp_path: Path, template: str, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        with_settings(tiny_folder, tmp_path, chat_template=template).encode_chat(user("x"))


def test_a_template_that_does_not_compile_is_a_weights_error(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="chat template"):
        with_settings(tiny_folder, tmp_path, chat_template="{% for %}")


def test_a_missing_or_damaged_tokenizer_is_a_weights_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is missing"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 1}', encoding="utf-8")
    with pytest.raises(WeightsError, match="cannot be read"):
        Tokenizer.load(tmp_path)


# --- sentencepiece -------------------------------------------------------------------------------------------------


def sentencepiece_folder(folder: Path, scheme: str) -> Path:
    """A sentencepiece-like tokenizer: <s>, </s>, the 256 bytes, a few pieces."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "i", "▁h", "▁hi"]
    model = tokenizers.models.BPE(
        {piece: i for i, piece in enumerate(pieces)}, [("▁", "h"), ("▁h", "i")], byte_fallback=True, unk_token="<unk>"
    )
    fast = tokenizers.Tokenizer(model)
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    fast.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
        ]
    )
    fast.add_special_tokens([tokenizers.AddedToken(token, normalized=False) for token in ("<s>", "</s>")])
    fast.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}hi"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}), encoding="utf-8")
    return folder


def test_sentencepiece_tokens_give_spaces_and_bytes(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(sentencepiece_folder(tmp_path, "never"))
    ids = tokenizer.encode("h😀 hi")
    assert [tokenizer.token_bytes(i) for i in ids] == [b"h", b"\xf0", b"\x9f", b"\x98", b"\x80", b" hi"]
    assert tokenizer.decode(ids) == "h😀 hi"
    assert tokenizer.token_bytes(1) == b""


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_sentencepiece_chat_puts_the_first_space_where_the_library_does(tmp_path: Path, scheme: str) -> None:
    folder = sentencepiece_folder(tmp_path, scheme)
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = Tokenizer.load(folder).encode_chat([*user("hi"), *user("h"), *user("")])
    assert ids == library.encode("hi</s>h</s></s>hi", add_special_tokens=False).ids


# --- the real one --------------------------------------------------------------------------------------------------


def test_smollm2_agrees_with_transformers(smollm2_folder: Path) -> None:
    from transformers import AutoTokenizer

    reference, tokenizer = AutoTokenizer.from_pretrained(smollm2_folder), Tokenizer.load(smollm2_folder)
    messages = user("What is 12345 + 678?\n\n  Réponds en français 😀")
    expected = reference.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert tokenizer.encode_chat(messages) == expected
    differing = [i for i in range(17, tokenizer.vocab_size) if tokenizer.decode([i]) != reference.decode([i])]
    assert differing == []
    assert tokenizer.eos_ids == (2, 0)


def test_smollm2_reads_digits_one_by_one(smollm2_folder: Path) -> None:
    tokenizer = Tokenizer.load(smollm2_folder)
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode("in 2025")] == [b"in", b" ", b"2", b"0", b"2", b"5"]


def test_loading_needs_no_torch(tiny_folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from miniserve.models.tokenizer import Tokenizer; "
        "from miniserve.models.store import resolve_model; "
        f"Tokenizer.load(resolve_model({str(tiny_folder)!r}, Path('unused'))); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
