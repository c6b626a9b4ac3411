"""A GGUF file becomes the very model it was written from; what cannot be converted exactly is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file

from miniserve.errors import WeightsError
from miniserve.models.folder import check_folder
from miniserve.models.gguf_convert import convert_gguf, halves_from_pairs
from miniserve.models.gguf_tokenizer import eos_ids, tokenizer_config, tokenizer_json
from miniserve.models.tokenizer import Tokenizer

GgufMaker = Callable[..., Path]


def convert(path: Path) -> Path:
    folder = path.with_suffix("")
    folder.mkdir()
    convert_gguf(path, folder, lambda line: None)
    return folder


def test_the_weights_come_back_bit_for_bit(make_gguf: GgufMaker, tiny_folder: Path) -> None:
    folder = convert(make_gguf())
    original, converted = (load_file(place / "model.safetensors") for place in (tiny_folder, folder))
    assert sorted(converted) == sorted(original)
    for name, values in original.items():
        assert converted[name].dtype == np.float32
        np.testing.assert_array_equal(converted[name], values, err_msg=name)
    assert replace(check_folder(folder), eos_ids=(2,)) == check_folder(tiny_folder)  # <|endoftext|> is added


def test_quantized_matrices_are_dequantized(make_gguf: GgufMaker, tiny_folder: Path) -> None:
    folder = convert(make_gguf(quantize=gguf.GGMLQuantizationType.Q8_0))
    original, converted = (load_file(place / "model.safetensors") for place in (tiny_folder, folder))
    for name, values in original.items():
        step = np.abs(values).max() / 127
        np.testing.assert_allclose(converted[name], values, atol=0.51 * step, rtol=0, err_msg=name)


def test_without_an_output_matrix_the_embedding_is_tied(make_gguf: GgufMaker) -> None:
    folder = convert(make_gguf(tensors={"output.weight": None}))
    assert check_folder(folder).tie_embeddings
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")


def test_halves_from_pairs_by_hand() -> None:
    rows = np.array([[0], [10], [1], [11], [2], [12], [3], [13]], dtype=np.float32)  # two heads of x0 y0 x1 y1
    assert halves_from_pairs(rows, heads=2)[:, 0].tolist() == [0, 1, 10, 11, 2, 3, 12, 13]


def test_the_tokenizer_comes_back(make_gguf: GgufMaker, tiny_folder: Path) -> None:
    original, converted = Tokenizer.load(tiny_folder), Tokenizer.load(convert(make_gguf()))
    for text in ("the then", "éé😀中文", " a\n\n b", "<|im_end|>"):
        assert converted.encode(text) == original.encode(text)
    messages = [{"role": "user", "content": "hé"}]
    assert converted.encode_chat(messages) == original.encode_chat(messages)
    assert converted.eos_ids == (2, 0)  # <|endoftext|> ends a generation too


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"general.architecture": "qwen2"}, "general.architecture is 'qwen2'"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type is 'yarn'"),
        ({"llama.expert_count": 8}, "llama.expert_count is 8"),
        ({"split.count": 2}, "split.count is 2"),
        ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count is 8"),
        ({"llama.block_count": None}, "llama.block_count is missing"),
        ({"llama.block_count": 3}, "model.layers.2.input_layernorm.weight of shape .64. is missing"),
        ({"llama.feed_forward_length": 64}, r"gate_proj.weight has shape \[128, 64\], expected \[64, 64\]"),
        ({"tokenizer.ggml.pre": "qwen35"}, "tokenizer.ggml.pre is 'qwen35'"),
        ({"tokenizer.ggml.model": "bert"}, "tokenizer.ggml.model is 'bert'"),
        ({"tokenizer.ggml.merges": None}, "tokenizer.ggml.merges is missing"),
        ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens is missing"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "tokenizer.ggml.token_type has 2 entries"),
    ],
)
def test_metadata_that_cannot_be_honoured_is_refused(make_gguf: GgufMaker, keys: dict[str, Any], says: str) -> None:
    path = make_gguf(keys=keys)
    with pytest.raises(WeightsError, match=says) as caught:
        convert(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"blk.1.attn_v.weight": None}, "tensor model.layers.1.self_attn.v_proj.weight of shape .32, 64. is missing"),
        ({"blk.0.attn_q.bias": np.zeros(64, np.float32)}, "tensor model.layers.0.self_attn.q_proj.bias is not part"),
        ({"rope_freqs.weight": np.ones(8, np.float32)}, "rope_freqs.weight asks for rope scaling"),
        ({"blk.0.ffn_gate_inp.weight": np.ones((8, 64), np.float32)}, "tensor blk.0.ffn_gate_inp.weight is not part"),
        ({"output_norm.weight": np.ones(65, np.float32)}, r"model.norm.weight has shape \[65\], expected \[64\]"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(make_gguf: GgufMaker, tensors: dict[str, Any], says: str) -> None:
    path = make_gguf(tensors=tensors)
    with pytest.raises(WeightsError, match=says):
        convert(path)


def test_an_unsupported_quantization_is_refused(make_gguf: GgufMaker) -> None:
    path = make_gguf(tensors={"output_norm.weight": np.ones(64, np.int32)})
    with pytest.raises(WeightsError, match=r"tensor output_norm.weight has the unsupported type I32"):
        convert(path)


@pytest.mark.parametrize("keep", [0, 3, 100, 5000, -1])
def test_a_truncated_file_is_refused(make_gguf: GgufMaker, keep: int) -> None:
    path = make_gguf()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="truncated"):
        convert(path)


# --- tokenizers ----------------------------------------------------------------------------------------------------


def byte_level_keys(pre: str) -> dict[str, Any]:
    from miniserve.models.tokenizer import byte_alphabet

    tokens = ["<|end|>", *byte_alphabet().values(), "12", "34", "56", "1234"]
    merges = ["1 2", "3 4", "5 6", "12 34"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] + [1] * (len(tokens) - 1),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": 0,
    }


def words(keys: dict[str, Any], text: str) -> list[str]:
    fast = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(keys)))
    return list(fast.encode(text, add_special_tokens=False).tokens)


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("gpt-2", ["1234", "56"]),  # a number is one word
        ("smollm", ["1", "2", "3", "4", "5", "6"]),  # each digit is a word
        ("llama-bpe", ["12", "3", "4", "56"]),  # three digits are a word
    ],
)
def test_the_named_rule_cuts_numbers_its_own_way(pre: str, expected: list[str]) -> None:
    assert words(byte_level_keys(pre), "123456") == expected


def sentencepiece_keys(**changes: Any) -> dict[str, Any]:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "c", "ab", "bc", "▁a"]
    scores = [0.0] * 259 + [-10.0, -10.0, -10.0, -10.0, -2.0, -1.0, -3.0]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 7,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        **changes,
    }


def test_sentencepiece_merges_the_best_score_first() -> None:
    assert words(sentencepiece_keys(), "abc") == ["▁a", "bc"]  # bc (-1) goes before ab (-2)
    assert words(sentencepiece_keys(), "ab é") == ["▁", "ab", "▁", "<0xC3>", "<0xA9>"]
    assert words(sentencepiece_keys(**{"tokenizer.ggml.add_space_prefix": False}), "abc") == ["a", "bc"]


def test_sentencepiece_puts_the_beginning_token_first_unless_told_not_to() -> None:
    for keys, expected in (
        (sentencepiece_keys(), ["<s>", "▁a"]),
        (sentencepiece_keys(**{"tokenizer.ggml.add_bos_token": False}), ["▁a"]),
    ):
        assert tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(keys))).encode("a").tokens == expected


def test_sentencepiece_without_scores_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"tokenizer\.ggml\.scores"):
        tokenizer_json(sentencepiece_keys(**{"tokenizer.ggml.scores": None}))


def test_control_token_names_and_every_end_token() -> None:
    assert eos_ids(sentencepiece_keys()) == (2,)
    assert eos_ids(byte_level_keys("gpt-2")) == (0,)
    settings = tokenizer_config(sentencepiece_keys(), 512)
    assert {key: settings[key] for key in ("bos_token", "eos_token", "unk_token")} == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    assert "pad_token" not in settings
    assert "chat_template" not in settings


@pytest.mark.parametrize("key", ["attention.head_count_kv", "attention.head_count", "feed_forward_length"])
def test_numbers_listed_per_layer_are_read_if_all_layers_agree(make_gguf: GgufMaker, tmp_path: Path, key: str) -> None:
    value = {"attention.head_count_kv": 2, "attention.head_count": 4, "feed_forward_length": 128}[key]
    (tmp_path / "out").mkdir()
    same = convert_gguf(make_gguf({f"llama.{key}": [value, value]}), tmp_path / "out", print)
    assert (same.num_kv_heads, same.num_heads, same.intermediate_size) == (2, 4, 128)
    with pytest.raises(WeightsError, match=rf"llama\.{key} differs between layers \(\[{value}, {2 * value}\]\)"):
        convert_gguf(make_gguf({f"llama.{key}": [value, 2 * value]}), tmp_path / "out", print)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.context_length", 0),
        ("llama.context_length", "many"),
        ("llama.block_count", 1.5),
        ("llama.embedding_length", 0),
        ("llama.attention.head_count", 0),
        ("llama.rope.freq_base", "high"),
        ("llama.rope.freq_base", [1.0, 2.0]),
        ("llama.attention.layer_norm_rms_epsilon", 0.0),
    ],
)
def test_metadata_of_another_kind_is_one_line_with_its_key(
    make_gguf: GgufMaker, tmp_path: Path, key: str, value: object
) -> None:
    with pytest.raises(WeightsError, match=rf"{key} is .*; a (whole )?number above 0 is needed") as refused:
        convert_gguf(make_gguf({key: value}), tmp_path, print)
    assert "\n" not in str(refused.value)
