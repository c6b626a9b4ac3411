"""The stack as `python -m miniserve` starts it, asked by official clients and compared with the reference model."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from requirements_probe import require_program

CALLS = Path(__file__).with_name("openai_calls.py")


@contextmanager
def stack(folder: Path, *options: str) -> Iterator[tuple[str, str]]:
    """Run the demo on a free port; yields the API's URL and the model's name."""
    command = [sys.executable, "-m", "miniserve", "--model", str(folder), "--offline", "--port", "0", "--no-table"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("ready: "), line
            yield f"{line.split()[1]}/v1", folder.name
        finally:
            process.terminate()
            process.communicate()


def check_calls(python: str, tiny_folder: Path) -> dict[str, Any]:
    with stack(tiny_folder, "--replicas", "2") as (url, model):
        done = subprocess.run([python, str(CALLS), url, model], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["models"] == [tiny_folder.name]
    assert said["chat"]
    assert said["chat"] == said["chat_stream"] == said["async_chat"] == said["async_chat_stream"]  # one seed, one text
    assert said["text"] == said["text_stream"]
    assert said["two"] == said["two_streamed"]
    assert len(set(said["two"])) == 2
    assert said["usage"] == said["stream_usage"] > 0
    assert said["errors"] == [["NotFoundError", 404], *[["BadRequestError", 400]] * 4]
    return said


def test_the_openai_client_against_the_running_stack(tiny_folder: Path) -> None:
    assert check_calls(sys.executable, tiny_folder)["version"].startswith("3.")


@pytest.mark.full
def test_the_previous_major_version_of_the_openai_client(
    tiny_folder: Path, tmp_path: Path, record_property: Any
) -> None:
    """In an environment of its own: two major versions cannot share one."""
    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env" / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q", "openai>=2,<3"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"openai 2.x cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    said = check_calls(python, tiny_folder)
    record_property("version", said["version"])
    assert said["version"].startswith("2.")


def test_texts_of_one_started_stack_equal_transformers(
    smollm2_folder: Path, prompts: list[str], record_property: Any
) -> None:
    """20 prompts x up to 64 tokens, greedy, all at once over HTTP; the reference generates them one by one."""
    with stack(smollm2_folder, "--quant", "fp32", "--replicas", "1") as (url, model):

        def ask(prompt: str) -> str:
            body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 64}
            answer = httpx.post(f"{url}/chat/completions", json=body | {"temperature": 0}, timeout=300, trust_env=False)
            return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])

        with ThreadPoolExecutor(len(prompts)) as pool:
            texts = list(pool.map(ask, prompts))
    ties = []
    for prompt, text, (expected, gaps) in zip(prompts, texts, reference_answers(smollm2_folder, prompts), strict=True):
        if text != expected:
            gap = gap_at_difference(text, gaps)
            assert gap < 1e-3, f"{prompt!r}: {text!r} is not {expected!r}, and the decision was not close ({gap})"
            ties.append((prompt, gap))
    record_property("prompts", len(prompts))
    record_property("ties", str(ties))


def reference_answers(folder: Path, prompts: list[str]) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return for each prompt the reference's text and, token by token, (text so far, gap of the two best logits)."""
    import torch
    from transformers import LlamaForCausalLM

    from miniserve.models.tokenizer import Tokenizer

    torch.set_num_threads(2)
    tokenizer = Tokenizer.load(folder)
    ids = [tokenizer.encode_chat([{"role": "user", "content": prompt}]) for prompt in prompts]
    longest = max(map(len, ids))
    model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    out = model.eval().generate(
        torch.tensor([[0] * (longest - len(row)) + row for row in ids]),
        attention_mask=torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids]),
        do_sample=False,
        max_new_tokens=64,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tops = torch.stack(out.logits).topk(2).values  # [steps, prompts, 2]
    gaps = (tops[..., 0] - tops[..., 1]).T.tolist()
    answers = []
    for tokens, row in zip(out.sequences[:, longest:].tolist(), gaps, strict=True):
        so_far = [tokenizer.decode(tokens[: i + 1]) for i in range(len(tokens))]
        answers.append((so_far[-1], list(zip(so_far, row, strict=True))))
    return answers


def gap_at_difference(text: str, gaps: list[tuple[str, float]]) -> float:
    """Return the gap at the first token of the reference whose text is not the beginning of ours."""
    return next((gap for so_far, gap in gaps if not text.startswith(so_far)), gaps[-1][1])


@pytest.mark.parametrize("options", [[], ["--vllm-metrics"]], ids=["native", "vllm"])
def test_a_replicas_metrics_are_lint_clean_and_repeat_vllms_names_only_when_asked(
    tiny_folder: Path, options: list[str]
) -> None:
    require_program("promtool")
    command = [sys.executable, "-m", "miniserve", "replica", "--model", str(tiny_folder), "--offline", "--port", "0"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
            body = {"model": tiny_folder.name, "prompt": "Once", "max_tokens": 3}
            httpx.post(f"{url}/v1/completions", json=body, timeout=60, trust_env=False).raise_for_status()
            metrics = httpx.get(f"{url}/metrics", trust_env=False).text
        finally:
            process.terminate()
    assert ("vllm:num_requests_running" in metrics) == bool(options)
    check_lint("".join(line for line in metrics.splitlines(keepends=True) if "vllm:" not in line))


def test_a_gateways_metrics_are_lint_clean(tiny_folder: Path) -> None:
    require_program("promtool")
    with stack(tiny_folder, "--replicas", "1") as (url, model):
        for body in ({"max_tokens": 3}, {"max_tokens": -1}):  # one that is served and one that is refused
            httpx.post(f"{url}/completions", json={"model": model, "prompt": "a", **body}, timeout=60, trust_env=False)
        check_lint(httpx.get(url.replace("/v1", "/metrics"), trust_env=False).text)


def check_lint(native: str) -> None:
    assert "miniserve_" in native
    promtool = require_program("promtool")
    lint = subprocess.run([promtool, "check", "metrics"], input=native, capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")
