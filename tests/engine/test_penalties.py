"""Penalties, bias and bans against the formulas as their authors write them, and against `transformers`."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from miniserve.engine.penalties import changed_logits
from miniserve.engine.sampler import sample
from miniserve.engine.sequence import Sequence
from miniserve.types import Request, SamplingParams

VOCAB = 40
EOS = 3
tokens = st.lists(st.integers(0, VOCAB - 1), max_size=12)
prompts = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12)


def logits(seed: int) -> torch.Tensor:
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def changed(row: torch.Tensor, prompt: list[int], output: list[int], **params: object) -> torch.Tensor:
    seq = Sequence(Request("r", "m", prompt, SamplingParams(**params)))  # type: ignore[arg-type]
    for token in output:
        seq.append(token)
    return changed_logits(row, seq, [EOS])


@settings(deadline=None)
@given(st.integers(0, 99), prompts, tokens, st.floats(-2, 2), st.floats(-2, 2))
def test_frequency_and_presence_follow_openais_formula(
    seed: int, prompt: list[int], output: list[int], frequency: float, presence: float
) -> None:
    """mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence, c counting the tokens sampled so far."""
    row = logits(seed)
    counts = Counter(output)
    expected = [
        float(mu) - counts[j] * frequency - float(counts[j] > 0) * presence for j, mu in enumerate(row.double())
    ]
    got = changed(row, prompt, output, frequency_penalty=frequency, presence_penalty=presence)
    assert got.tolist() == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(st.integers(0, 99), prompts, tokens, st.sampled_from([0.5, 1.0, 1.1, 2.0]))
def test_repetition_counts_prompt_and_output_as_transformers_does(
    seed: int, prompt: list[int], output: list[int], penalty: float
) -> None:
    row = logits(seed).double()
    reference = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([prompt + output]), row[None].clone())[0]
    assert torch.equal(changed(row, prompt, output, repetition_penalty=penalty), reference)


@settings(deadline=None)
@given(
    st.integers(0, 99),
    tokens,
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), min_size=1, max_size=4),
)
def test_bad_words_are_banned_where_transformers_bans_them(
    seed: int, output: list[int], words: list[list[int]]
) -> None:
    row = logits(seed).double()
    output = [token % 5 for token in output]
    processor = NoBadWordsLogitsProcessor(words)
    reference = processor(torch.tensor([[7, *output]]), row[None].clone())[0]  # the prompt's token is in no bad word
    got = changed(row, [7], output, bad_words=tuple(map(tuple, words)))
    assert torch.equal(got < -1e8, reference == -torch.inf)
    assert torch.equal(got[got > -1e8], row[got > -1e8])


@settings(deadline=None)
@given(st.integers(0, 99), st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-100, 100), min_size=1, max_size=5))
def test_bias_is_added(seed: int, bias: dict[int, float]) -> None:
    row = logits(seed).double()
    processor = SequenceBiasLogitsProcessor([[[token], value] for token, value in bias.items()])
    reference = processor(torch.tensor([[0]]), row[None].clone())[0]
    assert torch.allclose(changed(row, [0], [], logit_bias=tuple(bias.items())), reference)


def test_no_end_comes_before_min_tokens() -> None:
    row = torch.zeros(VOCAB)
    for output, banned in (([], {EOS, 5}), ([1], {EOS, 5}), ([1, 1], set())):
        got = changed(row, [0], output, min_tokens=2, stop_token_ids=(5,))
        assert {i for i, value in enumerate(got.tolist()) if value < -1e8} == banned


def test_the_models_row_stays_as_it_is() -> None:
    for dtype in (torch.float32, torch.float64):
        row = torch.ones(VOCAB, dtype=dtype)
        changed(row, [1], [1], repetition_penalty=2.0, logit_bias=((2, 5.0),), min_tokens=9)
        assert torch.equal(row, torch.ones(VOCAB, dtype=dtype))


@pytest.mark.parametrize("temperature", [0.0, 1.0, 1e-310])
def test_with_everything_banned_there_is_still_a_token(temperature: float) -> None:
    row = logits(0)
    everything = changed(row, [0], [], bad_words=tuple((i,) for i in range(VOCAB)))
    params = SamplingParams(temperature=temperature, top_p=0.9, min_p=0.1)
    assert 0 <= sample(row[None], [(params, 0)], True, {0: everything})[0].token_id < VOCAB


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 999), st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.01, 0.2, 1.0]))
def test_min_p_leaves_what_transformers_leaves(seed: int, temperature: float, min_p: float) -> None:
    row = logits(seed).double()
    reference = MinPLogitsWarper(min_p)(torch.tensor([[0]]), row[None] / temperature)[0]
    left = {i for i, value in enumerate(reference.tolist()) if value > -torch.inf}
    params = SamplingParams(temperature=temperature, min_p=min_p, seed=seed)
    drawn = [sample(row[None], [(params, index)])[0].token_id for index in range(60)]
    assert set(drawn) <= left
    plain = [
        sample(row[None], [(SamplingParams(temperature=temperature, seed=seed), i)])[0].token_id for i in range(60)
    ]
    assert all(got == other for got, other in zip(drawn, plain, strict=True) if other in left), "the same noise"


def test_top_p_is_of_what_min_p_leaves() -> None:
    row = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    alone = SamplingParams(temperature=1.0, top_p=0.55)  # the two most likely hold 0.7
    both = SamplingParams(temperature=1.0, top_p=0.55, min_p=0.7)  # of these two, the first holds 0.57
    assert {sample(row[None], [(alone, i)])[0].token_id for i in range(99)} == {0, 1}
    assert {sample(row[None], [(both, i)])[0].token_id for i in range(99)} == {0}


def test_logprobs_stay_the_models_own() -> None:
    row = logits(1)
    params = SamplingParams(temperature=0.0, logprobs=1)
    sampled = sample(row[None], [(params, 0)], changed={0: changed(row, [0], [], logit_bias=((7, 100.0),))})[0]
    assert sampled.token_id == 7
    assert sampled.logprob is not None
    assert sampled.logprob.logprob == pytest.approx(float(row.double().log_softmax(0)[7]))


@pytest.mark.parametrize("temperature", [1e-5, 1e-100, 1e-307, 1e-310, 5e-324])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_temperature_near_zero_is_greedy(temperature: float, top_p: float) -> None:
    row = logits(2)
    params = SamplingParams(temperature=temperature, top_p=top_p, logprobs=1)
    for index in range(5):
        sampled = sample(row[None], [(params, index)], margins=True)[0]
        assert sampled.token_id == int(row.argmax())
        assert sampled.margin is not None
        assert sampled.margin > 0


def test_top_p_zero_is_greedy() -> None:
    row = logits(3)
    params = SamplingParams(temperature=2.0, top_p=0.0)
    assert {sample(row[None], [(params, index)])[0].token_id for index in range(20)} == {int(row.argmax())}


def test_neutral_values_change_nothing() -> None:
    assert not SamplingParams().changes_logits
    assert not SamplingParams(min_p=0.5, stop_token_ids=(1,)).changes_logits, "these are no matter of logits"
