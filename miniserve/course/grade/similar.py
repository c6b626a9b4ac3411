"""Finds answers of different learners that are the same, or nearly: a hint for a person to look at, never a verdict.

Compares what was written, word by word: code without its comments, with all names as one word and all numbers as
another, so that renaming hides nothing; texts as runs of words. Short answers, and tables with one right answer, say
nothing.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from miniserve.course.grade.graded import Graded

_WORD = re.compile(r"[^\W\d]\w*|\d[\w.]*|\S")
_COMMENT = re.compile(r"#[^\n]*|\"\"\".*?\"\"\"|'''.*?'''", re.DOTALL)
_KEPT = {*keyword.kwlist, *dir(builtins)}
_LEAST_WORDS = {"code": 40, "text": 15}
_RUN = {"code": 5, "text": 3}  # words that are compared together
_NEAR = {"code": 0.8, "text": 0.6}  # share of the runs that two answers have in common
_ONE_RIGHT_ANSWER = {"N", "T", "C"}


@dataclass(frozen=True, slots=True)
class _Written:
    learner: str
    words: tuple[str, ...]
    runs: frozenset[tuple[str, ...]]


def similar_answers(graded: Graded) -> list[str]:
    """Return a sentence for each group of learners whose answers to one question are nearly the same."""
    sentences = []
    for chapter in graded.course.values():
        for id_, question in chapter.questions.items():
            if question.kind in _ONE_RIGHT_ANSWER:
                continue
            kind = "text" if question.graded_by_hand else "code"
            written = list(_written(graded, chapter.number, id_, kind))
            sentences += [_sentence(id_, kind, group, len(written)) for group in _groups(written, _NEAR[kind])]
    return sentences


def _written(graded: Graded, chapter: int, id_: str, kind: str) -> Iterator[_Written]:
    for sheet in graded.sheets:
        text = (sheet.texts if kind == "text" else sheet.answers).get(id_, "") if sheet.chapter == chapter else ""
        words = tuple(_WORD.findall(text.casefold() if kind == "text" else _COMMENT.sub(" ", text)))
        if len(words) >= _LEAST_WORDS[kind]:
            plain = words if kind == "text" else tuple(_unnamed(word) for word in words)
            size = _RUN[kind]
            yield _Written(sheet.learner, words, frozenset(plain[i : i + size] for i in range(len(plain) - size + 1)))


def _unnamed(word: str) -> str:
    if word[:1].isdigit():
        return "0"
    return word if word in _KEPT or not word.isidentifier() else "name"


def _groups(written: list[_Written], near: float) -> list[list[_Written]]:
    """Return the groups of two or more that are linked by nearness."""
    group = list(range(len(written)))
    for (i, one), (j, other) in combinations(enumerate(written), 2):
        small, large = sorted((len(one.runs), len(other.runs)))
        if group[i] != group[j] and small >= near * large:
            common = len(one.runs & other.runs)
            if common >= near * (small + large - common):
                group = [group[i] if number == group[j] else number for number in group]
    found = defaultdict(list)
    for number, one in zip(group, written, strict=True):
        found[number].append(one)
    return [ones for ones in found.values() if len(ones) > 1]


def _sentence(id_: str, kind: str, group: list[_Written], count: int) -> str:
    names = sorted(one.learner for one in group)
    shown = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) <= 8 else f"{len(names)} of {count} learners"
    what = "the same" if len({one.words for one in group}) == 1 else "nearly the same"
    usual = " Perhaps it is the obvious way." if len(group) > max(3, count / 3) else ""
    return f"{id_}: {shown} gave {what} {kind} ({len(group[0].words)} words).{usual}"
