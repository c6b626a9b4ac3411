"""Measurements, side by side with a peer in one run, recorded with the machine and versions they were taken on.

Timings never gate a test. `python -m miniserve bench` prints ratios and writes `data/results/<date>-<what>.json`.
"""
