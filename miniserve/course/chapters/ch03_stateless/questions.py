"""Chapter 3, stateless against stateful: the questions, the right answers, and what each wrong answer means."""

from __future__ import annotations

from random import Random

from miniserve.course.chapters.ch03_stateless import lab
from miniserve.course.check.ask import Json
from miniserve.course.check.kinds import Classify, FreeText, Predict, Trace, Witness, locked_all
from miniserve.course.check.numbers import Formula, Misconception, Number, Params
from miniserve.course.check.verdict import Problem

# --- 3.1 a formula -------------------------------------------------------------------------------------------------


def _draw_chat(rng: Random) -> Params:
    return {
        "turns": rng.randrange(2, 13),
        "guide": rng.randrange(100, 1000),
        "message": rng.randrange(20, 200),
        "answer": rng.randrange(50, 400),
    }


def _without(turns: int, guide: float, message: float, answer: float) -> float:
    return turns * guide + message * turns * (turns + 1) / 2 + answer * turns * (turns - 1) / 2


WITHOUT = Formula(
    id="3.1",
    name="without_cache",
    title="A chat that is read again and again",
    minutes=8,
    truth=_without,
    draw=_draw_chat,
    misconceptions=(
        Misconception(
            "last-prompt-only",
            "This is only the last prompt. The prompts of all earlier turns are computed as well.",
            lambda turns, guide, message, answer: guide + turns * message + (turns - 1) * answer,
            "Write down the prompts of turns 1, 2 and 3, and add them up.",
        ),
        Misconception(
            "new-only",
            "You counted only each turn's own message; the prompt also holds everything said before.",
            lambda turns, guide, message, answer: turns * (guide + message),
            "What does the prompt of turn 2 hold?",
        ),
        Misconception(
            "own-answer",
            "You put a turn's own answer into its prompt. The model writes it, and reads it from the next turn on.",
            lambda turns, guide, message, answer: turns * guide + (message + answer) * turns * (turns + 1) / 2,
            "For one turn the result must be guide + message.",
        ),
        Misconception(
            "guide-once",
            "You counted the guide once. It stands at the beginning of every prompt.",
            lambda turns, guide, message, answer: _without(turns, 0, message, answer) + guide,
            "What does the prompt of turn 2 begin with?",
        ),
        Misconception(
            "answers-forgotten",
            "The earlier answers are missing: they are part of the context, just as the messages are.",
            lambda turns, guide, message, answer: _without(turns, guide, message, 0),
            "Who has spoken before turn 2?",
        ),
        Misconception(
            "one-turn-short",
            "Your sum ends one turn too early.",
            lambda turns, guide, message, answer: _without(turns - 1, guide, message, answer),
            "For one turn the result must be guide + message.",
        ),
        Misconception(
            "all-like-the-last",
            "You made every prompt as long as the last one.",
            lambda turns, guide, message, answer: turns * (guide + turns * message + (turns - 1) * answer),
            "The prompts grow: the first is only guide + message.",
        ),
    ),
    hints=(
        "Write the prompt of turn k first: how many guides, how many messages, how many answers does it hold?",
        "Prompt of turn k = guide + ___ * message + ___ * answer. Add it up for k = 1 to turns; "
        "1 + 2 + ... + n = n * (n + 1) / 2.",
        "With other numbers: guide 10, message 1, answer 2. The prompts of two turns are 11 and 10 + 2 + 2 = 14; "
        "together 25.",
    ),
)

# --- 3.2 a formula -------------------------------------------------------------------------------------------------


def _draw_lost(rng: Random) -> Params:
    chat = _draw_chat(rng)
    return {**chat, "lost": rng.randrange(2, chat["turns"] + 1)}


def _with(turns: int, guide: float, message: float, answer: float, lost: int) -> float:
    return 2 * guide + (turns + lost - 1) * message + (lost - 1) * answer


def _cold_for_ever(turns: int, guide: float, message: float, answer: float, lost: int) -> float:
    before = guide + (lost - 1) * message
    return before + sum(guide + k * message + (k - 1) * answer for k in range(lost, turns + 1))


WITH = Formula(
    id="3.2",
    name="with_cache",
    title="What a cache gives back, and what its loss costs",
    minutes=9,
    difficulty=3,
    truth=_with,
    draw=_draw_lost,
    misconceptions=(
        Misconception(
            "nothing-lost",
            "This is the chat without the loss. At turn `lost` the whole prompt must be computed.",
            lambda turns, guide, message, answer, lost: guide + turns * message,
            "Add what turn `lost` computes on top of its message.",
        ),
        Misconception(
            "cold-for-ever",
            "You made every turn from `lost` on start from nothing. But turn `lost` fills the cache again.",
            _cold_for_ever,
            "What does turn lost + 1 find?",
        ),
        Misconception(
            "answers-kept",
            "The earlier answers are lost as well, and must be read as part of the prompt.",
            lambda turns, guide, message, answer, lost: _with(turns, guide, message, 0, lost),
            "What does the prompt of turn `lost` hold?",
        ),
        Misconception(
            "guide-kept",
            "You let the guide survive, but everything was lost.",
            lambda turns, guide, message, answer, lost: _with(turns, guide, message, answer, lost) - guide,
            "How often is the guide computed in all?",
        ),
        Misconception(
            "message-twice",
            "You counted the message of turn `lost` twice: in its prompt, and as a new message.",
            lambda turns, guide, message, answer, lost: _with(turns, guide, message, answer, lost) + message,
            "That turn's prompt already includes its message.",
        ),
        Misconception(
            "answer-too-many",
            "You counted one answer too many: the answer of turn `lost` is not in its prompt.",
            lambda turns, guide, message, answer, lost: _with(turns, guide, message, answer, lost) + answer,
            "How many answers come before turn `lost`?",
        ),
    ),
    hints=(
        "Go through three kinds of turns: the first, the turn `lost`, and all others. What is new to the cache?",
        "First turn: guide + message. Turn `lost`: its whole prompt, guide + ___ * message + ___ * answer. "
        "Each other turn: ___.",
        "With other numbers: guide 10, message 1, answer 2, three turns, lost before the second: 11, then 14, then 1: "
        "together 26.",
    ),
)

# --- 3.3 a trace ---------------------------------------------------------------------------------------------------


def _chat_rows() -> list[tuple[int, int, int, int]]:
    served = lab.on_replicas(lab.CHAT)
    return [(turn, prompt, found, prompt - found) for turn, (prompt, found) in enumerate(served, start=1)]


def _explain_chat(row: int, column: str, seen: Json, right: Json) -> tuple[str, str]:
    if column == "turn":
        return "turn", "The rows are turns 2, 3 and 4, in this order."
    if column == "prompt":
        return "prompt", "A prompt is the previous prompt, the previous answer and the new message."
    if column == "computed":
        return "computed", "What is not found in the cache is computed: prompt minus found."
    if seen % lab.BLOCK_TOKENS:
        return "half-block", f"Only whole blocks of {lab.BLOCK_TOKENS} tokens are found."
    if seen < right:
        why = "A cache keeps what its replica read last and the answer to it, except the answer's last token."
        return "too-little", why
    if row == 0 and seen == right + lab.BLOCK_TOKENS:
        return "last-token", "The model never read the last token of the answer, so its block isn't full yet."
    return "other-replica", "Each replica has its own cache. What has this one read or written itself?"


CHAT = Trace(
    id="3.3",
    name="rows",
    title="Four turns and two caches",
    minutes=10,
    difficulty=3,
    truth=lambda: _chat_rows()[1:],
    columns=("turn", "prompt", "found", "computed"),
    explain=_explain_chat,
    hints=(
        "Note for each replica how far into this chat it has read or written.",
        "After a turn, a replica holds (prompt + answer - ___) // 16 whole blocks of the chat. The next turn there "
        "finds that many times ___ tokens.",
        "With other numbers: a prompt of 30 and an answer of 19 make 49 tokens, of which 48 were read: three blocks. "
        "With an answer of 18 it would be 47, and two blocks.",
    ),
)

# --- 3.4 a number --------------------------------------------------------------------------------------------------


def _draw_fleet(rng: Random) -> Params:
    servers = rng.choice((4, 5, 6, 8, 10))
    sessions = servers * (servers - 1) * rng.choice((20, 30, 40))
    return {"servers": servers, "sessions": sessions, "context_tokens": rng.choice((1500, 2000, 2500))}


SCALE_IN = Number(
    id="3.4",
    name="tokens_again",
    title="One server fewer",
    minutes=7,
    difficulty=3,
    draw=_draw_fleet,
    truth=lambda servers, sessions, context_tokens: sessions * (1 - 1 / servers) * context_tokens,
    rtol=0.001,
    misconceptions=(
        Misconception(
            "only-those-of-the-last",
            "You moved only the sessions of the server that leaves. The remainder changes for others as well.",
            lambda servers, sessions, context_tokens: sessions / servers * context_tokens,
            "Where is session number `servers` before and after?",
        ),
        Misconception(
            "all-move",
            "You moved all sessions, but some have the same remainder before and after.",
            lambda servers, sessions, context_tokens: sessions * context_tokens,
            "Where are sessions 0 and 1 before and after?",
        ),
        Misconception(
            "smaller-fleet",
            "You used the size of the fleet after the scale-in, not before it.",
            lambda servers, sessions, context_tokens: sessions * (1 - 1 / (servers - 1)) * context_tokens,
            "In the worked example, 3 servers become 2: which of the two is in 1 - 1/3?",
        ),
        Misconception(
            "share-of-those-left",
            "This is how many sessions each server has afterwards, not how many move.",
            lambda servers, sessions, context_tokens: sessions / (servers - 1) * context_tokens,
            "Write the two remainders of sessions 0, 1, 2, ... below each other.",
        ),
        Misconception(
            "sessions-not-tokens",
            "These are the sessions that move. Each has a context that must be read again.",
            lambda servers, sessions, context_tokens: sessions * (1 - 1 / servers),
            "Multiply by the tokens of each.",
        ),
    ),
    hints=(
        "A session stays if its number has the same remainder before and after. How often does that happen?",
        "The remainders repeat after servers * (servers - 1) numbers, and in each such run only the first ___ stay. "
        "Share that moves = 1 - ___ / (servers * (servers - 1)).",
        "With other numbers: 7 servers become 6. Of 42 sessions the first 6 stay and 36 move; with 10 tokens each, "
        "360 tokens.",
    ),
)

# --- 3.5 a prediction ----------------------------------------------------------------------------------------------


TIMES_MORE = Predict(
    id="3.5",
    name="times_more",
    title="How much the shared tier saves",
    minutes=8,
    difficulty=3,
    unit="times",
    experiment=lab.times_more,
    widest=1.6,
    too_low="What does a follow-up compute when everything said before it is found?",
    too_high="First requests find nothing in the tier. And a follow-up also computes the block that wasn't full.",
    hints=(
        "Compare two sums over all requests: all prompt tokens, and those that no replica has computed before.",
        "Without a cache: first x their prompt + follow-ups x their prompt. With the tier: first x ___ + follow-ups x "
        "___. Divide.",
        "With other numbers: 60 first requests of 200 tokens and 40 follow-ups of 1,000, of which 50 are new: 52,000 "
        "against 14,000 tokens, 3.7 times.",
    ),
)

# --- 3.6 a witness -------------------------------------------------------------------------------------------------

FACTOR = 1.2


def _judge_chats(told: Json) -> Problem | None:
    if not (isinstance(told, list) and 2 <= len(told) <= 8):
        return Problem("no-list", repr(told)[:80], "Give a list of 2 to 8 chats.", "Write [2, 5, ...].", "chats")
    for i, turns in enumerate(told):
        if type(turns) is not int or not 1 <= turns <= 12:
            why = "A chat has 1 to 12 turns, a whole number."
            return Problem("no-chat", repr(turns)[:80], why, "Change this one.", f"chat {i + 1}")
    sticky, free = lab.finish_s(told, sticky=True), lab.finish_s(told, sticky=False)
    if sticky >= FACTOR * free:
        return None
    first, second = sum(told[::2]), sum(told[1::2])
    seen, where = f"sticky ends after {sticky:g} s, stateless after {free:g} s", f"turns on A {first}, on B {second}"
    if first == second:
        why = "Both sticky servers have the same number of turns, so neither is idle while the other works."
        return Problem("even", seen, why, "Give one server the long chats.", where)
    again_s = lab.REREAD_S * sum(turns * (turns - 1) / 2 for turns in told)
    if again_s >= abs(first - second):
        why = f"Reading again costs the stateless servers {again_s:g} s: more than the imbalance is worth."
        return Problem("reads-too-much", seen, why, "Try shorter chats: they are read again less often.", where)
    why = f"The sticky servers are uneven, but not enough to make them {FACTOR:g} times as slow."
    return Problem("too-little", seen, why, "Add chats: then there is more to share out.", where)


STICKY_LOSES = Witness(
    id="3.6",
    name="chats",
    title="Where sticky loses",
    minutes=9,
    difficulty=3,
    judge_value=_judge_chats,
    hints=(
        "Sticky loses when one server has a queue and the other is idle. Stateless loses when chats are long.",
        "A gets chats 1, 3, 5, ...; sticky ends after the larger sum of turns. Stateless needs about (turns + 0.25 * "
        "___) / 2 seconds: make the first large and the second small.",
        "The cost of reading again: a chat of 8 turns pays 0.25 * (0 + 1 + ... + 7) = 7 s, almost as much as the 8 s "
        "of its turns. A chat of 2 turns pays 0.25 s.",
    ),
)

# --- 3.7 classify --------------------------------------------------------------------------------------------------

WHERE = Classify(
    id="3.7",
    name="places_of_state",
    title="Where state may live",
    minutes=6,
    items=lab.STATES,
    options=tuple(lab.PLACES),
    keys=locked_all("3.7", a="request", b="cache", c="store", d="store", e="request", f="cache", g="store", h="cache"),
    because={
        "a": "The phone has it, so it can send it along with each question.",
        "b": "It can be computed again from the text. Losing it costs time and nothing else.",
        "c": "It must outlive every server, and all of them must see the same count.",
        "d": "The other device doesn't have it, and it can't be computed again.",
        "e": "It concerns only this answer, so it can travel with the question.",
        "f": "It is the same for all customers, and can be computed again whenever it is missing.",
        "g": "No replica may hold the only copy, and other devices ask for it as well.",
        "h": "The replica has only a copy. If it loses that, it reads the weights from disk again.",
    },
    hints=(
        "Ask: what happens if the replica that has it dies now?",
        "If it can be computed or read again, a ___ will do. If it can't, it needs a ___. If the client has it: ___.",
        "Another piece: the list of a customer's orders. Lost with a server, it would be gone for good: a store.",
    ),
)

# --- 3.8 free text -------------------------------------------------------------------------------------------------

ADVICE = FreeText(
    id="3.8",
    name="advice",
    title="Sticky, or not?",
    minutes=10,
    difficulty=3,
    at_least_words=50,
    rubric=(
        "Says what stateless means: each request carries its context, so any replica can take it.",
        "Names what it costs with a number: earlier turns are read again, which grows with the square of the turns.",
        "Says what a prefix cache gives back, and that a lost cache costs time but never an answer.",
        "Names two costs of sticky: uneven load, lost state in a failure, or slow and costly scale-in.",
        "Recommends one design and says when it would not be right (short chats, a slow link, hard balance).",
    ),
    model_answer=(
        "Let the app send the whole chat with each request. Then any replica can answer, we can add and remove them "
        "at will, and a crash loses no chat. The price is that earlier turns are read again, and that cost grows with "
        "the square of the turns. A prefix cache saves most of it: a follow-up then computes little more than its new "
        "message. If each replica has only its own cache, a follow-up finds its past only on that same replica; with "
        "one shared tier, it finds it from any replica. Sticky sessions help only while the replica still has room "
        "for the chat; load is uneven, and a server that leaves takes the state with it. I recommend stateless "
        "replicas and a shared tier, as long as the link to the tier is faster than computing. If most chats had only "
        "one turn, we wouldn't need it."
    ),
    hints=(
        "Compare the designs in three situations: a normal day, a crash, and one server fewer.",
        "Cost of stateless = tokens read again, ___ in the number of turns; what the tier costs = bytes / ___.",
        "About another service: \"Our web shop kept its baskets in the servers' memory. When a server restarted, its "
        'customers lost theirs. We moved them to a database and can now restart any server at noon."',
    ),
)

QUESTIONS = (WITHOUT, WITH, CHAT, SCALE_IN, TIMES_MORE, STICKY_LOSES, WHERE, ADVICE)
