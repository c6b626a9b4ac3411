"""Faults on purpose, on real processes and real connections: used by `chaos` and by tests, by nothing that serves."""
