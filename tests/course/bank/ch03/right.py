"""Other right answers of chapter 3."""

RIGHT = [
    ("3.1", lambda turns, guide, message, answer: sum(
        guide + k * message + (k - 1) * answer for k in range(1, turns + 1))),
    ("3.1", lambda answer, message, guide, turns: turns * (
        guide + message * (turns + 1) / 2 + answer * (turns - 1) / 2)),
    ("3.2", lambda turns, guide, message, answer, lost: guide + (turns - 1) * message + (
        guide + lost * message + (lost - 1) * answer)),
    ("3.2", lambda turns, guide, message, answer, lost: guide + turns * message + (
        guide + (lost - 1) * (message + answer))),
    ("3.3", [(2, 200, 144, 56), (3, 320, 0, 320), (4, 445, 288, 157)]),
    ("3.3", [[2, 200.0, 144, 56], [3, 320, 0, 320], [4, 445, 288, 157]]),
    ("3.5", (2, 3)),
    ("3.5", (2.45, 2.5)),
    ("3.6", [3, 1, 3, 1, 3, 1, 3, 1]),
    ("3.6", [1, 3, 1, 3, 1, 3]),
    ("3.7", dict(zip("abcdefgh", (
        "request", "cache", "store", "store", "request", "cache", "store", "cache"), strict=True))),
    ("3.8", "one two three four five six seven eight nine ten " * 5),
]  # fmt: skip
