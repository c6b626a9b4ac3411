"""Which model should answer: the small one, or the larger, more expensive one? Three ways to tell, cheapest first.

    HeuristicHardness   wording and length
    LearnedHardness     logistic regression on hashed n-grams of the question, trained on questions known to be hard
    Cascade             ask the small model first, and then the large one if the small one was unsure of its answer

The first two score a question from 0 (easy) to 1 (hard) before anything is generated, and `ModelRouter` sends questions
at or above a threshold to the large model. The threshold follows from the share of questions that may go there
(`threshold_for`). A cascade sees the answer, so it knows more; but when it is not satisfied it pays for both models,
and its first token has to wait for the small model's whole answer.

Random routing can reach any mix of the two models' qualities and costs: a straight line. A router is worth its distance
above that line (`above_random_mix`), its own cost included.

Knows text and log-probabilities. Does not see replicas: picking one that serves the model is the job of `router`.
Source for thresholds by share: RouteLLM (Ong et al. 2024, arXiv:2406.18665).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np
import numpy.typing as npt

from miniserve.errors import SetupError
from miniserve.seeds import bucket

Hardness = Callable[[str], float]  # question -> 0 (easy) to 1 (hard)
Floats = npt.NDArray[np.float64]
_NGRAMS = range(2, 6)  # characters; 5 tell "xxxx" from "xxxxx" in a quoted word
_QUOTED = re.compile(r'"([^"]*)"')


@dataclass(frozen=True, slots=True)
class ModelRouter:
    """Sends a question whose hardness is at or above `threshold` to the large model."""

    small: str
    large: str
    hardness: Hardness
    threshold: float

    def __post_init__(self) -> None:
        """Raises: SetupError unless there are two models."""
        _check_models(self.small, self.large)

    def choose(self, question: str) -> str:
        """Return the model that should answer."""
        return self.large if self.hardness(question) >= self.threshold else self.small


@dataclass(frozen=True, slots=True)
class Cascade:
    """Keeps the small model's answer if its mean log-probability per token is at or above `threshold`."""

    small: str
    large: str
    threshold: float

    def __post_init__(self) -> None:
        """Raises: SetupError unless there are two models and the threshold is a log-probability."""
        _check_models(self.small, self.large)
        if not self.threshold <= 0:
            raise SetupError(f"threshold ({self.threshold}) is a mean log-probability: at most 0")

    def keeps(self, logprobs: Sequence[float]) -> bool:
        """Return whether the small model's answer, given its tokens' `logprobs`, is good enough."""
        return confidence(logprobs) >= self.threshold


def confidence(logprobs: Sequence[float]) -> float:
    """Return the mean log-probability of an answer's tokens; minus infinity for an empty answer."""
    return fmean(logprobs) if len(logprobs) else float("-inf")


def threshold_for(scores: Sequence[float], large_fraction: float) -> float:
    """Return the threshold that sends about `large_fraction` of questions with scores like these to the large model.

    Raises: SetupError without scores, or for a fraction outside [0, 1].
    """
    if not len(scores) or not 0 <= large_fraction <= 1:
        raise SetupError(f"need scores and a fraction from 0 to 1, not {len(scores)} scores and {large_fraction}")
    ordered = sorted(scores, reverse=True)
    count = round(large_fraction * len(ordered))
    return ordered[count - 1] if count else float(np.nextafter(ordered[0], np.inf))


def above_random_mix(quality: float, cost: float, small: tuple[float, float], large: tuple[float, float]) -> float:
    """Return how far a router's quality is above that of a random mix at the same cost; models are (quality, cost).

    Raises: SetupError unless the large model costs more.
    """
    if not large[1] > small[1]:
        raise SetupError(f"the large model must cost more than the small one, not {large[1]} and {small[1]}")
    fraction = (cost - small[1]) / (large[1] - small[1])
    return quality - (small[0] + fraction * (large[0] - small[0]))


# --- by wording and length -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeuristicHardness:
    """Scores length, long numbers and words that ask for more than one step. Needs no training: a place to start."""

    long_characters: int = 60
    hard_words: frozenset[str] = frozenset({"why", "how", "explain", "compare", "prove", "and", "then", "who"})

    def __post_init__(self) -> None:
        """Raises: SetupError if no question could be short."""
        if self.long_characters < 1:
            raise SetupError(f"long_characters ({self.long_characters}) must be at least 1")

    def __call__(self, question: str) -> float:
        words = re.findall(r"[a-z]+|\d+", question.lower())
        length = min(1.0, len(question) / self.long_characters)
        wording = any(word in self.hard_words for word in words)
        numbers = any(word.isdigit() and len(word) > 2 for word in words) or sum(map(str.isdigit, words)) > 2
        return (length + wording + numbers) / 3


# --- learned -------------------------------------------------------------------------------------------------------


class LearnedHardness:
    """The probability that a question is hard, judged by its n-grams."""

    def __init__(self, weights: Floats, bias: float) -> None:
        self.weights = weights
        self.bias = bias

    def __call__(self, question: str) -> float:
        z = self.bias + float(self.weights[features(question, len(self.weights))].sum())
        return float(_sigmoid(np.array(z)))


def train_hardness(
    questions: Sequence[str], hard: Sequence[bool], *, buckets: int = 4096, steps: int = 300, decay: float = 1e-3
) -> LearnedHardness:
    """Fit a logistic regression by gradient descent with momentum. There is no randomness: the weights never vary.

    `hard` may come from labels or, better, from questions that the small model got wrong and the large one right. Hold
    out a part (`is_training_item`) and measure only on that.
    Raises: SetupError unless there is one label per question, of both kinds, and the settings are positive.
    """
    if len(questions) != len(hard) or len(set(map(bool, hard))) < 2:
        raise SetupError(f"need one label per question and both kinds, not {len(hard)} for {len(questions)}")
    if buckets < 1 or steps < 1 or decay < 0:
        raise SetupError(f"need buckets >= 1, steps >= 1, decay >= 0, not {buckets}, {steps}, {decay}")
    found = [features(question, buckets) for question in questions]
    index, row = np.concatenate(found), np.repeat(np.arange(len(found)), [len(f) for f in found])
    target, weights, bias = np.asarray(hard, dtype=np.float64), np.zeros(buckets), 0.0
    velocity, bias_velocity, rate = np.zeros(buckets), 0.0, 4.0 / max(len(f) for f in found)
    for _ in range(steps):
        z: Floats = bias + np.bincount(row, weights[index], len(found)).astype(np.float64)
        off = (_sigmoid(z) - target) / len(found)
        velocity = 0.9 * velocity - rate * (np.bincount(index, off[row], buckets) + decay * weights)
        bias_velocity = 0.9 * bias_velocity - rate * float(off.sum())
        weights, bias = weights + velocity, bias + bias_velocity
    return LearnedHardness(weights, bias)


def features(question: str, buckets: int) -> npt.NDArray[np.int64]:
    """Return the buckets of a question's n-grams, each once: characters of its shape, and runs of one and two words.

    In the shape every digit is 0 and every letter of a quoted word is x: their length matters, not what they are.
    """
    shape = _QUOTED.sub(lambda match: '"' + "x" * len(match[1]) + '"', re.sub(r"\d", "0", question))
    words = shape.lower().split()
    grams = {f"{n}:{shape[i : i + n]}" for n in _NGRAMS for i in range(len(shape) - n + 1)}
    grams |= {f"w:{word}" for word in words} | {f"w:{a} {b}" for a, b in pairwise(words)}
    return np.array(sorted({zlib.crc32(gram.encode()) % buckets for gram in grams}), dtype=np.int64)


def is_training_item(key: str) -> bool:
    """Return whether an item is in the training half. The split is by key, so no key falls on both sides."""
    return bucket("model router training", key, buckets=2) == 0


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -30.0, 30.0))))


def _check_models(small: str, large: str) -> None:
    if not small or not large or small == large:
        raise SetupError(f"a model router chooses between two models, not {small!r} and {large!r}")
