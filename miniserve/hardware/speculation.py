"""Speculative decoding as a step-time model: a small model guesses some tokens, the large one checks them at once.

If each guess is accepted with probability `acceptance`, independently, a step that checks n guesses yields on average

    E = 1 + a + a^2 + ... + a^n = (1 - a^(n+1)) / (1 - a)     tokens (Leviathan et al., ICML 2023, equation 1)

and costs n steps of the draft model and one of the large one, in which every sequence has n + 1 rows but is read once.
The simulator makes one token per step, so a step's time here is that of a whole round divided by E. Few rows: reading
the weights is most of a step, and is shared by E tokens. Many rows: the n + 1 - E rejected ones are arithmetic in vain.

This is a model and no measurement: the acceptance rate is an assumption, its luck is left out, and steps that only
prefill are too cheap by the same division of their base.
"""

from __future__ import annotations

from dataclasses import dataclass

from miniserve.config import CacheConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import SetupError
from miniserve.hardware.prices import ModelSize


@dataclass(frozen=True, slots=True)
class Speculation:
    """`draft` is a model of the price list; it proposes `tokens` per round, each accepted with `acceptance`."""

    draft: str
    tokens: int = 4
    acceptance: float = 0.7

    def __post_init__(self) -> None:
        if self.tokens < 1 or not 0 <= self.acceptance < 1:
            raise SetupError(
                f"tokens ({self.tokens}) must be at least 1, acceptance ({self.acceptance:g}) from 0 to below 1"
            )

    @property
    def tokens_per_round(self) -> float:
        return (1 - self.acceptance ** (self.tokens + 1)) / (1 - self.acceptance)

    def applied(self, large: StepTimeModel, draft: StepTimeModel) -> StepTimeModel:
        """Return the time per token and step of both together."""
        n, made = self.tokens, self.tokens_per_round
        return StepTimeModel(
            base_s=(large.base_s + n * draft.base_s) / made,
            per_decode_row_s=((n + 1) * large.per_decode_row_s + n * draft.per_decode_row_s) / made,
            per_prefill_token_s=large.per_prefill_token_s + draft.per_prefill_token_s,
            per_context_token_s=(large.per_context_token_s + n * draft.per_context_token_s) / made,
            per_prefill_pair_s=large.per_prefill_pair_s + draft.per_prefill_pair_s,
            fitted_on={**large.fitted_on, "speculation": f"{n} tokens of {self.draft}, accepted {self.acceptance:g}"},
        )


def blocks_beside(draft: ModelSize, large: ModelSize, cache: CacheConfig) -> int:
    """Return how many blocks of both models' keys and values fit, where `cache` is what the large one had alone."""
    room = cache.num_blocks * cache.block_size * large.kv_bytes_per_token - draft.weight_bytes
    return int(room // (cache.block_size * (large.kv_bytes_per_token + draft.kv_bytes_per_token)))
