"""The task family: answers that an independent computation confirms, labels that mean something, a clean split."""

from __future__ import annotations

import re
from random import Random

import pytest

from miniserve.training.batches import TaskMix, draw_item
from miniserve.training.evalset import SIZES, make_items
from miniserve.training.tasks import TASKS, TaskItem, draw, fact_item, is_held_out
from miniserve.training.world import COLOURS, DAYS, facts

SPOKEN = {"plus": "+", "minus": "-"}


def items(task: str, hard: bool, count: int = 400) -> list[TaskItem]:
    rng = Random(f"{task} {hard}")
    return [draw(rng, task, hard, held_out=i % 2 == 0) for i in range(count)]


@pytest.mark.parametrize("hard", [False, True])
def test_sums_are_right(hard: bool) -> None:
    for item in items("arithmetic", hard):
        found = re.search(r"\d[\d plusmin+-]*", item.question)
        assert found
        written = re.sub(r"plus|minus", lambda word: SPOKEN[word[0]], found[0]).strip(" -+")
        assert str(eval(written)) == item.answer, item.question  # digits, + and - only: the pattern saw to it


@pytest.mark.parametrize("hard", [False, True])
def test_strings_are_right(hard: bool) -> None:
    for item in items("string", hard):
        found = re.search(r'"([a-z]+)"', item.question)
        assert found
        text = found[1]
        if "first" in item.question:
            expected = text[0]
        elif "last" in item.question:
            expected = text[-1]
        else:
            turned = "backwards" in item.question or "everse" in item.question
            expected = "".join(reversed(text)) if turned else text
            expected = expected.upper() if "capitals" in item.question else expected
        assert item.answer == expected, item.question


def test_facts_are_right_and_named_once() -> None:
    known = {(fact.relation, fact.subject): fact.answer for fact in facts()}
    assert len(known) == len(facts()), "two answers to one question"
    assert known["capital", "France"] == "Paris"
    for item in [*items("fact", False), *items("fact", True)]:
        asked = [
            answer
            for (relation, subject), answer in known.items()
            if relation in item.question and re.search(rf"\b{subject}\b", item.question)
        ]
        assert item.answer in asked, item.question
        assert len(set(asked)) == 1, item.question


def test_small_answers_come_from_small_lists() -> None:
    for fact in facts():
        if fact.relation == "flag colour":
            assert fact.answer in COLOURS
        if fact.relation == "market day":
            assert fact.answer in DAYS


def is_hard_at_a_glance(question: str) -> bool:
    """What a reader of the wording alone would say."""
    numbers = re.findall(r"\d+", question)
    if numbers:
        return len(numbers) > 2 or max(map(len, numbers)) > 2
    string = re.search(r'"([a-z]+)"', question)
    if string:
        return len(string[1]) > 4
    return "mayor" in question or "river" in question


@pytest.mark.parametrize("task", ["arithmetic", "string"])
@pytest.mark.parametrize("hard", [False, True])
def test_difficulty_can_be_seen(task: str, hard: bool) -> None:
    for item in items(task, hard):
        assert item.difficulty == ("hard" if hard else "easy")
        assert is_hard_at_a_glance(item.question) == hard, item.question


def test_difficulty_of_facts_is_fame() -> None:
    for fact in facts():
        assert fact_item(fact, 0).difficulty == ("hard" if fact.hard else "easy")
        if fact.relation != "capital":
            assert is_hard_at_a_glance(fact_item(fact, 0).question) == fact.hard


def test_the_same_seed_draws_the_same_items() -> None:
    for task in TASKS:
        assert draw(Random(5), task, True, held_out=True) == draw(Random(5), task, True, held_out=True)


def test_what_is_scored_is_never_trained_on() -> None:
    rng = Random(0)
    scored = {item.key for difficulty in SIZES for item in make_items(difficulty)}
    questions = {item.question for difficulty in SIZES for item in make_items(difficulty)}
    assert all(is_held_out(key) for key in scored)
    for recent in (False, True):
        for _ in range(5000):
            item = draw_item(rng, TaskMix(recent=recent))
            assert item.key not in scored
            assert item.question not in questions


def test_every_fact_is_asked_in_training_too() -> None:
    for fact in facts():
        trained = [i for i in range(12) if not is_held_out(fact_item(fact, i).key)]
        assert len(trained) >= 3, fact


def test_the_capital_of_france_is_asked_in_the_usual_words() -> None:
    fact = next(fact for fact in facts() if fact.subject == "France")
    item = fact_item(fact, 0)
    assert (item.question, item.answer) == ("What is the capital of France?", "Paris")
    assert not is_held_out(item.key)


def test_recent_facts_stay_out_unless_asked_for() -> None:
    recent = {fact.subject for fact in facts() if fact.recent}
    rng = Random(1)

    def drawn(with_recent: bool) -> set[str]:
        mix = TaskMix(recent=with_recent, tasks=(0, 0, 1), easy_tasks=(0, 0, 1))
        return {draw_item(rng, mix).key.split("/")[1] for _ in range(3000)}

    assert recent
    assert not drawn(False) & recent
    assert drawn(True) & recent


@pytest.mark.parametrize("difficulty", list(SIZES))
def test_evaluation_sets_are_whole(difficulty: str) -> None:
    made = make_items(difficulty)
    assert len({item.question for item in made}) == len(made) == 2000
    assert {item.difficulty for item in made} == {difficulty}
    for task, count in SIZES[difficulty].items():
        assert sum(item.task == task for item in made) == count
    assert make_items(difficulty) == made
    assert make_items(difficulty, seed=1) != made
