"""The results as pages for people: report.html for the instructor, and one page for each learner.

A page is one file without scripts, pictures or external addresses. It always names a state in words; colours only help.
Every text from a submission is escaped.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from html import escape

from miniserve.course.check.question import Question
from miniserve.course.check.verdict import Status
from miniserve.course.grade.graded import Graded
from miniserve.course.grade.sheet import Sheet
from miniserve.course.grade.similar import similar_answers
from miniserve.course.grade.spelling import file_stem, printable
from miniserve.course.grade.tables import points_text

# name: (light, dark), each text on background; a test holds every pair to a contrast of 4.5
COLOURS = {
    "page": (("#1a1a1a", "#ffffff"), ("#e8e8e8", "#14171a")),
    "head": (("#1a1a1a", "#eceff1"), ("#e8e8e8", "#2a3036")),
    "good": (("#0b3d2e", "#d5efe3"), ("#c9f2df", "#123c2e")),
    "bad": (("#5c1a00", "#fbe3d6"), ("#ffd9c2", "#4a2312")),
    "open": (("#1f2a44", "#e3e9f5"), ("#d5e0f7", "#232f4b")),
}
_KIND = {Status.CORRECT: "good", Status.NOT_TRIED: "open", Status.NOTED: "open", Status.NOT_GRADED: "open"}
_NOT_ANSWERED = (Status.NOT_TRIED, Status.MISSING, Status.UNREADABLE, Status.NOT_GRADED)
# controls, marks that have no width, and those that turn the direction of what follows
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\ufff9-\ufffb\ud800-\udfff]"
)
_SHOWN_CODE = 8_000  # characters of one answer
UNPROTECTED = (
    "No sandbox was used. The submissions ran with the rights of the person who graded them: such code can read and "
    "change files, and other submissions' results. Trust these marks as far as you trust the code."
)
PROTECTED = (
    "Each notebook ran in a bwrap sandbox without network, without this repository, and without sight of other "
    "processes; its answers were judged outside."
)


@dataclass(frozen=True, slots=True)
class ReportItem:
    """How one question went for all learners."""

    question: str
    title: str
    answered: int
    correct: int
    commonest: str  # the most frequent problem: id, count and why
    by_hand: bool


def items(graded: Graded) -> list[ReportItem]:
    """Return the analysis of every question."""
    return [_item(graded, question) for chapter in graded.course.values() for question in chapter.questions.values()]


def _item(graded: Graded, question: Question) -> ReportItem:
    verdicts = [graded.verdict(learner, question.id) for learner in graded.learners]
    answered = [verdict for verdict in verdicts if verdict.status not in _NOT_ANSWERED]
    problems = [verdict.problem for verdict in answered if verdict.problem is not None]
    commonest = ""
    if problems:
        name, count = min(Counter(p.id for p in problems).items(), key=lambda pair: (-pair[1], pair[0]))
        commonest = f"{name} ({count} of {len(answered)}): {next(p.why for p in problems if p.id == name)}"
    correct = sum(verdict.status is Status.CORRECT for verdict in verdicts)
    return ReportItem(question.id, question.title, len(answered), correct, commonest, question.graded_by_hand)


def report_page(graded: Graded) -> str:
    """Return the instructor's page."""
    name, text = ("none", UNPROTECTED) if graded.sandbox == "none" else (graded.sandbox, PROTECTED)
    rule = f"<p>{_text(graded.late.sentence())}</p>" if graded.late is not None else ""
    body = [
        "<h1>Grades</h1>",
        f"<p>{len(graded.learners)} learners, {len(graded.questions)} questions, seed {graded.seed}. "
        f"<strong>Sandbox: {name}.</strong> {text}</p>{rule}",
        "<h2>Learners</h2>",
        _overview(graded),
        "<h2>To look at</h2>",
        _list(_looks(graded)),
        "<h2>Similar answers</h2>",
        "<p>A hint, and no proof: read both answers before you say anything.</p>",
        _list([_text(sentence) for sentence in similar_answers(graded)]),
        "<h2>Questions</h2>",
        _analysis(graded),
        "<h2>Files</h2>",
        _files(graded),
    ]
    return _page("Grades", "\n".join(body))


def _overview(graded: Graded) -> str:
    heads = "".join(f'<th scope="col">{escape(id_)}</th>' for id_ in graded.questions)
    rows = []
    for learner in graded.learners:
        link = f'<a href="learners/{page_name(learner)}">{_text(learner)}</a>'
        cells = "".join(_state(graded, learner, id_) for id_ in graded.questions)
        points = f"{graded.points(learner):.2f} of {graded.most:g}"
        rows.append(f'<tr><th scope="row">{link}</th><td class="number">{points}</td>{cells}</tr>')
    caption = "<caption>State of every answer; the name links to the learner's own page</caption>"
    head = f'<tr><th scope="col">learner</th><th scope="col">points</th>{heads}</tr>'
    return f'<div class="wide"><table>{caption}<thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _state(graded: Graded, learner: str, id_: str) -> str:
    verdict, mark = graded.verdict(learner, id_), graded.marks.get((learner, id_))
    share = f" {verdict.credit:.0%}" if verdict.status is Status.PARTIAL else ""
    by_hand = f", marked {mark.credit:.0%}" if mark is not None and mark.credit is not None else ""
    kind = _KIND.get(verdict.status, "bad")
    return f'<td class="{kind}">{graded.state(learner, id_)}{share}{by_hand}</td>'


def _looks(graded: Graded) -> list[str]:
    """Return what a person should look at: about the whole, then learner by learner."""
    whole = [_text(note) for note in (*graded.lost_marks, *graded.notes)]
    files = [f"<strong>{_text(file.path)}</strong>: {_text(file.became)}" for file in graded.files if file.look]
    nothing = [
        f"<strong>{_text(learner)}</strong> has handed in no notebook."
        for learner in graded.learners
        if not graded.of(learner)
    ]
    return [*whole, *files, *nothing, *(line for sheet in graded.sheets for line in _looks_at(sheet))]


def _looks_at(sheet: Sheet) -> list[str]:
    notes = [*sheet.notes, *([sheet.broken] if sheet.broken else [])]
    for id_, verdict in sheet.verdicts.items():
        if verdict.right_for:
            notes.append(f"{id_} is wrong for {sheet.learner}'s numbers, but right for those of {verdict.right_for}.")
    told = "<br>".join(map(_text, notes))
    return [f"<strong>{_text(sheet.learner)}</strong>, {_text(sheet.handed.file)}: {told}"] if notes else []


def _list(lines: list[str]) -> str:
    """Return lines that are HTML already as a list."""
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>" if lines else "<p>Nothing.</p>"


def _files(graded: Graded) -> str:
    """Return every file that was handed in, with what became of it."""
    became = [(sheet.handed.file, sheet.learner, _fate(sheet)) for sheet in graded.sheets]
    became += [(file.path, file.learner, file.became) for file in graded.files]
    rows = "".join(
        f'<tr><th scope="row">{_text(path)}</th><td>{_text(learner or "nobody")}</td><td>{_text(fate)}</td></tr>'
        for path, learner, fate in sorted(became)
    )
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("file", "learner", "what became of it"))
    caption = "<caption>Everything that was handed in</caption>"
    table = f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<details><summary>{len(became)} files</summary><div class="wide">{table}</div></details>'


def _fate(sheet: Sheet) -> str:
    if sheet.handed.problem:
        return f"unreadable: {sheet.handed.problem}"
    return f"not graded: {sheet.broken}" if sheet.broken else f"graded as chapter {sheet.chapter}"


def _analysis(graded: Graded) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(item.question)}</th><td>{escape(item.title)}</td>'
        f'<td class="number">{item.answered}</td><td class="number">{item.correct}</td>'
        f'<td class="number">{_share(item)}</td><td>{_text(item.commonest)}</td></tr>'
        for item in items(graded)
    )
    names = ("question", "title", "answered", "correct", "of those who answered", "most frequent problem")
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    caption = "<caption>How each question went</caption>"
    return f'<div class="wide"><table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _share(item: ReportItem) -> str:
    if item.by_hand:
        return "read by a person"
    return f"{item.correct / item.answered:.0%}" if item.answered else "nobody answered"


def learner_page(graded: Graded, learner: str) -> str:
    """Return one learner's page: the lines that a check in the notebook would print, beside the learner's code."""
    waiting = graded.pending(learner)
    later = f" Texts still to be read: {', '.join(waiting)}." if waiting else ""
    bonus = f" {points_text(graded.bonus(learner))} of them are a bonus." if graded.bonus(learner) else ""
    points = f"<p>{graded.points(learner):.2f} of {graded.most:g} points.{bonus}{later}</p>"
    sheets = {sheet.chapter: sheet for sheet in graded.of(learner)}
    parts = [_chapter(graded, learner, number_, sheets.get(number_)) for number_ in graded.course]
    lost = [f"<p>{_text(s.handed.file)}: {_text(s.handed.problem)}</p>" for s in graded.of(learner) if not s.chapter]
    return _page(f"Grades of {learner}", f"<h1>{_text(learner)}</h1>\n{points}\n" + "\n".join(parts + lost))


def _chapter(graded: Graded, learner: str, number_: int, sheet: Sheet | None) -> str:
    chapter, late = graded.course[number_], graded.lateness(learner, number_)
    told = f"<p>{_text(sheet.handed.problem)}</p>" if sheet is not None and sheet.handed.problem else ""
    told += f"<p>{_text(late.sentence())}</p>" if late is not None else ""
    answers = "".join(_answer(graded, learner, id_, q.title, sheet) for id_, q in chapter.questions.items())
    return f"<h2>Chapter {number_}: {escape(chapter.name[3:].replace('_', ' '))}</h2>{told}{answers}"


def _answer(graded: Graded, learner: str, id_: str, title: str, sheet: Sheet | None) -> str:
    verdict, credit, mark = graded.verdict(learner, id_), graded.credit(learner, id_), graded.marks.get((learner, id_))
    points = "not marked yet" if credit is None else f"{credit * graded.weights[id_]:.2f} of {graded.weights[id_]:g}"
    said = []
    if mark is not None and mark.credit is not None and verdict.status is not Status.NOTED:
        said.append(f"A person has marked this: {mark.credit:.0%}, in place of what the check says.")
    if mark is not None and mark.bonus:
        said.append(f"Bonus: {points_text(mark.bonus)} points.")
    if mark is not None and mark.comment:
        said.append(mark.comment)
    lines = f'<pre class="{_KIND.get(verdict.status, "bad")}">{_text(chr(10).join(verdict.lines()))}</pre>'
    code = sheet.answers.get(id_, "") if sheet is not None else ""
    shown = code if len(code) <= _SHOWN_CODE else f"{code[:_SHOWN_CODE]}\n..."
    both = f'<div class="beside">{lines}<pre class="code">{_text(shown)}</pre></div>' if code else lines
    return f"<h3>{escape(id_)} {escape(title)}: {points}</h3>{both}" + "".join(f"<p>{_text(one)}</p>" for one in said)


def page_name(learner: str) -> str:
    """Return a file name for a learner's page; two learners never share one."""
    return f"{file_stem(learner)}.html"


def _text(text: str) -> str:
    return escape(_UNPRINTABLE.sub(lambda found: printable(found[0]), text))


def _page(title: str, body: str) -> str:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{_text(title)}</title>'
    page = f'<html lang="en"><head>{head}<style>{_style()}</style></head>\n<body><main>{body}</main></body></html>'
    return f"<!doctype html>\n{page}\n"


def _style() -> str:
    def rules(theme: int) -> str:
        pairs = {name: colours[theme] for name, colours in COLOURS.items()}
        (text, back), (head, head_back) = pairs["page"], pairs["head"]
        named = "".join(f".{n}{{color:{c};background:{b}}}" for n, (c, b) in pairs.items() if n not in ("page", "head"))
        return f"body,a{{color:{text};background:{back}}}th,th a{{color:{head};background:{head_back}}}{named}"

    layout = (
        "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
        "table{border-collapse:collapse}th,td{border:1px solid #767676;padding:.3rem .5rem;text-align:left}"
        "caption{text-align:left;padding:.3rem 0}.number{text-align:right;white-space:nowrap}"
        ".wide{overflow-x:auto}pre{padding:.6rem;white-space:pre-wrap;border-left:4px solid #767676}"
        ".beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:0 1rem}"
        ".beside pre{margin:0;overflow-x:auto}.code{border-left-style:dotted}"
        "a:focus,summary:focus{outline:3px solid #0072b2}"
    )
    return f"{layout}{rules(0)}@media(prefers-color-scheme:dark){{{rules(1)}}}"
