"""Every decision the fleet makes: pure functions and small classes that are told about the world but never touch it.

A policy sees views (`types.FleetView`), is told the time, and has its randomness injected. It imports no clock, opens
nothing and never waits: anything that takes time is an *effect*, yielded to a driver (`gateway/drive.py`,
`sim/drive.py`).
"""
