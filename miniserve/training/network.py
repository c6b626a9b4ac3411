"""The same Llama as `engine/model.py`, written for training instead of serving: whole batches in, gradients out.

Parameters have the names of the transformers layout, so a state dict is a model file. There is no cache and no paging:
a batch of complete conversations [B, T] is computed at once, and logits are computed only where an answer is learned.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from miniserve.models.folder import expected_shapes
from miniserve.models.model_config import ModelConfig


class Network(nn.Module):
    """A trainable Llama with tied embeddings."""

    def __init__(self, config: ModelConfig, seed: int) -> None:
        """Initialise with normal noise, scaled as in GPT-2 (writers to the residual stream start smaller)."""
        super().__init__()
        assert config.tie_embeddings
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        self.weights = nn.ParameterDict()
        for name, shape in expected_shapes(config).items():
            self.weights[name.replace(".", "/")] = nn.Parameter(_initial(name, shape, config, generator))
        exponents = torch.arange(0, config.head_dim, 2) / config.head_dim
        angles = torch.arange(config.max_position)[:, None] / config.rope_theta**exponents
        self.register_buffer("cos", angles.cos(), persistent=False)  # [max_position, head_dim / 2]
        self.register_buffer("sin", angles.sin(), persistent=False)

    def named(self) -> dict[str, torch.Tensor]:
        """Return the weights under their names in a model file."""
        return {name.replace("/", "."): weight for name, weight in self.weights.items()}

    def forward(self, ids: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Return logits [N, vocab] at the N positions where `wanted` [B, T] is true; `ids` is [B, T]."""
        weight = self.named()
        embedding = weight["model.embed_tokens.weight"]
        x = F.embedding(ids, embedding)  # [B, T, hidden]
        for layer in range(self.config.num_layers):
            prefix = f"model.layers.{layer}."
            x = x + self._attention(self._norm(x, weight[prefix + "input_layernorm.weight"]), prefix, weight)
            if layer == self.config.num_layers - 1:
                x = x[wanted]  # [N, hidden]: the other positions are no longer needed
            x = x + self._mlp(self._norm(x, weight[prefix + "post_attention_layernorm.weight"]), prefix, weight)
        return F.linear(self._norm(x, weight["model.norm.weight"]), embedding)

    def _norm(self, x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), gain, self.config.rms_norm_eps)

    def _attention(self, x: torch.Tensor, prefix: str, weight: dict[str, torch.Tensor]) -> torch.Tensor:
        def heads(name: str) -> torch.Tensor:
            flat = F.linear(x, weight[f"{prefix}self_attn.{name}.weight"])
            return flat.view(*x.shape[:2], -1, self.config.head_dim).transpose(1, 2)  # [B, heads, T, head_dim]

        q, k, v = self._rotate(heads("q_proj")), self._rotate(heads("k_proj")), heads("v_proj")
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=k.shape[1] != q.shape[1])
        return F.linear(out.transpose(1, 2).flatten(2), weight[prefix + "self_attn.o_proj.weight"])

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        cos, sin = self.cos[: x.shape[2]], self.sin[: x.shape[2]]  # type: ignore[index]
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

    def _mlp(self, x: torch.Tensor, prefix: str, weight: dict[str, torch.Tensor]) -> torch.Tensor:
        gate = F.silu(F.linear(x, weight[prefix + "mlp.gate_proj.weight"]))
        up = F.linear(x, weight[prefix + "mlp.up_proj.weight"])
        return F.linear(gate * up, weight[prefix + "mlp.down_proj.weight"])


def _initial(name: str, shape: tuple[int, ...], config: ModelConfig, generator: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:  # a norm's gain
        return torch.ones(shape)
    deviation = 0.02 if "embed" in name else 0.5 / math.sqrt(shape[1])
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        deviation /= math.sqrt(2 * config.num_layers)
    return torch.randn(shape, generator=generator) * deviation


def save_weights(network: Network, folder: Path) -> None:
    """Write model.safetensors in half precision."""
    tensors = {name: weight.detach().half().contiguous() for name, weight in network.named().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def count_parameters(network: Network) -> int:
    return sum(weight.numel() for weight in network.parameters())
