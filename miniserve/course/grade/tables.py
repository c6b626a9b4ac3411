"""The results as files for other programs: results.json, grades.csv, free_text.csv, junit.xml.

Grading twice gives the same bytes, except for one line of results.json that says when.
"""

from __future__ import annotations

import csv
import io
import json
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import miniserve
from miniserve.course.check.kinds import FreeText
from miniserve.course.check.verdict import Status, Verdict
from miniserve.course.grade.marks import Marks, quoted
from miniserve.course.grade.sheet import Sheet
from miniserve.course.grade.trusted import TrustedChapter

SCHEMA = 1
_NOT_XML = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Graded:
    """All of one grading: the sheets, in order, and what decides their marks."""

    sheets: Sequence[Sheet]
    course: dict[int, TrustedChapter]
    weights: dict[str, float]
    marks: Marks
    sandbox: str
    seed: int

    @property
    def learners(self) -> list[str]:
        return sorted({sheet.learner for sheet in self.sheets})

    @property
    def questions(self) -> list[str]:
        return [id_ for chapter in self.course.values() for id_ in chapter.questions]

    def of(self, learner: str) -> list[Sheet]:
        return [sheet for sheet in self.sheets if sheet.learner == learner]

    def verdict(self, learner: str, question: str) -> Verdict:
        """Return the verdict; MISSING for a chapter that was not handed in."""
        found = [sheet.verdicts[question] for sheet in self.of(learner) if question in sheet.verdicts]
        return found[0] if found else Verdict(question, Status.MISSING, note="not handed in")

    def credit(self, learner: str, question: str) -> float | None:
        """Return 0 to 1; None for a text that nobody has marked yet."""
        verdict = self.verdict(learner, question)
        if verdict.status is Status.NOTED:
            mark = self.marks.get((learner, question))
            return mark.credit if mark is not None else None
        return verdict.credit

    def points(self, learner: str) -> float:
        return sum((self.credit(learner, id_) or 0.0) * self.weights[id_] for id_ in self.questions)

    @property
    def most(self) -> float:
        return sum(self.weights[id_] for id_ in self.questions)

    def pending(self, learner: str) -> list[str]:
        """Return the questions whose texts wait for a person."""
        return [id_ for id_ in self.questions if self.credit(learner, id_) is None]


def results_json(graded: Graded, graded_at: str) -> str:
    """Return everything, with the versions that made it."""
    made_by = {name: version(name) for name in ("nbval", "pytest", "ipykernel")}
    whole = {
        "schema": SCHEMA,
        "graded_at": graded_at,
        "made_by": {"miniserve": miniserve.__version__, "python": platform.python_version(), **made_by},
        "sandbox": graded.sandbox,
        "seed": graded.seed,
        "chapters": {f"{n:02}": {"name": c.name, "sha256": c.sha256} for n, c in graded.course.items()},
        "weights": {id_: graded.weights[id_] for id_ in graded.questions},
        "submissions": [_submission(graded, sheet) for sheet in graded.sheets],
        "points": {learner: round(graded.points(learner), 4) for learner in graded.learners},
        "most": graded.most,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, sort_keys=False) + "\n"


def _submission(graded: Graded, sheet: Sheet) -> dict[str, Any]:
    return {
        "learner": sheet.learner,
        "chapter": sheet.chapter,
        "file": sheet.handed.file,
        "sha256": sheet.handed.sha256,
        "graded": sheet.graded,
        "problem": sheet.handed.problem or sheet.broken,
        "notes": list(sheet.notes),
        "questions": [
            {**asdict(v), "credit": graded.credit(sheet.learner, id_), "lines": v.lines()}
            for id_, v in sheet.verdicts.items()
        ],
    }


def grades_csv(graded: Graded) -> str:
    """Return a line per learner: points for each question, their sum, the maximum, and what is still to be marked."""
    rows: list[list[object]] = [["learner", *graded.questions, "points", "of", "to be marked"]]
    for learner in graded.learners:
        credits = [graded.credit(learner, id_) for id_ in graded.questions]
        cells = [
            "" if credit is None else _number(credit * graded.weights[id_])
            for id_, credit in zip(graded.questions, credits, strict=True)
        ]
        sums = [_number(graded.points(learner)), _number(graded.most), " ".join(graded.pending(learner))]
        rows.append([quoted(learner), *cells, *sums])
    return _csv(rows)


def _number(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")


def free_text_csv(graded: Graded) -> str:
    """Return the texts that a person reads, beside rubric and model answer, with the marks known so far."""
    rows: list[list[object]] = [
        ["learner", "question", "title", "answer", "rubric", "model answer", "mark", "comment"],
    ]
    for sheet in graded.sheets:
        for id_, text in sheet.texts.items():
            question = graded.course[sheet.chapter].questions[id_]
            assert isinstance(question, FreeText), f"{id_} is read by a person"
            mark = graded.marks.get((sheet.learner, id_))
            marked = [_number(mark.credit), quoted(mark.comment)] if mark is not None else ["", ""]
            rubric = "\n".join(question.rubric)
            rows.append(
                [quoted(sheet.learner), id_, question.title, quoted(text), rubric, question.model_answer, *marked]
            )
    return _csv(rows)


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def junit_xml(graded: Graded) -> str:
    """Return JUnit XML: a suite per notebook, a case per question. Not tried and not yet marked count as skipped."""
    suites = "".join(_suite(sheet) for sheet in graded.sheets)
    return f'<?xml version="1.0" encoding="utf-8"?>\n<testsuites>\n{suites}</testsuites>\n'


def _suite(sheet: Sheet) -> str:
    name = f"{sheet.learner}.{sheet.chapter:02}"
    verdicts = list(sheet.verdicts.values()) or [Verdict(sheet.handed.file, Status.UNREADABLE)]
    cases = "".join(_case(name, verdict) for verdict in verdicts)
    skipped = sum(verdict.status in _SKIPPED for verdict in verdicts)
    failed = sum(verdict.status not in (*_SKIPPED, Status.CORRECT) for verdict in verdicts)
    counts = f'tests="{len(verdicts)}" failures="{failed}" skipped="{skipped}"'
    return f" <testsuite name={_attribute(name)} {counts}>\n{cases} </testsuite>\n"


_SKIPPED = (Status.NOT_TRIED, Status.NOTED)


def _case(suite: str, verdict: Verdict) -> str:
    head = f"  <testcase classname={_attribute(suite)} name={_attribute('q' + verdict.question_id)}"
    if verdict.status is Status.CORRECT:
        return head + "/>\n"
    tag = "skipped" if verdict.status in _SKIPPED else "failure"
    text = escape(_NOT_XML.sub("?", "\n".join(verdict.lines())))
    return f"{head}>\n   <{tag} message={_attribute(verdict.status.value)}>{text}</{tag}>\n  </testcase>\n"


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("?", text))
