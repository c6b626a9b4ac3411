"""Will the replicas fit into memory? An estimate made before loading, so that the answer is not a killed process.

Counts what one replica process holds: the weights, a full KV pool, and Python with torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from miniserve.config import CacheConfig
from miniserve.errors import SetupError
from miniserve.models.model_config import ModelConfig

RUNTIME_BYTES = 350 << 20  # Python, torch's libraries, buffers of a step: measured with the tiny model
KV_ITEM_BYTES = 4  # the pool is fp32
WEIGHTS_PER_FILE_BYTE = 1.4  # of an fp32 file, measured with SmolLM2: 1.4 as fp32, 1.25 as fp16, with packed copies


@dataclass(frozen=True, slots=True)
class ReplicaNeed:
    """What one replica needs, in bytes."""

    weights: int
    kv_pool: int
    runtime: int = RUNTIME_BYTES

    @property
    def total(self) -> int:
        return self.weights + self.kv_pool + self.runtime


def replica_need(weight_file_bytes: int, model: ModelConfig, cache: CacheConfig) -> ReplicaNeed:
    """Estimate one replica's need from its fp32 weight files and its KV pool."""
    per_token = 2 * model.num_layers * model.num_kv_heads * model.head_dim * KV_ITEM_BYTES  # a key and a value
    return ReplicaNeed(
        round(weight_file_bytes * WEIGHTS_PER_FILE_BYTE), cache.num_blocks * cache.block_size * per_token
    )


def require_memory(need: ReplicaNeed, replicas: int, available_bytes: int | None) -> None:
    """Raises: SetupError with the numbers if `replicas` of them do not fit. Passes if the system does not say."""
    if available_bytes is None or need.total * replicas <= available_bytes:
        return
    fit = available_bytes // need.total
    advice = f"use --replicas {fit}" if fit else "free some memory or use a smaller model"
    raise SetupError(
        f"{replicas} replicas need about {_mb(need.total * replicas)} MB (each {_mb(need.weights)} weights + "
        f"{_mb(need.kv_pool)} KV pool + {_mb(need.runtime)} runtime), but only {_mb(available_bytes)} MB are "
        f"available: {advice}"
    )


def _mb(amount: int) -> str:
    return f"{amount / 1e6:,.0f}"
