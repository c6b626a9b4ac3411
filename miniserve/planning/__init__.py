"""Answers that take many simulations or closed forms: how many replicas, which lever, what an oracle does.

Used by `bench`, the chapters and tests; by no server.
"""
