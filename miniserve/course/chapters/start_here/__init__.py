"""Before chapter 1: what the cells of `start_here` call."""
