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
from miniserve.course.check.verdict import Status, Verdict
from miniserve.course.grade.sheet import Sheet
from miniserve.course.grade.spelling import file_stem, printable
from miniserve.course.grade.tables import Graded

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
    body = [
        "<h1>Grades</h1>",
        f"<p>{len(graded.learners)} learners, {len(graded.questions)} questions, seed {graded.seed}. "
        f"<strong>Sandbox: {name}.</strong> {text}</p>",
        "<h2>Learners</h2>",
        _overview(graded),
        "<h2>To look at</h2>",
        _notes(graded),
        "<h2>Questions</h2>",
        _analysis(graded),
    ]
    return _page("Grades", "\n".join(body))


def _overview(graded: Graded) -> str:
    heads = "".join(f'<th scope="col">{escape(id_)}</th>' for id_ in graded.questions)
    rows = []
    for learner in graded.learners:
        link = f'<a href="learners/{page_name(learner)}">{_text(learner)}</a>'
        cells = "".join(_state(graded.verdict(learner, id_)) for id_ in graded.questions)
        points = f"{graded.points(learner):.2f} of {graded.most:g}"
        rows.append(f'<tr><th scope="row">{link}</th><td class="number">{points}</td>{cells}</tr>')
    caption = "<caption>State of every answer; the name links to the learner's own page</caption>"
    head = f'<tr><th scope="col">learner</th><th scope="col">points</th>{heads}</tr>'
    return f'<div class="wide"><table>{caption}<thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _state(verdict: Verdict) -> str:
    share = f" {verdict.credit:.0%}" if verdict.status is Status.PARTIAL else ""
    return f'<td class="{_KIND.get(verdict.status, "bad")}">{verdict.status.value}{share}</td>'


def _notes(graded: Graded) -> str:
    lines = [
        f"<li><strong>{_text(sheet.learner)}</strong>, {_text(sheet.handed.file)}: {_text(note)}</li>"
        for sheet in graded.sheets
        for note in (*sheet.notes, *([sheet.broken] if sheet.broken else []))
    ]
    return f"<ul>{''.join(lines)}</ul>" if lines else "<p>Nothing.</p>"


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
    """Return one learner's page: the lines that a check in the notebook would print."""
    waiting = graded.pending(learner)
    later = f" Texts still to be read: {', '.join(waiting)}." if waiting else ""
    points = f"<p>{graded.points(learner):.2f} of {graded.most:g} points.{later}</p>"
    sheets = {sheet.chapter: sheet for sheet in graded.of(learner)}
    parts = [_chapter(graded, learner, number, sheets.get(number)) for number in graded.course]
    lost = [f"<p>{_text(s.handed.file)}: {_text(s.handed.problem)}</p>" for s in graded.of(learner) if not s.chapter]
    return _page(f"Grades of {learner}", f"<h1>{_text(learner)}</h1>\n{points}\n" + "\n".join(parts + lost))


def _chapter(graded: Graded, learner: str, number: int, sheet: Sheet | None) -> str:
    chapter = graded.course[number]
    told = f"<p>{_text(sheet.handed.problem)}</p>" if sheet is not None and sheet.handed.problem else ""
    answers = "".join(_answer(graded, learner, id_, q.title) for id_, q in chapter.questions.items())
    return f"<h2>Chapter {number}: {escape(chapter.name[3:].replace('_', ' '))}</h2>{told}{answers}"


def _answer(graded: Graded, learner: str, id_: str, title: str) -> str:
    verdict = graded.verdict(learner, id_)
    credit = graded.credit(learner, id_)
    points = "not marked yet" if credit is None else f"{credit * graded.weights[id_]:.2f} of {graded.weights[id_]:g}"
    mark = graded.marks.get((learner, id_))
    comment = f"<p>{_text(mark.comment)}</p>" if mark is not None and mark.comment else ""
    kind = _KIND.get(verdict.status, "bad")
    lines = _text("\n".join(verdict.lines()))
    return f'<h3>{escape(id_)} {escape(title)}: {points}</h3><pre class="{kind}">{lines}</pre>{comment}'


def page_name(learner: str) -> str:
    """Return a file name for a learner's page; two learners never share one."""
    return file_stem(learner) + ".html"


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
        "a:focus{outline:3px solid #0072b2}"
    )
    return f"{layout}{rules(0)}@media(prefers-color-scheme:dark){{{rules(1)}}}"
