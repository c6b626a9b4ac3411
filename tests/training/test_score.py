"""Scoring: what counts as right, and how sure a share is."""

from __future__ import annotations

import pytest

from miniserve.config import SchedulerConfig
from miniserve.engine.batch import Batch
from miniserve.engine.block_manager import BlockManager
from miniserve.engine.engine import Engine
from miniserve.engine.sampler import Sampled
from miniserve.engine.scheduler import Scheduler
from miniserve.models.tokenizer import Tokenizer
from miniserve.training.score import MAX_TOKENS, Scored, ScoredAnswer, score, summary, wilson
from miniserve.training.tasks import TaskItem
from miniserve.training.vocabulary import EOS_ID


class Parrot:
    """A runner that says what it was told to say to each prompt, token by token, then `after`."""

    def __init__(self, tokenizer: Tokenizer, said: dict[str, str], after: int) -> None:
        self._said = {
            tuple(tokenizer.encode_chat([{"role": "user", "content": question}])): tokenizer.encode(answer)
            for question, answer in said.items()
        }
        self._after = after

    def execute(self, batch: Batch) -> list[Sampled]:
        return [Sampled(self._next(work.seq)) for work in batch.works if work.samples]

    def _next(self, seq) -> int:  # type: ignore[no-untyped-def]
        answer = self._said[seq.request.prompt_ids]
        return answer[seq.num_output] if seq.num_output < len(answer) else self._after


def parrot(tokenizer: Tokenizer, said: dict[str, str], after: int = EOS_ID) -> Engine:
    blocks = BlockManager(64, 16, True)
    return Engine(Parrot(tokenizer, said, after), Scheduler(SchedulerConfig(), blocks, 256, (EOS_ID,)))


def an_item(question: str, answer: str, difficulty: str = "easy", task: str = "string") -> TaskItem:
    return TaskItem(task, difficulty, question, answer, "key")


def test_only_the_exact_text_is_right(tokenizer: Tokenizer) -> None:
    said = {"a": "Paris", "b": "paris", "c": "Paris.", "d": "Par", "e": ""}
    items = [an_item(question, "Paris") for question in said]
    heard: list[None] = []
    scored = score(parrot(tokenizer, said), tokenizer, items, lambda: heard.append(None))
    assert [answer.text for answer in scored.answers] == list(said.values())
    assert [answer.right for answer in scored.answers] == [True, False, False, False, False]
    assert len(heard) == len(items)
    assert scored.tokens == sum(len(text) + 1 for text in said.values())


def test_an_answer_that_does_not_end_is_wrong(tokenizer: Tokenizer) -> None:
    """Token 3 is a control token without text: the text alone would look right."""
    scored = score(parrot(tokenizer, {"a": "Paris"}, after=3), tokenizer, [an_item("a", "Paris")], lambda: None)
    assert scored.answers == [ScoredAnswer(an_item("a", "Paris"), "Paris", right=False)]
    assert scored.tokens == MAX_TOKENS


def test_more_items_than_fit_at_once_keep_their_answers(tokenizer: Tokenizer) -> None:
    said = {f"{i} plus 0": str(i) * (1 + i % 5) for i in range(100)}
    items = [an_item(question, answer) for question, answer in said.items()]
    scored = score(parrot(tokenizer, said), tokenizer, items, lambda: None)
    assert [answer.item for answer in scored.answers] == items
    assert all(answer.right for answer in scored.answers)


def test_summary_has_a_row_for_every_group() -> None:
    answers = [
        ScoredAnswer(an_item("q", "ab", "easy", "string"), "ab", True),
        ScoredAnswer(an_item("q", "abcd", "hard", "string"), "abcx", False),
        ScoredAnswer(an_item("q", "abcd", "hard", "fact"), "abcd", True),
    ]
    rows = {(row["difficulty"], row["task"]): row for row in summary(Scored(answers, tokens=13, seconds=1.0))}
    assert set(rows) == {
        *(("all", "all"), ("easy", "all"), ("easy", "string"), ("hard", "all"), ("hard", "string"), ("hard", "fact"))
    }
    assert (rows["hard", "all"]["right"], rows["hard", "all"]["items"]) == (1, 2)
    assert rows["all", "all"]["mean_answer_characters"] == pytest.approx(10 / 3, abs=0.01)
    low, high = rows["hard", "all"]["interval_95"]
    assert low < 0.5 < high


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (1, 29, 0.0061, 0.1718), (0, 0, 0.0, 1.0)],
)
def test_wilson_intervals_are_the_published_ones(right: int, total: int, low: float, high: float) -> None:
    """81 of 263 and 1 of 29 are from Newcombe 1998, table I (method 3)."""
    assert wilson(right, total) == pytest.approx((low, high), abs=1e-4)
