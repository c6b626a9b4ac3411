"""Wrong answers of chapter 4, one mistake each, and the problem that they must be told."""

ROWS = [(3, "A", 38, "A", 38), (4, "B", 0, "B", 0), (5, "A", 36, "B", 1), (6, "B", 0, "B", 9), (7, "A", 43, "A", 33), (8, "B", 0, "B", 0)]  # fmt: skip  # noqa: E501
KEYS = dict(zip("abcdefgh", ("turns", "requests", "tokens", "two", "chunks", "replicas", "two", "turns"), strict=True))
CALM = [(i, 50) for i in range(200)]
LONG_LANE = [(10.1 * (i // 4) + 0.1 * (i % 4), 500 if i % 4 == 0 else 10) for i in range(200)]
TURNED = [(0.5 * i, 2000 if i % 50 == 0 else 10) for i in range(600)]


def changed(row, column, value):
    rows = [list(each) for each in ROWS]
    rows[row][column] = value
    return rows


def mean(share, short_s, long_s):
    return share * long_s + (1 - share) * short_s


def square(share, short_s, long_s):
    return share * long_s**2 + (1 - share) * short_s**2


def right(per_s, q, short_s, long_s):
    return per_s * square(q, short_s, long_s) / (2 * (1 - per_s * mean(q, short_s, long_s)))


def all_alike(per_s, long_share, short_s, long_s):
    m = mean(long_share, short_s, long_s)
    return per_s * m**2 / (2 * (1 - per_s * m))


def memoryless(per_s, long_share, short_s, long_s):
    m = mean(long_share, short_s, long_s)
    return per_s * m * m / (1 - per_s * m)


WRONG = [
    ("4.1", changed(0, 0, 1), "request"),
    ("4.1", changed(2, 1, "B"), "not-in-turn"),
    ("4.1", changed(0, 2, 0), "jumps-the-queue"),
    ("4.1", changed(0, 2, 40), "clock-time"),
    ("4.1", changed(2, 2, 35), "wait"),
    ("4.1", changed(0, 1, "a"), "no-letter"),
    ("4.1", changed(4, 3, 0), "no-letter"),
    ("4.1", changed(0, 2, "38"), "no-number"),
    ("4.1", changed(0, 2, 39), "with-answer"),
    ("4.1", changed(1, 2, 2), "with-answer"),
    ("4.1", changed(1, 2, 4), "clock-time"),
    ("4.1", changed(1, 2, 3), "waits-for-nobody"),
    ("4.1", changed(0, 3, "B"), "equals"),
    ("4.1", changed(5, 3, "A"), "not-fewest"),
    ("4.1", changed(2, 4, 0), "jumps-the-queue"),
    ("4.1", changed(3, 4, 16), "clock-time"),
    ("4.1", changed(4, 4, 32), "wait"),
    ("4.1", changed(5, 4, 1), "waits-for-nobody"),
    ("4.1", ROWS[:3], "rows-missing"),
    ("4.1", [row[:3] for row in ROWS], "columns"),
    ("4.1", [*ROWS, ROWS[-1]], "rows-extra"),
    ("4.1", {"request": 3}, "no-table"),
    ("4.2", all_alike, "all-alike"),
    ("4.2", lambda per_s, long_share, short_s, long_s: 2 * right(per_s, long_share, short_s, long_s), "no-half"),
    ("4.2", lambda per_s, long_share, short_s, long_s: per_s * square(long_share, short_s, long_s) / 2, "no-queue"),
    (
        "4.2",
        lambda per_s, long_share, short_s, long_s: (
            square(long_share, short_s, long_s) / 2 / mean(long_share, short_s, long_s)
        ),
        "idle-share",
    ),
    (
        "4.2",
        lambda per_s, long_share, short_s, long_s: (
            right(per_s, long_share, short_s, long_s) + mean(long_share, short_s, long_s)
        ),
        "with-answer",
    ),
    (
        "4.2",
        lambda per_s, long_share, short_s, long_s: (
            per_s * square(long_share, short_s, long_s) / 2 * (1 - per_s * mean(long_share, short_s, long_s))
        ),
        "multiplied",
    ),
    ("4.2", memoryless, "memoryless"),
    ("4.2", lambda per_s, long_share, short_s, long_s: right(per_s, 1 - long_share, short_s, long_s), "share-swapped"),
    ("4.2", lambda per_s, long_share, short_s, long_s: long_s, "off"),
    ("4.2", lambda per_s: per_s, "signature"),
    ("4.2", 1.25, "signature"),
    ("4.2", lambda per_s, long_share, short_s, long_s: "1.25 s", "no-number"),
    ("4.2", lambda per_s, long_share, short_s, long_s: 1 / (per_s - per_s), "raises"),
    ("4.3", CALM, "alive-takes-turns"),
    ("4.3", LONG_LANE, "alive-takes-turns"),
    ("4.3", [(5 * i, 2000 if i % 10 == 1 else 10) for i in range(110)], "alive-looks-too-late"),
    ("4.3", [(0.7 * i, 2000 if i == 103 else 10) for i in range(1000)], "alive-draws-lots"),
    ("4.3", TURNED[:50], "how-many"),
    ("4.3", TURNED[::-1], "no-time"),
    ("4.3", [(-1, 10), *TURNED], "no-time"),
    ("4.3", [(i, 5) for i in range(200)], "no-size"),
    ("4.3", [(i, 50.5) for i in range(200)], "no-size"),
    ("4.3", [10] * 200, "no-trace"),
    ("4.3", "round robin", "no-trace"),
    ("4.4", CALM, "nobody-waits"),
    ("4.4", TURNED, "nobody-waits"),
    ("4.4", [(0.5 * i, 2000 if i % 20 == 0 else 10) for i in range(600)], "sizes-differ"),
    ("4.4", [(2.0 * i, 2000 if i % 5 == 0 else 10) for i in range(300)], "not-half"),
    ("4.4", [(0, 2000) for _ in range(100)], "counts-as-good"),
    ("4.4", TURNED[:99], "how-many"),
    ("4.4", {"at_s": 0, "tokens": 10}, "no-trace"),
    ("4.5", (4, 6), "too-high"),
    ("4.5", (1, 1.6), "too-low"),
    ("4.5", (1, 10), "too-wide"),
    ("4.5", 2.6, "no-interval"),
    ("4.5", (3, 2), "no-interval"),
    ("4.6", 505.46, "whole"),  # of the numbers that nobody in particular is given
    ("4.6", 84.8, "fixed-forgotten"),
    ("4.6", 166.26, "readers-on-top"),
    ("4.6", "132.34 ms", "prompt-only"),
    ("4.6", 994.22, "all-chunks"),
    ("4.6", "150 tok/s", "wrong-unit"),
    ("4.6", True, "no-number"),
    ("4.6", -3, "off"),
    ("4.7", {**KEYS, "a": "requests"}, "item-a"),
    ("4.7", {**KEYS, "b": "tokens"}, "item-b"),
    ("4.7", {**KEYS, "c": "requests"}, "item-c"),
    ("4.7", {**KEYS, "d": "requests"}, "item-d"),
    ("4.7", {**KEYS, "e": "two"}, "item-e"),
    ("4.7", {**KEYS, "f": "tokens"}, "item-f"),
    ("4.7", {**KEYS, "g": "turns"}, "item-g"),
    ("4.7", {**KEYS, "h": "two"}, "item-h"),
    ("4.7", {key: value for key, value in KEYS.items() if key != "e"}, "items-missing"),
    ("4.7", {**KEYS, "b": "hope"}, "no-option"),
    ("4.7", list(KEYS.values()), "no-dict"),
    ("4.8", "Equal is not equal.", "too-short"),
    ("4.8", ["fair"], "no-text"),
]
