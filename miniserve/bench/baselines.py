"""How it was done before: no KV cache, and static batching. Kept for comparison, not for serving.

Both use the same model and weights as the engine, so a difference in a chapter's plot is due to the idea alone.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

import torch

from miniserve.engine.attention import make_pool, plan_attention
from miniserve.engine.batch import Batch, Work
from miniserve.engine.engine import Engine
from miniserve.engine.model import Llama
from miniserve.engine.sampler import sample
from miniserve.engine.sequence import Sequence
from miniserve.types import Request


@torch.inference_mode()
def generate_without_cache(model: Llama, request: Request) -> list[int]:
    """Recompute the whole text for every token: work grows with the square of the length.

    The keys and values of a step go into a one-block pool and are discarded with it.
    """
    config = model.config
    size = len(request.prompt_ids) + request.sampling.max_tokens
    pool = make_pool(config.num_layers, 1, size, config.num_kv_heads, config.head_dim, model.dtype, model.device)
    seq = Sequence(request)
    seq.block_table = [0]
    for index in range(request.sampling.max_tokens):
        plan = plan_attention(Batch((Work(seq, 0, len(seq.tokens), samples=True),)), size, model.device)
        ids, positions = torch.tensor(seq.tokens), torch.arange(len(seq.tokens))
        logits = model.forward(ids, positions, plan, pool, positions[-1:])
        seq.append(sample(logits, [(request.sampling, index)])[0].token_id)
        if seq.tokens[-1] in config.eos_ids and not request.sampling.ignore_eos:
            break
    return list(seq.tokens[seq.num_prompt :])


@dataclass(frozen=True, slots=True)
class StaticResult:
    """What static batching produced, and what it computed in vain."""

    outputs: dict[str, list[int]]
    steps: int
    wasted_tokens: int  # generated for sequences that were already complete


def run_static(engine: Engine, requests: Seq[Request], batch_size: int) -> StaticResult:
    """Serve `requests` in fixed groups: a group starts together, and holds its slots until its longest is done."""
    outputs: dict[str, list[int]] = {}
    first_step, wasted = engine.scheduler.counters.steps, 0
    eos_ids = engine.scheduler.eos_ids
    for start in range(0, len(requests), batch_size):
        group = requests[start : start + batch_size]
        longest = max(request.sampling.max_tokens for request in group)
        padded = [
            replace(request, sampling=replace(request.sampling, max_tokens=longest, ignore_eos=True))
            for request in group
        ]
        for request_id, tokens in engine.run(padded).items():
            request = next(r for r in group if r.request_id == request_id)
            outputs[request_id] = _useful(tokens, request, eos_ids)
            wasted += len(tokens) - len(outputs[request_id])
    return StaticResult(outputs, engine.scheduler.counters.steps - first_step, wasted)


def _useful(tokens: list[int], request: Request, eos_ids: frozenset[int]) -> list[int]:
    """Cut off what the request did not ask for."""
    tokens = tokens[: request.sampling.max_tokens]
    if request.sampling.ignore_eos:
        return tokens
    end = next((i + 1 for i, token in enumerate(tokens) if token in eos_ids), len(tokens))
    return tokens[:end]
