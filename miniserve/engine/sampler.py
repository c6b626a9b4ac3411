"""From logits to tokens: greedy, temperature, top-k, top-p; the same draw wherever and whenever it is made.

A draw is one number u in [0, 1), keyed by (seed, index of the token in the output), looked up in the cumulative
distribution laid out *in order of token id*. Nothing else enters: not the batch, not the replica, not what was drawn
before. So a restarted or moved request continues with the very tokens it would have had, and two nearly equal
probabilities that swap rank through rounding do not change the outcome.

A vocabulary is large (49,152) and most of it has no chance: sorting it costs 30x more than `topk(64)`, which nearly
always holds the whole nucleus. The full sort remains for when it does not.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import torch

from miniserve.seeds import uniform
from miniserve.types import SamplingParams, TokenLogprob

_SHORT_LIST = 64  # candidates tried before sorting everything


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampled token.

    `margin` says how close the decision was: the gap between the two best logits (greedy), or the distance of the drawn
    number, or of the cut, to the nearest edge (in probability). Rounding below it cannot change the token.
    """

    token_id: int
    logprob: TokenLogprob | None = None
    margin: float | None = None


def sample(logits: torch.Tensor, requests: Seq[tuple[SamplingParams, int]], margins: bool = False) -> list[Sampled]:
    """Choose one token per row of `logits` [R, vocab]; `requests[i]` = (parameters, index of the token to come)."""
    best = logits.argmax(-1).tolist() if any(p.temperature == 0 for p, _ in requests) else [0] * len(requests)
    out: list[Sampled] = []
    for row, greedy, (params, index) in zip(logits, best, requests, strict=True):
        token, margin = (greedy, None) if params.temperature == 0 else _draw(row, params, index)
        if margins and params.temperature == 0:
            top = row.topk(2).values
            margin = float(top[0] - top[1])
        logprob = _logprob(row, token, params.logprobs) if params.logprobs is not None else None
        out.append(Sampled(token, logprob, margin if margins else None))
    return out


def _draw(row: torch.Tensor, params: SamplingParams, index: int) -> tuple[int, float]:
    """Draw from one row. Returns the token and the margin of the decision."""
    ids, probs, cut_margin = _candidates(row.double() / params.temperature, params)
    edges = probs.cumsum(0) / probs.sum()
    u = uniform(params.seed, index)
    position = min(int(torch.searchsorted(edges, u, right=True)), len(ids) - 1)
    edge_margin = float((edges[:-1] - u).abs().min()) if len(ids) > 1 else 1.0
    return int(ids[position]), min(edge_margin, cut_margin)


def _candidates(scaled: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return what top-k and top-p leave: (token ids ascending, probabilities, margin of the cut)."""
    vocab = scaled.shape[0]
    top_k = params.top_k if 0 < params.top_k < vocab else vocab
    if top_k == vocab and params.top_p >= 1.0:
        return torch.arange(vocab), scaled.softmax(0), 1.0
    log_total = scaled.logsumexp(0)
    for width in (min(_SHORT_LIST, vocab), vocab):
        values, ids = scaled.topk(width)
        probs = (values - log_total).exp()
        kept, margin = _cut(probs, top_k, params.top_p)
        if kept < width or width == vocab:
            break
    ids, order = ids[:kept].sort()
    return ids, probs[:kept][order], margin


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
