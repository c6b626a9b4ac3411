"""Other right answers of chapter 2."""

from miniserve.course.chapters.ch02_why_streaming import lab
from miniserve.course.check.chapter import chapter
from miniserve.observe.reading import perceived_wait_s

GIVEN = chapter(2, learner="").given("2.1")  # of nobody in particular
TPOT_S = (GIVEN["last_s"] - GIVEN["first_s"]) / (GIVEN["tokens"] - 1)
RECORD = lab.recorded()
TIMES = RECORD.asked_s / RECORD.asked_ttft_s
ROWS = [(3, 1000, 1200, 0), (4, 1200, 1400, 0), (5, 1700, 1900, 300), (6, 1900, 2100, 0), (7, 2100, 2300, 0), (8, 2500, 2700, 200)]  # fmt: skip  # noqa: E501


def at_the_slower_pace(ttft_s, tpot_s, tokens, read_s):
    return max(ttft_s, ttft_s + (tokens - 1) * (tpot_s - read_s))


def token_by_token(read_s, tokens, tpot_s, ttft_s):
    return perceived_wait_s([ttft_s + i * tpot_s for i in range(tokens)], read_s)


RIGHT = [
    ("2.1", 1000 * TPOT_S),
    ("2.1", round(1000 * TPOT_S, 1)),
    ("2.1", f"{TPOT_S} s"),
    ("2.2", ROWS),
    ("2.2", [[float(value) for value in row] for row in ROWS]),
    ("2.3", at_the_slower_pace),
    ("2.3", token_by_token),
    ("2.3", lambda ttft_s, tpot_s, tokens, read_s: ttft_s + (tokens - 1) * (tpot_s - read_s) * (tpot_s > read_s)),
    ("2.4", (TIMES / 1.1, TIMES * 1.7)),
    ("2.4", [TIMES / 1.9, TIMES]),
    ("2.5", {"tokens": 101, "A": {"ttft_s": 19.5, "tpot_s": 0.01}, "B": {"ttft_s": 0.5, "tpot_s": 0.2}}),
    ("2.5", {"tokens": 800, "A": {"ttft_s": 0.4, "tpot_s": 0.15}, "B": {"ttft_s": 60, "tpot_s": 0.0754}}),
    ("2.6", [{"pieces": ["a<", "b<"], "stop": "<end>"}, {"pieces": ["x<e", "nd>y"], "stop": "<end>"}]),
    ("2.6", [{"pieces": list("so ST, STO"), "stop": "STOP"}, {"pieces": list("so STOP it"), "stop": "STOP"}]),
    ("2.7", dict(zip("abcdefghi", (
        "helps", "needs the end", "held back", "too short", "too early", "held back", "needs the end", "helps",
        "too early"), strict=True))),
    ("2.8", "one two three four five six seven eight nine ten " * 5),
]  # fmt: skip
