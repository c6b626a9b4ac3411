"""A small chapter."""
