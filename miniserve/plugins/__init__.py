"""Users' own policies, loaded from a file or a notebook cell."""
