"""Wrong answers of chapter 6, one mistake each, and the problem that they must be told."""

import math

ROWS = [(2, 188, 953, "p95"), (4, 28, 981, "-"), (8, 7, 988, "-"), (16, 8, 996, "p99"), (32, 4, 1000, "-")]
KEYS = dict(
    zip(
        "abcdefghi",
        (
            "sound",
            "hides the tail",
            "names no limit",
            "names no window",
            "averages percentiles",
            "can never be kept",
            "rests on too few",
            "leaves out failures",
            "sound",
        ),
        strict=True,
    )
)


def changed(row, column, value):
    rows = [list(each) for each in ROWS]
    rows[row][column] = value
    return rows


WRONG = [
    ("6.1", [0.5] * 99 + [30], "one-too-few"),  # the example that many texts give
    ("6.1", [0.5] * 990 + [25] * 10, "one-too-few"),
    ("6.1", [0.5] * 95 + [30] * 5, "mean-too-high"),
    ("6.1", [0.5] * 98 + [19, 20], "no-tail"),
    ("6.1", [0.5, 25], "how-many"),
    ("6.1", [0.1] * 5000 + [25] * 100, "how-many"),
    ("6.1", [0.0] * 97 + [30] * 3, "no-time"),
    ("6.1", {"mean": 0.9, "p99": 25}, "no-list"),
    ("6.1", ["0.5"] * 98 + ["30", "30"], "no-list"),
    ("6.1", [0.5] * 98 + [30, None], "no-list"),
    ("6.1", [math.inf] * 2 + [0.5] * 98, "not-plain"),
    ("6.2", {"values": [1, 1, 1, 4, 9], "p": 50}, "alive-never-sorts"),
    ("6.2", {"values": [9, 4, 1, 1], "p": 50}, "alive-rounds-down"),
    ("6.2", {"values": [9, 1, 4], "p": 50}, "alive-equals-once"),
    ("6.2", {"values": [1, 9, 4, 1, 1], "p": 50}, "alive-rounds-down"),  # floor and ceil differ, their values do not
    ("6.2", [9, 1, 4], "no-input"),
    ("6.2", {"values": [], "p": 50}, "no-values"),
    ("6.2", {"values": list(range(30, 0, -1)), "p": 50}, "no-values"),
    ("6.2", {"values": [3, 1, 2], "p": 0}, "no-p"),
    ("6.2", {"values": [3, 1, 2], "p": "50"}, "no-p"),
    ("6.3", (2, 5), "too-low"),  # an ordinary hour's p99
    ("6.3", (25, 40), "too-high"),  # the longest wait
    ("6.3", (1, 100), "too-wide"),
    ("6.3", 16, "no-interval"),
    ("6.3", (30, 10), "no-interval"),
    ("6.4", lambda p, k: k * p, "added"),
    ("6.4", lambda p, k: (1 - p) ** k, "none-slow"),
    ("6.4", lambda p, k: p**k, "all-slow"),
    ("6.4", lambda p, k: 1 - p**k, "not-all-slow"),
    ("6.4", lambda p, k: k * p * (1 - p) ** (k - 1), "exactly-one"),
    ("6.4", lambda p, k: 1 - (1 - p) ** (k - 1), "one-fewer"),
    ("6.4", lambda p, k: min(1.0, k * p), "off"),
    ("6.4", lambda p: 1 - (1 - p) ** 8, "signature"),
    ("6.4", 0.57, "signature"),
    ("6.4", lambda p, k: f"{1 - (1 - p) ** k:.0%}", "no-number"),
    ("6.4", lambda p, k: math.log(p - 1), "raises"),
    ("6.5", changed(0, 0, 4), "bound"),
    ("6.5", changed(0, 1, 62.7), "averaged"),
    ("6.5", changed(1, 1, 16), "not-the-sum"),
    ("6.5", changed(0, 2, 188), "not-running"),
    ("6.5", changed(2, 2, 987), "running-total"),
    ("6.5", changed(1, 3, "p99"), "bucket-of-nobody"),  # where two of three replicas have theirs
    ("6.5", changed(2, 3, "p99"), "bucket-of-nobody"),
    ("6.5", changed(3, 3, "-"), "bucket-not-seen"),
    ("6.5", changed(0, 3, "P95"), "no-mark"),
    ("6.5", changed(1, 3, None), "no-mark"),
    ("6.5", changed(0, 1, "188"), "no-number"),
    ("6.5", ROWS[:3], "rows-missing"),
    ("6.5", [(0.5, 280, 280, "-"), (1, 485, 765, "p50"), *ROWS], "bound"),
    ("6.5", {"p99": 16}, "no-table"),
    ("6.6", 100, "one-expected"),  # of the numbers that nobody in particular is given
    ("6.6", 160, "rounded-down"),
    ("6.6", math.log(1 - 0.8) / math.log(0.99), "not-whole"),
    ("6.6", 23, "chances-swapped"),
    ("6.6", 1, "wrong-base"),
    ("6.6", 230, "two-sided"),
    ("6.6", "300 requests", "wrong-unit"),
    ("6.6", True, "no-number"),
    ("6.6", 1_000_000, "off"),
    ("6.7", {**KEYS, "a": "names no window"}, "item-a"),
    ("6.7", {**KEYS, "b": "sound"}, "item-b"),
    ("6.7", {**KEYS, "c": "sound"}, "item-c"),
    ("6.7", {**KEYS, "d": "sound"}, "item-d"),
    ("6.7", {**KEYS, "e": "sound"}, "item-e"),
    ("6.7", {**KEYS, "f": "sound"}, "item-f"),
    ("6.7", {**KEYS, "g": "sound"}, "item-g"),
    ("6.7", {**KEYS, "h": "sound"}, "item-h"),
    ("6.7", {**KEYS, "i": "names no limit"}, "item-i"),
    ("6.7", {**KEYS, "e": "hides the tail"}, "item-e"),
    ("6.7", {key: value for key, value in KEYS.items() if key != "g"}, "items-missing"),
    ("6.7", {**KEYS, "b": "bad"}, "no-option"),
    ("6.7", list(KEYS.values()), "no-dict"),
    ("6.8", "The p99 was too high.", "too-short"),
    ("6.8", ["p99"], "no-text"),
]
