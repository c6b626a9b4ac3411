"""Chapter 2, why streaming is essential: the questions, the right answers, and what each wrong answer means."""

from __future__ import annotations

from random import Random

from miniserve.course.chapters.ch02_why_streaming import lab
from miniserve.course.check.ask import Json
from miniserve.course.check.kinds import Classify, FreeText, Kill, Predict, Trace, Witness, locked_all
from miniserve.course.check.numbers import Formula, Misconception, Number, Params, round_between
from miniserve.course.check.verdict import Problem
from miniserve.observe.reading import READ_S, perceived_wait_s, read_pieces
from miniserve.text import StopFilter

# --- 2.1 a number --------------------------------------------------------------------------------------------------


def _draw_stream(rng: Random) -> Params:
    tokens, tpot_ms = rng.randrange(21, 61), rng.randrange(40, 160)
    first_s = rng.randrange(40, 160) / 100
    return {"first_s": first_s, "last_s": round(first_s + (tokens - 1) * tpot_ms / 1000, 3), "tokens": tokens}


PACE = Number(
    id="2.1",
    name="tpot_ms",
    title="The pace of an answer",
    minutes=5,
    unit="ms",
    draw=_draw_stream,
    truth=lambda first_s, last_s, tokens: 1000 * (last_s - first_s) / (tokens - 1),
    rtol=0.002,
    misconceptions=(
        Misconception(
            "one-gap-too-many",
            "You divided by the number of tokens. Between n tokens there are n - 1 gaps.",
            lambda first_s, last_s, tokens: 1000 * (last_s - first_s) / tokens,
            "Two tokens have one gap between them.",
        ),
        Misconception(
            "wait-spread",
            "You spread the wait for the first token over the gaps; that wait has its own name, TTFT.",
            lambda first_s, last_s, tokens: 1000 * last_s / (tokens - 1),
            "The gaps begin at the first token.",
        ),
        Misconception(
            "total-per-token",
            "This is the total time per token: it includes the wait for the first token, and one gap too many.",
            lambda first_s, last_s, tokens: 1000 * last_s / tokens,
            "The gaps begin at the first token; count them.",
        ),
        Misconception(
            "all-gaps",
            "This is the sum of all gaps; TPOT is their mean.",
            lambda first_s, last_s, tokens: 1000 * (last_s - first_s),
            "Divide by the number of gaps.",
        ),
        Misconception(
            "tokens-per-s",
            "This is in tokens per second: the reciprocal.",
            lambda first_s, last_s, tokens: (tokens - 1) / (last_s - first_s),
            "You want time per token, so divide the time.",
        ),
        Misconception(
            "in-seconds",
            "This is in seconds; the answer should be in milliseconds.",
            lambda first_s, last_s, tokens: (last_s - first_s) / (tokens - 1),
            "A second has 1,000 ms.",
        ),
    ),
    hints=(
        "TPOT is the mean of the gaps between tokens. How long do all gaps last together, and how many are there?",
        "TPOT = (last - ___) / (tokens - ___), in seconds; times 1,000 for milliseconds.",
        "With other numbers: a first token at 1 s and a last one at 9 s, 21 tokens: 8 s for 20 gaps, so 400 ms.",
    ),
)

# --- 2.2 a trace ---------------------------------------------------------------------------------------------------

_GIVEN_ROWS = 2


def _timeline() -> list[tuple[int, int, int, int]]:
    read = read_pieces(lab.ARRIVE_MS, lab.READ_MS)
    return [(i + 1, int(r.begins_s), int(r.ends_s), int(r.waited_s)) for i, r in enumerate(read)]


def _explain_timeline(row: int, column: str, seen: Json, right: Json) -> tuple[str, str]:
    place = row + _GIVEN_ROWS
    arrived, free = lab.ARRIVE_MS[place], _timeline()[place - 1][2]
    if column == "piece":
        return "piece", f"The rows go from piece {_GIVEN_ROWS + 1} to piece {len(lab.ARRIVE_MS)}, one each."
    if seen and seen * 1000 == right:
        return "in-seconds", "This is in seconds; the table is in milliseconds."
    piece = f"Piece {place + 1}"
    if column == "begins" and arrived < free and seen == arrived:
        return "reads-two-at-once", f"{piece} is there at {arrived} ms, but the reader is busy until {free} ms."
    if column == "begins" and seen < arrived:
        return "not-there-yet", f"{piece} arrives at {arrived} ms, and can't be read before it is there."
    if column == "begins":
        return "begins", f"{piece} arrives at {arrived} ms, and the reader is free at {free} ms. Wait for both."
    if column == "ends":
        return "ends", f"Every piece takes {lab.READ_MS} ms to read, whenever it arrived."
    if arrived > free and seen == arrived - lab.ARRIVE_MS[place - 1]:
        return "gap-of-the-writer", "This is the gap between two arrivals. The reader spent part of it on older text."
    if arrived <= free:
        return "waits-with-text", f"{piece} is already there at {free} ms, when the reader finishes the one before."
    return "waited", f"{piece} arrives at {arrived} ms. The reader has had nothing to read since {free} ms."


TIMELINE = Trace(
    id="2.2",
    name="rows",
    title="A timeline on paper",
    minutes=10,
    difficulty=3,
    truth=lambda: _timeline()[_GIVEN_ROWS:],
    columns=("piece", "begins", "ends", "waited"),
    explain=_explain_timeline,
    hints=(
        "Draw two lines, one below the other: when pieces arrive, and when each is read. A piece can be read once two "
        "things have happened.",
        "begins = the later of (its arrival, ends of the piece ___). ends = begins + ___. waited = begins - ends of "
        "the piece before.",
        "With other numbers: a reader needs 50 ms, and pieces arrive at 10, 20 and 130 ms. They are read from 10 to "
        "60, 60 to 110 and 130 to 180 ms. Waited: 10, 0 and 20 ms.",
    ),
)

# --- 2.3 a formula -------------------------------------------------------------------------------------------------


def _draw_answer(rng: Random) -> Params:
    return {
        "ttft_s": round_between(rng, 0.1, 5.0),
        "tpot_s": round_between(rng, 0.01, 0.5),
        "tokens": rng.randrange(2, 400),
        "read_s": round_between(rng, 0.05, 0.4),
    }


PERCEIVED = Formula(
    id="2.3",
    name="perceived_s",
    title="The wait that a reader notices",
    minutes=10,
    difficulty=3,
    truth=lambda ttft_s, tpot_s, tokens, read_s: ttft_s + (tokens - 1) * max(0.0, tpot_s - read_s),
    draw=_draw_answer,
    misconceptions=(
        Misconception(
            "until-all-is-there",
            "This is the time until the last token. The reader isn't waiting all that time: much of it is reading.",
            lambda ttft_s, tpot_s, tokens, read_s: ttft_s + (tokens - 1) * tpot_s,
            "For which part of each gap is there nothing to read?",
        ),
        Misconception(
            "first-token-only",
            "That is right if writing is faster than reading. If it is slower, the reader waits at every token.",
            lambda ttft_s, tpot_s, tokens, read_s: ttft_s,
            "Try tpot_s = 0.5 and read_s = 0.1.",
        ),
        Misconception(
            "time-given-back",
            "If writing is faster than reading, you take time off the first wait, but that one is over by then.",
            lambda ttft_s, tpot_s, tokens, read_s: ttft_s + (tokens - 1) * (tpot_s - read_s),
            "No gap can add less than nothing.",
        ),
        Misconception(
            "one-gap-too-many",
            "You counted a gap for every token, but the first token's wait is already in ttft_s.",
            lambda ttft_s, tpot_s, tokens, read_s: ttft_s + tokens * max(0.0, tpot_s - read_s),
            "For tokens = 1 the answer must be ttft_s.",
        ),
        Misconception(
            "until-all-is-read",
            "This is when the last token has been read. Reading is what the reader came for, not a wait.",
            lambda ttft_s, tpot_s, tokens, read_s: ttft_s + (tokens - 1) * max(tpot_s, read_s) + read_s,
            "Subtract the reading: tokens times read_s.",
        ),
        Misconception(
            "wrong-way-round",
            "You add a wait if reading is slower than writing. Then text waits for the reader, not the reverse.",
            lambda ttft_s, tpot_s, tokens, read_s: ttft_s + (tokens - 1) * max(0.0, read_s - tpot_s),
            "Who waits if writing takes longer than reading?",
        ),
        Misconception(
            "no-first-wait",
            "The wait for the first token is missing. For most answers it is the only one.",
            lambda ttft_s, tpot_s, tokens, read_s: (tokens - 1) * max(0.0, tpot_s - read_s),
            "For tokens = 1 the answer must be ttft_s.",
        ),
    ),
    hints=(
        "Look at one gap. While the model writes a token, the reader reads the one before. What is left of the gap?",
        "ttft_s + (number of gaps) x (how much too long each gap is): ttft_s + (tokens - ___) * max(0, ___ - ___).",
        "With other numbers: a first token after 2 s, then one every 0.6 s, 11 tokens, 0.2 s to read one: ten gaps "
        "that are 0.4 s too long, so 6 s. With a token every 0.1 s it is 2 s: no waits after the first token.",
    ),
)

# --- 2.4 a prediction ----------------------------------------------------------------------------------------------


def _times_sooner() -> float:
    record = lab.recorded()
    return record.asked_s / record.asked_ttft_s


SOONER = Predict(
    id="2.4",
    name="times_sooner",
    title="How many times sooner",
    minutes=7,
    difficulty=3,
    unit="times",
    experiment=_times_sooner,
    widest=2.0,
    too_low="The whole answer of 401 tokens takes longer than that of 101. Does the first text of a streamed one?",
    too_high="The first token costs far more than any further one: it includes the way there and back, and the prompt.",
    hints=(
        "Without streaming, the first text comes when everything is there. With streaming it comes after the TTFT, "
        "which doesn't depend on the length of the answer.",
        "Further tokens cost (whole - TTFT) / 100 each. The whole answer of n tokens takes TTFT + (n - 1) x ___. "
        "Divide it by ___.",
        "With other numbers: 51 tokens take 120 ms whole, and their first text 20 ms streamed: 2 ms per further token. "
        "So 201 tokens take 420 ms, and the first is again there after 20 ms: 420 / 20 = 21 times sooner.",
    ),
)

# --- 2.5 a witness -------------------------------------------------------------------------------------------------

_RANGES = {"tokens": (20, 1000), "ttft_s": (0.1, 60), "tpot_s": (0.001, 2)}  # tokens, seconds, seconds
_SHORTEST_S, _SAME, _TIMES = 5.0, 0.01, 10.0


def _out_of_range(key: str, value: Json, where: str) -> Problem | None:
    low, high = _RANGES[key]
    if type(value) in (int, float) and low <= value <= high:
        return None
    why = f"{key} is a number between {low} and {high}{', in seconds' if key.endswith('_s') else ''}."
    return Problem("out-of-range", f"{key} = {value!r}"[:80], why, "Take a number in this range, not a string.", where)


def _judge_services(told: Json) -> Problem | None:
    example = '{"tokens": 100, "A": {"ttft_s": 1, "tpot_s": 0.1}, "B": {...}}'
    if not (isinstance(told, dict) and set(told) == {"tokens", "A", "B"}):
        return Problem("no-services", repr(told)[:80], "The keys are tokens, A and B.", f"Write {example}.")
    for name in "AB":
        if not (isinstance(told[name], dict) and set(told[name]) == {"ttft_s", "tpot_s"}):
            why = "A service has ttft_s and tpot_s."
            return Problem("no-service", repr(told[name])[:80], why, f"Write {example}.", f"service {name}")
    checks = [("tokens", told["tokens"], "tokens"), *((k, told[n][k], f"service {n}") for n in "AB" for k in told[n])]
    for key, value, where in checks:
        if (problem := _out_of_range(key, value, where)) is not None:
            return problem
    if told["tokens"] != int(told["tokens"]):
        return Problem("half-a-token", f"tokens = {told['tokens']}", "Tokens are whole.", "A whole number.", "tokens")
    return _judge_waits(told)


def _judge_waits(told: dict[str, Json]) -> Problem | None:
    arrivals = {n: lab.steady(told[n]["ttft_s"], told[n]["tpot_s"], int(told["tokens"])) for n in "AB"}
    totals = {n: come[-1] for n, come in arrivals.items()}
    seen = "all there after " + ", ".join(f"{total:.4g} s ({n})" for n, total in totals.items())
    if min(totals.values()) < _SHORTEST_S:
        why = f"The total must be at least {_SHORTEST_S:g} s: a short answer has no room for a difference."
        return Problem("too-short", seen, why, "Take more tokens, or a slower pace.", "total")
    if max(totals.values()) > (1 + _SAME) * min(totals.values()):
        why = "The totals must be the same to within 1 %: ttft_s + (tokens - 1) * tpot_s."
        return Problem("totals-differ", seen, why, "Choose A, then solve for B's tpot_s.", "total")
    waits = {n: perceived_wait_s(come) for n, come in arrivals.items()}
    low, high = sorted(waits, key=lambda n: waits[n])
    if waits[high] >= _TIMES * waits[low]:
        return None
    seen = "perceived waits " + ", ".join(f"{wait:.4g} s ({n})" for n, wait in waits.items())
    if told[low]["tpot_s"] > READ_S:
        why = (
            f"It writes more slowly than the reader reads ({READ_S:.3f} s a token), so the reader waits at every token."
        )
        return Problem("slower-than-reading", seen, why, "Take more tokens and a smaller tpot_s.", f"service {low}")
    factor = f"That is a factor of {waits[high] / waits[low]:.3g}."
    why = f"{factor} Here each wait is the TTFT: text is written faster than it is read."
    return Problem(
        "not-tenfold", seen, why, "Spend more of the total before one first token, and less before the other.", "waits"
    )


SAME_TOTAL = Witness(
    id="2.5",
    name="services",
    title="Equally fast, and ten times the wait",
    minutes=8,
    difficulty=3,
    judge_value=_judge_services,
    hints=(
        "The total has two parts, the wait before the first token and the gaps. Reading can hide one of them.",
        "Let one service spend nearly all of the total T before its first token. The other: a small ttft_s, and "
        "tpot_s = (T - ttft_s) / ___, which must not exceed the reader's ___ s.",
        "With other numbers, for a wait three times as long: 50 tokens, a total of 6 s. A: 3.06 s, then 0.06 s a "
        "token. B: 1 s, then 5 / 49 = 0.102 s a token. Waits of 3.06 and 1 s.",
    ),
)

# --- 2.6 a kill ----------------------------------------------------------------------------------------------------


def _admissible(told: Json) -> Problem | None:
    if not (isinstance(told, list) and 1 <= len(told) <= 2 and all(isinstance(row, dict) for row in told)):
        why = "Give a list of one or two answers, each a dictionary."
        return Problem("no-list", repr(told)[:80], why, "Start from the example in the cell above.")
    for i, row in enumerate(told):
        where = f"answer {i + 1}"
        if set(row) != {"pieces", "stop"}:
            return Problem("keys", repr(sorted(row))[:80], "The keys are pieces and stop.", "Both are needed.", where)
        pieces, stop = row["pieces"], row["stop"]
        if not (isinstance(pieces, list) and 1 <= len(pieces) <= 10 and all(isinstance(p, str) for p in pieces)):
            why = "pieces holds one to ten strings."
            return Problem("no-pieces", repr(pieces)[:80], why, "Write a list of one to ten strings.", where)
        if not (isinstance(stop, str) and 1 <= len(stop) <= 20):
            why = "stop is a string of 1 to 20 characters."
            return Problem("no-stop", repr(stop)[:80], why, "Take a short string, such as STOP.", where)
        if (letters := sum(map(len, pieces))) > 200:
            why = "All pieces together may have at most 200 characters; the bugs need far fewer."
            return Problem("too-long", f"{letters} characters", why, "Short pieces show more.", where)
    return None


def _right(row: dict[str, Json]) -> str:
    watch = StopFilter((row["stop"],))
    return "".join(watch.push(piece) for piece in row["pieces"]) + watch.flush()


FILTERS = Kill(
    id="2.6",
    name="answers",
    title="Two answers that find three bugs",
    minutes=10,
    difficulty=4,
    admissible=_admissible,
    correct=lambda told: [_right(row) for row in told],
    buggy={
        "piece-by-piece": (
            lambda told: [lab.piece_by_piece(**row) for row in told],
            "It looks at each piece alone: do your pieces ever cut the stop string in two?",
        ),
        "keeps-the-rest": (
            lambda told: [lab.keeps_the_rest(**row) for row in told],
            "It releases nothing at the end: is anything still held back when your text ends?",
        ),
        "loses-false-alarms": (
            lambda told: [lab.loses_false_alarms(**row) for row in told],
            "It throws away what it held back: does a piece end like the beginning of the stop string, and the next "
            "one go on differently?",
        ),
    },
    hints=(
        "One bug shows only if the stop string is in the text. Another shows only if it isn't. You can find the third "
        "together with either of them.",
        "One answer whose stop string begins at the end of a piece and ends in the ___. And one that ends with the "
        "stop string's ___, after an earlier such beginning that came to nothing.",
        "With other bugs: a filter that looks only at a text's first piece and one that cuts after the stop string are "
        'both found by ["one ", "two ", "## three"] with the stop string "##".',
    ),
)

# --- 2.7 classify --------------------------------------------------------------------------------------------------

HELPS = Classify(
    id="2.7",
    name="verdicts",
    title="Does streaming help here?",
    minutes=8,
    items=lab.CASES,
    options=tuple(lab.VERDICTS),
    keys=locked_all(
        "2.7",
        a="helps",
        b="needs the end",
        c="held back",
        d="too short",
        e="too early",
        f="held back",
        g="needs the end",
        h="helps",
        i="too early",
    ),
    because={
        "a": "The customer reads along, and a long answer can be written in the time that reading it takes.",
        "b": "The program can't do anything with half of the data: what counts for it is the last token.",
        "c": "The customer could start on the first words, but the check holds them until it has seen everything.",
        "d": "One token is both first and last. There are no gaps that reading could hide.",
        "e": "The seconds pass before the first token, while the GPU reads the prompt; the answer itself is short.",
        "f": "The tokens leave the gateway one by one, but the proxy on the way buffers them.",
        "g": "Nobody reads along at night, and in the morning everything is there either way.",
        "h": "Each sentence can be spoken while the next ones are written: a listener takes in text as a reader does.",
        "i": "Most of the wait is over before the first token is written. Streaming can't make a queue shorter.",
    },
    hints=(
        "In each case, where do the seconds pass, before the first token or after? And can the recipient do anything "
        "with the first piece?",
        "A person who takes text in as it comes: it helps. No use before the end: needs the end. One token: too short. "
        "Seconds before the first token: too early. Something in between that buffers: held back.",
        "Another case: a spreadsheet asks for a column of 50 prices and fills it in all at once: needs the end.",
    ),
)

# --- 2.8 free text -------------------------------------------------------------------------------------------------

ADVICE = FreeText(
    id="2.8",
    name="advice",
    title="Streaming for everything?",
    minutes=10,
    difficulty=3,
    at_least_words=50,
    rubric=(
        "Says what streaming doesn't change: the time until the last token, and the work of the GPU.",
        "Says with numbers from the notebook what it changes: the wait for the first text is TTFT, not the total.",
        "Explains why the gaps don't count: text is written faster than it is read.",
        "Decides for chats, for drafts made at night, and for the stock program, each with a reason.",
        "Names something that can undo it (a filter, a proxy, a long queue) and a figure to watch, such as TTFT.",
    ),
    model_answer=(
        "Streaming makes nothing faster: the last token of a long chat answer still comes after half a minute, and the "
        "GPU does the same work. What changes is the wait for the first text, from that half minute to about half a "
        "second. After that customers don't wait, since we write more than twice as fast as they read. So we stream "
        "the chats. The drafts made at night and the stock program use an answer only when it is complete: for them we "
        "leave streaming off and have one request that succeeds or fails as a whole. For chats we monitor the time to "
        "first token, and check that neither our filter nor a proxy buffers the text on its way."
    ),
    hints=(
        "The manager means three kinds of requests, which differ in who uses the answer and when. Decide for each.",
        "Compare for a chat: wait without streaming = ___, with = ___. Then ask which of the two the night's drafts "
        "and the stock program depend on.",
        'About another service: "Our film player shows the first scene after 2 s, though the whole film takes minutes '
        'to load. If you download a copy for a journey, only the end counts."',
    ),
)

QUESTIONS = (PACE, TIMELINE, PERCEIVED, SOONER, SAME_TOTAL, FILTERS, HELPS, ADVICE)
