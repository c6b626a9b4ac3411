"""Solutions with small mistakes, to see whether the checks notice."""
