"""Wrong answers that are values, with the problem that they are told."""

WRONG = [
    ("12.1", "gpu-0", "signature"),
    ("12.2", None, "signature"),
    ("12.4", 2, "signature"),
    ("12.3", "10", "no-interval"),
    ("12.3", (1.0, 100.0), "too-wide"),
    ("12.3", (2.0, 5.0), "too-low"),
    ("12.3", (30.0, 80.0), "too-high"),
    ("12.3", (5.0, 2.0), "no-interval"),
    ("12.5", "Two choices.", "too-short"),
]
