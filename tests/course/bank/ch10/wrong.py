"""Wrong answers of chapter 10, one mistake each, and the problem that they must be told."""

ROWS = [(2, 0, 0, 4, 3), (3, 0, 0, 2, 2), (4, 12, 3, 3, 3), (5, 0, 0, 0, 0), (6, 0, 0, 0, 0), (7, 0, 0, 1, 1), (8, 0, 0, 0, 0)]  # fmt: skip  # noqa: E501
KEYS = dict(
    zip(
        "abcdefgh",
        ("jitter", "breaker", "no retry", "one layer", "budget", "cap", "backoff", "no retry"),
        strict=True,
    )
)
DOWN = {"arrivals_per_s": 6, "fault_s": 8, "tries": 3, "wait_s": 1}
CAPPED = {"attempt": 8, "retry_after_s": None, "now_s": 0, "deadline_s": None}
LATE = {"attempt": 1, "retry_after_s": 30, "now_s": 10, "deadline_s": 20}


def changed(row, column, value):
    rows = [list(each) for each in ROWS]
    rows[row][column] = value
    return rows


WRONG = [
    ("10.1", lambda p, n: 1 / (1 - p), "no-limit"),
    ("10.1", lambda p, n: sum(p**k for k in range(n + 1)), "one-try-more"),
    ("10.1", lambda p, n: sum(p**k for k in range(n - 1)), "one-try-fewer"),
    ("10.1", lambda p, n: sum(p**k for k in range(1, n)), "retries-only"),
    ("10.1", lambda p, n: 1 + p * (n - 1), "all-or-one"),
    ("10.1", lambda p, n: 1 - p**n, "served-share"),
    ("10.1", lambda p, n: sum((1 - p) ** k for k in range(n)), "chance-swapped"),
    ("10.1", lambda p, n: n, "off"),
    ("10.1", lambda p: 1 + p, "signature"),
    ("10.1", 1.2, "signature"),
    ("10.1", lambda p, n: f"{n}", "no-number"),
    ("10.1", lambda p, n: 1 / (n - n), "raises"),
    ("10.2", 12, "added"),  # of the numbers that nobody in particular is given
    ("10.2", 64, "swapped"),
    ("10.2", 16, "retries-only"),
    ("10.2", 27, "one-layer-fewer"),
    ("10.2", "64 tries", "wrong-unit"),
    ("10.2", True, "no-number"),
    ("10.2", 1_000_000, "off"),
    ("10.3", changed(0, 0, 3), "second"),
    ("10.3", changed(0, 1, 12), "bare-too-early"),
    ("10.3", changed(2, 1, 4), "bare-all-at-once"),
    ("10.3", changed(2, 2, 12), "bare-served"),
    ("10.3", changed(5, 1, 9), "bare-too-early"),
    ("10.3", changed(2, 3, 2), "second-wait-forgotten"),
    ("10.3", changed(5, 3, 0), "second-wait-forgotten"),
    ("10.3", changed(1, 3, 3), "jitter-arrive"),
    ("10.3", changed(0, 4, 4), "jitter-served"),
    ("10.3", ROWS[:4], "rows-missing"),
    ("10.3", [row[:3] for row in ROWS], "columns"),
    ("10.3", [(1, 0, 0, 4, 3), *ROWS], "second"),
    ("10.3", {"second": 2}, "no-table"),
    ("10.4", (1, 1.2), "too-low"),  # all is well again
    ("10.4", (2, 3), "too-low"),
    ("10.4", (5, 6), "too-high"),
    ("10.4", (1, 4), "too-wide"),
    ("10.4", 4, "no-interval"),
    ("10.4", (4, 3), "no-interval"),
    ("10.5", {**DOWN, "arrivals_per_s": 9, "fault_s": 20}, "down-anyway"),
    ("10.5", {**DOWN, "arrivals_per_s": 3}, "load-too-small"),
    ("10.5", {**DOWN, "fault_s": 1}, "it-recovers"),
    ("10.5", {**DOWN, "arrivals_per_s": 12}, "out-of-range"),
    ("10.5", {**DOWN, "tries": 1}, "out-of-range"),
    ("10.5", {**DOWN, "wait_s": "1"}, "out-of-range"),
    ("10.5", {**DOWN, "tries": 2.5}, "half-a-try"),
    ("10.5", {"tries": 3}, "no-parameters"),
    ("10.5", [6, 8, 3, 1], "no-parameters"),
    ("10.6", [LATE], "alive-never-caps"),
    ("10.6", [CAPPED], "alive-never-listens"),
    ("10.6", [CAPPED, {**LATE, "deadline_s": None}], "alive-never-looks-at-the-clock"),
    ("10.6", [CAPPED, {**LATE, "retry_after_s": None, "deadline_s": 10}], "alive-never-listens"),
    ("10.6", [CAPPED, LATE, LATE], "no-list"),
    ("10.6", CAPPED, "no-list"),
    ("10.6", [{"attempt": 8}], "keys"),
    ("10.6", [{**CAPPED, "attempt": 10}], "no-attempt"),
    ("10.6", [{**CAPPED, "attempt": True}], "no-attempt"),
    ("10.6", [{**CAPPED, "now_s": -1}], "no-time"),
    ("10.6", [{**CAPPED, "now_s": None}], "no-time"),
    ("10.7", {**KEYS, "a": "backoff"}, "item-a"),
    ("10.7", {**KEYS, "b": "backoff"}, "item-b"),
    ("10.7", {**KEYS, "c": "budget"}, "item-c"),
    ("10.7", {**KEYS, "d": "cap"}, "item-d"),
    ("10.7", {**KEYS, "e": "jitter"}, "item-e"),
    ("10.7", {**KEYS, "f": "jitter"}, "item-f"),
    ("10.7", {**KEYS, "g": "jitter"}, "item-g"),
    ("10.7", {**KEYS, "h": "backoff"}, "item-h"),
    ("10.7", {key: value for key, value in KEYS.items() if key != "g"}, "items-missing"),
    ("10.7", {**KEYS, "b": "hope"}, "no-option"),
    ("10.7", list(KEYS.values()), "no-dict"),
    ("10.8", "The retries were too many.", "too-short"),
    ("10.8", ["retries"], "no-text"),
]
