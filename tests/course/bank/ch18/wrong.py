"""Wrong answers that are values, with the problem that they are told."""

RIGHT = {"a": "again", "b": "never", "c": "again", "d": "again", "e": "never", "f": "never", "g": "never", "h": "never"}
WRONG = [
    ("18.2", {**RIGHT, "a": "never"}, "item-a"),
    ("18.2", {**RIGHT, "b": "again"}, "item-b"),
    ("18.2", {**RIGHT, "c": "never"}, "item-c"),
    ("18.2", {**RIGHT, "d": "never"}, "item-d"),
    ("18.2", {**RIGHT, "e": "again"}, "item-e"),
    ("18.2", {**RIGHT, "f": "again"}, "item-f"),
    ("18.2", {**RIGHT, "g": "again"}, "item-g"),
    ("18.2", {**RIGHT, "h": "again"}, "item-h"),
    ("18.2", {**RIGHT, "c": "maybe"}, "no-option"),
    (
        "18.2",
        {"a": "again", "b": "never", "c": "again", "d": "again", "e": "never", "f": "never", "g": "never"},
        "items-missing",
    ),
    ("18.2", ["again", "never"], "no-dict"),
]
