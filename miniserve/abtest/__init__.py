"""Experiments on users: who sees what, how many are needed, whether a difference is real. Pure.

Used by `control.guardrails`, `observe.quality` and tests; by no server yet.
"""
