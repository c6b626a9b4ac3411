"""The model's arithmetic on a tiny folder: against transformers, and in every precision against float64."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from miniserve.config import CacheConfig, EngineConfig
from miniserve.engine import cpu_attention
from miniserve.engine.attention import plan_attention
from miniserve.engine.batch import Batch, Work
from miniserve.engine.engine import load_engine
from miniserve.engine.model import load_model
from miniserve.engine.runner import ModelRunner
from miniserve.engine.sequence import Sequence
from miniserve.errors import InvalidRequest, SetupError, WeightsError
from miniserve.models.tiny import write_tiny_model
from miniserve.types import Request, SamplingParams

IDS = tuple((11 * i) % 250 for i in range(70))


@torch.inference_mode()
def logits(folder: Path, quant: str, attention: str = "auto") -> torch.Tensor:
    runner = ModelRunner(load_model(folder, quant, attention=attention), CacheConfig(8, 16))
    seq = Sequence(Request("r", "m", IDS))
    seq.block_table = [3, 1, 6, 2, 0]
    plan = plan_attention(Batch((Work(seq, 0, len(IDS), True),)), 16)
    positions = torch.arange(len(IDS))
    return runner.model.forward(torch.tensor(IDS), positions, plan, runner.pool, positions).double()


@pytest.mark.parametrize("tied", [False, True])
def test_float64_logits_equal_transformers(tmp_path: Path, tied: bool) -> None:
    from transformers import LlamaForCausalLM

    folder = write_tiny_model(tmp_path / "m", heads=6, kv_heads=2, hidden=48, tie_embeddings=tied)
    reference = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64)
    with torch.inference_mode():
        expected = reference(torch.tensor([IDS])).logits[0]
    assert (logits(folder, "fp64") - expected).abs().max() < 1e-4  # the reference norms and rotates in fp32


@pytest.mark.parametrize(
    ("quant", "error"), [("fp32", 1e-5), ("fp16", 2e-3), ("fp16-plain", 1e-2), ("int8", 0.05), ("int8-row", 0.1)]
)
def test_every_precision_is_near_float64(tiny_folder: Path, quant: str, error: float) -> None:
    exact = logits(tiny_folder, "fp64")
    got = logits(tiny_folder, quant, "torch" if quant == "fp16-plain" else "auto")
    assert (got - exact).norm() / exact.norm() < error


@pytest.mark.parametrize("quant", ["int8", "fp16", "fp32"])
def test_decoding_in_a_batch_and_alone(tiny_folder: Path, quant: str) -> None:
    """int8 sums are exact integers and each row has its own grid: the very same bits. Others may differ by rounding."""
    rows = [(IDS[:n], n) for n in (5, 20, 33, 64)]
    together = decode_logits(tiny_folder, quant, rows)
    for i, row in enumerate(rows):
        alone = decode_logits(tiny_folder, quant, [row])[0]
        if quant == "int8":
            assert torch.equal(alone, together[i])
        else:
            assert (alone - together[i]).abs().max() < 1e-4


@torch.inference_mode()
def decode_logits(folder: Path, quant: str, rows: list[tuple[tuple[int, ...], int]]) -> torch.Tensor:
    """Prefill each prompt by itself, then decode one step of all in one batch."""
    runner = ModelRunner(load_model(folder, quant), CacheConfig(32, 16))
    works = []
    for i, (ids, n) in enumerate(rows):
        seq = Sequence(Request(f"r{i}", "m", (*ids, 9)))
        seq.block_table = list(range(i * 5, i * 5 + 5))
        runner.execute(Batch((Work(seq, 0, n, False),)))
        works.append(Work(seq, n, 1, True))
    plan = plan_attention(Batch(tuple(works)), 16)
    positions = torch.tensor([n for _, n in rows])
    every = torch.arange(len(rows))
    return runner.model.forward(torch.full((len(rows),), 9), positions, plan, runner.pool, every)


def test_loading_fp16_weights_from_disk(tiny_folder: Path, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "half")
    tensors = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    gc.collect()
    save_file(tensors, folder / "model.safetensors")
    exact, got = logits(tiny_folder, "fp64"), logits(folder, "fp32")
    assert (got - exact).norm() / exact.norm() < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), "layers.1.mlp.up_proj.weight"),
        (lambda t: t.update({"model.norm.weight": torch.ones(7)}), "model.norm.weight"),
        (lambda t: t.update({"model.embed_tokens.weight": torch.ones(99, 64)}), "embed_tokens"),
    ],
    ids=["missing", "shape", "vocabulary"],
)
def test_a_wrong_tensor_is_named(tmp_path: Path, change: object, message: str) -> None:
    folder = write_tiny_model(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)  # type: ignore[operator]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=message):
        load_engine(folder)


def test_requests_that_cannot_fit_are_refused_with_the_numbers(tiny_folder: Path) -> None:
    engine = load_engine(tiny_folder, config=EngineConfig(max_model_len=50))
    with pytest.raises(InvalidRequest, match=r"context length is 50 tokens\. However, the prompt has 50 tokens"):
        engine.add(Request("a", "m", IDS[:50]))
    with pytest.raises(InvalidRequest, match="empty"):
        engine.add(Request("b", "m", ()))
    with pytest.raises(InvalidRequest, match="max_tokens is 0"):
        engine.add(Request("c", "m", IDS[:5], SamplingParams(max_tokens=0)))
    with pytest.raises(InvalidRequest, match="40 to resume after, but the context is 50"):
        engine.add(Request("e", "m", IDS[:10], SamplingParams(max_tokens=60), resume_ids=IDS[:40]))
    assert not engine.has_work
    assert engine.run([Request("d", "m", IDS[:49], SamplingParams(max_tokens=9, ignore_eos=True))])["d"]
    assert engine.stats().counters.finished["length"] == 1


def test_impossible_settings_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(SetupError, match="int4"):
        load_engine(tiny_folder, quant="int4")
    with pytest.raises(SetupError, match="choose auto or torch"):
        load_engine(tiny_folder, attention="triton")
    if not torch.cuda.is_available():
        with pytest.raises(SetupError, match="choose cpu"):
            load_engine(tiny_folder, device="cuda")


def test_an_engine_keeps_its_thread_count_in_whichever_thread_steps_it(tiny_folder: Path) -> None:
    """torch's and numba's settings belong to the thread that makes them, and a replica's is not the one that loads."""
    engine = load_engine(tiny_folder, config=EngineConfig(threads=1))
    counts: list[int] = []

    def step() -> None:
        torch.set_num_threads(2)
        engine.run([Request("r", "m", IDS[:5], SamplingParams(max_tokens=2))])
        counts.append(torch.get_num_threads())
        if cpu_attention.available():
            counts.append(cpu_attention.numba.get_num_threads())

    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    assert counts
    assert set(counts) == {1}
