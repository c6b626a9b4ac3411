"""A user's own policy, loaded from a file or a notebook's cell."""
