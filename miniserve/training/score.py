"""How good a model is: exact match through the serving engine itself, greedy, with an interval for every figure.

An answer counts if it is the expected text *and* the model ended it: running on is wrong. The prompts are those of a
chat request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from miniserve.clock import monotonic
from miniserve.engine.engine import Engine
from miniserve.models.tokenizer import Tokenizer
from miniserve.training.tasks import TASKS, TaskItem
from miniserve.types import FinishReason, Request, SamplingParams

MAX_TOKENS = 48  # the longest right answer has 19
Z_95 = 1.959964  # standard normal quantile


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """The model's answer to one item."""

    item: TaskItem
    text: str
    right: bool


@dataclass(frozen=True, slots=True)
class Scored:
    """All answers, and how long the engine took."""

    answers: list[ScoredAnswer]
    tokens: int  # generated, including end tokens
    seconds: float


def score(engine: Engine, tokenizer: Tokenizer, items: Sequence[TaskItem], on_answer: Callable[[], None]) -> Scored:
    """Answer every item, as many at once as the engine runs; `on_answer` is called after each.

    Raises: InvalidRequest if an item does not fit the model's context.
    """
    start_s = monotonic()
    waiting = [_request(tokenizer, str(number), item) for number, item in enumerate(items)][::-1]
    outputs: dict[str, list[int]] = {request.request_id: [] for request in waiting}
    ended: dict[str, FinishReason] = {}
    room = 2 * engine.scheduler.config.max_running
    while waiting or engine.has_work:
        while waiting and len(engine.scheduler.running) + engine.scheduler.num_waiting < room:
            engine.add(waiting.pop())
        for event in engine.step():
            outputs[event.request_id].extend(event.token_ids)
            if event.finish_reason is not None:
                ended[event.request_id] = event.finish_reason
                on_answer()
    answers = [_judge(item, tokenizer.decode(outputs[str(i)]), ended[str(i)]) for i, item in enumerate(items)]
    return Scored(answers, sum(map(len, outputs.values())), monotonic() - start_s)


def _request(tokenizer: Tokenizer, request_id: str, item: TaskItem) -> Request:
    prompt = tokenizer.encode_chat([{"role": "user", "content": item.question}])
    return Request(request_id, "scored", tuple(prompt), SamplingParams(max_tokens=MAX_TOKENS, temperature=0))


def _judge(item: TaskItem, text: str, ended: FinishReason) -> ScoredAnswer:
    return ScoredAnswer(item, text, right=text == item.answer and ended is FinishReason.STOP)


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion; it stays within [0, 1] and has positive width even for 0 of n.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if total == 0:
        return 0.0, 1.0
    share, z2 = right / total, Z_95**2 / total
    middle = (share + z2 / 2) / (1 + z2)
    half = Z_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total)) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def summary(scored: Scored) -> list[dict[str, Any]]:
    """Return one row per group of items: everything, each difficulty, each task of each difficulty."""
    rows = [_row("all", "all", scored.answers)]
    for difficulty in ("easy", "hard"):
        alike = [answer for answer in scored.answers if answer.item.difficulty == difficulty]
        rows.append(_row(difficulty, "all", alike))
        rows += [_row(difficulty, task, [a for a in alike if a.item.task == task]) for task in TASKS]
    return [row for row in rows if row["items"]]


def _row(difficulty: str, task: str, answers: Iterable[ScoredAnswer]) -> dict[str, Any]:
    answers = list(answers)
    right = sum(answer.right for answer in answers)
    low, high = wilson(right, len(answers))
    return {
        "difficulty": difficulty,
        "task": task,
        "items": len(answers),
        "right": right,
        "accuracy": round(right / max(len(answers), 1), 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "mean_answer_characters": round(fmean(len(answer.text) for answer in answers), 2) if answers else None,
    }
