"""Experiments on users: who sees what, how many are needed, and whether a difference is more than luck. Pure."""
