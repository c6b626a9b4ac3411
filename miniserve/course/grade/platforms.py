"""The points as learning platforms take them in: canvas.csv and moodle.csv, for the learners on the roster.

Who a learner is comes from the roster's own columns, so a roster that a platform exported leads back to that platform.
"""

from __future__ import annotations

from miniserve.course.check.verdict import Status
from miniserve.course.grade.graded import Graded
from miniserve.course.grade.roster import Person
from miniserve.course.grade.spreadsheet import quoted, write_spreadsheet
from miniserve.course.grade.tables import points_text


def canvas_csv(graded: Graded) -> str:
    """Return Canvas's gradebook: an assignment for each chapter, with its points possible."""
    names = [_assignment(graded, chapter) for chapter in graded.course]
    rows: list[list[object]] = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *names]]
    most = [sum(graded.weights[id_] for id_ in chapter.questions) for chapter in graded.course.values()]
    rows.append(["    Points Possible", "", "", "", "", *map(points_text, most)])
    for person in graded.roster.people:
        keys = ("id", "sis user id", "sis login id", "section")
        who = [quoted(person.row.get("student") or person.name), *(person.row.get(key, "") for key in keys)]
        rows.append([*who, *(_points(graded, person, chapter) for chapter in graded.course)])
    return write_spreadsheet(rows)


def moodle_csv(graded: Graded) -> str:
    """Return a table for Moodle: `Grade` and `Feedback comments` as in its worksheet, and a column for each chapter."""
    keys = ("Identifier", "Full name", "First name", "Last name", "ID number", "Username", "Email address")
    kept = [key for key in keys if any(person.row.get(key.casefold()) for person in graded.roster.people)]
    names = [_assignment(graded, chapter) for chapter in graded.course]
    rows: list[list[object]] = [[*kept, *names, "Grade", "Maximum grade", "Feedback comments"]]
    for person in graded.roster.people:
        points = [_points(graded, person, chapter) for chapter in graded.course]
        whole = "" if "" in points else points_text(graded.points(person.id))
        comments = [f"{id_}: {mark.comment}" for (who, id_), mark in graded.marks.items() if who == person.id]
        said = "; ".join(comment for comment in comments if not comment.endswith(": "))
        who = [quoted(person.row.get(key.casefold(), "")) for key in kept]
        rows.append([*who, *points, whole, points_text(graded.most), quoted(said)])
    return write_spreadsheet(rows)


def _assignment(graded: Graded, chapter: int) -> str:
    return f"Chapter {chapter}: {graded.course[chapter].name[3:].replace('_', ' ')}"


def _points(graded: Graded, person: Person, chapter: int) -> str:
    """Return the points of a chapter; nothing while a text waits for its mark, or our machine has failed."""
    for id_ in graded.course[chapter].questions:
        waits = graded.verdict(person.id, id_).status in (Status.NOTED, Status.NOT_GRADED)
        if waits and graded.credit(person.id, id_) is None:
            return ""
    return points_text(graded.points_of(person.id, chapter))
