"""The transformer: token ids and positions in, logits out. One Llama-family implementation.

    x = embed[ids]                                                     [T, hidden]
    for each layer:   x += attention(norm(x));   x += mlp(norm(x))
    logits = head(norm(x[rows that sample]))                           [R, vocab]

All tokens of a step lie in one flat dimension T, whichever sequence they belong to; only attention looks across rows,
and it is told how by an `AttentionPlan`. Three things are done once, at load, to make each step cheaper: q, k and v
(and gate and up) become one product each; the rows of q and k are reordered so that the two numbers which rope rotates
lie side by side and the rotation is one complex multiplication; and the weights are packed (`linear.py`).

Source: Touvron et al. 2023 (arXiv:2302.13971); rope from Su et al. 2021 (arXiv:2104.09864).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open

from miniserve.engine.attention import AttentionBackend, AttentionPlan, choose_backend
from miniserve.engine.linear import make_linear, weight_dtype
from miniserve.engine.quantize import Linear
from miniserve.machine import usable_cores
from miniserve.models.folder import EMBEDDING, HEAD, tensor_files
from miniserve.models.model_config import ModelConfig
from miniserve.models.values import check_fits_fp16, check_stored_model


@dataclass(frozen=True, slots=True)
class ModelLayer:
    """One block's weights, ready to multiply."""

    attn_norm: torch.Tensor  # [hidden]
    qkv: Linear  # hidden -> (heads + 2 * kv_heads) * head_dim
    out: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear  # hidden -> 2 * ffn
    down: Linear


class Llama:
    """Weights and the forward pass. Holds no state of any sequence."""

    def __init__(
        self,
        config: ModelConfig,
        embedding: torch.Tensor,
        layers: list[ModelLayer],
        norm: torch.Tensor,
        head: Linear,
        attention: AttentionBackend,
        max_position: int,
    ) -> None:
        self.config = config
        self.embedding = embedding
        self.layers = layers
        self.norm = norm
        self.head = head
        self.attention = attention
        self.dtype = norm.dtype
        self.device = str(norm.device)
        rope_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        self.rope = _rope_table(config, max_position, rope_dtype).to(self.device)  # [max_position, 1, head_dim / 2]

    @torch.inference_mode()
    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, plan: AttentionPlan, pool: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """Compute one step.

        Shapes: ids, positions [T]; pool [layers, slots, 2, kv_heads, head_dim], written at `plan.slots`;
        rows [R] indices into T whose logits are wanted; returns [R, vocab].
        """
        cfg = self.config
        q_size, kv_size = cfg.num_heads * cfg.head_dim, cfg.num_kv_heads * cfg.head_dim
        x = F.embedding(ids, self.embedding).to(self.dtype)
        rope = self.rope[positions]  # [T, 1, head_dim / 2] complex
        for layer, kv_pool in zip(self.layers, pool, strict=True):
            qkv = layer.qkv(self._rms_norm(x, layer.attn_norm))
            rotated = qkv[:, : q_size + kv_size].view(len(qkv), -1, cfg.head_dim // 2, 2)  # q and k heads, as pairs
            _rotate(rotated, rope)
            self.attention.store_kv(kv_pool, qkv[:, q_size:], plan)
            q = qkv[:, :q_size].reshape(-1, cfg.num_heads, cfg.head_dim)
            x = x + layer.out(self.attention.attend(q, kv_pool, plan))
            gate, up = layer.gate_up(self._rms_norm(x, layer.mlp_norm)).chunk(2, dim=1)
            x = x + layer.down(F.silu(gate).mul_(up))
        return self.head(self._rms_norm(x[rows], self.norm))

    def _rms_norm(self, x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), gain, self.config.rms_norm_eps)


def load_model(
    folder: Path, quant: str, max_position: int | None = None, device: str = "cpu", attention: str = "auto"
) -> Llama:
    """Read a model folder (see `weights.py`), fuse and pack its weights.

    Files are memory-mapped. The embedding is used as it lies, so all replica processes of a machine share its pages;
    the rest is packed into memory of this process and its mapping dropped.

    Raises: WeightsError, SetupError.
    """
    config, largest = check_stored_model(folder)
    dtype = weight_dtype(quant, device)
    if dtype == torch.float16:
        check_fits_fp16(folder, largest)
    tensors = _Tensors(folder, dtype, device)
    embedding = _Tensors(folder, dtype, device)[EMBEDDING]  # a mapping of its own: it stays
    head = tensors[EMBEDDING if config.tie_embeddings else HEAD]
    with ThreadPoolExecutor(max_workers=usable_cores()) as workers:
        packed_head = workers.submit(make_linear, head, quant)
        layers = list(workers.map(lambda i: _load_layer(config, i, tensors, quant), range(config.num_layers)))
    return Llama(
        config,
        embedding,
        layers,
        tensors["model.norm.weight"].clone(),
        packed_head.result(),
        choose_backend(attention, device, config.head_dim),
        min(max_position or config.max_position, config.max_position),
    )


class _Tensors:
    """The tensors of a folder by name, mapped from one file or from several shards."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: str) -> None:
        self._dtype, self._device = dtype, device
        self._files: dict[str, Any] = {}
        for path in tensor_files(folder):
            file: Any = safe_open(path, framework="pt")
            self._files.update(dict.fromkeys(file.keys(), file))

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        return tensor.to(device=self._device, dtype=self._dtype)


def _load_layer(config: ModelConfig, index: int, tensors: _Tensors, quant: str) -> ModelLayer:
    def tensor(name: str) -> torch.Tensor:
        return tensors[f"model.layers.{index}.{name}.weight"]

    q = _rope_pairs(tensor("self_attn.q_proj"), config.head_dim)
    k = _rope_pairs(tensor("self_attn.k_proj"), config.head_dim)
    return ModelLayer(
        attn_norm=tensor("input_layernorm").clone(),
        qkv=make_linear(torch.cat([q, k, tensor("self_attn.v_proj")]), quant),
        out=make_linear(tensor("self_attn.o_proj"), quant),
        mlp_norm=tensor("post_attention_layernorm").clone(),
        gate_up=make_linear(torch.cat([tensor("mlp.gate_proj"), tensor("mlp.up_proj")]), quant),
        down=make_linear(tensor("mlp.down_proj"), quant),
    )


def _rope_pairs(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Reorder a head's rows from (0 .. d/2-1, d/2 .. d-1) to (0, d/2, 1, d/2+1, ...): the pairs that rope rotates.

    Scores do not change, since q and k are reordered alike.
    """
    halves = weight.view(-1, 2, head_dim // 2, weight.shape[1])  # [heads, half, pair, hidden]
    return halves.transpose(1, 2).reshape(weight.shape)


def _rotate(pairs: torch.Tensor, rope: torch.Tensor) -> None:
    """Rotate `pairs` [T, heads, head_dim / 2, 2] in place by `rope` [T, 1, head_dim / 2] complex."""
    if pairs.dtype in (torch.float16, torch.bfloat16):  # no complex numbers that short: rotate in fp32
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()) * rope))
    else:
        torch.view_as_complex(pairs).mul_(rope)


def _rope_table(config: ModelConfig, length: int, dtype: torch.dtype) -> torch.Tensor:
    """Return e^(i * position * frequency), [length, 1, head_dim / 2] complex."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=dtype) / config.head_dim
    angles = torch.arange(length, dtype=dtype)[:, None] * (1.0 / config.rope_theta**exponents)
    return torch.polar(torch.ones_like(angles), angles)[:, None]
