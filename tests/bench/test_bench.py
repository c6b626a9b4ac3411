"""The benchmarks run, count what they say they count, and record where figures come from. No figure is judged here."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from rich.console import Console

from miniserve.bench.engine import bench_engine, engine_table, make_cases
from miniserve.bench.profile import CASES, QUANTS, bench_profile, profile_table
from miniserve.bench.quant import PRECISIONS, bench_quant, quant_table
from miniserve.bench.record import environment, save_record
from miniserve.bench.sim import bench_sim, sim_table, there_and_back
from miniserve.bench.stack import bench_memory, bench_start, stack_table
from miniserve.bench.steps import bench_steps, steps_table
from miniserve.commands import bench
from miniserve.errors import SetupError
from miniserve.models.tokenizer import Tokenizer


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=160)


def test_engine_cases_have_the_lengths_they_promise(tiny_folder: Path) -> None:
    equal, mixed = make_cases(Tokenizer.load(tiny_folder), seed=0)[2:]
    assert equal.lengths == [64] * 16
    assert (min(mixed.lengths), max(mixed.lengths), len(mixed.lengths)) == (16, 128, 16)
    assert len({tuple(prompt) for prompt in equal.prompts}) == 16
    assert {len(prompt) for prompt in equal.prompts} == {64}


def test_the_engine_benchmark_gives_a_ratio_for_every_case(tiny_folder: Path, console: Console) -> None:
    result = bench_engine(tiny_folder, threads=1, repeats=1, seed=0, console=console)
    console.print(engine_table(result))
    assert len(result["rows"]) == 4
    assert all(row["ratio_to_transformers"]["fp16"] > 0 for row in result["rows"])
    assert "16 x 16..128 tokens" in console.export_text()


def test_a_profile_books_every_part_of_a_step(tiny_folder: Path, console: Console) -> None:
    result = bench_profile(tiny_folder, threads=1, console=console)
    console.print(profile_table(result))
    assert [(row["precision"], row["case"]) for row in result["rows"]] == [(q, case) for q in QUANTS for case in CASES]
    for row in result["rows"]:
        assert min(row[f"{part}_ms"] for part in ("products", "attention", "rest")) > 0
        assert max(row[f"{part}_ms"] for part in ("products", "attention", "rest")) < row["step_ms"]
    assert "prefill 256 tokens" in console.export_text()


def test_the_precision_table_has_fp32_as_its_measure(tiny_folder: Path, tmp_path: Path, console: Console) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 6)
    result = bench_quant(tiny_folder, text, threads=1, console=console)
    console.print(quant_table(result))
    rows = {row["precision"]: row for row in result["rows"]}
    assert tuple(rows) == PRECISIONS
    assert rows["fp32"]["agreement"] == 1.0
    assert rows["fp16"]["perplexity"] == pytest.approx(rows["fp32"]["perplexity"], rel=0.01)


def test_steps_are_measured_and_fitted(tiny_folder: Path, console: Console) -> None:
    model, result = bench_steps(tiny_folder, "fp32", threads=1, seed=0, console=console)
    console.print(steps_table(model, result))
    assert model.fitted_on["steps"] == result["train_steps"] > 100
    assert result["unseen"]["steps"] > 50


def test_the_stack_is_started_timed_and_watched(tiny_folder: Path, console: Console) -> None:
    result = bench_start(tiny_folder, repeats=1)
    result |= asyncio.run(bench_memory(tiny_folder, requests=20, streams=2, console=console))
    console.print(stack_table(result))
    assert [sample[0] for sample in result["samples"]][-1] == 20
    assert result["gateway_mib"] < result["replica_mib"]
    assert result["start_to_first_token_s"]["median"] > result["replica_load_s"]["median"]


def test_a_record_names_machine_and_versions_but_no_path(tmp_path: Path) -> None:
    path = save_record("thing", {"figure": 1}, tmp_path)
    written = json.loads(path.read_text())
    assert written["result"] == {"figure": 1}
    assert written["environment"]["cores"] >= 1
    assert "torch" in environment()["versions"]
    assert str(Path.home()) not in path.read_text()


def test_an_unknown_benchmark_names_those_there_are() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    with pytest.raises(SetupError, match="engine, quant, steps, stack"):
        bench.run(parser.parse_args(["speed"]))


def test_the_simulator_benchmark_serves_everybody_and_tells_its_cost(console: Console) -> None:
    result = bench_sim([200], seed=0, console=console)
    console.print(sim_table(result))
    assert [run["prefix_cache"] for run in result["runs"]] == [False, True]
    assert [size["times_the_smallest"] for size in result["sizes"]] == [1.0, 1.0]
    for run in result["runs"]:
        assert run["served"] == run["requests"]
        assert run["us_per_request"] > 0
        assert run["peak_memory_mb"] > 10
    assert "µs each" in console.export_text()


def test_small_sizes_of_the_simulator_benchmark_run_before_and_after_the_largest() -> None:
    assert there_and_back([100_000, 10_000, 1_000_000]) == [*[10_000] * 3, 100_000, 1_000_000, 100_000, *[10_000] * 3]
    assert there_and_back([500]) == [500]
