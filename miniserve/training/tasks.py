"""The questions that the shipped models answer: short, natural, each with exactly one short right answer.

    arithmetic   What is 47 plus 32? -> 79      hard: three digits (823 minus 664), or two steps (47 plus 32 minus 15)
    string       Reverse "kqd". -> dqk          hard: long strings, or two steps (backwards in capitals)
    fact         What is the capital of France? hard: the many less famous ones (`world.py`)

Every item is easy or hard, and an attentive reader can tell which from the wording, so a router can learn it. Items
*held out* for scoring are never trained on: operands and strings are split by their hash, facts by a hash of the fact
and the wording (the fact is known, but has never been asked in this way). Pure and seeded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from miniserve.seeds import bucket
from miniserve.training.world import Fact, facts

TASKS = ("arithmetic", "string", "fact")
LONG_SUMS = 0.6  # share of hard arithmetic; the rest has two steps
LETTERS = "abcdefghijklmnopqrstuvwxyz"

_SUMS = ("What is {}?", "How much is {}?", "Compute {}.", "Tell me {}.", "{} = ?", "Please compute {}.")
_SIGNS = ({"+": " plus ", "-": " minus "}, {"+": " + ", "-": " - "})
_STRINGS = {
    "reverse": (
        *('Reverse "{}".', 'Write "{}" backwards.', 'What is "{}" backwards?', 'Spell "{}" in reverse.'),
        *('Tell me "{}" backwards.', 'Please reverse "{}".'),
    ),
    "capitals": (
        *('Write "{}" in capitals.', 'What is "{}" in capitals?', 'Spell "{}" in capitals.'),
        *('Tell me "{}" in capitals.', 'Please write "{}" in capitals.'),
    ),
    "first": (
        *('What is the first letter of "{}"?', 'Name the first letter of "{}".', 'Tell me the first letter of "{}".'),
        *('Give the first letter of "{}".', 'Which letter is first in "{}"?'),
    ),
    "last": (
        *('What is the last letter of "{}"?', 'Name the last letter of "{}".', 'Tell me the last letter of "{}".'),
        *('Give the last letter of "{}".', 'Which letter is last in "{}"?'),
    ),
    "reverse capitals": (
        *('Write "{}" backwards in capitals.', 'What is "{}" backwards in capitals?'),
        *('Reverse "{}" and write it in capitals.', 'Spell "{}" in reverse and in capitals.'),
        *('Tell me "{}" backwards in capitals.', 'Please write "{}" backwards in capitals.'),
    ),
}
_FACTS = (
    *(
        "{what} is the {relation} of {subject}?",
        "Name the {relation} of {subject}.",
        "Tell me the {relation} of {subject}.",
    ),
    *("Give the {relation} of {subject}.", "{subject} has which {relation}?", "{what} is {subject}'s {relation}?"),
    *("Please name the {relation} of {subject}.", "Do you know the {relation} of {subject}?"),
    *("I need the {relation} of {subject}.", "The {relation} of {subject} is {What}?"),
    *("For {subject}, {What} is the {relation}?", "Can you tell me the {relation} of {subject}?"),
)


@dataclass(frozen=True, slots=True)
class TaskItem:
    """One question and its answer. `key` is what was drawn: items with the same key fall on the same side."""

    task: str
    difficulty: str  # "easy" or "hard"
    question: str
    answer: str
    key: str


def draw(rng: Random, task: str, hard: bool, *, held_out: bool, recent: bool = True) -> TaskItem:
    """Draw one item of `task` from the held-out side or the training side; `recent=False` leaves out recent facts."""
    make = {"arithmetic": _arithmetic, "string": _string, "fact": _fact(recent)}[task]
    while True:
        item = make(rng, hard)
        if is_held_out(item.key) == held_out:
            return item


def is_held_out(key: str) -> bool:
    """Return whether items with this key are kept for scoring: a fixed quarter of all keys."""
    if key.startswith("capital/") and key.endswith("/0"):
        return False  # "What is the capital of France?" is what everyone tries first: always trained on
    return bucket("held out", key, buckets=4) == 0


def wordings() -> list[str]:
    """Return every wording with its slots filled by 1, x and X: the tokenizer takes its whole words from here."""
    relations = sorted({fact.relation for fact in facts()})
    filled = [
        wording.format(what=what, What=what.lower(), relation=relation, subject="X")
        for wording in _FACTS
        for relation in relations
        for what in ("What", "Who")
    ]
    sums = [wording.format("1" + sign + "1") for wording in _SUMS for signs in _SIGNS for sign in signs.values()]
    return [*sums, *(wording.format("x") for group in _STRINGS.values() for wording in group), *filled]


def _arithmetic(rng: Random, hard: bool) -> TaskItem:
    terms = _terms(rng, hard)
    words = rng.choice(_SIGNS)
    expression = str(terms[0]) + "".join(words["+" if t > 0 else "-"] + str(abs(t)) for t in terms[1:])
    question = rng.choice(_SUMS).format(expression)
    return TaskItem("arithmetic", _label(hard), question, str(sum(terms)), f"sum/{terms}")


def _terms(rng: Random, hard: bool) -> list[int]:
    """Return the numbers to add up, with their signs; no sum is below zero."""
    if hard and rng.random() < LONG_SUMS:
        larger, smaller = sorted((rng.randint(100, 999), rng.randint(100, 999)), reverse=True)
        return [larger, -smaller] if rng.random() < 0.5 else rng.sample((larger, smaller), 2)
    while True:
        terms = [rng.randint(10, 99), *(_signed(rng, 10, 99) for _ in range(2 if hard else 1))]
        if _without_carrying(terms):
            return terms


def _signed(rng: Random, low: int, high: int) -> int:
    return rng.choice((1, -1)) * rng.randint(low, high)


def _without_carrying(terms: list[int]) -> bool:
    """Return whether each column can be worked out by itself, without the tens vanishing on the way."""
    tens = units = 0
    for term in terms:
        sign = 1 if term > 0 else -1
        tens, units = tens + sign * (abs(term) // 10), units + sign * (abs(term) % 10)
        if not (1 <= tens <= 9 and 0 <= units <= 9):
            return False
    return True


def _string(rng: Random, hard: bool) -> TaskItem:
    operation = rng.choice(("reverse", "reverse capitals") if hard else ("reverse", "capitals", "first", "last"))
    length = rng.randint(5, 9) if hard else rng.randint(3, 4)
    text = "".join(rng.choice(LETTERS) for _ in range(length))
    question = rng.choice(_STRINGS[operation]).format(text)
    return TaskItem("string", _label(hard), question, _OPERATIONS[operation](text), f"string/{text}")


_OPERATIONS: dict[str, Callable[[str], str]] = {
    "reverse": lambda text: text[::-1],
    "capitals": str.upper,
    "first": lambda text: text[0],
    "last": lambda text: text[-1],
    "reverse capitals": lambda text: text[::-1].upper(),
}


def _fact(recent: bool) -> Callable[[Random, bool], TaskItem]:
    def make(rng: Random, hard: bool) -> TaskItem:
        return fact_item(rng.choice(_known(hard, recent)), rng.randrange(len(_FACTS)))

    return make


def fact_item(fact: Fact, wording: int) -> TaskItem:
    """Ask for `fact` in one of the 12 wordings."""
    what = "Who" if fact.relation == "mayor" else "What"
    names = {"what": what, "What": what.lower(), "relation": fact.relation, "subject": fact.subject}
    key = f"{fact.relation}/{fact.subject}/{wording}"
    return TaskItem("fact", _label(fact.hard), _FACTS[wording].format(**names), fact.answer, key)


def _label(hard: bool) -> str:
    return "hard" if hard else "easy"


_POOLS: dict[tuple[bool, bool], list[Fact]] = {
    (hard, recent): [fact for fact in facts() if fact.hard == hard and (recent or not fact.recent)]
    for hard in (False, True)
    for recent in (False, True)
}


def _known(hard: bool, recent: bool) -> list[Fact]:
    return _POOLS[hard, recent]
