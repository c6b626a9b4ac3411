# %% [markdown] id="intro"
# # Chapter 2: Why streaming is essential
#
# **You will learn**
#
# - the three times of an answer: to the first token, from token to token, and to the last one;
# - what a reader notices of them, on a timeline and as a formula;
# - to predict, and then to measure, what streaming changes on a real server, and what it does not;
# - to find two services that are equally fast, one of which feels ten times slower;
# - when streaming does not help, and what can undo it on the way.
#
# **You need** Python, and nothing about serving. **Time**: about an hour and a quarter; all cells together run in
# {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 Three times · 3 A reader · 4 The perceived wait · 5 Predict, then run ·
# 6 Equally fast? · 7 Break it: filters · 8 When it does not help · 9 Read the real code · 10 Summary
#
# **How exercises work.** Put your answer where you see `...`, then run the check below it. It says CORRECT, or what is
# wrong and why. `ch.hint("2.1")` gives a hint, and a further one when you call it again. After an attempt,
# `ch.solution("2.1")` shows a solution.

# %% id="setup"
import inspect
from itertools import pairwise
from statistics import median

from miniserve import course
from miniserve.course.chapters.ch02_why_streaming import lab

ch = course.chapter(2)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# **Larkspur** is the fictional service of this course: an assistant for a chain of garden centres. Customers chat with it,
# and staff have articles drafted. A language model answers, on GPUs of a kind called L4. Each GPU with its own copy of the
# model is a **replica**. All chapters use the same price list and the same lengths of questions and answers.
#
# A model writes an answer one **token** after the other. A token is a piece of a word, about three quarters of one in
# English. It cannot write the tenth before the ninth, so a long answer takes long, however fast each token is.
#
# The next cell lets one replica answer a customer while it writes eleven other answers. First it must read the **prompt**, all
# that the model is given. The lengths are those of a published log of a chat service: half of its prompts are longer than this
# one, and one of its answers in five is longer than this answer. The **scheduler**, which decides what the GPU computes next,
# is the real code; only the GPU's time is a formula.

# %% id="one-answer" tags=["nbval-check-output"]
came_s = lab.larkspur_answer()
print(f"{lab.PROMPT_TOKENS:,} tokens are read, {len(came_s)} are written")
print(f"the first one is there after {came_s[0]:.2f} s, the last one after {came_s[-1]:.1f} s")

# %% [markdown] id="bite-2"
# Suppose that the server sends its answer when it is complete. Then the customer looks at an empty window until the last
# token is there. Suppose that it sends each token as soon as it exists. That is **streaming**, and the first word shows up
# about half a second after the question. Both take the same GPU for the same time. Is the second service faster? By what
# measure?
#
# **Where we are on a request's path.** Client → gateway → replica → scheduler → model, and now the **way back**: tokens
# become text, and text goes to the client, in many pieces or in one. (The gateway is the one door through which all requests
# come.) The way back is the last station, and the cheapest one to get wrong.

# %% [markdown] id="times"
# ## 2 Three times
#
# - **TTFT**, time to first token: from the question to the first token.
# - **Gap**: from one token to the next. The mean of an answer's gaps is its **TPOT**, time per output token. (Others say
#   inter-token latency, ITL.)
# - **Total**: from the question to the last token.
#
# Why TTFT and TPOT, and not the total alone? They have different causes. In the TTFT are the way to the server, the
# queue, and reading the prompt. In a gap is one *step* of the model, in which every answer in progress grows by one token.
#
# Worked in full, for an answer of four tokens:

# %% id="times-example" tags=["nbval-check-output"]
example_s = [0.5, 0.6, 0.8, 0.9]  # when each token came
gaps_s = [later - earlier for earlier, later in pairwise(example_s)]
print("gaps:", [f"{gap_s:.1f} s" for gap_s in gaps_s])
print(f"TTFT {example_s[0]:.1f} s, TPOT {sum(gaps_s) / len(gaps_s):.3f} s, total {example_s[-1]:.1f} s")

# %% [markdown] id="times-2"
# Four tokens have three gaps. Together the gaps last from the first token to the last one, 0.4 s.
#
# ### Exercise 2.1: the pace of an answer
#
# Difficulty 2 of 5 · about 5 min
#
# Your own answer is printed below; it is drawn for you: when its first and its last token came (`first_s` and `last_s`, in
# seconds after the question), and how many `tokens` it has. What is its **TPOT in milliseconds**? Keep at least four
# digits. Check: `ch.check("2.1", tpot_ms)`.

# %% id="times-given"
given = ch.given("2.1")
given

# %% id="answer-2.1" tags=["answer"] question="2.1"
# SOLUTION
tpot_ms = 1000 * (given["last_s"] - given["first_s"]) / (given["tokens"] - 1)
# END SOLUTION

# %% id="check-2.1" tags=["check"]
ch.check("2.1", tpot_ms)

# %% [markdown] id="times-3"
# The three are bound together: **total = TTFT + (tokens - 1) · TPOT**. So the total grows with the length of the answer, and
# the TTFT does not know how long the answer will be. Larkspur's replica again, for answers that stop earlier:

# %% id="times-larkspur" tags=["nbval-check-output"]
lengths = (1, 25, 100, 400)
course.table(
    {
        "tokens": lengths,
        "TTFT (s)": [came_s[0] for _ in lengths],
        "TPOT (ms)": ["-", *(1000 * (came_s[n - 1] - came_s[0]) / (n - 1) for n in lengths[1:])],
        "total (s)": [came_s[n - 1] for n in lengths],
    },
    "One replica of Larkspur, twelve answers at once",
)

# %% [markdown] id="reader"
# ## 3 A reader
#
# Who waits for a token? Somebody who **reads**, from the first word on. Adults read English silently at 238 words per minute
# on average (Brysbaert 2019; people differ, and so do texts). With three quarters of a word per token:

# %% id="reading-speed" tags=["nbval-check-output"]
from miniserve.observe.reading import READ_S, WORDS_PER_MIN, WORDS_PER_TOKEN

print(f"{WORDS_PER_MIN:g} words per minute, {WORDS_PER_TOKEN} words per token")
print(f"a reader needs {READ_S:.3f} s for a token, and reads {1 / READ_S:.1f} tokens per second")

# %% [markdown] id="reader-2"
# We make the reader simple: pieces of text are read in their order, each takes the same time, and a piece can be read when it
# has **arrived** and the piece before it **has been read**. Whenever the reader has nothing to read, the reader waits.
#
# Worked in full, three pieces and a reader who needs 100 ms for each:

# %% id="reader-example" tags=["nbval-check-output"]
course.table(lab.THREE_PIECES, "A reader and three pieces")

# %% [markdown] id="reader-3"
# Piece 2 is there at 350 ms, but piece 1 is being read until 400. Then there is text at once, so the wait is 0. Piece 3 comes
# 350 ms after piece 2. The reader notices only 200 ms of that: for the rest, there was older text to read.
#
# ### Exercise 2.2: a timeline on paper
#
# Difficulty 3 of 5 · about 10 min
#
# Eight pieces arrive at the moments printed below, and this reader needs **200 ms** for each. After piece 4 the writer paused:
# the GPU was reading a long prompt of somebody else.

# %% id="timeline-given" tags=["nbval-check-output"]
course.table({"piece": range(1, 9), "arrives (ms)": lab.ARRIVE_MS}, "Eight pieces of text")

# %% [markdown] id="timeline-2"
# The first two rows are `(1, 600, 800, 600)` and `(2, 800, 1000, 0)`: piece, when its reading begins, when it ends, and how
# long the reader waited just before. Draw the timeline, and write the rows of **pieces 3 to 8** in the same form, as a list.
# Check: `ch.check("2.2", rows)`.

# %% id="answer-2.2" tags=["answer"] question="2.2"
# SOLUTION
rows = [
    (3, 1000, 1200, 0),
    (4, 1200, 1400, 0),
    (5, 1700, 1900, 300),
    (6, 1900, 2100, 0),
    (7, 2100, 2300, 0),
    (8, 2500, 2700, 200),
]
# END SOLUTION

# %% id="check-2.2" tags=["check"]
ch.check("2.2", rows)

# %% [markdown] id="timeline-3"
# And drawn, with what happens if all eight are sent together when the last one is there. Your rows appear once they are right.

# %% id="timeline-figure"
mine = ch.yours("2.2", rows)
lab.draw_timeline(None if mine is None else [(1, 600, 800, 600), (2, 800, 1000, 0), *mine])

# %% [markdown] id="timeline-4"
# On the left, reading follows the writing closely, and the text that had piled up covers most of the writer's pause. On the
# right, reading begins when writing has ended: first one waits for everything, then one reads everything.

# %% [markdown] id="perceived"
# ## 4 The perceived wait
#
# Add up the waits of a reader, from the question to the last token, and call the sum the **perceived wait**. It is what a
# customer complains about. For an answer that is written at an even pace it has a formula, and you will write it.
#
# Worked in full, for an answer that comes **whole**: nothing can be read before the last token, so the wait is the total,
# TTFT + (tokens - 1) · TPOT. After that there is text for everything.
#
# And for three tokens that are **streamed** by a slow writer. The first comes after 1 s and then one every 0.5 s, and the reader
# needs 0.2 s for each:

# %% id="perceived-example" tags=["nbval-check-output"]
from miniserve.observe.reading import read_pieces

for arrived_s, piece in zip((1.0, 1.5, 2.0), read_pieces((1.0, 1.5, 2.0), read_s=0.2), strict=True):
    print(
        f"arrives {arrived_s} s, is read from {piece.begins_s:.1f} s to {piece.ends_s:.1f} s, waited {piece.waited_s:.1f} s"
    )

# %% [markdown] id="perceived-exercise"
# The perceived wait is the sum of the last column. The next reader may be slower than the writer, so do not take the pattern of
# these three for a law.
#
# ### Exercise 2.3: the wait that a reader notices
#
# Difficulty 3 of 5 · about 10 min
#
# Write the perceived wait of a streamed answer, in seconds, as a function of
#
# - `ttft_s`: seconds from the question to the first token,
# - `tpot_s`: seconds from each token to the next one, all equal,
# - `tokens`: how many tokens the answer has,
# - `read_s`: seconds that the reader needs for a token.
#
# Think of both kinds of writer: one that is faster than the reader, and one that is slower. Your function is checked on 64
# random sets. Check: `ch.check("2.3", perceived_s)`.


# %% id="answer-2.3" tags=["answer"] question="2.3"
# SOLUTION
def perceived_s(ttft_s, tpot_s, tokens, read_s):
    """Return for how long the reader of a streamed answer has nothing to read."""
    return ttft_s + (tokens - 1) * max([0, tpot_s - read_s])


# END SOLUTION

# %% id="check-2.3" tags=["check"]
ch.check("2.3", perceived_s)

# %% [markdown] id="perceived-2"
# **Measure.** A reader who goes through 200 tokens one by one, beside your formula. The TTFT is half a second; the pace goes
# from very fast to slower than anybody reads.

# %% id="perceived-figure"
from miniserve.observe.reading import perceived_wait_s

paces_s = (0.02, 0.1, 0.18, 0.2, 0.25, 0.3)
streams = [lab.steady(0.5, pace_s, tokens=200) for pace_s in paces_s]
waits_s = {
    "whole": [stream[-1] for stream in streams],
    "streamed": [perceived_wait_s(stream) for stream in streams],
}
formula = ch.yours("2.3", perceived_s)
if formula is not None:
    waits_s["your formula"] = [formula(0.5, pace_s, 200, READ_S) for pace_s in paces_s]
lab.draw_waits(paces_s, waits_s)

# %% [markdown] id="perceived-3"
# As long as writing is faster than reading, only the TTFT is left of the wait, and the length of the answer does not matter. A
# writer that is slower makes the reader wait at every token.
#
# On which side is Larkspur? A step that serves more answers takes longer, so the pace depends on how many are written at once:

# %% id="perceived-load" tags=["nbval-check-output"]
at_once = (1, 4, 12, 24)
gaps_s = [lab.gap_s(n) for n in at_once]
course.table(
    {
        "answers at once": at_once,
        "gap (ms)": [1000 * gap_s for gap_s in gaps_s],
        "tokens per second for each": [1 / gap_s for gap_s in gaps_s],
        "as fast as the reader, times": [READ_S / gap_s for gap_s in gaps_s],
    },
    "Writing on one L4",
)

# %% id="perceived-larkspur" tags=["nbval-check-output"]
print(f"the answer of section 1, whole:    {perceived_wait_s([came_s[-1]] * len(came_s)):.1f} s of waiting")
print(f"the answer of section 1, streamed: {perceived_wait_s(came_s):.2f} s of waiting")

# %% [markdown] id="perceived-4"
# Larkspur's text is written faster than it is read, also with many answers at once. So a streamed answer is waited for until
# its first word, and not after. There is a second lesson in the table: to write a single answer faster than it is read gives
# its reader nothing. Giving a part of that speed to other answers costs nobody a noticed wait.

# %% [markdown] id="predict"
# ## 5 Predict, then run
#
# Enough paper. A real server: a replica of miniserve, the framework of this course, in a process of its own, with the
# course's `small` model, asked over HTTP on this machine. The model is tiny, so its tokens come within about a
# millisecond. What matters is how the times relate.
#
# When this chapter was written, the replica was asked for an answer of exactly 101 tokens, once whole and once streamed. (It is
# told not to stop. So the text is nonsense; its times are real.)

# %% id="facts" tags=["nbval-check-output"]
facts = lab.recorded()
print("on", facts.where)
print(f"101 tokens, whole:    the first text after {1000 * facts.known_s:.1f} ms")
print(f"101 tokens, streamed: the first text after {1000 * facts.known_ttft_s:.1f} ms")

# %% [markdown] id="predict-2"
# Worked for another server: the first text of 11 tokens comes after 20 ms streamed, and after 60 ms whole. So each of the ten
# further tokens costs 4 ms, and a whole answer of 101 tokens would take 20 + 100 · 4 = 420 ms.
#
# ### Exercise 2.4: how many times sooner
#
# Difficulty 3 of 5 · about 7 min
#
# Then it was asked for **401** tokens, once whole and once streamed. How many times sooner does the **first text** arrive when
# the answer is streamed? (Time to the first text without streaming, divided by the same time with streaming.) Give
# `(low, high)`, with high at most twice low. Check: `ch.check("2.4", times_sooner)`.

# %% id="answer-2.4" tags=["answer"] question="2.4"
# SOLUTION
# The first text comes as soon as before. The whole answer has 400 tokens after the first, four times the 100 of the known one.
times_sooner = tuple(
    factor * (facts.known_ttft_s + 4 * (facts.known_s - facts.known_ttft_s)) / facts.known_ttft_s
    for factor in (0.72, 1.4)
)
# END SOLUTION

# %% id="check-2.4" tags=["check"]
ch.check("2.4", times_sooner)

# %% [markdown] id="run"
# Now on your machine. This is all that the client does: it asks, and writes down when each piece of text comes. A streamed
# answer is a text of **events**, each a line that begins with `data:` and an empty line; the decoder cuts the bytes into
# events. `max_tokens` says how long the answer may become; with `ignore_eos` the model does not stop before that.

# %% id="run-client"
print("what is asked, with max_tokens and stream:", lab.LONG_ANSWER)
print()
print(inspect.getsource(lab.ask))

# %% id="run-real" tags=["measured"]
async with lab.real_replica() as replica:
    kinds = {f"{n} tokens, {how}": (n, how == "streamed") for n in (101, 401) for how in ("whole", "streamed")}
    real = await lab.ask_in_turn(replica, kinds)
lab.compare(real, "One real replica; the middle one of seven equal requests")
whole, streamed = lab.typical(real["401 tokens, whole"]), lab.typical(real["401 tokens, streamed"])
print("the same text both times:", whole.text == streamed.text)

# %% id="run-figure" tags=["measured"]
lab.draw_arrivals({"streamed": streamed, "whole": whole})

# %% id="run-sooner" tags=["measured"]
sooner = median(answer.ttft_s for answer in real["401 tokens, whole"])
sooner /= median(answer.ttft_s for answer in real["401 tokens, streamed"])
print(f"streamed, the first text was there {sooner:.0f} times sooner on this machine")
print(f"recorded when this chapter was written: {facts.asked_s / facts.asked_ttft_s:.0f} times")
interval = ch.yours("2.4", times_sooner)
if interval is not None:
    low, high = interval
    print(f"your interval, {low:.0f} to {high:.0f}, {'covers' if low <= sooner <= high else 'misses'} this run")

# %% [markdown] id="run-2"
# Look at four things in the table. The first text of a streamed answer does not know how long the answer will be. The *last* text
# does not come sooner: streaming makes nothing faster, and each piece has a price of its own, since it is wrapped, sent and
# read by itself. That price is in the bytes, too: an event carries far more than the few letters that it is about. And the
# longest gap exceeds the median one, often several times, because a machine does other things now and then; a reader
# with text to read would not notice.
#
# With a larger model a token takes tens of milliseconds, and the price of a piece is a small part of it.

# %% id="smollm2" tags=["measured"]
# Optional: a model that writes real sentences (and is no gardener), if `python -m miniserve weights fetch` has fetched it.
if (folder := lab.smollm2()) is None:
    print("SmolLM2 has not been fetched, so this cell is skipped. Nothing later needs it.")
else:
    question = [{"role": "user", "content": "In three sentences, how do I prune a rose?"}]
    body = {"model": "smollm2", "messages": question, "temperature": 0}
    async with lab.real_replica("smollm2", folder) as replica:
        kinds = {"whole": (90, False), "streamed": (90, True)}
        talks = await lab.ask_in_turn(replica, kinds, repeats=3, body=body)
    spoken_whole, spoken = lab.typical(talks["whole"]), lab.typical(talks["streamed"])
    lab.compare(talks, "SmolLM2 on this machine; the middle one of three equal requests")
    print(spoken.text)
    print(f"\n{len(spoken.text.split())} words in {len(spoken.pieces)} pieces; its reader waits for", end=" ")
    print(f"{perceived_wait_s([spoken_whole.ended_s]):.2f} s whole, {perceived_wait_s(spoken.came_s):.2f} s streamed")

# %% id="vllm" tags=["measured"]
# Optional: the same question to vLLM. Start it in an environment of its own (`vllm serve MODEL`), and set VLLM_URL, for example
# with `%env VLLM_URL=http://127.0.0.1:8000` in a cell above this one.
question = [{"role": "user", "content": "In three sentences, how do I prune a rose?"}]
if (talks := await lab.ask_vllm(question, {"whole": (90, False), "streamed": (90, True)})) is not None:
    lab.compare(talks, "vLLM; the middle one of three equal requests")
    print(lab.typical(talks["streamed"]).text)

# %% [markdown] id="equal"
# ## 6 Equally fast?
#
# A colleague compares services by their total time, because it is one number. Show what that number hides.
#
# Worked for 101 tokens: A needs 4 s to the first token and then 0.06 s for each, B 2 s and then 0.08 s.

# %% id="equal-example" tags=["nbval-check-output"]
for name, ttft_s, tpot_s in (("A", 4, 0.06), ("B", 2, 0.08)):
    stream = lab.steady(ttft_s, tpot_s, tokens=101)
    print(f"{name}: all there after {stream[-1]:.1f} s, perceived wait {perceived_wait_s(stream):.1f} s")

# %% [markdown] id="equal-exercise"
# Equally fast, and twice the wait.
#
# ### Exercise 2.5: equally fast, and ten times the wait
#
# Difficulty 3 of 5 · about 8 min
#
# Two services stream an answer of the same length. Find times such that
#
# - their **totals are the same** to within 1 %, and at least 5 s;
# - the **perceived wait** of one is **at least ten times** that of the other, for the reader of section 3.
#
# A dictionary `{"tokens": ..., "A": {"ttft_s": ..., "tpot_s": ...}, "B": {"ttft_s": ..., "tpot_s": ...}}`: 20 to 1,000 tokens,
# a TTFT of 0.1 to 60 s, a TPOT of 0.001 to 2 s. Check: `ch.check("2.5", services)`.

# %% id="answer-2.5" tags=["answer"] question="2.5"
# SOLUTION
services = {
    "tokens": 201,
    "A": {"ttft_s": 18.0, "tpot_s": 0.01},
    "B": {"ttft_s": 1.0, "tpot_s": 0.095},
}
# END SOLUTION

# %% id="check-2.5" tags=["check"]
ch.check("2.5", services)

# %% [markdown] id="equal-2"
# So a goal for chat is written in two figures: a limit on the TTFT, and a limit on the gaps that lies below reading speed.
# A goal for the total alone would accept both of your services.

# %% [markdown] id="break"
# ## 7 Break it: filters
#
# A **stop string** ends an answer where it occurs: the model writes on, and the reader must see nothing from the stop string
# on. Nothing simpler, if one has the whole text. In a stream, the pieces may cut the stop string in two. So whoever watches
# for it must **hold back** an end of the text that may be its beginning, until it is clear what it is.

# %% id="break-example" tags=["nbval-check-output"]
from miniserve.text import StopFilter

example = {"pieces": ["Cut it <", "b>short</b>. <", "end> Goodbye."], "stop": "<end>"}
watch = StopFilter((example["stop"],))
for piece in example["pieces"]:
    print(f"in {piece!r:<18} out {watch.push(piece)!r}")
print(f"at the end          out {watch.flush()!r}")

# %% [markdown] id="break-2"
# The `<` at the end of the first piece was held back, and shown when `b` made clear that it was harmless. The next one was the
# beginning of `<end>`, and nobody ever saw it.
#
# Three colleagues have written such a filter, each with one bug. Each returns all that the reader sees in the end.

# %% id="break-bugs"
for function in (lab.begins, lab.piece_by_piece, lab.keeps_the_rest, lab.loses_false_alarms):
    print(inspect.getsource(function))

# %% [markdown] id="break-3"
# ### Exercise 2.6: two answers that find three bugs
#
# Difficulty 4 of 5 · about 10 min
#
# Give a list of **at most two** answers, each a dictionary like the example (`pieces`: one to ten texts; `stop`: one text), so
# that each of the three filters shows something wrong for at least one of them. Right is what `StopFilter` shows, with what
# it gives out at the end. Check: `ch.check("2.6", answers)`.

# %% id="answer-2.6" tags=["answer"] question="2.6"
# SOLUTION
answers = [
    {"pieces": ["Water it <", "b>daily</b", "> <"], "stop": "<end>"},
    {"pieces": ["Water it daily. <e", "nd> Goodbye."], "stop": "<end>"},
]
# END SOLUTION

# %% id="check-2.6" tags=["check"]
ch.check("2.6", answers)

# %% [markdown] id="hold"
# A stop string holds back a few letters. A **safety filter** may hold back far more: if it must see the next w tokens before
# it lets one pass, each token is shown when w more have been written, or the answer has ended. What does the reader notice?
# The answer of section 1, behind such filters:

# %% id="hold-run" tags=["nbval-check-output"]
last = len(came_s) - 1
windows = (0, 20, 100, last)
behind = [[came_s[min(i + w, last)] for i in range(len(came_s))] for w in windows]
course.table(
    {
        "tokens held back": windows,
        "first text (s)": [shown[0] for shown in behind],
        "perceived wait (s)": [perceived_wait_s(shown) for shown in behind],
        "all there (s)": [shown[-1] for shown in behind],
    },
    "Larkspur's chat answer behind a filter",
)

# %% [markdown] id="hold-2"
# The wait grows with w, and a filter that wants to see the whole answer turns streaming off, whatever the server
# does. A **proxy** (a server in between, which passes requests and answers on) that collects text does the same, and so does a
# client that waits for the end of the answer.

# %% [markdown] id="helps"
# ## 8 When it does not help
#
# What counts is when somebody can **use** the text. A reader uses the first token, a voice the first sentence (say, 20
# tokens), a program that needs all of the data the last token.

# %% id="helps-table" tags=["nbval-check-output"]
users = {"a reader": 1, "a voice": 20, "a program": len(came_s)}  # tokens that each needs to begin
course.table(
    {
        "who": list(users),
        "begins, streamed (s)": [came_s[n - 1] for n in users.values()],
        "begins, whole (s)": [came_s[-1] for _ in users],
    },
    "Larkspur's chat answer: when its user can begin",
)

# %% [markdown] id="helps-2"
# For the program streaming has a price and no gain. It has to put pieces together, and it must be ready for an answer that
# breaks off: once a part of it has been sent, the server can no longer answer with an error in place of it.
#
# ### Exercise 2.7: does streaming help here?
#
# Difficulty 2 of 5 · about 8 min
#
# The next cell prints nine cases and five verdicts. Give each case the verdict that fits **best**; some verdicts are used
# twice. Check: `ch.check("2.7", verdicts)`.

# %% id="helps-items"
for key, case in lab.CASES.items():
    print(f"{key}: {case}")
print()
for option, meaning in lab.VERDICTS.items():
    print(f"{option!r}: {meaning}")

# %% id="answer-2.7" tags=["answer"] question="2.7"
# SOLUTION
verdicts = {
    "a": "helps",
    "b": "needs the end",
    "c": "held back",
    "d": "too short",
    "e": "too early",
    "f": "held back",
    "g": "needs the end",
    "h": "helps",
    "i": "too early",
}
# END SOLUTION

# %% id="check-2.7" tags=["check"]
ch.check("2.7", verdicts)

# %% [markdown] id="advice-intro"
# ### Exercise 2.8: streaming for everything?
#
# Difficulty 3 of 5 · about 10 min · a person reads it
#
# A manager writes: *"I hear that streaming makes answers fifty times faster. Let us switch it on for everything: the chats, the
# article drafts that are made at night, and the stock program that asks for JSON."* Answer in four to eight sentences, with
# numbers from this notebook: what streaming changes and what it does not, what you would do for each of the three, and what
# you would watch. Put it between `"""` and `"""`. Check: `ch.check("2.8", advice)`.

# %% id="answer-2.8" tags=["answer"] question="2.8"
# SOLUTION
advice = """
Streaming does not make answers faster: the last token of a long chat answer comes after half a minute with it and
without it. It changes the wait for the first text, from that half minute to half a second, and since our GPUs write more
than twice as fast as people read, nobody waits after that. So we stream the chats. The drafts are made when nobody
reads along, and the stock program can book nothing before its JSON is complete: for both only the total counts, so we
leave streaming off and have one request that either succeeds or fails. For chats we watch the time to first
token where the customer is, because a filter or a proxy on the way can undo everything, and a long queue comes before
the first token anyway.
"""
# END SOLUTION

# %% id="check-2.8" tags=["check"]
ch.check("2.8", advice)

# %% [markdown] id="real-code"
# ## 9 Read the real code
#
# Two places on the way back. First, how a filter decides what may be shown, from `miniserve/stream.py`. Then the loop that
# sends an answer's events, from `miniserve/api/event_stream.py`. Look for two things: what is sent when nothing has come for a
# while, and how an error is told that happens after the first event.

# %% id="real-code-shown"
from miniserve.api.event_stream import EventStream

print(inspect.getsource(StopFilter.push))
print(inspect.getsource(EventStream._send_all))

# %% [markdown] id="summary"
# ## 10 Summary
#
# - Total = TTFT + (tokens - 1) · TPOT. Streaming shortens none of the three; it changes what the reader gets when.
# - A streamed answer is waited for until its first token, plus whatever each gap is longer than reading takes:
#   TTFT + (tokens - 1) · max(0, TPOT - reading time). A whole one is waited for until its last token.
# - Text that is written faster than it is read covers pauses. Still more speed is not noticed.
# - Each piece has its price in bytes and time.
# - It helps who takes text in as it comes. It does not help a program that needs the end, an answer of one token, a wait that
#   lies before the first token, or anything behind a place that collects.
#
# **What does not hold.** Real readers skim, look back, and read some texts at twice the speed of others; and a window in which
# something moves is said to feel shorter than one in which nothing does, which our sum of waits does not contain. Larkspur's
# gaps come from a formula for the GPU. The real replica's come from a model far smaller than anybody would serve.
#
# Chapter 11 builds a streaming endpoint, with errors and clients that leave. Chapter 6 says why the TTFT of a service is a
# p99, a time that 99 of 100 requests do not exceed, and not a mean. Chapter 10 says why a half-read
# answer is not simply asked for again.
#
# **Go deeper**
#
# - J. Nielsen, *Usability Engineering*, Academic Press 1993, chapter 5: what people do while they wait 0.1, 1 and 10 seconds.
# - M. Brysbaert, *How Many Words Do We Read per Minute?*, Journal of Memory and Language 109, 2019.
# - J. Liu and others, *Andes: Defining and Enhancing Quality-of-Experience in LLM-Based Text Streaming Services*,
#   arXiv:2404.16283, 2024: scheduling by what readers notice.
# - Y. Zhong and others, *DistServe*, OSDI 2024: goals for TTFT and TPOT, kept by separate GPUs.
# - WHATWG, *HTML Living Standard*, "Server-sent events": the format of section 5.
