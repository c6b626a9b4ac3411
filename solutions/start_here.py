# %% [markdown] id="intro"
# # Start here
#
# This course is about one thing: what changes when a language model serves not one person but many thousands. You'll
# measure it, draw it and build it in twenty exercises.
#
# **After this page** you'll know the words that the exercises use, and you'll have seen each of them at work in an
# engine.
#
# **You need** Python, but no knowledge of serving. This page takes about 20 minutes to read; its cells run in
# {{run_time}}.
#
# **On this page:** who you are · the twenty exercises · how to work · prefill and decode · continuous batching ·
# KV cache and paging · TTFT, ITL, TPOT · speculative decoding · words · go deeper

# %% id="setup"
from itertools import pairwise

from miniserve import course
from miniserve.course.chapters.start_here import lab
from miniserve.course.notebook.contents import contents

# %% [markdown] id="who"
# ## Who you are
#
# Some exercises draw different numbers for each person, so two people can't share an answer. Remove the `#`, put in
# your own name and run the cell once. Without a name you get the default numbers, which is fine if you're learning on
# your own. If your work will be graded, use the name that your instructor knows you by.

# %% id="set-learner"
# course.set_learner("ada.lovelace")

# %% [markdown] id="exercises"
# ## The twenty exercises
#
# Exercises 1 to 10 need pen and paper; 11 to 20 are code. Take them in order, or pick one: each explains what it needs.
# The minutes are for the exercises alone, without the reading. *Solved* comes from the notebooks next to this one, as
# you last saved them, so run the cell again when you come back.
#
# All of them follow one service, **Larkspur**, the assistant of a chain of garden centres. Customers chat with it and
# won't wait; staff have it draft articles and don't mind waiting. It exists only in this course.

# %% id="contents" tags=["measured"]
contents()

# %% [markdown] id="how"
# ## How to work
#
# An exercise gives you a cell with a gap, `answer = ...` or a function that raises `NotImplementedError`. Fill it in,
# then run the check below it. A check says one of three things: **CORRECT**, **WRONG** (with what it saw, why that is
# wrong, and what to look at next), or **NOT TRIED**. Each exercise has three hints, which go from an idea to a worked
# example: `ch.hint("6.1")`. If you ask an AI assistant, show it `AI_ASSISTANTS.md`, which is next to this page.
#
# The rest of this page is a tour of the engine. There are no exercises in it, but do change the numbers and run the
# cells again.

# %% [markdown] id="prefill-decode"
# ## Prefill and decode
#
# A language model reads and writes *tokens*: pieces of words, here often single letters. Given all the tokens so far,
# one run of the model, a *step*, produces the next one. So an answer has two phases:
#
# - **Prefill**: the model reads the whole prompt in one step, or in a few large pieces, and produces the first token.
# - **Decode**: from then on, each step reads only the latest token and produces one more.
#
# Here is a small model, trained for this course to answer short questions. Watch what each step had to compute.

# %% id="one-request" tags=["nbval-check-output"]
words = lab.tokenizer()
prompt = words.encode_chat([{"role": "user", "content": "What is 12 plus 7?"}])
engine = lab.small_engine()
watched = lab.Watched(engine)
answer = engine.run([lab.request("A", prompt)])["A"]

print(f"{len(prompt)} tokens of prompt; the answer is {words.decode(answer)!r}, {len(answer)} tokens with its end mark")
for piece in watched.pieces:
    print(
        f"step {piece.step}: {piece.kind} of {piece.tokens} tokens"
        if piece.kind == "prefill"
        else f"step {piece.step}: decode, 1 token"
    )

# %% [markdown] id="one-request-says"
# Prefill does a lot of arithmetic at once, so the speed of the processor limits it: it is **compute-bound**. Decode
# does little arithmetic per step and yet reads all the model's weights every time, so the speed of memory limits it: it
# is **memory-bound**. This difference is behind half of what follows. (The model above is small, so its sums aren't
# always right. Exercise 16 makes use of that.)

# %% [markdown] id="batching"
# ## Continuous batching
#
# If a decode step reads all the weights anyway, it may as well serve several requests: that is *batching*. And since
# requests come and go at any moment, the engine rebuilds the batch **at every step**: that is *continuous* batching. A
# finished request leaves at once, and another takes its place in the very next step.
#
# Five requests, room for three at a time, and at most 24 tokens per step. Before you run it: in which step can D start?

# %% id="five-requests"
lengths = {"A": (20, 6), "B": (40, 12), "C": (10, 3), "D": (16, 5), "E": (8, 4)}  # prompt and answer, in tokens
engine = lab.small_engine(running=3, step_tokens=24, blocks=24)
watched = lab.Watched(engine)
filler = words.encode("the quick brown fox jumps over the lazy dog and runs away " * 4)
requests = [
    lab.request(name, [i + 40, *filler[: size - 1]], out, to_the_end=True)
    for i, (name, (size, out)) in enumerate(lengths.items())
]
_ = engine.run(requests)
lab.show_steps(watched.pieces)

# %% [markdown] id="batching-says"
# Two things stand out. When C ends, D starts, although A and B aren't done: no request waits for the longest answer.
# And B's prompt of 40 tokens doesn't fit into a step of 24, so the engine reads it in pieces while the others go on
# decoding. That is **chunked prefill**: without it, one long prompt would stall every other stream.

# %% [markdown] id="kv-cache"
# ## KV cache and paging
#
# To compute a token, the model needs two vectors per layer for every earlier token: a *key* and a *value*. They don't
# change, so the engine keeps them: that is the **KV cache**. It grows with every token of every running request, and
# usually it is memory, not arithmetic, that limits how many requests can run together.
#
# The engine can't know in advance how long an answer will be, and reserving room for the longest possible one would
# waste most of it. So memory is cut into **blocks** of a few tokens (here 8), and a request takes another one when it
# needs it. A *block table* lists a request's blocks in order; they needn't lie side by side. Operating systems do the
# same with pages of memory, hence the name **paging**.
#
# The page map of the same run:

# %% id="page-map"
lab.show_pages(watched.owners, steps=[0, 4, 8, 12], blocks=24)

# %% [markdown] id="page-map-says"
# When a request ends, its blocks go back to the pool. Two requests that begin with the same text can even share blocks: that
# is the **prefix cache** of exercises 3, 7 and 15.

# %% [markdown] id="latency"
# ## TTFT, ITL, TPOT
#
# A streamed answer has no single latency. Three numbers describe it:
#
# - **TTFT**, time to first token: how long until anything appears. It includes the time in the queue and prefill.
# - **ITL**, inter-token latency: the pause between one token and the next.
# - **TPOT**, time per output token: the mean of these pauses, `(last - first) / (tokens - 1)`.
#
# Measured on your machine, with the larger of this course's two models:

# %% id="stream" tags=["measured"]
large = lab.small_engine("large")
lab.stream_times(large, lab.request("warm-up", prompt, 8))  # the first run compiles and allocates
asked = lab.request("A", filler[:60], 24, to_the_end=True)
times_s = lab.stream_times(large, asked)

ttft_s = times_s[0]
itl_s = [later - earlier for earlier, later in pairwise(times_s)]
tpot_s = (times_s[-1] - times_s[0]) / (len(times_s) - 1)
print(f"TTFT {1e3 * ttft_s:.1f} ms, TPOT {1e3 * tpot_s:.1f} ms, longest pause {1e3 * max(itl_s):.1f} ms")
lab.show_times(times_s)

# %% [markdown] id="latency-says"
# In a crowded engine, the same request would wait before it starts, which lengthens its TTFT, and share its steps with
# others, which lengthens its ITL. So a promise about latency must say which of the two it means, and for what share of
# requests: that is exercise 6.

# %% [markdown] id="speculative"
# ## Speculative decoding
#
# A decode step of a large model spends its time reading weights, so checking four tokens takes hardly longer than
# generating one. So let a small model *draft* a few tokens, and let the large one check them all in one step: it keeps
# the ones it would have generated itself, and adds one of its own. The answer is exactly the large model's, in fewer
# steps.
#
# Whether it pays depends on the **acceptance rate**, the share of drafted tokens that are kept. Here the small model
# drafts three tokens at a time for the large one, on 40 easy and 40 hard questions.

# %% id="drafts" tags=["nbval-check-output"]
small, large = lab.small_engine("small"), lab.small_engine("large")
for difficulty in ("easy", "hard"):
    drafted = lab.draft_all(small, large, difficulty, questions=40, ahead=3)
    print(
        f"{difficulty}: {drafted.accepted} of {drafted.drafted} drafted tokens kept "
        f"({drafted.accepted / drafted.drafted:.0%}); {drafted.large_steps} steps of the large model "
        f"for {drafted.large_tokens} tokens"
    )

# %% [markdown] id="speculative-says"
# On easy questions the two models mostly agree, on hard ones less often. Note what this cell does and doesn't do: it
# really runs both models, and counts the drafts that would be kept. It doesn't measure time, and this course's engine
# doesn't decode speculatively. Exercise 19 comes back to speculative decoding as a lever on cost.

# %% [markdown] id="words"
# ## Words
#
# | word | meaning |
# |---|---|
# | token | the unit a model reads and writes: a piece of a word |
# | request, sequence | what a client asked for; the same thing inside the engine, with its tokens so far |
# | step | one run of the model, for all sequences in the batch |
# | prefill, decode | reading the prompt; writing the answer token by token |
# | batch | the sequences computed together in one step |
# | KV cache, block | the keys and values of the tokens so far; the unit in which their memory is handed out |
# | preemption | taking blocks away from one sequence to give them to another; the first is recomputed later |
# | prefix cache | blocks kept in case another request begins with the same text |
# | replica | one copy of the model with its engine |
# | gateway, balancer | the door that all requests come through; the part of it that picks a replica |
# | TTFT, ITL, TPOT | time to first token; pause between two tokens; mean of these pauses |
# | p50, p99 | the latency that 50 %, or 99 %, of requests stay within |
# | throughput, goodput | work done per second; the part of it that met its latency promise |
# | SLO, SLA | the promise you make to yourself (service-level objective); the one you sign (agreement) |
# | utilisation | the share of the time that a server is busy |
# | cold start | the time from asking for a replica to its first answer |

# %% [markdown] id="deeper"
# ## Go deeper
#
# - Yu and others, *Orca: A Distributed Serving System for Transformer-Based Generative Models*, OSDI 2022: continuous batching.
# - Kwon and others, *Efficient Memory Management for Large Language Model Serving with PagedAttention*, SOSP 2023: paging.
# - Agrawal and others, *Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve*, OSDI 2024: chunked prefill.
# - Leviathan and others, *Fast Inference from Transformers via Speculative Decoding*, ICML 2023.
#
# In this repository: `miniserve/engine/scheduler.py` and `block_manager.py` are what you have just watched.
