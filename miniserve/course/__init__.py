"""The course: questions, checks that say why, and the machine that builds and grades the notebooks.

In a notebook: `from miniserve import course`, then `ch = course.chapter(6)`.
"""

from miniserve.course.check.chapter import Chapter, chapter, set_learner
from miniserve.course.figures import bar_style, line_style, new_figure, show
from miniserve.course.tables import as_text, show_choices, table

__all__ = ["Chapter", "as_text", "bar_style", "chapter", "line_style", "new_figure", "set_learner", "show"]
__all__ += ["show_choices", "table"]
