"""The questions of a small chapter, in the form of `miniserve.course.chapters`."""
