"""Other right answers of chapter 9."""

import math

RIGHT = [
    ("9.1", {"hard string": 0.35, "easy fact": 0.35, "hard fact": 0.15, "easy string": 0.15}),
    ("9.1", {"hard string": 0.3, "easy fact": 0.3, "hard arithmetic": 0.1, "hard fact": 0.1, "easy string": 0.2}),
    ("9.1", {"easy arithmetic": 0, "easy string": 0.2, "easy fact": 0.3, "hard string": 0.35, "hard fact": 0.15}),
    ("9.2", dict(zip("abcdefgh", (
        "A/B by user", "benchmark", "A/B by period", "A/B by group", "no test", "benchmark", "A/B by user",
        "A/B by group"), strict=True))),
    ("9.3", 10_829),
    ("9.3", 10_828.78),
    ("9.4", (15, 22)),
    ("9.4", [18, 24]),
    ("9.5", lambda n_a, n_b, share_a: (n_a - (n_a + n_b) * share_a) / math.sqrt((n_a + n_b) * share_a * (1 - share_a))),
    ("9.5", lambda n_a, n_b, share_a:
        (n_a * (1 - share_a) - n_b * share_a) / ((n_a + n_b) * share_a * (1 - share_a)) ** 0.5),
    ("9.5", lambda n_a, n_b, share_a, sides=2: math.copysign(math.sqrt(
        (n_a - (n_a + n_b) * share_a) ** 2 / ((n_a + n_b) * share_a)
        + (n_b - (n_a + n_b) * (1 - share_a)) ** 2 / ((n_a + n_b) * (1 - share_a))),
        n_a - (n_a + n_b) * share_a)),  # the signed root of chi-square
    ("9.6", {"experiments": ["x", "y"], "users": [f"visitor-{i}" for i in range(100)], "visits": 3}),
    ("9.6", {"experiments": ["a", "b", "c"], "users": [f"garden-centre/{i:03}" for i in range(40)], "visits": 2}),
    ("9.8", [(max(0, 0.2 * k - 0.4), 2.56) for k in range(1, 11)]),  # level borders
    ("9.8", list(zip(
        (0, 0.1, 0.25, 0.45, 0.7, 0.9, 1.2, 1.5, 1.8, 2.2),
        (3.2, 3.0, 2.85, 2.7, 2.6, 2.55, 2.5, 2.4, 2.35, 2.3), strict=True))),  # by hand
    ("9.8", [(max(0, math.sqrt(max(0, k - 1.5)) - 1.05), 2.56) for k in range(1, 11)]),  # a curve for giving up
    ("9.7", "one two three four five six seven eight nine ten " * 6),
]  # fmt: skip
