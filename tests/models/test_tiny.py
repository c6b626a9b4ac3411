"""The tiny model is a complete model folder that the reference implementation loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from miniserve.models.folder import check_folder, read_tensors
from miniserve.models.model_config import ModelConfig
from miniserve.models.tiny import write_tiny_model
from miniserve.models.tokenizer import Tokenizer


def test_same_seed_gives_the_same_bytes_and_another_seed_other_weights(tmp_path: Path) -> None:
    one, again, other = (write_tiny_model(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    for path in one.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    assert (one / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    assert (one / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()


def test_arguments_reach_the_configuration(tmp_path: Path) -> None:
    folder = write_tiny_model(
        tmp_path, layers=3, hidden=48, heads=6, kv_heads=3, ffn=40, context=99, tie_embeddings=True
    )
    config = check_folder(folder)
    assert config == ModelConfig(
        vocab_size=config.vocab_size,
        hidden_size=48,
        num_layers=3,
        num_heads=6,
        num_kv_heads=3,
        head_dim=8,
        intermediate_size=40,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        max_position=99,
        tie_embeddings=True,
        eos_ids=(2,),
        bos_id=1,
    )
    assert "lm_head.weight" not in read_tensors(folder)


@pytest.mark.parametrize(("heads", "kv_heads", "hidden"), [(4, 3, 64), (4, 2, 60)])
def test_heads_that_do_not_divide_are_refused(tmp_path: Path, heads: int, kv_heads: int, hidden: int) -> None:
    with pytest.raises(ValueError, match=f"{heads} heads"):
        write_tiny_model(tmp_path, heads=heads, kv_heads=kv_heads, hidden=hidden)


def test_characters_are_cut_at_awkward_places(tiny_folder: Path) -> None:
    tokenizer = Tokenizer.load(tiny_folder)
    pieces = [tokenizer.token_bytes(i) for i in tokenizer.encode("éé😀中")]
    assert b"\xa9\xc3" in pieces  # the end of one character and the start of the next
    assert b"\xf0\x9f\x98" in pieces
    assert b"\xe4\xb8" in pieces


def test_transformers_loads_exactly_these_weights(tiny_folder: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import LlamaForCausalLM

    model, info = LlamaForCausalLM.from_pretrained(tiny_folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    state = model.state_dict()
    for name, tensor in load_file(tiny_folder / "model.safetensors").items():
        assert torch.equal(state[name], tensor), name
    assert model.config.rope_parameters["rope_theta"] == 10000.0
