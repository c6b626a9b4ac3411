# %% [markdown] id="intro"
# # Start here
#
# This course is about one thing: what changes when a language model serves not one person but many thousands.
# You will measure it, draw it and build it, in twenty exercises.
#
# **After this page** you know the words that the exercises use, and you have seen each of them happen in an engine.
#
# **You need** Python. You need not know anything about serving. This page takes about 20 minutes to read; its cells run
# in {{run_time}}.
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
# Some exercises draw their numbers for each person, so that two people cannot share an answer. Take the `#` away, write
# your own name, and run the cell once. Without it you get everybody's numbers, which is fine if you learn alone. If
# somebody grades your work, use the name they know you by.

# %% id="set-learner"
# course.set_learner("ada.lovelace")

# %% [markdown] id="exercises"
# ## The twenty exercises
#
# Exercises 1 to 10 need pen and paper; 11 to 20 are code. Take them in order, or pick one: each explains what it needs.
# Minutes are for the exercises alone; reading comes on top. *Solved* is read from the notebooks beside this one as you
# last saved them, so run the cell again when you come back.
#
# All of them follow one service, **Larkspur**, the assistant of a chain of garden centres: customers chat with it and
# will not wait, staff let it draft articles and can. It exists in this course only.

# %% id="contents" tags=["measured"]
contents()

# %% [markdown] id="how"
# ## How to work
#
# An exercise gives you a cell with a gap, `answer = ...` or a function that raises `NotImplementedError`. Fill it, then
# run the check below it. A check says one of three things: **CORRECT**, **WRONG** (with what it saw, why that is wrong, and
# what to look at next), or **NOT TRIED**. Each exercise has three hints, from an idea to a worked example:
# `ch.hint("6.1")`. If you ask an AI assistant, show it `AI_ASSISTANTS.md`, which lies beside this page.
#
# The rest of this page is a tour of the engine. Nothing on it is an exercise, but change the numbers and run the cells again.

# %% [markdown] id="prefill-decode"
# ## Prefill and decode
#
# A language model reads and writes *tokens*: pieces of words, here often single letters. Given all tokens so far, one run
# of the model, a *step*, gives the next one. So an answer has two phases:
#
# - **Prefill**: the model reads the whole prompt in one step, or in a few large pieces, and gives the first token.
# - **Decode**: from then on each step reads the one token that came last, and gives one more.
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
# Prefill does much arithmetic at once, so a processor is busy with computing. Decode does little arithmetic per step and yet
# has to read all the weights of the model each time, so a processor is busy with reading. This difference is behind half of
# what follows. (The model above is small, so its sums are not always right. Exercise 16 makes use of that.)

# %% [markdown] id="batching"
# ## Continuous batching
#
# If a decode step reads all the weights anyway, it may as well serve several requests: that is *batching*. And since
# requests come and go at any moment, the batch is put together anew **at every step**: that is *continuous* batching. A
# request that ends leaves at once, and the next one takes its place in the very next step.
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
# Two things to see. When C ends, D starts, although A and B are not done: nobody waits for the longest answer. And B's prompt
# of 40 tokens does not fit into a step of 24, so it is read in pieces, beside the decoding of the others. That is **chunked
# prefill**: without it, one long prompt would make everybody else's stream pause.

# %% [markdown] id="kv-cache"
# ## KV cache and paging
#
# To compute a token the model needs, for every token before it, two vectors per layer: a *key* and a *value*. They do not
# change, so they are kept: that is the **KV cache**. It grows with every token of every running request, and it, not
# the arithmetic, usually limits how many can run together.
#
# How long an answer will be is not known in advance. Keeping room for the longest possible one would waste most of it. So
# memory is cut into **blocks** of a few tokens (here 8), and a request takes one more when it needs it. A *block table* says
# which blocks are a request's, in order; they need not lie side by side. It is what an operating system does with pages
# of memory, and so it is called **paging**.
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
# An answer that is streamed has no single latency. Three numbers describe it:
#
# - **TTFT**, time to first token: how long until anything appears. Waiting and prefill are in it.
# - **ITL**, inter-token latency: the pause between one token and the next.
# - **TPOT**, time per output token: the mean of these pauses, `(last - first) / (tokens - 1)`.
#
# Measured on your machine, with the larger of the two models of this course:

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
# The same request in a crowded engine would wait before it starts, which is TTFT, and share its steps, which is ITL. That a
# promise about latency must name which of them, and for which share of requests, is exercise 6.

# %% [markdown] id="speculative"
# ## Speculative decoding
#
# A decode step of a large model spends its time on reading weights. Checking four tokens takes hardly longer than
# making one. So let a small model *draft* a few tokens, and let the large one check them all in one step: it keeps
# those that it would have said itself, and adds one of its own. The answer is exactly the large model's; there are only
# fewer of its steps.
#
# What decides whether it pays is the **acceptance rate**: how many drafted tokens are kept. Here the small model
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
# On easy questions the two models mostly agree, on hard ones less often. Note what this cell does and what it does not: it
# counts which drafts would be kept, with both models really running. It does not measure time, and the engine of this
# course does not decode speculatively. Exercise 19 comes back to it as a lever on cost.

# %% [markdown] id="words"
# ## Words
#
# | word | meaning |
# |---|---|
# | token | the unit a model reads and writes: a piece of a word |
# | request, sequence | what somebody asked for; the same thing inside the engine, with its tokens so far |
# | step | one run of the model, for all sequences of the batch |
# | prefill, decode | reading the prompt; writing the answer token by token |
# | batch | the sequences that are computed together in one step |
# | KV cache, block | keys and values of the tokens so far; the unit in which its memory is given out |
# | preemption | taking the blocks of one sequence away for another; it is computed again later |
# | prefix cache | blocks that are kept because another request may begin in the same way |
# | replica | one copy of the model with its engine |
# | gateway, balancer | what all requests come to first; the part of it that picks a replica |
# | TTFT, ITL, TPOT | time to first token; pause between two tokens; mean of these pauses |
# | p50, p99 | the latency that 50 %, or 99 %, of requests stay within |
# | throughput, goodput | work done per second; the part of it that kept its promise about latency |
# | SLO, SLA | the promise that you set for yourself; the one that you sign |
# | utilization | the share of time in which a server is busy |
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
