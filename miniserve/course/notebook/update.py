"""`python -m miniserve course update NOTEBOOK...`: puts a learner's answers into the current chapter.

It matches cells by id. It carries over what the learner wrote in answer cells, and keeps the learner's own cells after
the cell that they followed; everything else comes from the new chapter. The old file stays beside it as NAME.old.ipynb.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from miniserve.course.notebook.build import Course
from miniserve.course.notebook.notebooks import Notebook, digest, dumps, learner_notebook, loads
from miniserve.errors import SetupError


def update(course: Course, path: Path) -> list[str]:
    """Bring one notebook up to date; return what it carried over, line by line. Raises: SetupError."""
    old = loads(path)
    new = _current(course, path, old)
    said = list(_carry(old, new))
    kept = _free(path)
    shutil.copyfile(path, kept)
    path.write_text(dumps(new), encoding="utf-8", newline="\n")
    return [f"{path} is up to date; the old one is {kept.name}", *(f"  {line}" for line in said)]


def _current(course: Course, path: Path, old: Notebook) -> Notebook:
    """Return the current version of the chapter that a notebook came from; a renamed file's metadata tells which."""
    about = old["metadata"].get("miniserve", {})
    name = str(about.get("source") or path.stem)
    sources = course.sources([name])
    source, cells = course.read(sources[0])
    if "made_from" in about:
        raise SetupError(f"{path} is a solved notebook; it has no learner's answers")
    return learner_notebook(source, cells)


def _carry(old: Notebook, new: Notebook) -> Iterator[str]:
    """Put the old notebook's answers and the learner's own cells into the new one; yield what it did."""
    given = old["metadata"].get("miniserve", {}).get("given", {})
    given_now = new["metadata"]["miniserve"]["given"]
    if not any("id" in cell for cell in old["cells"]):
        raise SetupError("the notebook's cells have no ids, so nothing can be carried over")
    now = {cell["id"]: cell for cell in new["cells"]}
    behind: dict[str, list[Notebook]] = {}
    last = ""
    for cell in old["cells"]:
        id_ = cell.get("id", "")
        if id_ in now:
            last = id_
            yield from _answer(cell, now[id_], given.get(id_, ""), given_now[id_])
        elif id_ not in given:  # a cell of the old chapter that the new one lacks is dropped
            behind.setdefault(last, []).append(_own(cell))
        elif _is_answer(cell) and digest(cell["source"]) != given[id_]:
            yield f"{id_}: the chapter no longer asks this; your answer is in the old file"
    new["cells"] = [*behind.get("", []), *(c for cell in new["cells"] for c in (cell, *behind.get(cell["id"], [])))]
    if count := sum(map(len, behind.values())):
        yield f"{count} {'cell' if count == 1 else 'cells'} of your own kept"


def _answer(old: Notebook, new: Notebook, given: str, given_now: str) -> Iterator[str]:
    """Carry one cell over if the learner changed it; `given` and `given_now` are hashes of the cell as given."""
    if digest(old["source"]) in (given, given_now):
        return
    if not _is_answer(new):
        yield f"{new['id']}: you changed a given cell; the chapter's own text is back, yours is in the old file"
        return
    new["source"] = old["source"]
    changed = bool(given) and given != given_now
    yield f"{new['id']}: answer carried over" + ("; what was given here has changed, compare it" if changed else "")


def _is_answer(cell: Notebook) -> bool:
    return "answer" in cell["metadata"].get("tags", ())


def _own(cell: Notebook) -> Notebook:
    return {"id": f"own-{digest(cell['source'])}", **cell}


def _free(path: Path) -> Path:
    """Return a free name beside `path`: NAME.old.ipynb, NAME.old2.ipynb, ..."""
    names = (path.with_name(f"{path.stem}.old{number or ''}.ipynb") for number in (0, *range(2, 1000)))
    return next(name for name in names if not name.exists())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the notebooks to bring up to date."""
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK", help="a learner's notebook")


def run(args: argparse.Namespace, course: Course | None = None) -> int:
    """Bring each notebook up to date and print what it carried over."""
    for path in args.notebooks:
        print("\n".join(update(course or Course(), path)))
    return 0
