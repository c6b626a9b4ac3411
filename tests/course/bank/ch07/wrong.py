"""Wrong answers of chapter 7, one mistake each, and the problem that they must be told."""

import math

ROWS = [("c1", 1, 0, "B", 200), ("a2", 1, 1, "B", 1800), ("d1", 1, 2, "A", 200), ("e1", 1, 2, "A", 200), ("b2", 2, 1, "B", 200), ("a3", 1, 2, "B", 2000), ("b3", 1, 2, "A", 400)]  # fmt: skip  # noqa: E501
KEYS = dict(
    zip(
        "abcdefgh",
        ("by prefix", "by load", "by load", "small model", "large model", "cascade", "no sharing", "by load"),
        strict=True,
    )
)
HOT = {"guides": 12, "guide_tokens": 2000, "hot_share": 0.6, "requests_per_s": 1.2}


def changed(row, column, value):
    rows = [list(each) for each in ROWS]
    rows[row][column] = value
    return rows


def hit(formula):
    """Let a formula of short names be called with the long ones: p prompt, s shared, b block, base, t per token."""

    def asked(prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s):
        return formula(prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s)

    return asked


def cascade(formula):
    """The same for f kept, s small, g large, c check."""

    def asked(kept_share, small_usd, large_usd, check_usd):
        return formula(kept_share, small_usd, large_usd, check_usd)

    return asked


WRONG = [
    ("7.1", hit(lambda p, s, b, base, t: base + (p - s) * t), "parts-of-blocks"),
    ("7.1", hit(lambda p, s, b, base, t: base + (p - math.ceil(s / b) * b) * t), "blocks-rounded-up"),
    ("7.1", hit(lambda p, s, b, base, t: base + (p - (math.ceil(s / b) - 1) * b) * t), "whole-block-lost"),
    ("7.1", hit(lambda p, s, b, base, t: base + (p - s // b) * t), "blocks-not-tokens"),
    ("7.1", hit(lambda p, s, b, base, t: base + s // b * b * t), "reads-what-is-known"),
    ("7.1", hit(lambda p, s, b, base, t: s // b * b * t), "time-saved"),
    ("7.1", hit(lambda p, s, b, base, t: (p - s // b * b) * t), "no-base"),
    ("7.1", hit(lambda p, s, b, base, t: base + p * t), "no-hit"),
    ("7.1", hit(lambda p, s, b, base, t: base * (p - s // b * b) * t), "off"),
    ("7.1", hit(lambda p, s, b, base, t: base + (p // b - s // b) * b * t), "off"),
    ("7.1", hit(lambda p, s, b, base, t: p / (b - b)), "raises"),
    ("7.1", hit(lambda p, s, b, base, t: f"{base} s"), "no-number"),
    ("7.1", hit(lambda p, s, b, base, t: math.nan), "not-plain"),
    ("7.1", lambda prompt_tokens, shared_tokens: prompt_tokens - shared_tokens, "signature"),
    ("7.1", 0.2, "signature"),
    ("7.2", changed(0, 0, "a1"), "order"),
    ("7.2", [("a1", 1, 1, "-", 0), *ROWS], "order"),
    ("7.2", changed(0, 1, 2), "outstanding"),
    ("7.2", changed(2, 2, 1), "outstanding"),
    ("7.2", changed(0, 3, "A"), "score"),
    ("7.2", changed(2, 3, "C"), "no-replica"),
    ("7.2", changed(4, 3, "A"), "prefix-alone"),
    ("7.2", changed(5, 3, "A"), "load-alone"),
    ("7.2", changed(6, 3, "B"), "prefix-alone"),
    ("7.2", changed(0, 4, 0), "guide-forgotten"),
    ("7.2", changed(4, 4, 400), "other-replica"),
    ("7.2", changed(6, 4, 600), "other-replica"),
    ("7.2", changed(1, 4, 2000), "found"),
    ("7.2", ROWS[:3], "rows-missing"),
    ("7.2", [row[:4] for row in ROWS], "columns"),
    ("7.2", [*ROWS, ("c2", 1, 1, "A", 0)], "rows-extra"),
    ("7.2", {"c1": "A"}, "no-table"),
    ("7.3", (0.02, 0.03), "too-low"),
    ("7.3", (0.2, 0.3), "too-high"),
    ("7.3", (0.05, 0.5), "too-wide"),
    ("7.3", (0.1, 0.05), "no-interval"),
    ("7.3", 0.1, "no-interval"),
    ("7.3", ("8 %", "12 %"), "no-interval"),
    ("7.4", {**HOT, "requests_per_s": 2.5, "guides": 40, "guide_tokens": 3000}, "too-much-for-all"),
    ("7.4", {**HOT, "hot_share": 0.0}, "nobody-is-hot"),
    ("7.4", {**HOT, "guides": 40, "hot_share": 0.25}, "nobody-is-hot"),  # one guide is popular, not enough
    ("7.4", {**HOT, "requests_per_s": 0.6}, "it-copes"),
    ("7.4", {**HOT, "hot_share": 1.0}, "out-of-range"),
    ("7.4", {**HOT, "guides": 1}, "out-of-range"),
    ("7.4", {**HOT, "requests_per_s": "1.6"}, "out-of-range"),
    ("7.4", {**HOT, "guides": True}, "out-of-range"),
    ("7.4", {**HOT, "guides": 2.5}, "part-of-one"),
    ("7.4", {"hot_share": 0.6}, "no-demand"),
    ("7.4", [12, 2000, 0.6, 1.6], "no-demand"),
    ("7.4", {**HOT, "hot_share": math.nan}, "not-plain"),
    ("7.5", cascade(lambda f, s, g, c: f * s + (1 - f) * g + c), "either-or"),
    ("7.5", cascade(lambda f, s, g, c: s + c + f * g), "share-swapped"),
    ("7.5", cascade(lambda f, s, g, c: s + (1 - f) * g), "check-forgotten"),
    ("7.5", cascade(lambda f, s, g, c: s + (1 - f) * (g + c)), "check-of-some"),
    ("7.5", cascade(lambda f, s, g, c: s + c + g), "both-always"),
    ("7.5", cascade(lambda f, s, g, c: (s + c + g) * (1 - f)), "off"),
    ("7.5", cascade(lambda f, s, g, c: [s]), "no-number"),
    ("7.5", lambda kept_share: kept_share, "signature"),
    ("7.5", "small + check", "signature"),
    ("7.6", 0.12048, "easy-is-free"),  # of the numbers that nobody in particular is given
    ("7.6", 0.01713, "share-of-all"),
    ("7.6", 0.0512, "easy-loss-unweighted"),
    ("7.6", 0.022841, "shares-swapped"),
    ("7.6", 11.996, "points-not-percent"),
    ("7.6", 6.852, "off"),  # per cent
    ("7.6", "0.07 s", "wrong-unit"),
    ("7.6", "a few", "no-number"),
    ("7.7", {**KEYS, "a": "by load"}, "item-a"),
    ("7.7", {**KEYS, "b": "by prefix"}, "item-b"),
    ("7.7", {**KEYS, "c": "by prefix"}, "item-c"),
    ("7.7", {**KEYS, "d": "cascade"}, "item-d"),
    ("7.7", {**KEYS, "e": "cascade"}, "item-e"),
    ("7.7", {**KEYS, "f": "large model"}, "item-f"),
    ("7.7", {**KEYS, "g": "by load"}, "item-g"),
    ("7.7", {**KEYS, "h": "by prefix"}, "item-h"),
    ("7.7", {key: value for key, value in KEYS.items() if key != "d"}, "items-missing"),
    ("7.7", {**KEYS, "b": "hope"}, "no-option"),
    ("7.7", list(KEYS.values()), "no-dict"),
    ("7.8", "The small model is too bad.", "too-short"),
    ("7.8", 42, "no-text"),
]
