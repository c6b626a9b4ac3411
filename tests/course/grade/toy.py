"""A small chapter, notebooks handed in for it, and their grading: what the tests of the grader work with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from miniserve.course.grade.sandbox import bwrap_fails
from miniserve.course.notebook.notebooks import dumps, learner_notebook, texts
from miniserve.course.notebook.source import read_source

SOURCE = """# %% [markdown] id="intro"
# # A toy chapter

# %% id="setup"
from miniserve import course
ch = course.chapter(90)

# %% id="given"
p = ch.given("90.1")

# %% id="answer-90.1" tags=["answer"] question="90.1"
# SOLUTION
requests = p["rate"] * p["time_s"]
# END SOLUTION

# %% id="check-90.1" tags=["check"]
ch.check("90.1", requests)

# %% id="answer-90.2" tags=["answer"] question="90.2"
# SOLUTION
in_system = lambda rate, time_s: rate * time_s
# END SOLUTION

# %% id="check-90.2" tags=["check"]
ch.check("90.2", in_system)

# %% id="experiment"
raise RuntimeError("an experiment that no answer needs is not run")

# %% id="answer-90.3" tags=["answer"] question="90.3"
# SOLUTION
waits = [0.1] * 99 + [30.0]
# END SOLUTION

# %% id="check-90.3" tags=["check"]
ch.check("90.3", waits)

# %% id="answer-90.4" tags=["answer"] question="90.4"
# SOLUTION
reason = "Most are quick, and so the mean says nothing about the slow ones."
# END SOLUTION

# %% id="check-90.4" tags=["check"]
ch.check("90.4", reason)

# %% id="answer-90.5" tags=["answer"] question="90.5" target="miniserve/policies/routing/balancer.py::LeastQueue.choose"
from miniserve.policies.routing.balancer import ReplicaView, Request, Sequence

# %% id="check-90.5" tags=["check"]
ch.check("90.5", LeastQueue)
"""

RIGHT = {
    "90.1": 'requests = p["rate"] * p["time_s"]',
    "90.2": "in_system = lambda rate, time_s: rate * time_s",
    "90.3": "waits = [0.1] * 99 + [30.0]",
    "90.4": 'reason = "Most are quick, and so the mean says nothing about the slow ones."',
    "90.5": """class LeastQueue:
    def choose(self, request, replicas):
        return min(replicas, key=lambda view: view.queue_depth).replica_id if replicas else None""",
}
Notebook = dict[str, Any]


ROOT = Path(__file__).resolve().parents[3]
PACKAGE = "course.grade.toy_course"  # its questions, for whoever finds modules in tests/
PATH = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])  # these tests' own package, whatever is installed


def sandbox() -> str:
    """Return what protects a grading here: a test may grade without, since we wrote what it grades."""
    return "none" if bwrap_fails() else "bwrap"


def write_chapter(folder: Path) -> Path:
    """Write the chapter as a learner gets it; return the folder of chapters."""
    (folder / "90_toy.py").write_text(SOURCE)
    source = read_source(folder / "90_toy.py")
    chapters = folder / "chapters"
    chapters.mkdir()
    (chapters / "90_toy.ipynb").write_text(dumps(learner_notebook(source, texts(source, ROOT))))
    return chapters


def answered(chapters: Path, answers: Mapping[str, str]) -> Notebook:
    """Return the chapter's notebook with the answers put in by question."""
    notebook: Notebook = json.loads((chapters / "90_toy.ipynb").read_text())
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
        if (question := cell["metadata"].get("question")) in answers:
            cell["source"] = answers[question]
    return notebook


def hand_in(folder: Path, learner: str, notebook: Notebook | str, name: str = "90_toy.ipynb") -> None:
    """Put a notebook, or text in its place, into a learner's folder."""
    (folder / learner).mkdir(parents=True, exist_ok=True)
    text = notebook if isinstance(notebook, str) else json.dumps(notebook)
    (folder / learner / name).write_text(text)
