"""Right answers that are values."""

RIGHT = [
    (
        "18.2",
        {
            "a": "again",
            "b": "never",
            "c": "again",
            "d": "again",
            "e": "never",
            "f": "never",
            "g": "never",
            "h": "never",
        },
    )
]
