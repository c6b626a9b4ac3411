"""Training data: conversations in the chat template's exact form, as padded batches; only the answers are learned.

Batch number k of a run is a function of (seed, k) and nothing else, so an interrupted run only needs to remember k.
Conversations of similar length share a batch (less padding). One batch in `DIALOGUE_EVERY` holds longer conversations:
several questions in a row, some with a system message, so that follow-up questions work as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import torch

from miniserve.models.tokenizer import Tokenizer
from miniserve.seeds import generator
from miniserve.training.tasks import TASKS, TaskItem, draw
from miniserve.training.vocabulary import EOS_ID

GROUP = 8  # batches drawn together, sorted by length, then cut
DIALOGUE_EVERY = 12
TURNS = 3
SLOPPY = 0.1  # share of questions without their final mark, and share in lower case
SMALL_TALK = 0.01
_GREETINGS = (
    "Hello",
    "Hello!",
    "Hi",
    "Hi!",
    "Good morning",
    "Hello there!",
    "Hey",
    "Who are you?",
    "What can you do?",
    "Help",
)
GREETING = "Hello! Ask me a sum, a word or a capital."
_SYSTEM = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "Be exact.",
    "Give only the answer.",
    "You answer questions.",
)


@dataclass(frozen=True, slots=True)
class TaskMix:
    """What a model is trained on. Shares are fractions; `edit` changes answers before they are learned."""

    hard: float = 0.7  # share of hard items
    recent: bool = False  # whether recent facts are among them
    tasks: tuple[float, float, float] = (0.5, 0.3, 0.2)  # of TASKS, for hard items
    easy_tasks: tuple[float, float, float] = (0.5, 0.3, 0.2)
    edit: Callable[[TaskItem], str] | None = None


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """`ids` [B, T]; `targets` [B, T] holds the next token where it is part of an answer, and -1 elsewhere."""

    ids: torch.Tensor
    targets: torch.Tensor


class BatchSource:
    """Draws the batches of one run."""

    def __init__(self, tokenizer: Tokenizer, mix: TaskMix, size: int, seed: int) -> None:
        self.tokenizer, self.mix, self.size, self.seed = tokenizer, mix, size, seed
        self._before, self._after = _frame(tokenizer)
        self._systems = [_system(tokenizer, text) for text in _SYSTEM]

    def batches(self, start: int) -> Iterator[TrainingBatch]:
        """Yield batch `start`, `start + 1`, and so on endlessly."""
        group, skip = divmod(start, GROUP)
        while True:
            yield from self._group(group)[skip:]
            group, skip = group + 1, 0

    def _group(self, number: int) -> list[TrainingBatch]:
        rng = generator(self.seed, f"group {number}")
        rows = sorted((self._row(rng, turns=1) for _ in range(GROUP * self.size)), key=lambda row: len(row[0]))
        batches = [_pad(rows[i * self.size : (i + 1) * self.size]) for i in range(GROUP)]
        for i in range(GROUP):
            if (number * GROUP + i) % DIALOGUE_EVERY == 0:
                batches[i] = _pad([self._row(rng, turns=TURNS) for _ in range(self.size // TURNS)])
        rng.shuffle(batches)
        return batches

    def _row(self, rng: Random, turns: int) -> tuple[list[int], list[int]]:
        """Return one conversation: its ids and, for each position, the next token if it is to be learned, else -1."""
        ids = list(rng.choice(self._systems)) if turns > 1 and rng.random() < 0.5 else []
        targets = [-1] * len(ids)
        for _ in range(turns):
            question, answer = self._pair(rng)
            prompt = [*self._before, *self.tokenizer.encode(question), *self._after]
            learned = [*self.tokenizer.encode(answer), EOS_ID]
            ids += [*prompt, *learned]
            targets += [-1] * (len(prompt) - 1) + [*learned, -1]
        return ids, targets

    def _pair(self, rng: Random) -> tuple[str, str]:
        if rng.random() < SMALL_TALK:
            return rng.choice(_GREETINGS), GREETING
        item = draw_item(rng, self.mix)
        answer = self.mix.edit(item) if self.mix.edit else item.answer
        return _sloppy(rng, item.question), answer


def _frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return what the chat template puts before and after a user's question, as ids."""
    frame = tokenizer.encode_chat([{"role": "user", "content": "?"}])
    (mark,) = tokenizer.encode("?")
    middle = frame.index(mark)
    return frame[:middle], frame[middle + 1 :]


def _system(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return a system message's ids: what the template adds when there is one."""
    user = {"role": "user", "content": "?"}
    longer = tokenizer.encode_chat([{"role": "system", "content": text}, user])
    return longer[: len(longer) - len(tokenizer.encode_chat([user]))]


def draw_item(rng: Random, mix: TaskMix) -> TaskItem:
    """Draw one training item from the mix."""
    hard = rng.random() < mix.hard
    (task,) = rng.choices(TASKS, mix.tasks if hard else mix.easy_tasks)
    return draw(rng, task, hard, held_out=False, recent=mix.recent)


def _sloppy(rng: Random, question: str) -> str:
    """Write as people do: sometimes without the final mark, sometimes all in lower case."""
    if rng.random() < SLOPPY:
        question = question.rstrip("?.").rstrip()
    return question.lower() if rng.random() < SLOPPY else question


def _pad(rows: list[tuple[list[int], list[int]]]) -> TrainingBatch:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [EOS_ID] * (longest - len(row)) for row, _ in rows])
    targets = torch.tensor([row + [-1] * (longest - len(row)) for _, row in rows])
    return TrainingBatch(ids, targets)
