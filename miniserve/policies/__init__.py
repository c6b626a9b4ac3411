"""Every decision of the fleet: pure functions and small classes that are told the world and never touch it.

A policy sees views (`types.FleetView`), is told the time, and gets its randomness injected. It imports no clock, opens
nothing and never waits: what takes time is an *effect* that it yields to a driver (`gateway/drive.py`, `sim/drive.py`).
"""
