"""Experiments on users: who sees what, how many are needed, whether a difference is real. Pure."""
