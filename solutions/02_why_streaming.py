# %% [markdown] id="intro"
# # Chapter 2: Why streaming is essential
#
# **You will learn**
#
# - the three times of an answer: to the first token, from token to token, and to the last one;
# - what a reader notices of them, on a timeline and as a formula;
# - to predict, and then measure, what streaming changes on a real server, and what it doesn't;
# - to find two equally fast services, one of which feels ten times slower;
# - when streaming doesn't help, and what can undo it on the way.
#
# **You need** Python, but no knowledge of serving. **Time**: about an hour and a quarter; all cells together run in
# {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 Three times · 3 A reader · 4 The perceived wait · 5 Predict, then run ·
# 6 Equally fast? · 7 Break it: filters · 8 When it does not help · 9 Read the real code · 10 Summary
#
# **How exercises work.** Put your answer where you see `...`, then run the check below it. It says CORRECT, or what is
# wrong and why. `ch.hint("2.1")` gives a hint; call it again for the next one. After an attempt,
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
# **Larkspur** is the fictional service of this course: an assistant for a chain of garden centres. Customers chat with
# it, and staff have it draft articles. A language model answers, on GPUs of a type called L4. Each GPU with its own
# copy of the model is a **replica**. All chapters use the same price list and the same lengths of questions and
# answers.
#
# A model writes an answer one **token** after another. A token is a piece of a word, in English about three quarters of
# one. The model can't write the tenth before the ninth, so a long answer takes long, however fast each token is.
#
# In the next cell, one replica answers a customer while it writes eleven other answers. First it must read the
# **prompt**, everything that the model is given. The lengths come from the published log of a chat service: half of its
# prompts are longer than this one, and one in five of its answers is longer than this answer. The **scheduler**, which
# decides what the GPU computes next, is the real code; only the GPU's time comes from a formula.

# %% id="one-answer" tags=["nbval-check-output"]
came_s = lab.larkspur_answer()
print(f"{lab.PROMPT_TOKENS:,} tokens are read, {len(came_s)} are written")
print(f"the first one is there after {came_s[0]:.2f} s, the last one after {came_s[-1]:.1f} s")

# %% [markdown] id="bite-2"
# Suppose the server sends its answer when it is complete. Then the customer looks at an empty window until the last
# token is there. Now suppose it sends each token as soon as it exists. That is **streaming**, and the first word shows
# up about half a second after the question. Both keep the same GPU busy for the same time. Is the second service
# faster? By what measure?
#
# **Where we are on a request's path.** Client → gateway → replica → scheduler → model, and now the **way back**: tokens
# become text, and text goes to the client, in many pieces or in one. (The gateway is the door that all requests come
# through.) The way back is the last leg, and the easiest one to get wrong.

# %% [markdown] id="times"
# ## 2 Three times
#
# - **TTFT**, time to first token: from the question to the first token.
# - **Gap**: from one token to the next. The mean of an answer's gaps is its **TPOT**, time per output token. (A gap is
#   also called an inter-token latency, ITL.)
# - **Total**: from the question to the last token.
#
# Why TTFT and TPOT, and not just the total? They have different causes. The TTFT covers the way to the server, the
# queue, and reading the prompt. A gap covers one *step* of the model, in which every answer in progress grows by one
# token.
#
# Worked example, for an answer of four tokens:

# %% id="times-example" tags=["nbval-check-output"]
example_s = [0.5, 0.6, 0.8, 0.9]  # when each token came
gaps_s = [later - earlier for earlier, later in pairwise(example_s)]
print("gaps:", [f"{gap_s:.1f} s" for gap_s in gaps_s])
print(f"TTFT {example_s[0]:.1f} s, TPOT {sum(gaps_s) / len(gaps_s):.3f} s, total {example_s[-1]:.1f} s")

# %% [markdown] id="times-2"
# Four tokens have three gaps. Together the gaps span the time from the first token to the last, 0.4 s.
#
# ### Exercise 2.1: the pace of an answer
#
# Difficulty 2 of 5 · about 5 min
#
# The answer printed below is drawn for you: when its first and last tokens came (`first_s` and `last_s`, in seconds
# after the question), and how many `tokens` it has. What is its **TPOT in milliseconds**? Keep at least four digits.
# Check: `ch.check("2.1", tpot_ms)`.

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
# One equation ties the three together: **total = TTFT + (tokens - 1) · TPOT**. So the total grows with the length of
# the answer, while the TTFT doesn't depend on it. Here is Larkspur's replica again, for answers that stop earlier:

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
# Who waits for a token? A person who **reads**, from the first word on. Adults read English silently at 238 words per
# minute on average (Brysbaert 2019; people differ, and so do texts). With three quarters of a word per token:

# %% id="reading-speed" tags=["nbval-check-output"]
from miniserve.observe.reading import READ_S, WORDS_PER_MIN, WORDS_PER_TOKEN

print(f"{WORDS_PER_MIN:g} words per minute, {WORDS_PER_TOKEN} words per token")
print(f"a reader needs {READ_S:.3f} s for a token, and reads {1 / READ_S:.1f} tokens per second")

# %% [markdown] id="reader-2"
# We keep the reader simple. Pieces of text are read in order, each takes the same time, and the reader can start on a
# piece once it has **arrived** and the piece before it **has been read**. A reader with nothing to read waits.
#
# Worked example, for three pieces and a reader who needs 100 ms for each:

# %% id="reader-example" tags=["nbval-check-output"]
course.table(lab.THREE_PIECES, "A reader and three pieces")

# %% [markdown] id="reader-3"
# Piece 2 is there at 350 ms, but the reader is busy with piece 1 until 400. By then the next text is there, so the wait
# is 0. Piece 3 comes 350 ms after piece 2. The reader notices only 200 ms of that: for the rest of the time, there was
# older text to read.
#
# ### Exercise 2.2: a timeline on paper
#
# Difficulty 3 of 5 · about 10 min
#
# Eight pieces arrive at the times printed below, and this reader needs **200 ms** for each. After piece 4 the writer
# paused: the GPU was reading another customer's long prompt.

# %% id="timeline-given" tags=["nbval-check-output"]
course.table({"piece": range(1, 9), "arrives (ms)": lab.ARRIVE_MS}, "Eight pieces of text")

# %% [markdown] id="timeline-2"
# The first two rows are `(1, 600, 800, 600)` and `(2, 800, 1000, 0)`: the piece, when the reader begins it, when the
# reader ends it, and how long the reader waited just before. Draw the timeline, and write the rows of **pieces 3 to 8**
# in the same form, as a list. Check: `ch.check("2.2", rows)`.

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
# Here it is as a figure, next to what happens if all eight pieces are sent together once the last one is there. Your
# rows appear once they are right.

# %% id="timeline-figure"
mine = ch.yours("2.2", rows)
lab.draw_timeline(None if mine is None else [(1, 600, 800, 600), (2, 800, 1000, 0), *mine])

# %% [markdown] id="timeline-4"
# On the left, the reader follows the writer closely, and the text that has piled up covers most of the writer's pause.
# On the right, reading begins when writing has ended: the reader first waits for everything, then reads everything.

# %% [markdown] id="perceived"
# ## 4 The perceived wait
#
# Add up a reader's waits, from the question to the last token, and call the sum the **perceived wait**. It's what a
# customer complains about. For an answer written at an even pace there is a formula, and you'll write it.
#
# Worked example, for an answer that comes **whole**: nothing can be read before the last token, so the wait is the
# total, TTFT + (tokens - 1) · TPOT. After that, the reader never waits again.
#
# And for three tokens **streamed** by a slow writer: the first comes after 1 s, then one every 0.5 s, and the reader
# needs 0.2 s for each:

# %% id="perceived-example" tags=["nbval-check-output"]
from miniserve.observe.reading import read_pieces

for arrived_s, piece in zip((1.0, 1.5, 2.0), read_pieces((1.0, 1.5, 2.0), read_s=0.2), strict=True):
    print(
        f"arrives {arrived_s} s, is read from {piece.begins_s:.1f} s to {piece.ends_s:.1f} s, waited {piece.waited_s:.1f} s"
    )

# %% [markdown] id="perceived-exercise"
# The perceived wait is the sum of the last column. The next reader may be slower than the writer, so don't mistake the
# pattern of these three for a law.
#
# ### Exercise 2.3: the wait that a reader notices
#
# Difficulty 3 of 5 · about 10 min
#
# Write the perceived wait of a streamed answer, in seconds, as a function of
#
# - `ttft_s`: seconds from the question to the first token,
# - `tpot_s`: seconds from each token to the next (all gaps are equal),
# - `tokens`: how many tokens the answer has,
# - `read_s`: seconds that the reader needs for a token.
#
# Think of both kinds of writer: one that is faster than the reader, and one that is slower. Your function is checked on
# 64 random sets of these numbers. Check: `ch.check("2.3", perceived_s)`.


# %% id="answer-2.3" tags=["answer"] question="2.3"
# SOLUTION
def perceived_s(ttft_s, tpot_s, tokens, read_s):
    """Return how long the reader of a streamed answer has nothing to read."""
    return ttft_s + (tokens - 1) * max([0, tpot_s - read_s])


# END SOLUTION

# %% id="check-2.3" tags=["check"]
ch.check("2.3", perceived_s)

# %% [markdown] id="perceived-2"
# **Measure.** Here is a reader who goes through 200 tokens one by one, next to your formula. The TTFT is half a second;
# the pace goes from very fast to slower than this reader.

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
# As long as the model writes faster than the reader reads, the TTFT is the whole wait, and the length of the answer
# doesn't matter. A slower writer makes the reader wait at every token.
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
        "times as fast as the reader": [READ_S / gap_s for gap_s in gaps_s],
    },
    "Writing on one L4",
)

# %% id="perceived-larkspur" tags=["nbval-check-output"]
print(f"the answer of section 1, whole:    {perceived_wait_s([came_s[-1]] * len(came_s)):.1f} s of waiting")
print(f"the answer of section 1, streamed: {perceived_wait_s(came_s):.2f} s of waiting")

# %% [markdown] id="perceived-4"
# Larkspur's text is written faster than it is read, even with many answers at once. So the reader of a streamed answer
# waits for the first word and never again. The table has a second lesson: writing a single answer faster than it is
# read does nothing for its reader. You can give some of that speed to other answers, and no reader will notice.

# %% [markdown] id="predict"
# ## 5 Predict, then run
#
# Enough paper; now for a real server. A replica of miniserve, this course's framework, runs in its own process with the
# course's `small` model, and we query it over HTTP on this machine. The model is tiny, so a token takes about a
# millisecond. What matters is the ratio of the times.
#
# When this chapter was written, we asked the replica for an answer of exactly 101 tokens, once whole and once streamed.
# (The model is told not to stop early, so the text is nonsense; its times are real.)

# %% id="facts" tags=["nbval-check-output"]
facts = lab.recorded()
print("on", facts.where)
print(f"101 tokens, whole:    the first text after {1000 * facts.known_s:.1f} ms")
print(f"101 tokens, streamed: the first text after {1000 * facts.known_ttft_s:.1f} ms")

# %% [markdown] id="predict-2"
# Worked for another server: with an answer of 11 tokens, the first text comes after 20 ms streamed, and after 60 ms
# whole. So each of the ten further tokens costs 4 ms, and a whole answer of 101 tokens would take 20 + 100 · 4 = 420
# ms.
#
# ### Exercise 2.4: how many times sooner
#
# Difficulty 3 of 5 · about 7 min
#
# Then we asked it for **401** tokens, once whole and once streamed. How many times sooner does the **first text**
# arrive when the answer is streamed? (That is the time to the first text without streaming, divided by the same time
# with streaming.) Give `(low, high)`, with high at most twice low. Check: `ch.check("2.4", times_sooner)`.

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
# Now on your machine. The client only asks, and writes down when each piece of text comes. A streamed answer is a
# series of **server-sent events** (SSE), each a line that begins with `data:`, followed by an empty line; the decoder
# cuts the bytes into events. `max_tokens` limits the length of the answer; with `ignore_eos` the model doesn't stop
# before that.

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
# Look at four things in the table. The first text of a streamed answer comes equally soon, however long the answer is.
# The *last* text doesn't come sooner: streaming makes nothing faster, and each piece adds some overhead, because it is
# wrapped, sent and read separately. You can see that overhead in the bytes: an event carries far more than its few
# letters of text. And the longest gap exceeds the median gap, often several times over, because a machine does other
# things now and then; a reader with text to read wouldn't notice.
#
# With a larger model, a token takes tens of milliseconds, and the overhead of a piece is a small part of that.

# %% id="smollm2" tags=["measured"]
# Optional: a model that writes real sentences (but is no gardener), if `python -m miniserve weights fetch` has fetched it.
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
# Optional: the same question to vLLM. Start it in its own environment (`vllm serve MODEL`), and set VLLM_URL, for example
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
# Worked for 101 tokens: A takes 4 s to the first token and then 0.06 s for each, B takes 2 s and then 0.08 s.

# %% id="equal-example" tags=["nbval-check-output"]
for name, ttft_s, tpot_s in (("A", 4, 0.06), ("B", 2, 0.08)):
    stream = lab.steady(ttft_s, tpot_s, tokens=101)
    print(f"{name}: all there after {stream[-1]:.1f} s, perceived wait {perceived_wait_s(stream):.1f} s")

# %% [markdown] id="equal-exercise"
# Equally fast, but twice the wait.
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
# Give a dictionary `{"tokens": ..., "A": {"ttft_s": ..., "tpot_s": ...}, "B": {"ttft_s": ..., "tpot_s": ...}}`, with 20
# to 1,000 tokens, a TTFT of 0.1 to 60 s, a TPOT of 0.001 to 2 s. Check: `ch.check("2.5", services)`.

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
# So a latency goal for chat has two figures: a limit on the TTFT, and a limit on the gaps that is shorter than reading
# a token takes. A goal for the total alone would accept both of your services.

# %% [markdown] id="break"
# ## 7 Break it: filters
#
# A **stop string** ends an answer where it occurs: the model may go on, but the reader must see nothing from the stop
# string onwards. That's simple if you have the whole text. In a stream, the pieces may cut the stop string in two. So a
# filter must **hold back** an end of the text that may be the beginning of the stop string, until the next piece shows
# what it is.

# %% id="break-example" tags=["nbval-check-output"]
from miniserve.text import StopFilter

example = {"pieces": ["Cut it <", "b>short</b>. <", "end> Goodbye."], "stop": "<end>"}
watch = StopFilter((example["stop"],))
for piece in example["pieces"]:
    print(f"in {piece!r:<18} out {watch.push(piece)!r}")
print(f"at the end          out {watch.flush()!r}")

# %% [markdown] id="break-2"
# The filter held back the `<` at the end of the first piece, and released it when `b` showed that it was harmless. The
# next one was the beginning of `<end>`, and no reader ever saw it.
#
# Three colleagues have each written such a filter, and each filter has one bug. Each function returns everything that
# the reader gets to see.

# %% id="break-bugs"
for function in (lab.begins, lab.piece_by_piece, lab.keeps_the_rest, lab.loses_false_alarms):
    print(inspect.getsource(function))

# %% [markdown] id="break-3"
# ### Exercise 2.6: two answers that find three bugs
#
# Difficulty 4 of 5 · about 10 min
#
# Give a list of **at most two** answers, each a dictionary like the example (`pieces`: one to ten strings; `stop`: one
# string), so that each of the three filters shows the wrong text for at least one of them. The right text is what
# `StopFilter` shows, including what it releases at the end. Check: `ch.check("2.6", answers)`.

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
# A stop string holds back a few letters. A **safety filter** may hold back far more: if it must see the next w tokens
# before it lets one pass, each token is shown once w more have been written, or the answer has ended. What does the
# reader notice? Here is the answer of section 1 behind such filters:

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
# The wait grows with w, and a filter that wants to see the whole answer turns streaming off, whatever the server does.
# So does a **proxy** (a server in between, which passes requests and answers on) if it **buffers** text, and so does a
# client that waits for the end of the answer.

# %% [markdown] id="helps"
# ## 8 When it does not help
#
# What counts is when the recipient can start to **use** the text. A reader can start at the first token, a voice after
# the first sentence (say, 20 tokens), and a program that needs all of the data at the last token.

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
# For the program, streaming is all cost and no gain. It has to put the pieces together, and it must be ready for an
# answer that breaks off: once the server has sent part of an answer, it can no longer send an error instead.
#
# ### Exercise 2.7: does streaming help here?
#
# Difficulty 2 of 5 · about 8 min
#
# The next cell prints nine cases and five verdicts. Give each case the verdict that fits **best**; some verdicts are used
# twice. Check: `ch.check("2.7", verdicts)`.

# %% id="helps-items"
course.show_choices(lab.CASES, lab.VERDICTS)

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
# A manager writes: *"I hear that streaming makes answers fifty times faster. Let's switch it on for everything: the
# chats, the article drafts we generate at night, and the stock program that asks for JSON."* Answer in four to eight
# sentences, with numbers from this notebook: what streaming changes and what it doesn't, what you would do for each of
# the three, and what you would monitor. Put it between `"""` and `"""`. Check: `ch.check("2.8", advice)`.

# %% id="answer-2.8" tags=["answer"] question="2.8"
# SOLUTION
advice = """
Streaming doesn't make answers faster: with or without it, the last token of a long chat answer comes after half a
minute. It cuts the wait for the first text from that half minute to half a second, and since our GPUs write more than
twice as fast as people read, customers don't wait after that. So we stream the chats. The drafts are written when no one
is reading along, and the stock program can't book anything before its JSON is complete: for both, only the total counts,
so we leave streaming off and have one request that either succeeds or fails. For chats we monitor the time to first
token at the customer's end, because a filter or a proxy on the way can undo everything, and because streaming can't
shorten a long queue before the first token.
"""
# END SOLUTION

# %% id="check-2.8" tags=["check"]
ch.check("2.8", advice)

# %% [markdown] id="real-code"
# ## 9 Read the real code
#
# Here are two places on the way back. First, how a filter decides what may be shown, from `miniserve/text.py`. Then
# the loop that sends an answer's events, from `miniserve/api/event_stream.py`. Look for two things: what is sent when
# nothing has come for a while, and how the client learns of an error after the first event.

# %% id="real-code-shown"
from miniserve.api.event_stream import EventStream

print(inspect.getsource(StopFilter.push))
print(inspect.getsource(EventStream._send_all))

# %% [markdown] id="summary"
# ## 10 Summary
#
# - Total = TTFT + (tokens - 1) · TPOT. Streaming shortens none of the three; it changes what the reader has at each
#   moment.
# - The reader of a streamed answer waits for the first token, and then for the part of each gap that exceeds the
#   reading time: TTFT + (tokens - 1) · max(0, TPOT - reading time). The reader of a whole answer waits until the last
#   token.
# - Text that is written faster than it is read covers pauses. Writing any faster goes unnoticed.
# - Each piece costs bytes and time.
# - Streaming helps people who take in text as it comes. It doesn't help a program that needs the end, an answer of one
#   token, a wait before the first token, or anything behind a buffer.
#
# **What this leaves out.** Real readers skim, look back, and read some texts twice as fast as others. A wait is also said
# to feel shorter when something moves on the screen, and our sum of waits leaves that out. Larkspur's gaps come from a
# formula for the GPU. The real replica's come from a model far smaller than anyone would serve.
#
# Chapter 11 builds a streaming endpoint, with errors and clients that disconnect. Chapter 6 explains why the TTFT of a
# service is a p99, a time that 99 of 100 requests don't exceed, and not a mean. Chapter 10 explains why you can't
# simply ask again for a half-read answer.
#
# **Go deeper**
#
# - J. Nielsen, *Usability Engineering*, Academic Press 1993, chapter 5: what people do while they wait 0.1, 1 and 10 seconds.
# - M. Brysbaert, *How Many Words Do We Read per Minute?*, Journal of Memory and Language 109, 2019.
# - J. Liu and others, *Andes: Defining and Enhancing Quality-of-Experience in LLM-Based Text Streaming Services*,
#   arXiv:2404.16283, 2024: scheduling by what readers notice.
# - Y. Zhong and others, *DistServe*, OSDI 2024: goals for TTFT and TPOT, kept by separate GPUs.
# - WHATWG, *HTML Living Standard*, "Server-sent events": the format of section 5.
