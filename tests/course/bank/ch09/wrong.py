"""Wrong answers of chapter 9, one mistake each, and the problem that they must be told."""

import math

KEYS = {
    "a": "A/B by user",
    "b": "benchmark",
    "c": "A/B by period",
    "d": "A/B by group",
    "e": "no test",
    "f": "benchmark",
    "g": "A/B by user",
    "h": "A/B by group",
}
LOG = {"experiments": ["tone", "length"], "users": [f"customer-{i}" for i in range(60)], "visits": 2}


POCOCK = 2.555  # the border of ten looks, rounded up


def sd(n, share):
    return math.sqrt(n * share * (1 - share))


WRONG = [
    ("9.1", {"hard string": 0.5, "easy fact": 0.5}, "one-kind"),
    ("9.1", {"hard string": 0.3, "easy fact": 0.35, "easy string": 0.35}, "too-easy"),
    ("9.1", {"hard arithmetic": 0.3, "hard fact": 0.2, "easy fact": 0.3, "easy string": 0.2}, "same-winner"),
    ("9.1", {"hard string": 0.28, "hard fact": 0.22, "easy arithmetic": 0.3, "easy string": 0.2}, "too-close"),
    ("9.1", {"hard string": 35, "easy fact": 35, "hard fact": 15, "easy string": 15}, "not-one"),
    ("9.1", {"hard string": 0.35, "easy fact": 0.35}, "not-one"),
    ("9.1", {"hard strings": 0.35, "easy fact": 0.65}, "no-kind"),
    ("9.1", {"hard string": "35 %", "easy fact": 0.65}, "no-share"),
    ("9.1", {"hard string": 1.2, "easy fact": -0.2}, "no-share"),
    ("9.1", [0.35, 0.35, 0.3], "no-mix"),
    ("9.1", {}, "no-mix"),
    ("9.2", {**KEYS, "a": "benchmark"}, "item-a"),
    ("9.2", {**KEYS, "b": "A/B by user"}, "item-b"),
    ("9.2", {**KEYS, "c": "A/B by user"}, "item-c"),
    ("9.2", {**KEYS, "d": "A/B by user"}, "item-d"),
    ("9.2", {**KEYS, "e": "A/B by user"}, "item-e"),
    ("9.2", {**KEYS, "f": "A/B by user"}, "item-f"),
    ("9.2", {**KEYS, "g": "benchmark"}, "item-g"),
    ("9.2", {**KEYS, "h": "A/B by user"}, "item-h"),
    ("9.2", {**KEYS, "h": "by group"}, "no-option"),
    ("9.2", {key: way for key, way in KEYS.items() if key != "c"}, "items-missing"),
    ("9.2", list(KEYS.values()), "no-dict"),
    ("9.3", 21_658, "both-groups"),  # of the numbers that nobody in particular is given: 80 %, 1.5 points
    ("9.3", 5_306, "no-power"),
    ("9.3", 6_281, "squares-added"),
    ("9.3", 8_529, "one-sided"),
    ("9.3", 162.4, "not-squared"),
    ("9.3", 16_920, "relative"),
    ("9.3", "5000 users", "wrong-unit"),
    ("9.3", True, "no-number"),
    ("9.3", 3, "off"),
    ("9.4", (4, 6), "too-low"),  # one look
    ("9.4", (36, 44), "too-high"),  # ten independent ones
    ("9.4", (5, 40), "too-wide"),
    ("9.4", (0.15, 0.22), "too-low"),  # a share, not per cent
    ("9.4", 20, "no-interval"),
    ("9.4", (22, 15), "no-interval"),
    ("9.5", lambda n_a, n_b, share_a: (n_a - (n_a + n_b) / 2) / sd(n_a + n_b, 0.5), "always-half"),
    ("9.5", lambda n_a, n_b, share_a: (n_a - (n_a + n_b) * share_a) / sd(n_a + n_b, share_a) ** 2, "variance"),
    ("9.5", lambda n_a, n_b, share_a: (n_a - (n_a + n_b) * share_a) / sd(1, share_a), "one-coin"),
    ("9.5", lambda n_a, n_b, share_a: (n_a / (n_a + n_b) - share_a) / sd(n_a + n_b, share_a), "share-over-count"),
    ("9.5", lambda n_a, n_b, share_a: (n_a - (n_a + n_b) * share_a) / math.sqrt((n_a + n_b) * share_a), "poisson"),
    ("9.5", lambda n_a, n_b, share_a: ((n_a + n_b) * share_a - n_a) / sd(n_a + n_b, share_a), "other-way"),
    ("9.5", lambda n_a, n_b, share_a: abs(n_a - (n_a + n_b) * share_a) / sd(n_a + n_b, share_a), "unsigned"),
    ("9.5", lambda n_a, n_b, share_a: (n_a - (n_a + n_b) * share_a) ** 2 / sd(n_a + n_b, share_a) ** 2, "chi-square"),
    ("9.5", lambda n_a, n_b, share_a: n_a / n_b - share_a / (1 - share_a), "off"),
    ("9.5", lambda n_a, n_b: (n_a - n_b) / math.sqrt(n_a + n_b), "signature"),
    ("9.5", 2.1, "signature"),
    ("9.5", lambda n_a, n_b, share_a: f"{n_a - n_b}", "no-number"),
    ("9.5", lambda n_a, n_b, share_a: math.sqrt(-n_a), "raises"),
    ("9.6", {**LOG, "visits": 1}, "alive-per-visit"),
    ("9.6", {**LOG, "experiments": ["tone"]}, "alive-unsalted"),
    ("9.6", {**LOG, "users": [f"{i:03}-customer" for i in range(60)]}, "alive-truncated"),
    ("9.6", {**LOG, "users": ["customer-1", "customer-2", "customer-3"]}, "alive-unsalted"),  # too few
    ("9.6", {**LOG, "users": [f"customer-{i}" for i in range(1000)]}, "no-users"),
    ("9.6", {**LOG, "users": "customer-1"}, "no-users"),
    ("9.6", {**LOG, "experiments": []}, "no-experiments"),
    ("9.6", {**LOG, "users": ["customer-1"] * 60}, "twice"),
    ("9.6", {**LOG, "visits": 2.5}, "no-visits"),
    ("9.6", [("tone", "customer-1", 1)], "no-log"),
    ("9.7", "Don't ship it.", "too-short"),
    ("9.7", ["Don't ship it."], "no-text"),
    ("9.7", "ship it " * 40, "repeats"),
    ("9.8", [(0, 1.96)] * 10, "too-many-false"),
    ("9.8", [(0, 10)] * 9 + [(0, 1.96)], "above-one look"),
    ("9.8", [(0, POCOCK)] * 10, "above-Pocock"),
    ("9.8", [(0, 10)] * 4 + [(0, 2.35)] * 6, "above-Pocock"),  # never early, and never gives up
    ("9.8", [(0, POCOCK)] * 7 + [(1, POCOCK)] * 3, "above-par"),
    ("9.8", [(0, 10)] * 10, "too-little-power"),  # never finds anything
    ("9.8", [(1, POCOCK)] * 10, "too-little-power"),
    ("9.8", [(POCOCK, POCOCK)] * 10, "too-little-power"),  # decides everything at the first look
    ("9.8", [(0, POCOCK)] * 9, "no-rule"),
    ("9.8", [2.5] * 10, "no-rule"),
    ("9.8", {"win": 2.5}, "no-rule"),
    ("9.8", [(0, 3, 2)] * 10, "no-pair"),
    ("9.8", [("0", "3")] * 10, "no-pair"),
    ("9.8", [(3, 2)] * 10, "no-border"),
    ("9.8", [(-1, 2.6)] * 10, "no-border"),
    ("9.8", [(0, 99)] * 9 + [(0, 1.96)], "no-border"),
]
