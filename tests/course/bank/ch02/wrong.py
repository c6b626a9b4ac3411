"""Wrong answers of chapter 2, one mistake each, and the problem that they must be told."""

from miniserve.course.chapters.ch02_why_streaming import lab
from miniserve.course.check.chapter import chapter

GIVEN = chapter(2, learner="").given("2.1")  # of nobody in particular
FIRST_S, LAST_S, TOKENS = GIVEN["first_s"], GIVEN["last_s"], GIVEN["tokens"]
RECORD = lab.recorded()
TIMES = RECORD.asked_s / RECORD.asked_ttft_s
ROWS = [(3, 1000, 1200, 0), (4, 1200, 1400, 0), (5, 1700, 1900, 300), (6, 1900, 2100, 0), (7, 2100, 2300, 0), (8, 2500, 2700, 200)]  # fmt: skip  # noqa: E501
SERVICES = {"tokens": 201, "A": {"ttft_s": 18.0, "tpot_s": 0.01}, "B": {"ttft_s": 1.0, "tpot_s": 0.095}}
HELD = {"pieces": ["Water it <", "b>daily</b", "> <"], "stop": "<end>"}
STOPPED = {"pieces": ["Water it daily. <e", "nd> Goodbye."], "stop": "<end>"}
KEYS = dict(
    zip(
        "abcdefghi",
        (
            "helps",
            "needs the end",
            "held back",
            "too short",
            "too early",
            "held back",
            "needs the end",
            "helps",
            "too early",
        ),
        strict=True,
    )
)


def changed(row, column, value):
    rows = [list(each) for each in ROWS]
    rows[row][column] = value
    return rows


def with_service(name, **times):
    return {**SERVICES, name: {**SERVICES[name], **times}}


WRONG = [
    ("2.1", 1000 * (LAST_S - FIRST_S) / TOKENS, "one-gap-too-many"),
    ("2.1", 1000 * LAST_S / (TOKENS - 1), "wait-spread"),
    ("2.1", 1000 * LAST_S / TOKENS, "total-per-token"),
    ("2.1", 1000 * (LAST_S - FIRST_S), "all-gaps"),
    ("2.1", (TOKENS - 1) / (LAST_S - FIRST_S), "tokens-per-s"),
    ("2.1", (LAST_S - FIRST_S) / (TOKENS - 1), "in-seconds"),
    ("2.1", 1000 * FIRST_S, "off"),
    ("2.1", "5 tok/s", "wrong-unit"),
    ("2.1", "many", "no-number"),
    ("2.1", None, "no-number"),
    ("2.1", float("nan"), "not-plain"),
    ("2.2", changed(0, 0, 4), "piece"),
    ("2.2", changed(0, 1, 800), "reads-two-at-once"),
    ("2.2", changed(1, 1, 900), "reads-two-at-once"),
    ("2.2", changed(2, 1, 1400), "not-there-yet"),
    ("2.2", changed(2, 1, 1900), "begins"),
    ("2.2", changed(4, 1, 2200), "begins"),
    ("2.2", changed(2, 2, 1800), "ends"),
    ("2.2", changed(2, 3, 800), "gap-of-the-writer"),
    ("2.2", changed(5, 3, 500), "gap-of-the-writer"),
    ("2.2", changed(0, 3, 100), "waits-with-text"),
    ("2.2", changed(2, 3, 0), "waited"),
    ("2.2", changed(2, 3, 1700), "waited"),
    ("2.2", changed(2, 1, "later"), "no-number"),
    ("2.2", [(piece, *(ms / 1000 for ms in times)) for piece, *times in ROWS], "in-seconds"),
    ("2.2", ROWS[:4], "rows-missing"),
    ("2.2", [row[:3] for row in ROWS], "columns"),
    ("2.2", [(1, 600, 800, 600), *ROWS], "piece"),
    ("2.2", {"piece": 3}, "no-table"),
    ("2.3", lambda ttft_s, tpot_s, tokens, read_s: ttft_s + (tokens - 1) * tpot_s, "until-all-is-there"),
    ("2.3", lambda ttft_s, tpot_s, tokens, read_s: ttft_s, "first-token-only"),
    ("2.3", lambda ttft_s, tpot_s, tokens, read_s: ttft_s + (tokens - 1) * (tpot_s - read_s), "time-given-back"),
    ("2.3", lambda ttft_s, tpot_s, tokens, read_s: ttft_s + tokens * max(0, tpot_s - read_s), "one-gap-too-many"),
    (
        "2.3",
        lambda ttft_s, tpot_s, tokens, read_s: ttft_s + (tokens - 1) * max(tpot_s, read_s) + read_s,
        "until-all-is-read",
    ),
    ("2.3", lambda ttft_s, tpot_s, tokens, read_s: ttft_s + (tokens - 1) * max(0, read_s - tpot_s), "wrong-way-round"),
    ("2.3", lambda ttft_s, tpot_s, tokens, read_s: (tokens - 1) * max(0, tpot_s - read_s), "no-first-wait"),
    ("2.3", lambda ttft_s, tpot_s, tokens, read_s: tokens * read_s, "off"),
    ("2.3", lambda ttft_s, tpot_s: ttft_s, "signature"),
    ("2.3", 0.5, "signature"),
    ("2.3", lambda ttft_s, tpot_s, tokens, read_s: f"{ttft_s} s", "no-number"),
    ("2.3", lambda ttft_s, tpot_s, tokens, read_s: ttft_s / (tokens - tokens), "raises"),
    ("2.4", (RECORD.known_s / RECORD.known_ttft_s,) * 2, "too-low"),  # "the same as for 101"
    ("2.4", (0.4 * TIMES, 0.7 * TIMES), "too-low"),
    ("2.4", (401, 401), "too-high"),  # each token alike
    ("2.4", (1.2 * TIMES, 2 * TIMES), "too-high"),
    ("2.4", (10, 401), "too-wide"),
    ("2.4", TIMES, "no-interval"),
    ("2.4", (2 * TIMES, TIMES), "no-interval"),
    ("2.5", {**SERVICES, "tokens": 20}, "too-short"),
    ("2.5", with_service("A", ttft_s=25), "totals-differ"),
    (
        "2.5",
        {"tokens": 21, "A": {"ttft_s": 9.8, "tpot_s": 0.01}, "B": {"ttft_s": 0.9, "tpot_s": 0.455}},
        "slower-than-reading",
    ),
    ("2.5", with_service("B", ttft_s=4.0, tpot_s=0.08), "not-tenfold"),
    ("2.5", {**SERVICES, "B": SERVICES["A"]}, "not-tenfold"),
    ("2.5", with_service("A", ttft_s=0), "out-of-range"),
    ("2.5", with_service("B", tpot_s="0.1"), "out-of-range"),
    ("2.5", with_service("A", ttft_s=18_000, tpot_s=10), "out-of-range"),  # milliseconds
    ("2.5", {**SERVICES, "tokens": True}, "out-of-range"),
    ("2.5", {**SERVICES, "tokens": 200.5}, "half-a-token"),
    ("2.5", {**SERVICES, "A": {"ttft_s": 1}}, "no-service"),
    ("2.5", {**SERVICES, "A": 18}, "no-service"),
    ("2.5", [18, 1], "no-services"),
    ("2.6", [HELD], "alive-piece-by-piece"),
    ("2.6", [STOPPED], "alive-keeps-the-rest"),
    ("2.6", [{**HELD, "pieces": ["Water it daily. <"]}, STOPPED], "alive-loses-false-alarms"),
    ("2.6", [{**HELD, "pieces": ["Water it <", "b>daily"]}, STOPPED], "alive-keeps-the-rest"),
    ("2.6", [HELD, {**STOPPED, "pieces": ["Water it. <end>", " Goodbye."]}], "alive-piece-by-piece"),
    ("2.6", [HELD, STOPPED, STOPPED], "no-list"),
    ("2.6", HELD, "no-list"),
    ("2.6", [{"pieces": ["a"]}], "keys"),
    ("2.6", [{**HELD, "pieces": "Water it <"}], "no-pieces"),
    ("2.6", [{**HELD, "pieces": []}], "no-pieces"),
    ("2.6", [{**HELD, "stop": ""}], "no-stop"),
    ("2.6", [{**HELD, "pieces": ["a" * 201]}], "too-long"),
    ("2.7", {**KEYS, "a": "too early"}, "item-a"),
    ("2.7", {**KEYS, "b": "helps"}, "item-b"),
    ("2.7", {**KEYS, "c": "helps"}, "item-c"),
    ("2.7", {**KEYS, "c": "needs the end"}, "item-c"),
    ("2.7", {**KEYS, "d": "helps"}, "item-d"),
    ("2.7", {**KEYS, "e": "helps"}, "item-e"),
    ("2.7", {**KEYS, "f": "helps"}, "item-f"),
    ("2.7", {**KEYS, "g": "helps"}, "item-g"),
    ("2.7", {**KEYS, "h": "needs the end"}, "item-h"),
    ("2.7", {**KEYS, "i": "helps"}, "item-i"),
    ("2.7", {key: value for key, value in KEYS.items() if key != "f"}, "items-missing"),
    ("2.7", {**KEYS, "b": "never"}, "no-option"),
    ("2.7", list(KEYS.values()), "no-dict"),
    ("2.8", "Streaming is faster.", "too-short"),
    ("2.8", ["yes"], "no-text"),
]
