"""The page at `/`: what the stack does now, what happened, and buttons that make something happen.

GET /               the page; it carries the token that its buttons need
GET /page/FILE      its files, as they lie in `static/` (uPlot draws the charts)
GET /page/events    server-sent events: first all that a new viewer needs, then a snapshot each second
"""
