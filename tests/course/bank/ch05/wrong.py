"""Wrong answers of chapter 5, one mistake each, and the problem that they must be told."""

import math

ROWS = [(2, 2, 60, 30, 2), (3, 2, 60, 90, 3), (4, 2, 60, 150, 2), (5, 4, 120, 150, 0), (6, 7, 210, 60, 0), (7, 9, 180, 0, 0)]  # fmt: skip  # noqa: E501
KEYS = dict(
    zip(
        "abcdefgh",
        ("by the clock", "by load", "spares", "by trend", "faster start", "refuse", "by load", "by the clock"),
        strict=True,
    )
)
SPREADS = [(0, 1), (5, 1.3), (10, 1.8), (15, 2.7), (20, 4.5), (25, 9), (40, 9)]
STEP = [(0, 1), (20, 1), (20, 3), (60, 3)]


def changed(row, column, value):
    rows = [list(each) for each in ROWS]
    rows[row][column] = value
    return rows


def start(provision_s, parameters, bytes_per_weight, bytes_per_s, warm_up_s):
    return provision_s, parameters * bytes_per_weight / bytes_per_s, warm_up_s


def without_bytes(provision_s, parameters, bytes_per_weight, bytes_per_s, warm_up_s):
    return provision_s + parameters / bytes_per_s + warm_up_s


def upside_down(**given):
    first, load, last = start(**given)
    return first + 1 / load + last


def in_bits(**given):
    first, load, last = start(**given)
    return first + 8 * load + last


def exact(growth_per_min, each_per_s, cold_start_s):
    return growth_per_min * cold_start_s / 60 / each_per_s


WRONG = [
    ("5.1", without_bytes, "weights-for-bytes"),
    ("5.1", in_bits, "bits"),
    ("5.1", lambda **given: start(**given)[1], "load-only"),
    ("5.1", lambda **given: sum(start(**given)[:2]), "no-warm-up"),
    ("5.1", lambda **given: sum(start(**given)[1:]), "no-provision"),
    ("5.1", lambda **given: max(start(**given)), "at-the-same-time"),
    ("5.1", lambda **given: max(start(**given)[:2]) + start(**given)[2], "overlap"),
    ("5.1", upside_down, "upside-down"),
    ("5.1", lambda **given: print(sum(start(**given))), "returns-nothing"),
    ("5.1", lambda **given: sum(start(**given)) / 60, "off"),
    ("5.1", lambda provision_s: provision_s, "signature"),
    ("5.1", 112, "signature"),
    ("5.1", lambda **given: start(**given)[0] / 0, "raises"),
    ("5.2", 392, "nobody-served"),  # of the numbers that nobody in particular is given
    ("5.2", 336, "one-replica"),
    ("5.2", 224, "those-served"),
    ("5.2", 1.5, "per-second"),
    ("5.2", 84, "a-time"),
    ("5.2", "a lot", "no-number"),
    ("5.2", True, "no-number"),
    ("5.2", "90 s", "wrong-unit"),
    ("5.2", 1_000_000, "off"),
    ("5.3", lambda **given: math.floor(exact(**given)), "rounded-down"),
    ("5.3", lambda **given: round(exact(**given)), "rounded"),
    ("5.3", exact, "not-whole"),
    ("5.3", lambda **given: math.ceil(60 * exact(**given)), "minutes-for-seconds"),
    (
        "5.3",
        lambda growth_per_min, each_per_s, cold_start_s: math.ceil(growth_per_min / each_per_s),
        "growth-of-a-minute",
    ),
    (
        "5.3",
        lambda growth_per_min, each_per_s, cold_start_s: math.ceil(growth_per_min / 60 * cold_start_s),
        "requests-for-replicas",
    ),
    ("5.3", lambda **given: math.floor(exact(**given)) + 1, "one-too-many"),
    ("5.3", lambda **given: math.ceil(exact(**given)) + 1, "off"),
    ("5.3", 4, "signature"),
    ("5.3", lambda **given: str(exact(**given)), "no-number"),
    ("5.4", changed(0, 0, 3), "minute"),
    ("5.4", changed(1, 1, 4), "ready-too-early"),
    ("5.4", changed(3, 1, 2), "ready-forgotten"),
    ("5.4", changed(0, 2, 90), "served"),
    ("5.4", changed(2, 2, 120), "served"),
    ("5.4", changed(1, 3, 60), "waiting"),
    ("5.4", changed(1, 4, 5), "starting-forgotten"),
    ("5.4", changed(2, 4, 7), "starting-forgotten"),
    ("5.4", changed(0, 4, 1), "waiting-ignored"),
    ("5.4", changed(0, 4, 3), "asked"),
    ("5.4", changed(1, 3, "90"), "no-number"),
    ("5.4", changed(4, 4, -1), "negative"),
    ("5.4", changed(5, 4, -5.0), "negative"),
    ("5.4", ROWS[:3], "rows-missing"),
    ("5.4", [(1, 2, 60, 0, 0), *ROWS], "minute"),
    ("5.4", [row[:4] for row in ROWS], "columns"),
    ("5.4", 9, "no-table"),
    ("5.5", (100, 150), "too-low"),
    ("5.5", (20, 30), "too-low"),
    ("5.5", (400, 500), "too-high"),
    ("5.5", (100, 900), "too-wide"),
    ("5.5", 300, "no-interval"),
    ("5.5", (340, 270), "no-interval"),
    ("5.6", [(0, 1), (60, 1)], "reactive-keeps"),
    ("5.6", [(0, 1), (20, 1), (40, 4), (90, 4)], "reactive-keeps"),
    ("5.6", [(0, 10), (30, 1)], "reactive-keeps"),
    ("5.6", [(0, 1), (5, 1.4), (10, 2), (15, 3), (20, 5), (25, 10), (40, 10)], "reactive-nearly"),
    ("5.6", [(0, 1), (10, 10), (60, 10)], "reactive-nearly"),
    ("5.6", STEP, "jump"),
    ("5.6", [(0, 1), (10, 1), (12, 4), (30, 4)], "predictive-late"),
    ("5.6", SPREADS, "section-1"),
    ("5.6", [*SPREADS[:-1], (35, 9.5)], "section-1"),
    ("5.6", [(0, 1)], "points"),
    ("5.6", [(i * 4, 1) for i in range(13)], "points"),
    ("5.6", [(0, 1), (30, 20)], "rate"),
    ("5.6", [(0, 0), (30, 2)], "rate"),
    ("5.6", [(5, 1), (30, 2)], "time"),
    ("5.6", [(0, 1), (30, 2), (20, 3)], "time"),
    ("5.6", [(0, 1), (10, 2)], "length"),
    ("5.6", [(0, 1), (500, 2)], "length"),
    ("5.6", [(0, 1), ("30", 2)], "no-number"),
    ("5.6", [(0, 1), (True, 2)], "no-number"),
    ("5.6", [0, 1, 30, 2], "no-curve"),
    ("5.6", "viral", "no-curve"),
    ("5.7", SPREADS, "it-saves"),
    ("5.7", [(0, 2), (60, 2)], "hardly-wastes"),
    ("5.7", [(0, 1), (60, 3), (120, 1)], "hardly-wastes"),
    ("5.7", [(0, 1), (30, 20)], "rate"),
    ("5.7", {"minute": 0}, "no-curve"),
    ("5.8", {**KEYS, "a": "by trend"}, "item-a"),
    ("5.8", {**KEYS, "b": "spares"}, "item-b"),
    ("5.8", {**KEYS, "c": "by trend"}, "item-c"),
    ("5.8", {**KEYS, "d": "by the clock"}, "item-d"),
    ("5.8", {**KEYS, "e": "spares"}, "item-e"),
    ("5.8", {**KEYS, "f": "spares"}, "item-f"),
    ("5.8", {**KEYS, "g": "by trend"}, "item-g"),
    ("5.8", {**KEYS, "h": "spares"}, "item-h"),
    ("5.8", {key: value for key, value in KEYS.items() if key != "d"}, "items-missing"),
    ("5.8", {**KEYS, "b": "pray"}, "no-option"),
    ("5.8", list(KEYS.values()), "no-dict"),
    ("5.9", "We buy more machines.", "too-short"),
    ("5.9", 42, "no-text"),
]
