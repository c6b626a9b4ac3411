"""One step on the hardware: a `Batch` in, sampled tokens out. The only place where the scheduler's plan meets torch.

A simulated replica has no runner: it schedules, lets `StepTimeModel.seconds(batch)` pass, and commits made-up tokens
(`sim/replica.py`).
"""

from __future__ import annotations

import threading

import torch

from miniserve.config import CacheConfig
from miniserve.engine import cpu_attention
from miniserve.engine.attention import make_pool, plan_attention
from miniserve.engine.batch import Batch
from miniserve.engine.model import Llama
from miniserve.engine.penalties import changed_logits
from miniserve.engine.sampler import Sampled, sample
from miniserve.engine.sequence import Sequence


class ModelRunner:
    """Owns the weights and the KV pool; keeps no state of sequences.

    `margins=True` makes every sampled token carry how close the decision was (tests use it to list ties). `threads`
    bounds the pools of torch and numba; both count per calling thread, so whichever thread executes is bound first.
    """

    def __init__(self, model: Llama, cache: CacheConfig, margins: bool = False, threads: int | None = None) -> None:
        self.model = model
        self.threads = threads
        self._bound_thread: int | None = None
        self.block_size = cache.block_size
        self.margins = margins
        config = model.config
        self.pool = make_pool(
            config.num_layers,
            cache.num_blocks,
            cache.block_size,
            config.num_kv_heads,
            config.head_dim,
            model.dtype,
            model.device,
        )

    @torch.inference_mode()
    def execute(self, batch: Batch) -> list[Sampled | None]:
        """Compute the batch, write its keys and values, and sample one token for each work that samples.

        None instead of a token: the logits are not all numbers, so any choice would be arbitrary.
        """
        self._bind_threads()
        device = self.model.device
        ids: list[int] = []
        positions: list[int] = []
        rows: list[int] = []
        sampling: list[Sequence] = []
        for work in batch.works:
            ids.extend(work.seq.tokens[work.start : work.end])
            positions.extend(range(work.start, work.end))
            if work.samples:
                rows.append(len(ids) - 1)
                sampling.append(work.seq)
        plan = plan_attention(batch, self.block_size, device)
        logits = self.model.forward(
            torch.tensor(ids, device=device),
            torch.tensor(positions, device=device),
            plan,
            self.pool,
            torch.tensor(rows, dtype=torch.long, device=device),
        )
        if logits.dtype == torch.float16 or device != "cpu":
            logits = logits.to("cpu", torch.float32)
        finite = torch.isfinite(logits).all(dim=-1)
        if not finite.all():
            logits = logits.nan_to_num()
        changed = {
            i: changed_logits(logits[i], seq, self.model.config.eos_ids)
            for i, seq in enumerate(sampling)
            if seq.request.sampling.changes_logits
        }
        params = [(seq.request.sampling, seq.num_output) for seq in sampling]
        sampled = sample(logits, params, self.margins, changed)
        return [token if is_finite else None for token, is_finite in zip(sampled, finite.tolist(), strict=True)]

    def _bind_threads(self) -> None:
        if self.threads is not None and threading.get_ident() != self._bound_thread:
            self._bound_thread = threading.get_ident()
            use_threads(self.threads)


def use_threads(count: int) -> None:
    """Bound torch's and numba's pools for the calling thread: more threads than free cores make a step 5x slower."""
    torch.set_num_threads(count)
    cpu_attention.set_threads(count)
