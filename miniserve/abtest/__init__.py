"""Experiments on users: who sees what, how many are needed, whether a difference is real. Pure.

`observe.user_outcomes` and `control.flags` put it to use on a live gateway, beside guardrails and the quality monitor.
"""
