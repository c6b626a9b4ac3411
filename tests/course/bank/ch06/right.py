"""Other right answers of chapter 6."""

RIGHT = [
    ("6.1", [0.5] * 98 + [21, 21]),
    ("6.1", [0.01] * 900 + [29] * 15),
    ("6.1", [30, 0.3] + [0.2] * 97 + [30]),
    ("6.2", {"values": [9, 9, 1, 1, 9], "p": 50}),
    ("6.2", {"values": [5, 1, 5, 3, 5, 2, 5], "p": 40}),
    ("6.3", (10, 30)),
    ("6.3", [15, 20]),
    ("6.4", lambda p, k: 1 - (1 - p) ** k),
    ("6.4", lambda k, p: sum(p * (1 - p) ** i for i in range(k))),
    ("6.4", lambda p, k, fast=None: -((1 - p) ** k - 1)),
    ("6.5", [(2, 188, 953, "p95"), (4, 28, 981, "-"), (8, 7, 988, "-"), (16, 8, 996, "p99"), (32, 4, 1000, "-")]),
    ("6.7", dict(zip("abcdefghi", (
        "sound", "hides the tail", "names no limit", "names no window", "averages percentiles", "can never be kept",
        "rests on too few", "leaves out failures", "sound"), strict=True))),
    ("6.8", "one two three four five six seven eight nine ten " * 4),
]  # fmt: skip
