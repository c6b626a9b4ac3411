"""Model routers, on the questions of the evaluation sets: half to train on, the other half to measure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniserve.errors import SetupError
from miniserve.policies.routing.model_router import (
    Cascade,
    Hardness,
    HeuristicHardness,
    LearnedHardness,
    ModelRouter,
    above_random_mix,
    confidence,
    features,
    is_training_item,
    threshold_for,
    train_hardness,
)
from miniserve.training.evalset import read_set
from miniserve.training.tasks import TaskItem

DATA = Path(__file__).resolve().parents[3] / "data"
SMALL_COST, LARGE_COST = 1.0, 10.0


@pytest.fixture(scope="module")
def items() -> list[TaskItem]:
    return [item for difficulty in ("easy", "hard") for item in read_set(DATA / "eval", difficulty)]


@pytest.fixture(scope="module")
def held_out(items: list[TaskItem]) -> list[TaskItem]:
    return [item for item in items if not is_training_item(item.key)]


@pytest.fixture(scope="module")
def learned(items: list[TaskItem]) -> LearnedHardness:
    train = [item for item in items if is_training_item(item.key)]
    return train_hardness([item.question for item in train], [item.difficulty == "hard" for item in train])


def is_right(hardness: Hardness, items: list[TaskItem]) -> float:
    """Return how often "among the harder half" agrees with the set that the item is from."""
    threshold = threshold_for([hardness(item.question) for item in items], 0.5)
    return fmean((hardness(item.question) >= threshold) == (item.difficulty == "hard") for item in items)


def recorded_accuracy(model: str) -> dict[tuple[str, str], float]:
    """Return the recorded accuracy of a model in each group of items."""
    path = max(DATA.glob(f"results/*-eval-{model}.json"))  # the newest
    scores = json.loads(path.read_text(encoding="utf-8"))["result"]["scores"]
    return {(row["difficulty"], row["task"]): row["accuracy"] for row in scores}


# --- what it is worth ----------------------------------------------------------------------------------------------


def test_both_halves_are_fair_and_share_no_key(items: list[TaskItem], held_out: list[TaskItem]) -> None:
    train = [item for item in items if is_training_item(item.key)]
    assert not {item.key for item in train} & {item.key for item in held_out}
    assert len(train) == pytest.approx(2000, abs=150)


def test_the_classifier_tells_hard_from_easy_on_questions_it_has_not_seen(
    learned: LearnedHardness, held_out: list[TaskItem], record_property: Callable[[str, object], None]
) -> None:
    heuristic, trained = is_right(HeuristicHardness(), held_out), is_right(learned, held_out)
    record_property("right_heuristic", round(heuristic, 4))
    record_property("right_learned", round(trained, 4))

    assert heuristic > 0.6  # chance is 0.5
    assert trained > 0.94


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.7])
def test_routing_beats_the_random_mix_at_the_same_cost(
    learned: LearnedHardness, held_out: list[TaskItem], fraction: float
) -> None:
    """By the recorded accuracy of each model in each group; what the items themselves say is for a real run."""
    accuracy = {model: recorded_accuracy(model) for model in ("small", "large")}
    router = ModelRouter("small", "large", learned, threshold_for([learned(i.question) for i in held_out], fraction))
    chosen = [router.choose(item.question) for item in held_out]
    quality: dict[str, list[float]] = defaultdict(list)
    for item, model in zip(held_out, chosen, strict=True):
        for name, used in (("routed", model), ("small", "small"), ("large", "large")):
            quality[name].append(accuracy[used][item.difficulty, item.task])
    large = chosen.count("large") / len(chosen)
    cost = SMALL_COST + large * (LARGE_COST - SMALL_COST)

    assert large == pytest.approx(fraction, abs=0.02)
    gain = above_random_mix(
        fmean(quality["routed"]), cost, (fmean(quality["small"]), SMALL_COST), (fmean(quality["large"]), LARGE_COST)
    )
    assert gain > 0.05


def test_training_twice_gives_the_same_weights(items: list[TaskItem]) -> None:
    few = [item for item in items if is_training_item(item.key)][::10]
    one, other = (train_hardness([i.question for i in few], [i.difficulty == "hard" for i in few]) for _ in range(2))
    assert np.array_equal(one.weights, other.weights)
    assert one.bias == other.bias


def test_the_gradient_leads_to_the_optimum() -> None:
    """Two questions of one kind and label each: without decay the likelihood has no end; with it, a known sign."""
    learned = train_hardness(["aa", "bb"], [False, True], steps=500)
    assert learned("aa") < 0.1 < 0.9 < learned("bb")


# --- parts ---------------------------------------------------------------------------------------------------------


def test_the_shape_of_a_question_is_length_not_letters() -> None:
    assert np.array_equal(features('Spell "abcd" now: 12', 4096), features('Spell "wxyz" now: 98', 4096))
    assert not np.array_equal(features('Spell "abcd"', 4096), features('Spell "abcde"', 4096))
    assert not np.array_equal(features("12 plus 3", 4096), features("123 plus 3", 4096))


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_a_hardness(text: str) -> None:
    learned = LearnedHardness(np.linspace(-1, 1, 64), 0.1)
    assert 0 <= learned(text) <= 1
    assert 0 <= HeuristicHardness()(text) <= 1


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50, unique=True), st.floats(0, 1))
def test_the_threshold_sends_the_share_that_was_asked_for(scores: list[float], fraction: float) -> None:
    threshold = threshold_for(scores, fraction)
    assert sum(score >= threshold for score in scores) == round(fraction * len(scores))


def test_a_cascade_keeps_an_answer_that_the_small_model_was_sure_of() -> None:
    cascade = Cascade("small", "large", threshold=-0.5)
    assert cascade.keeps([-0.1, -0.2])
    assert not cascade.keeps([-0.1, -2.0])
    assert not cascade.keeps([])
    assert confidence([-0.1, -0.3]) == pytest.approx(-0.2)


def test_the_random_mix_is_a_line() -> None:
    assert above_random_mix(0.75, 5.5, (0.6, 1.0), (0.9, 10.0)) == pytest.approx(0.0)
    assert above_random_mix(0.9, 5.5, (0.6, 1.0), (0.9, 10.0)) == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ModelRouter("a", "a", HeuristicHardness(), 0.5), "between two models, not 'a' and 'a'"),
        (lambda: Cascade("", "b", -1), "between two models"),
        (lambda: Cascade("a", "b", 0.5), r"threshold \(0.5\) is a mean log-probability"),
        (lambda: HeuristicHardness(long_characters=0), r"long_characters \(0\)"),
        (lambda: threshold_for([], 0.5), "0 scores"),
        (lambda: threshold_for([0.5], 1.5), "1.5"),
        (lambda: train_hardness(["a"], []), "not 0 for 1"),
        (lambda: train_hardness(["a", "b"], [True, True]), "both kinds"),
        (lambda: train_hardness(["a", "b"], [True, False], steps=0), "steps >= 1"),
        (lambda: above_random_mix(0.5, 1, (0.5, 1), (0.9, 1)), "must cost more"),
    ],
)
def test_impossible_settings_are_refused(call: Callable[[], object], says: str) -> None:
    with pytest.raises(SetupError, match=says):
        call()
