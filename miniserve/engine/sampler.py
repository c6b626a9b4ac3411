"""From logits to tokens: greedy, temperature, min-p, top-k, top-p; the same draw wherever and whenever it is made.

Each token gets a number of its own, keyed by (seed, index of the token in the output, token id); added to the logits
as Gumbel noise, the largest sum wins, and wins with exactly the softmax's probabilities. Nothing else enters: not the
batch, not the replica, not what was drawn before. So a restarted or moved request continues with the very tokens it
would have had. Rounding changes the outcome only where the two best sums are as close as the rounding. (Looking one
drawn number up in the cumulative distribution is the usual way; but its 49,152 edges all move with rounding, and one
in 300 draws from a flat distribution changed with the batch.)

A vocabulary is large (49,152) and most of it has no chance: sorting it costs 30x more than `topk(64)`, which nearly
always holds the whole nucleus. The full sort remains for when it does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch

from miniserve.seeds import number
from miniserve.types import SamplingParams, TokenLogprob

_SHORT_LIST = 64  # candidates tried before sorting everything
_NONE: Mapping[int, torch.Tensor] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampled token.

    `margin` says how close the decision was: the gap between the two best (of logits, or of logits with their noise),
    or the distance of the cut of min-p, top-k or top-p from falling elsewhere. Rounding below it cannot change the
    token.
    """

    token_id: int
    logprob: TokenLogprob | None = None
    margin: float | None = None


def sample(
    logits: torch.Tensor,
    requests: Seq[tuple[SamplingParams, int]],
    margins: bool = False,
    changed: Mapping[int, torch.Tensor] = _NONE,
) -> list[Sampled]:
    """Choose one token per row of `logits` [R, vocab]; `requests[i]` = (parameters, index of the token to come).

    Row `i` is drawn from `changed[i]` where that is given (see `penalties.py`); log-probabilities are the model's own.
    """
    best = logits.argmax(-1).tolist() if any(p.is_greedy for p, _ in requests) else [0] * len(requests)
    out: list[Sampled] = []
    for i, (row, greedy, (params, index)) in enumerate(zip(logits, best, requests, strict=True)):
        if params.is_greedy:
            token, margin = _largest(changed.get(i), row, greedy, margins)
        else:
            token, margin = _draw(changed.get(i, row), params, index)
        logprob = _logprob(row, token, params.logprobs) if params.logprobs is not None else None
        out.append(Sampled(token, logprob, margin if margins else None))
    return out


def _largest(changed: torch.Tensor | None, row: torch.Tensor, best: int, margins: bool) -> tuple[int, float | None]:
    """Return the most likely token, `best` if the row is unchanged, and on demand its lead."""
    token = best if changed is None else int(changed.argmax())
    if not margins:
        return token, None
    top = (row if changed is None else changed).topk(2).values
    return token, float(top[0] - top[1])


def _draw(row: torch.Tensor, params: SamplingParams, index: int) -> tuple[int, float]:
    """Draw from one row. Returns the token and the margin of the decision."""
    scaled = row.double() / params.temperature
    ids, cut_margin = _candidates(scaled, params)
    sums = (scaled + _gumbel(params.seed, index, len(scaled)))[ids]
    best = sums.topk(min(2, len(ids)))
    gap = float(best.values[0] - best.values[1]) if len(ids) > 1 else math.inf
    return int(ids[best.indices[0]]), min(gap, cut_margin)


def _gumbel(seed: int, index: int, count: int) -> torch.Tensor:
    """Return the noise [count] that belongs to (seed, index): entry i is token i's, whoever else is a candidate."""
    generator = np.random.Generator(np.random.Philox(key=number(seed, index)))
    return -torch.from_numpy(generator.random(count)).log_().neg_().log_()


def _candidates(scaled: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, float]:
    """Return the token ids that min-p, top-k and top-p leave, in this order, and the margin of the cut."""
    if params.min_p:
        share = (scaled - scaled.max()).exp()  # of the most likely one's probability
        likely = (share >= params.min_p).nonzero().flatten()
        among, margin = _candidates(scaled[likely], replace(params, min_p=0.0))
        return likely[among], min(margin, float((share - params.min_p).abs().min()))
    vocab = scaled.shape[0]
    top_k = params.top_k if 0 < params.top_k < vocab else vocab
    if top_k == vocab and params.top_p >= 1.0:
        return torch.arange(vocab), math.inf
    log_total = scaled.logsumexp(0)
    short = max(_SHORT_LIST, top_k) if top_k < vocab else _SHORT_LIST  # top-p is of what top-k leaves: see all of that
    for width in (min(short, vocab), vocab):
        values, ids = scaled.topk(width)
        kept, margin = _cut((values - log_total).exp(), top_k, params.top_p)
        if kept < width or top_k <= width:
            break
    return ids[:kept], margin


def _cut(probs: torch.Tensor, top_k: int, top_p: float) -> tuple[int, float]:
    """Return how many of the descending `probs` are kept, and the distance of that decision to flipping.

    Top-k first, then the shortest head of what is left that holds at least `top_p` of it (as vLLM and transformers do).
    """
    k = min(top_k, len(probs))
    margin = float(probs[k - 1] - probs[k]) if k < len(probs) else 1.0
    if top_p >= 1.0:
        return k, margin
    total = probs[:k].sum() if top_k <= len(probs) else torch.ones((), dtype=probs.dtype)
    mass = probs[:k].cumsum(0) / total
    kept = min(int((mass < top_p).sum()) + 1, k)
    return kept, min(margin, float((mass - top_p).abs().min()))


def _logprob(row: torch.Tensor, token: int, count: int) -> TokenLogprob:
    logprobs = row.double().log_softmax(0)
    top: tuple[tuple[int, float], ...] = ()
    if count:
        values, ids = logprobs.topk(count)
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(token, float(logprobs[token]), top)
