"""The results as files for other programs: results.json, grades.csv, free_text.csv, junit.xml.

Grading twice gives the same bytes, except for one line of results.json that says when. `earlier.py` reads results.json.
"""

from __future__ import annotations

import json
import platform
import re
from dataclasses import asdict
from importlib.metadata import version
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import miniserve
from miniserve.course.check.kinds import FreeText
from miniserve.course.check.verdict import Status, Verdict
from miniserve.course.grade.graded import Graded
from miniserve.course.grade.sheet import Sheet
from miniserve.course.grade.similar import similar_answers
from miniserve.course.grade.spreadsheet import quoted, write_spreadsheet

SCHEMA = 2
_NOT_XML = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def versions() -> tuple[tuple[str, str], ...]:
    """Return the programs that run the notebooks, with their versions."""
    made_by = ((name, version(name)) for name in ("nbval", "pytest", "ipykernel"))
    return (("miniserve", miniserve.__version__), ("python", platform.python_version()), *made_by)


def results_json(graded: Graded, graded_at: str) -> str:
    """Return everything, with the versions that made it."""
    whole = {
        "schema": SCHEMA,
        "graded_at": graded_at,
        "made_by": dict(graded.made_by or versions()),
        "sandbox": graded.sandbox,
        "seed": graded.seed,
        "chapters": {f"{n:02}": {"name": c.name, "sha256": c.sha256} for n, c in graded.course.items()},
        "weights": {id_: graded.weights[id_] for id_ in graded.questions},
        "late_rule": graded.late.sentence() if graded.late is not None else "",
        "notes": list(graded.notes),
        "learners": graded.learners,
        "files": [asdict(file) for file in graded.files],
        "submissions": [_submission(graded, sheet) for sheet in graded.sheets],
        "similar": similar_answers(graded),
        "points": {learner: round(graded.points(learner), 4) for learner in graded.learners},
        "most": graded.most,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, sort_keys=False) + "\n"


def _submission(graded: Graded, sheet: Sheet) -> dict[str, Any]:
    late = graded.lateness(sheet.learner, sheet.chapter)
    return {
        "learner": sheet.learner,
        "chapter": sheet.chapter,
        "file": sheet.handed.file,
        "sha256": sheet.handed.sha256,
        "handed_in_s": sheet.handed.handed_in_s,
        "drawn_for": sheet.handed.drawn_for,
        "graded": sheet.graded,
        "unreadable": sheet.handed.problem,
        "broken": sheet.broken,
        "late_days": late.days if late is not None else 0,
        "notes": list(sheet.notes),
        "questions": [
            {
                **asdict(verdict),
                "marked": graded.credit(sheet.learner, id_),
                "lines": verdict.lines(),
                "answer": sheet.answers.get(id_, ""),
                "text": sheet.texts.get(id_),
            }
            for id_, verdict in sheet.verdicts.items()
        ],
    }


def grades_csv(graded: Graded) -> str:
    """Return a line per learner: points for each question, what changes their sum, and the state of every answer."""
    sums = ["bonus", "late", "points", "of", "to be marked"]
    states = [f"{id_} state" for id_ in graded.questions]
    rows: list[list[object]] = [["learner", *graded.questions, *sums, *states]]
    for learner in graded.learners:
        credits = [graded.credit(learner, id_) for id_ in graded.questions]
        cells = [
            "" if credit is None else points_text(credit * graded.weights[id_])
            for id_, credit in zip(graded.questions, credits, strict=True)
        ]
        changes = [points_text(graded.bonus(learner)), points_text(-graded.lost_by_lateness(learner))]
        whole = [points_text(graded.points(learner)), points_text(graded.most), " ".join(graded.pending(learner))]
        found = [graded.state(learner, id_) for id_ in graded.questions]
        rows.append([quoted(learner), *cells, *changes, *whole, *found])
    return write_spreadsheet(rows)


def points_text(value: float) -> str:
    """Return a number of points as people write it: 2, 0.5, 1.3333."""
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def free_text_csv(graded: Graded) -> str:
    """Return the texts that a person reads, beside rubric and model answer, with all marks known so far.

    Answers that a check judged are in it only if a person has marked them, so that one file keeps all marks.
    """
    head = ["learner", "question", "title", "answer", "rubric", "model answer", "mark", "bonus", "comment"]
    rows: list[list[object]] = [list(head)]
    for sheet in graded.sheets:
        for id_ in sheet.verdicts:
            question, mark = graded.course[sheet.chapter].questions[id_], graded.marks.get((sheet.learner, id_))
            if id_ not in sheet.texts and mark is None:
                continue
            text = sheet.texts.get(id_, sheet.answers.get(id_, ""))
            rubric, model = "", ""
            if isinstance(question, FreeText):
                rubric, model = "\n".join(question.rubric), question.model_answer
            marked = ["", "", ""]
            if mark is not None:
                bonus = points_text(mark.bonus) if mark.bonus else ""
                marked = ["" if mark.credit is None else points_text(mark.credit), bonus, quoted(mark.comment)]
            about = [quoted(sheet.learner), id_, quoted(question.title), quoted(text), quoted(rubric), quoted(model)]
            rows.append([*about, *marked])
    return write_spreadsheet(rows)


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
