"""An answer that is told as its difference from the solution: read, put together, and refused in plain words."""

from __future__ import annotations

import pytest
from course.answers import changed, differences

SOLUTION = """\
def least(loads):
    if not loads:
        return None
    fewest = min(loads)
    return fewest
"""
FILE = """\
# 1.1, least: wrong answers.

=== picks-max__twice
# It also counts itself.
-    fewest = min(loads)
+    fewest = max(loads)
+
+    fewest += 1

=== empty
-    if not loads:
-        return None

     fewest = min(loads)
+    print(fewest)
"""


def texts(file: str) -> dict[str, str]:
    return {name: changed(SOLUTION, places, name) for name, places in differences(file)}


def test_lines_go_and_come_and_others_say_where() -> None:
    assert texts(FILE) == {
        "picks-max__twice": SOLUTION.replace("min(loads)\n", "max(loads)\n\n    fewest += 1\n"),
        "empty": "def least(loads):\n    fewest = min(loads)\n    print(fewest)\n    return fewest\n",
    }


def test_places_are_found_in_the_solution_and_not_in_each_other() -> None:
    moved = "=== late\n     return fewest\n+    fewest = min(loads)\n\n-    fewest = min(loads)\n"

    assert texts(moved)["late"].endswith("return None\n    return fewest\n    fewest = min(loads)\n")


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (
            "-    fewest = min(load)",
            "late: these lines stand in 0 places of the solution, not in one:\n    fewest = min(load)",
        ),
        ("-return None", "late: these lines stand in 0 places"),
        ("+    print(loads)", "late: nothing says where 'print(loads)' goes"),
        ("    return fewest\n+    print()", "late: these lines stand in 0 places"),
        ("", "late: '' starts neither with '-' or '+' nor with a space"),
        ("return fewest", "late: 'return fewest' starts neither with '-' or '+' nor with a space"),
        ("-    fewest = min(loads)\n\n     fewest = min(loads)\n+    print()", "late: two of its places overlap"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_name(lines: str, complaint: str) -> None:
    with pytest.raises(AssertionError) as caught:
        texts(f"=== late\n{lines}\n")

    assert str(caught.value).startswith(complaint)


def test_lines_that_stand_twice_say_so() -> None:
    with pytest.raises(AssertionError, match="late: these lines stand in 2 places of the solution"):
        changed(SOLUTION + SOLUTION, [("        return None\n", "")], "late")
