"""Sends text into a learner's kernel to ask one question there, and reads the reply.

The text runs in a namespace of its own, in a process that the learner's code may have changed in any way. So we take
the reply as the learner's answer, and as nothing more.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from dataclasses import dataclass

from miniserve.course.check.ask import LIMIT_S, Drive, Json, NotPlain, Told
from miniserve.course.check.code import Code, lend
from miniserve.course.check.question import Question
from miniserve.course.grade.kernel import GradedKernel

ERROR_CHARACTERS = LINE_CHARACTERS = 300  # what `ask` allows itself

_TELL = """
def tell(names, text):
    import json
    asked = json.loads(text)
    if asked["name"] not in names:
        return json.dumps({"missing": True})
    answer = names[asked["name"]]
    if asked["drive"] is None:
        return json.dumps(look(answer, asked["kind"], asked["methods"]))
    from miniserve.course.check.ask import ask, lent
    namespace = {"__name__": "drive"}
    exec(compile(asked["drive"], "<drive>", "exec"), namespace)
    with lent(asked["lent"]):
        told = ask(namespace[asked["drive_name"]], answer, asked["asked"], asked["limit_s"])
    return json.dumps({"value": told.value, "error": told.error, "line": told.line})


def look(answer, kind, methods):
    from miniserve.course.check.ask import is_blank
    from miniserve.course.check.code import comes_from_library, not_written
    from miniserve.course.check.numbers import is_blank_formula
    blank = {"code": lambda: not_written(answer, methods), "F": lambda: is_blank_formula(answer)}
    tried = not blank.get(kind, lambda: is_blank(answer))()
    return {"tried": tried, "borrowed": kind == "code" and comes_from_library(answer, methods)}
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What a first look sees of an answer, before any question."""

    there: bool = True
    tried: bool = True
    borrowed: bool = False


def look(kernel: GradedKernel, question: Question, timeout_s: float) -> Look:
    """Return whether the answer is there, tried, and the learner's own."""
    request = {"name": question.name, "drive": None, "kind": question.kind, "methods": _methods(question)}
    told = _told(kernel, request, timeout_s)
    if told.get("missing") is True:
        return Look(there=False)
    return Look(tried=told.get("tried") is not False, borrowed=told.get("borrowed") is True)


def _methods(question: Question) -> list[str]:
    return list(question.methods) if isinstance(question, Code) else []


def ask_there(kernel: GradedKernel, question: Question, drive: Drive, asked: Json, timeout_s: float) -> Told:
    """Ask the answer in the kernel. Raises: Empty if nothing came in time, KernelGone."""
    request = {
        "name": question.name,
        "drive": source_of(drive),
        "drive_name": drive.__name__,
        "asked": asked,
        "lent": lend(*question.lends) if isinstance(question, Code) else [],
        "limit_s": LIMIT_S,
    }
    try:
        told = _told(kernel, request, timeout_s)
    except NotPlain as problem:
        return Told(error=f"NotPlain: {problem}")
    return Told(
        told.get("value"), _bounded(told.get("error"), ERROR_CHARACTERS), _bounded(told.get("line"), LINE_CHARACTERS)
    )


def _bounded(text: Json, most: int) -> str:
    """Return a text from the kernel on one line and not too long: it goes into reports as it is."""
    return " ".join(text[: 10 * most].split())[:most] if isinstance(text, str) else ""


def source_of(drive: Drive) -> str:
    """Return the text that is sent: a driver's own, or its whole module if that is one made for driving.

    Annotations are not looked at there.
    """
    module = inspect.getmodule(drive)
    if module is not None and module.__name__.endswith(".drive"):
        return inspect.getsource(module)
    return "from __future__ import annotations\n" + textwrap.dedent(inspect.getsource(drive))


def _told(kernel: GradedKernel, request: Json, timeout_s: float) -> dict[str, Json]:
    text = json.dumps(request)
    expression = f"(lambda own: (exec({_TELL!r}, own), own['tell'](globals(), {text!r}))[1])({{}})"
    value = kernel.value(expression, timeout_s)
    if not isinstance(value, dict):
        raise NotPlain("no answer in the agreed form came back")
    return value
