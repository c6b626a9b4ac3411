"""Other right answers of chapter 10."""

RIGHT = [
    ("10.1", lambda p, n: (1 - p**n) / (1 - p)),
    ("10.1", lambda n, p: sum(p**k for k in range(n))),
    ("10.1", lambda p, n: sum(k * p ** (k - 1) * (1 - p) for k in range(1, n)) + n * p ** (n - 1)),
    ("10.3", [(2, 0, 0, 4, 3), (3, 0, 0, 2, 2), (4, 12, 3, 3, 3), (5, 0, 0, 0, 0), (6, 0, 0, 0, 0), (7, 0, 0, 1, 1),
              (8, 0, 0, 0, 0)]),
    ("10.4", (3.5, 4)),
    ("10.4", [3, 4.4]),
    ("10.5", {"arrivals_per_s": 8, "fault_s": 10, "tries": 4, "wait_s": 0}),
    ("10.5", {"arrivals_per_s": 4, "fault_s": 15, "tries": 10, "wait_s": 0.5}),
    ("10.6", [{"attempt": 4, "retry_after_s": 9, "now_s": 0, "deadline_s": 5},
              {"attempt": 7, "retry_after_s": None, "now_s": 0, "deadline_s": 500}]),
    ("10.6", [{"attempt": 7, "retry_after_s": None, "now_s": 0, "deadline_s": 25},
              {"attempt": 1, "retry_after_s": 9, "now_s": 0, "deadline_s": 5}]),
    ("10.7", dict(zip("abcdefgh", (
        "jitter", "breaker", "no retry", "one layer", "budget", "cap", "backoff", "no retry"), strict=True))),
    ("10.8", "one two three four five six seven eight nine ten " * 5),
]  # fmt: skip
