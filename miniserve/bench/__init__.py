"""Measurements, side by side with a peer in one run, recorded with the machine and the versions they were taken on.

A timing never gates a test. `python -m miniserve bench` prints ratios and writes `data/results/<date>-<what>.json`.
"""
