"""Right answers that are values."""

RIGHT = [
    ("12.3", (8.0, 20.0)),
    ("12.3", [10, 25]),
    (
        "12.5",
        "Each gateway counts its own requests only, the others come as reports seconds old, so I take two choices and "
        "watch the spread of the queues between the replicas.",
    ),
]
