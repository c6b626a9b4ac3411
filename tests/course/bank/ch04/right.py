"""Other right answers of chapter 4."""

ROWS = [(3, "A", 38, "A", 38), (4, "B", 0, "B", 0), (5, "A", 36, "B", 1), (6, "B", 0, "B", 9), (7, "A", 43, "A", 33), (8, "B", 0, "B", 0)]  # fmt: skip  # noqa: E501


def by_moments(per_s, long_share, short_s, long_s):
    sizes = ((long_share, long_s), (1 - long_share, short_s))
    load = sum(per_s * share * seconds for share, seconds in sizes)
    return sum(per_s * share * seconds**2 / 2 for share, seconds in sizes) / (1 - load)


def by_variance(per_s, long_share, short_s, long_s):
    mean = short_s + long_share * (long_s - short_s)
    variance = long_share * (1 - long_share) * (long_s - short_s) ** 2
    load = per_s * mean
    return load / (1 - load) * (1 + variance / mean**2) / 2 * mean


RIGHT = [
    ("4.1", ROWS),
    ("4.1", [[number, one, float(wait), other, float(late)] for number, one, wait, other, late in ROWS]),
    ("4.2", by_moments),
    ("4.2", by_variance),
    ("4.3", [(0.5 * i, 2000 if i % 50 == 0 else 10) for i in range(600)]),
    ("4.3", [(i, 2000 if i % 25 == 12 else 20) for i in range(300)]),
    ("4.3", [(i, 2000.0 if i % 25 == 12 else 20.0) for i in range(300)]),
    ("4.4", [(9.9 * i, 2000) for i in range(100)]),
    ("4.4", [(4.95 * i, 1000) for i in range(120)]),
    ("4.5", (2, 4)),
    ("4.5", [2.2, 3]),
    ("4.7", dict(zip("abcdefgh", ("turns", "requests", "tokens", "two", "chunks", "replicas", "two", "turns"), strict=True))),  # noqa: E501
    ("4.8", "one two three four five six seven eight nine ten " * 6),
]  # fmt: skip
