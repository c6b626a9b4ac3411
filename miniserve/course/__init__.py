"""The course: questions, checks that say why, and the machine that builds and grades the notebooks.

In a notebook: `from miniserve import course`, then `ch = course.chapter(6)`.
"""

from miniserve.course.chapter import Chapter, chapter

__all__ = ["Chapter", "chapter"]
