"""What a request asks to be done to its logits before a token is drawn: penalties, bias, and tokens that may not come.

Each is a line or two over one row [vocab]. A row is changed by its own request's tokens alone, read anew each time: so
neither the batch, nor a preemption, nor a continuation on another replica makes a difference, and there is no state to
keep. The order is vLLM's: bans, bias, repetition, frequency and presence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Seq

import torch

from miniserve.engine.sequence import Sequence

_BANNED = -1e9  # far below, not infinitely far: if everything is banned, there is still a most likely token


def changed_logits(row: torch.Tensor, seq: Sequence, eos_ids: Seq[int]) -> torch.Tensor:
    """Return `row` as the parameters of `seq` change it; `row` itself stays as it is."""
    params = seq.request.sampling
    row = row.to(torch.float64, copy=True)
    output = seq.tokens[seq.num_prompt :]
    banned = [run[-1] for run in params.bad_words if _would_end(output, run)]
    if len(output) < params.min_tokens:
        banned += [*eos_ids, *params.stop_token_ids]
    if banned:
        row[torch.tensor(banned)] += _BANNED
    if params.logit_bias:
        biased, biases = zip(*params.logit_bias, strict=True)
        row[torch.tensor(biased)] += torch.tensor(biases, dtype=row.dtype)
    if params.repetition_penalty != 1:
        seen, factor = torch.tensor(list(set(seq.tokens))), params.repetition_penalty
        row[seen] = torch.where(row[seen] > 0, row[seen] / factor, row[seen] * factor)
    if output and (params.frequency_penalty or params.presence_penalty):
        counts = Counter(output)
        times = torch.tensor(list(counts.values()), dtype=row.dtype)
        row[torch.tensor(list(counts))] -= params.frequency_penalty * times + params.presence_penalty
    return row


def _would_end(output: Seq[int], run: Seq[int]) -> bool:
    """Whether one more token could complete `run` at the end of `output`."""
    before = len(run) - 1
    return len(output) >= before and tuple(output[len(output) - before :]) == tuple(run[:-1])
