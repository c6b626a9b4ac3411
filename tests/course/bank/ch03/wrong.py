"""Wrong answers of chapter 3, one mistake each, and the problem that they must be told."""

ROWS = [(2, 200, 144, 56), (3, 320, 0, 320), (4, 445, 288, 157)]
KEYS = dict(zip("abcdefgh", ("request", "cache", "store", "store", "request", "cache", "store", "cache"), strict=True))


def changed(row, column, value):
    rows = [list(each) for each in ROWS]
    rows[row][column] = value
    return rows


def prompt(k, guide, message, answer):
    return guide + k * message + (k - 1) * answer


def chat(turns, guide, message, answer):
    return sum(prompt(k, guide, message, answer) for k in range(1, turns + 1))


def kept(turns, guide, message, answer, lost):
    return guide + (turns - 1) * message + prompt(lost, guide, message, answer)


def cold(turns, guide, message, answer, lost):
    return guide + (lost - 1) * message + sum(prompt(k, guide, message, answer) for k in range(lost, turns + 1))


WRONG = [
    ("3.1", lambda turns, guide, message, answer: prompt(turns, guide, message, answer), "last-prompt-only"),
    ("3.1", lambda turns, guide, message, answer: turns * (guide + message), "new-only"),
    ("3.1", lambda turns, guide, message, answer: chat(turns, guide + answer, message, answer), "own-answer"),
    ("3.1", lambda turns, guide, message, answer: guide + chat(turns, 0, message, answer), "guide-once"),
    ("3.1", lambda turns, guide, message, answer: chat(turns, guide, message, 0), "answers-forgotten"),
    ("3.1", lambda turns, guide, message, answer: chat(turns - 1, guide, message, answer), "one-turn-short"),
    ("3.1", lambda turns, guide, message, answer: turns * prompt(turns, guide, message, answer), "all-like-the-last"),
    ("3.1", lambda turns, guide, message, answer: 7, "off"),
    ("3.1", lambda turns: 7, "signature"),
    ("3.1", 1080, "signature"),
    ("3.1", lambda turns, guide, message, answer: f"{turns}", "no-number"),
    ("3.1", lambda turns, guide, message, answer: guide / (turns - turns), "raises"),
    ("3.2", lambda turns, guide, message, answer, lost: guide + turns * message, "nothing-lost"),
    ("3.2", cold, "cold-for-ever"),
    ("3.2", lambda turns, guide, message, answer, lost: kept(turns, guide, message, 0, lost), "answers-kept"),
    (
        "3.2",
        lambda turns, guide, message, answer, lost: kept(turns, guide, message, answer, lost) - guide,
        "guide-kept",
    ),
    (
        "3.2",
        lambda turns, guide, message, answer, lost: message + kept(turns, guide, message, answer, lost),
        "message-twice",
    ),
    (
        "3.2",
        lambda turns, guide, message, answer, lost: answer + kept(turns, guide, message, answer, lost),
        "answer-too-many",
    ),
    ("3.2", lambda turns, guide, message, answer, lost: 0, "off"),
    ("3.2", lambda turns, guide, message, answer: guide, "signature"),
    ("3.3", changed(0, 0, 1), "turn"),
    ("3.3", changed(0, 1, 140), "prompt"),
    ("3.3", changed(0, 2, 160), "last-token"),
    ("3.3", changed(0, 2, 96), "too-little"),
    ("3.3", changed(0, 2, 0), "too-little"),
    ("3.3", changed(0, 2, 192), "other-replica"),
    ("3.3", changed(0, 2, 159), "half-block"),
    ("3.3", changed(0, 3, 40), "computed"),
    ("3.3", changed(1, 2, 288), "other-replica"),
    ("3.3", changed(2, 2, 384), "other-replica"),
    ("3.3", changed(2, 2, 144), "too-little"),
    ("3.3", changed(2, 2, 192), "too-little"),
    ("3.3", changed(2, 2, 289), "half-block"),
    ("3.3", changed(2, 3, 50), "computed"),
    ("3.3", changed(2, 2, "288"), "no-number"),
    ("3.3", ROWS[:2], "rows-missing"),
    ("3.3", [row[:3] for row in ROWS], "columns"),
    ("3.3", [(1, 100, 0, 100), *ROWS], "turn"),
    ("3.3", {"turn": 2}, "no-table"),
    ("3.4", "4 tokens", "wrong-unit"),
    ("3.4", True, "no-number"),
    ("3.4", 17, "off"),
    ("3.4", 560000, "only-those-of-the-last"),  # of the numbers that nobody in particular is given
    ("3.4", 4480000, "all-move"),
    ("3.4", 3840000, "smaller-fleet"),
    ("3.4", 640000, "share-of-those-left"),
    ("3.4", 1960, "sessions-not-tokens"),
    ("3.5", (1, 1.1), "too-low"),
    ("3.5", (2.2, 2.45), "too-low"),  # holds three of the five runs, and not what they give together
    ("3.5", (2.5, 3), "too-high"),
    ("3.5", (40, 50), "too-high"),
    ("3.5", (1, 10), "too-wide"),
    ("3.5", 3, "no-interval"),
    ("3.5", (3, 2), "no-interval"),
    ("3.6", [3, 3, 3, 3], "even"),
    ("3.6", [12, 1], "reads-too-much"),
    ("3.6", [2, 1], "too-little"),
    ("3.6", [3], "no-list"),
    ("3.6", 3, "no-list"),
    ("3.6", [3, 13], "no-chat"),
    ("3.6", [3, 1.5], "no-chat"),
    ("3.6", [3, True], "no-chat"),
    ("3.7", {**KEYS, "a": "cache"}, "item-a"),
    ("3.7", {**KEYS, "b": "store"}, "item-b"),
    ("3.7", {**KEYS, "c": "cache"}, "item-c"),
    ("3.7", {**KEYS, "d": "request"}, "item-d"),
    ("3.7", {**KEYS, "e": "store"}, "item-e"),
    ("3.7", {**KEYS, "f": "request"}, "item-f"),
    ("3.7", {**KEYS, "g": "cache"}, "item-g"),
    ("3.7", {**KEYS, "h": "store"}, "item-h"),
    ("3.7", {key: value for key, value in KEYS.items() if key != "g"}, "items-missing"),
    ("3.7", {**KEYS, "b": "hope"}, "no-option"),
    ("3.7", list(KEYS.values()), "no-dict"),
    ("3.8", "Sticky is bad.", "too-short"),
    ("3.8", ["sticky"], "no-text"),
]
