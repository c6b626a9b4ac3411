"""What runs beside the serving of a live stack: it watches, decides, tells, and can be told.

Serving never waits for it. Each concern is a `DeskPart`: it is told of every answer and of every turn of the control
loops, keeps a state that survives a restart, and has a section in `GET /status` and routes of its own. `desk.Desk`
holds the parts together. The decisions themselves are pure and lie in `control/`, `abtest/` and `observe/`.
"""
