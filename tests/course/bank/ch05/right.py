"""Other right answers of chapter 5."""

import math

RIGHT = [
    ("5.1", lambda **g: g["warm_up_s"] + g["provision_s"] + g["bytes_per_weight"] * g["parameters"] / g["bytes_per_s"]),
    ("5.2", 168),
    ("5.3", lambda growth_per_min, each_per_s, cold_start_s: -(-growth_per_min * cold_start_s // (60 * each_per_s))),
    ("5.3", lambda **g: math.ceil(g["growth_per_min"] / 60 * g["cold_start_s"] / g["each_per_s"])),
    ("5.3", lambda **g: math.ceil(g["growth_per_min"] / g["each_per_s"] * (g["cold_start_s"] / 60))),
    ("5.4", [[2, 2, 60, 30, 2], [3, 2, 60, 90, 3], [4, 2, 60, 150, 2], [5, 4, 120, 150, 0], [6, 7, 210, 60, 0],
             [7, 9, 180, 0, 0]]),
    ("5.5", (270, 340)),
    ("5.5", [300, 400]),
    ("5.6", [(0, 1), (10, 1), (14, 1.4), (17, 2), (20, 3), (25, 6), (45, 6)]),
    ("5.6", [[0, 0.8], [8, 1.1], [14, 2], [18, 3.5], [22, 7], [40, 7]]),
    ("5.6", [(0, 1), (5, 1.4), (10, 2), (15, 3), (20, 5), (24, 10), (40, 10)]),
    ("5.7", [(0, 1), (20, 1), (40, 4), (90, 4)]),
    ("5.7", [(0, 4), (10, 4), (30, 10), (60, 10)]),
    ("5.8", dict(zip("abcdefgh", (
        "by the clock", "by load", "spares", "by trend", "faster start", "refuse", "by load", "by the clock"),
        strict=True))),
    ("5.9", "one two three four five six seven eight nine ten " * 5),
]  # fmt: skip
