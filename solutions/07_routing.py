# %% [markdown] id="intro"
# # Chapter 7: Cache-aware and model routing
#
# **You will learn**
#
# - how much of the wait for a first word a prefix cache saves, by formula and on a real replica;
# - how a balancer weighs what a replica knows against what it has to do, and to place requests by hand;
# - why a larger fleet finds less in its caches if nobody looks, and how much less;
# - to construct a day on which more cache hits make the waits longer;
# - what a router between a small and a large model saves and what it costs, on two real models;
# - how far one may go before the answers get too bad.
#
# **You need** Python, and nothing about serving. **Time**: a good hour; all cells together run in {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 What a replica knows · 3 Prefix against load · 4 Predict, then run ·
# 5 Break it · 6 Two models, one bill · 7 Ask twice · 8 The quality floor · 9 Measure: real routers · 10 Where should it
# go? · 11 Read the real code · 12 Summary
#
# **How exercises work.** Put your answer where you see `...`, then run the check below it. It says CORRECT, or what is
# wrong and why. `ch.hint("7.1")` gives a hint, and a further one when you call it again. After an attempt,
# `ch.solution("7.1")` shows a solution.

# %% id="setup"
from miniserve import course
from miniserve.course.chapters.ch07_routing import lab

ch = course.chapter(7)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# **Larkspur** is the fictional service of this course: an assistant for a chain of garden centres. Language models answer
# on a few GPUs. Each GPU with its own copy of a model is a **replica**. What a customer waits for first is the **time to
# first token** (TTFT): from sending the question to the first piece of the answer.
#
# For every request somebody decides two things: **which replica** answers it, and **which model**. That is *routing*. Below
# are two days of Larkspur with the same number of requests, on the same four replicas. "By load" sends each request to the
# replica with the least to do. "By prefix alone" sends it to the replica that has read the beginning of its text before.
#
# The next cell simulates both days. The scheduling code in each replica is the real one; only time is simulated. The p50
# is the TTFT that half of the requests stay below, the p99 the one that 99 % stay below.

# %% id="two-days" tags=["nbval-check-output"]
from miniserve.observe.percentiles import percentile

for day in ("Friday", "Saturday"):
    for policy in ("by load", "by prefix alone"):
        p50_s, p99_s = (percentile(lab.day(day, policy).ttft_s, p) for p in (50, 99))
        print(f"{day:<8} {policy:<15} p50 {p50_s:6.2f} s   p99 {p99_s:6.2f} s")

# %% [markdown] id="bite-2"
# The same rule helps on one day and ruins the other. What is different on Saturday, and is there a rule that is good on
# both? And half of Larkspur's questions are easy: why should the large, expensive model answer them?
#
# **Where we are on a request's path.** A request goes from the client to the **gateway**, which routes it; in the replica it
# waits for its turn, its text is read, and the answer comes back token by token. This chapter is about the moment in the
# gateway.

# %% [markdown] id="known"
# ## 2 What a replica knows
#
# A model reads text in **tokens**, pieces of words. The **prompt** is all that it has to read: in a chat the whole
# conversation so far, often after a long text of instructions that all chats share. Reading it is called **prefill**. For
# each token some numbers are computed that are needed again at every later one. They are kept in the GPU's memory, the
# **KV cache**, which is cut into **blocks** of a fixed number of tokens.
#
# If another prompt begins with the same tokens, they are a shared **prefix**, and their blocks need not be computed again:
# a **prefix hit**. A block counts only if all of its tokens, and all before it, are the same. So the hit is in *whole*
# blocks, counted from the first token.
#
# A replica works in steps. Without a queue, and if a step has room for all that must be read, the first token comes after
# one step, and that takes
#
# TTFT = base + (tokens to read) · (time per token)
#
# The **base** is what every step takes, however little it reads: the model's weights are fetched from memory once.
#
# Worked in full, for Larkspur's GPU and model, a prompt of 1,000 tokens of which 500 are shared, and blocks of 16:

# %% id="known-example" tags=["nbval-check-output"]
replica = lab.replica_times()
base_s, per_token_s = replica.base_s, replica.per_prefill_token_s
print(f"base {1000 * base_s:.1f} ms, {1e6 * per_token_s:.0f} microseconds per token")
blocks = 500 // 16
print(f"whole blocks shared: {blocks}, which are {16 * blocks} tokens")
print(f"without a hit: {1000 * (base_s + 1000 * per_token_s):.0f} ms")
print(f"with the hit:  {1000 * (base_s + (1000 - 16 * blocks) * per_token_s):.0f} ms")

# %% [markdown] id="known-2"
# ### Exercise 7.1: the time to first token after a prefix hit
#
# Difficulty 2 of 5 · about 8 min
#
# Write it for any numbers: `prompt_tokens` in all, of which the first `shared_tokens` are in the replica's cache (fewer
# than `prompt_tokens`), blocks of `block_tokens` tokens, and both times in seconds. Your function is checked on 64 random
# sets. Check: `ch.check("7.1", ttft_s)`.


# %% id="answer-7.1" tags=["answer"] question="7.1"
# SOLUTION
def ttft_s(prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s):
    """Return the time to first token, in seconds."""
    known_tokens = shared_tokens // block_tokens * block_tokens
    return base_s + (prompt_tokens - known_tokens) * per_token_s


# END SOLUTION

# %% id="check-7.1" tags=["check"]
ch.check("7.1", ttft_s)

# %% [markdown] id="known-3"
# **Measure.** Now a real replica's engine, with the course's own model `large`, on your machine. It reads a prompt of 480
# tokens of which it knows the first 0, 128, ... tokens from an earlier request. Its blocks have 16 tokens.

# %% id="known-measured" tags=["measured"]
measured = lab.ttft_curve(lab.long_prompt(480), known=(0, 128, 256, 384, 464))
lab.draw_ttft(measured)
formula = ch.yours("7.1", ttft_s)
if formula is not None:
    here_s = (measured[0] - measured[464]) / 464  # per token, from the two ends
    told_ms = 1000 * formula(
        prompt_tokens=480,
        shared_tokens=256,
        block_tokens=16,
        base_s=measured[464] - 16 * here_s,
        per_token_s=here_s,
    )
    print(f"from both ends of the line, your formula gives {told_ms:.1f} ms for 256 known tokens")
    print(f"measured: {1000 * measured[256]:.1f} ms")
first_s, last_s = (measured[0] - measured[128]) / 128, (measured[384] - measured[464]) / 80
print(f"saved per token: {1e6 * first_s:.0f} microseconds by the first 128, {1e6 * last_s:.0f} by the last 80")

# %% [markdown] id="known-4"
# The more the cache knows, the earlier the first token comes. The points are not exactly on a line, and not only because
# the machine does other things, too: to read a token, a model looks back at all tokens before it, so the last tokens of a
# prompt take longer than the first. The formula's time per token is a mean. For Larkspur's much larger model each thousand
# known tokens save a quarter of a second, by the times above, and they save the GPU that work.
#
# If you have the larger model SmolLM2 on this machine (`python -m miniserve weights fetch smollm2`), the next cell
# measures it, too.

# %% id="known-smollm2" tags=["measured"]
lab.smollm2_ttft()

# %% [markdown] id="weigh"
# ## 3 Prefix against load
#
# So it pays to send a request to the replica that knows its prefix: **cache-aware routing**, or *affinity*. But if that
# replica has a queue, the wait eats up what the hit saves. The framework's balancer gives each replica a score and takes
# the highest:
#
# score = found / prompt - (outstanding - mean) / max(1, mean)
#
# *found*: how many tokens at the beginning of this prompt were sent to that replica before, in whole blocks. *prompt*: its
# length in tokens. *outstanding*: the requests that were sent there and have not ended. *mean*: the mean of outstanding
# over all replicas; the max keeps an idle fleet from dividing by 0. Both parts are free of units, so they can be
# subtracted. With a mean of 5, a prompt that is known to its end makes up for 5 more outstanding requests, and no more.
#
# Worked in full: A has 3 outstanding, B has 1, so the mean is 2. Of a prompt of 1,000 tokens A has seen 800, B 200.
#
# - A: 800/1,000 - (3 - 2)/2 = 0.8 - 0.5 = 0.3
# - B: 200/1,000 - (1 - 2)/2 = 0.2 + 0.5 = 0.7
#
# It goes to B, where 200 tokens are found.
#
# ### Exercise 7.2: prefix against load, by hand
#
# Difficulty 3 of 5 · about 14 min
#
# Two replicas, A and B, both empty and idle. Chats are called a to e; a2 is the second request of chat a. **Every prompt
# begins with the same guide of 200 tokens**, then comes the chat's own text, and a later request of a chat begins with the
# whole prompt of the earlier one. Chats have nothing else in common. Blocks have 100 tokens. The balancer remembers every
# prompt that it has sent, and where.

# %% id="weigh-given" tags=["nbval-check-output"]
for name, tokens in lab.EVENTS:
    print(f"{name} has its answer" if tokens is None else f"{name} arrives: a prompt of {tokens:,} tokens")

# %% [markdown] id="weigh-2"
# The row of a1 is `("a1", 0, 0, "B", 0)`: nobody has anything outstanding, nothing is known, and luck takes B. The next is
# b1: A has 0 outstanding and B has 1, the mean is 0.5. A has seen nothing and scores 0 + 0.5 = 0.5; B has seen the guide and
# scores 200/400 - 0.5 = 0. So `("b1", 0, 1, "A", 0)`.
#
# Write the rows of **c1, a2, d1, e1, b2, a3 and b3** in the same form, as a list: request, outstanding on A and on B before
# it is sent, the replica, tokens found there. Check: `ch.check("7.2", rows)`.

# %% id="answer-7.2" tags=["answer"] question="7.2"
# SOLUTION
rows = [
    ("c1", 1, 0, "B", 200),
    ("a2", 1, 1, "B", 1800),
    ("d1", 1, 2, "A", 200),
    ("e1", 1, 2, "A", 200),
    ("b2", 2, 1, "B", 200),
    ("a3", 1, 2, "B", 2000),
    ("b3", 1, 2, "A", 400),
]
# END SOLUTION

# %% id="check-7.2" tags=["check"]
ch.check("7.2", rows)

# %% [markdown] id="weigh-3"
# When your rows are right, look at three of them. One chat goes to the busier replica: nearly all of its long prompt is
# known there, and that is worth a queue. Another leaves the replica that knows more of it: what it loses is short. And a
# chat that comes back finds only the part of itself that was read there.

# %% [markdown] id="predict"
# ## 4 Predict, then run
#
# How much is there to gain? A quiet evening at Larkspur: 0.4 requests per second on four replicas. Four in ten requests are
# **follow-ups**, later turns of a chat, whose prompt repeats all that was said. Nobody has to queue for long. The next cell
# sends each request "by prefix alone": to the replica that has seen most of it.

# %% id="evening-alone" tags=["nbval-check-output"]
evening = lab.evening("by prefix alone")
print(f"{len(evening):,} requests; of all prompt tokens {lab.found_share(evening):.1%} were found in a cache")

# %% [markdown] id="predict-2"
# ### Exercise 7.3: what the caches give without a plan
#
# Difficulty 3 of 5 · about 6 min
#
# Now the same evening "by load": each request goes to one of the least busy replicas, by luck among equals, and nobody looks
# at prefixes. The caches are the same. Which share of all prompt tokens is found in them? Give `(low, high)` as fractions
# of 1, with high at most 1.7 times low. Check: `ch.check("7.3", found_between)`.

# %% id="answer-7.3" tags=["answer"] question="7.3"
# SOLUTION
# A follow-up meets the replica of the turn before with a chance of one in four; where it does not, an earlier turn of the
# chat may have been read. So a quarter of what was found by prefix, and up to two thirds more.
found_between = (0.25 * lab.found_share(evening), 0.42 * lab.found_share(evening))
# END SOLUTION

# %% id="check-7.3" tags=["check"]
ch.check("7.3", found_between)

# %% [markdown] id="predict-3"
# Now run it, on smaller and larger fleets, too, and also "by both", with the score of section 3.

# %% id="evening-run" tags=["nbval-check-output"]
fleets = (2, 4, 8)
shares = {policy: [lab.found_share(lab.evening(policy, replicas)) for replicas in fleets] for policy in lab.POLICIES}
for policy, found in shares.items():
    print(f"{policy}: " + ", ".join(f"{share:.1%} on {n} replicas" for n, share in zip(fleets, found, strict=True)))
means = [lab.mean_outstanding(lab.evening("by both", n), n) for n in fleets]
print("outstanding, by both: " + ", ".join(f"{mean:.1f} on each of {n}" for n, mean in zip(fleets, means, strict=True)))

# %% id="evening-figure"
lab.draw_found(shares, fleets)

# %% [markdown] id="predict-4"
# By load, a larger fleet finds less: on n replicas luck finds the last turn in one case of n, and sometimes an earlier turn.
# By prefix alone it finds more, since its caches together are larger. "By both" lies between. The last line above the
# figure is the mean of outstanding requests. The smaller it is, the more a single request in the way counts; where it is
# below 1, as much as the whole prompt. So on a larger fleet more chats move. Is that a mistake? Look at the waits:

# %% id="evening-waits" tags=["nbval-check-output"]
course.table(
    {
        "balancer": list(lab.POLICIES),
        **{f"p{p} (s)": [percentile(lab.evening(policy).ttft_s, p) for policy in lab.POLICIES] for p in (25, 50, 95)},
    },
    "Time to first token on four replicas",
)

# %% [markdown] id="predict-5"
# By prefix alone most requests begin soonest; by both, the tail (p95) is a little shorter.
#
# A cache also **forgets**: when it is full, the blocks that were used least recently are overwritten. The balancer is not
# told. It goes on sending chats "home" where nothing is left of them:

# %% id="evening-forgets" tags=["nbval-check-output"]
room = lab.cache_blocks()
for blocks in (room, room // 2, room // 4):
    found = lab.found_share(lab.evening("by prefix alone", blocks=blocks))
    print(f"{blocks:>5} blocks in each cache: {found:.1%} of all prompt tokens found")

# %% [markdown] id="evening-room"
# Four caches of half the size find about as much as two whole ones did above: what counts is the room of all together.

# %% [markdown] id="break"
# ## 5 Break it
#
# On a spring day, each question of Larkspur's customers comes behind a **guide**: 2,000 tokens about roses, or lawns, or
# hedges, that the model should read first. Every guide belongs to many customers. There are no chats now, only single
# questions, 1.2 per second on four replicas. How many can one replica do, if it finds the guide in its cache?

# %% id="break-capacity" tags=["nbval-check-output"]
print(f"guide known: {lab.capacity_per_s(2000, known=True):.2f} requests per second")
print(f"guide new:   {lab.capacity_per_s(2000, known=False):.2f} requests per second")
print(f"a cache has room for {16 * lab.cache_blocks():,} tokens; 40 guides are {40 * 2000:,}")

# %% [markdown] id="break-2"
# Here is Friday of section 1: 40 guides, all equally popular, 500 requests, by each of the three rules. "By both" is the
# score of section 3, "by prefix alone" the same without the part for the load.

# %% id="break-friday" tags=["nbval-check-output"]
friday = {policy: lab.day("Friday", policy) for policy in lab.POLICIES}
lab.spring_table(friday, "Friday: 40 guides, equally popular")

# %% [markdown] id="break-3"
# By load, every replica has to know all 40 guides, and they do not all fit into its cache. By prefix, each guide has a home,
# and a replica needs to know only its own, about ten.
#
# ### Exercise 7.4: more hits, longer waits
#
# Difficulty 3 of 5 · about 10 min
#
# Construct a day on which **prefix alone is bad**: its p99 of the TTFT is at least **three times** that of "by load", while
# "by load" keeps its p99 within 4 s, so that the fleet is large enough. A dictionary
# `{"guides": ..., "guide_tokens": ..., "hot_share": ..., "requests_per_s": ...}`: 2 to 40 guides of 200 to 3,000 tokens, a
# share of 0 to 0.95 of all requests that are about the *hot* guide (the others share the rest equally), and 0.2 to 2.5
# requests per second. Without a hot guide, write `hot_share` 0. Try things with
# `lab.ttft_p99_s(lab.spring("by load", guides=5, guide_tokens=800, hot_share=0.1, requests_per_s=1))`. Check: `ch.check("7.4", demand)`.

# %% id="answer-7.4" tags=["answer"] question="7.4"
# SOLUTION
demand = {"guides": 12, "guide_tokens": 2000, "hot_share": 0.6, "requests_per_s": 1.2}
# END SOLUTION

# %% id="check-7.4" tags=["check"]
ch.check("7.4", demand)

# %% [markdown] id="break-4"
# And Saturday of section 1: everybody asks about roses.

# %% id="break-saturday" tags=["nbval-check-output"]
saturday = {policy: lab.day("Saturday", policy) for policy in lab.POLICIES}
lab.spring_table(saturday, "Saturday: 12 guides, one of them for 60 % of the questions")

# %% id="break-figure"
lab.draw_shares(saturday)

# %% [markdown] id="break-5"
# By prefix alone, the replica that happened to read the rose guide first gets all of its questions. Its queue grows all day
# while others are idle. More is found in the caches, and it does not help. With the load in the score the hot guide
# **spreads**: as soon as its home is busy, another replica reads the guide, and from then on there are two that know it.
# This rule is good on both days. Pure affinity is only as good as the day's evenness.

# %% [markdown] id="models"
# ## 6 Two models, one bill
#
# Now the other decision. This course has trained two small models for short questions: `small`, and `large` with nine times
# as many parameters. Some questions are *easy* ("47 plus 32", a famous capital), others *hard* ("823 minus 664", the river of
# an invented village). Each model was asked 2,000 questions of each sort that it had never seen. The shares of right
# answers are real, and recorded:

# %% id="models-scores" tags=["nbval-check-output"]
from miniserve.planning.levers import recorded_scores

scores = recorded_scores()
sorts = ("easy", "hard")
models = ("small", "large")
course.table(
    {"model": models, **{sort: [f"{scores[model][sort]:.4f}" for model in models] for sort in sorts}},
    "Share of right answers",
)

# %% [markdown] id="models-2"
# Larkspur does not run these two; it would take a small and a large model of the price list: 1.2 and 8 billion parameters.
# What 1,000 answers of usual length cost, on the same GPU with all its slots busy, follows from the time they take and the
# price per hour. So from here on the *accuracy* is that of our two models, and the *cost* that of Larkspur's: the two have
# never met, but the arithmetic is the same.

# %% id="models-usd" tags=["nbval-check-output"]
usd = lab.usd_per_1000()
for size, cost in usd.items():
    print(f"{size}: {lab.PRICED[size]}, {cost:.3f} USD per 1,000 answers")

# %% [markdown] id="models-3"
# Without looking at the questions, one can toss a coin: a share f of them to the small model, the rest to the large one. Cost
# and accuracy then both lie between those of the two models, on a straight line: the **random mix**. A **router** looks at
# each question first, before anything is generated. Its cost is
#
# cost = router + f · small + (1 - f) · large
#
# with *router* the price of looking at one question, *small* and *large* those of an answer, and f the share for the small
# model. It is worth what its accuracy lies *above the line at the same cost*, its own cost included. Worked in full for
# Larkspur, f = 0.7, 70 % of the questions easy, and an imagined router that is always right about which is which and
# costs nothing:

# %% id="models-example" tags=["nbval-check-output"]
from miniserve.policies.routing.model_router import above_random_mix

right = {size: 0.7 * scores[size]["easy"] + 0.3 * scores[size]["hard"] for size in ("small", "large")}
cost = 0.7 * usd["small"] + 0.3 * usd["large"]
perfect = 0.7 * scores["small"]["easy"] + 0.3 * scores["large"]["hard"]
above = above_random_mix(perfect, cost, (right["small"], usd["small"]), (right["large"], usd["large"]))
for size in ("small", "large"):
    print(f"all to {size:<5}  {usd[size]:.3f} USD  {right[size]:.1%} right")
print(f"routed        {cost:.3f} USD  {perfect:.1%} right, {100 * above:.1f} points above the random mix")

# %% [markdown] id="cascade"
# ## 7 Ask twice
#
# Who knows beforehand which question is hard? A **cascade** does not try to. The small model answers *every* question. A
# check looks at how sure it was of its answer, and if it was sure, the answer is kept. If not, it is thrown away, and the
# large model answers, too.
#
# ### Exercise 7.5: what a cascade costs
#
# Difficulty 2 of 5 · about 7 min
#
# Write the mean cost of a request. `kept_share` is the share of the small model's answers that are kept; `small_usd` and
# `large_usd` are what one answer of each model costs, `check_usd` what it costs to look at one answer. Your function is
# checked on 64 random sets. Check: `ch.check("7.5", cascade_usd)`.


# %% id="answer-7.5" tags=["answer"] question="7.5"
# SOLUTION
def cascade_usd(kept_share, small_usd, large_usd, check_usd):
    """Return the mean cost of a request."""
    return small_usd + check_usd + (1 - kept_share) * large_usd


# END SOLUTION

# %% id="check-7.5" tags=["check"]
ch.check("7.5", cascade_usd)

# %% [markdown] id="cascade-2"
# With your formula, or without it if 7.5 is still open: from which share of kept answers on does a cascade cost less than
# the large model alone?

# %% id="cascade-even" tags=["nbval-check-output"]
kept = [0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
columns = {"kept": kept, "large alone (USD)": [usd["large"]] * len(kept)}
formula = ch.yours("7.5", cascade_usd)
if formula is not None:
    columns["cascade (USD)"] = [formula(share, usd["small"], usd["large"], 0.0) for share in kept]
course.table(columns, "1,000 answers; the check costs nothing")

# %% [markdown] id="cascade-3"
# A cascade that keeps too little costs *more* than no router at all. And whoever is asked twice waits twice: the first token
# that counts comes after a whole small answer.

# %% [markdown] id="floor"
# ## 8 The quality floor
#
# How many questions may the small model have? That is not for engineers alone to say. Larkspur's management sets a
# **floor**: accuracy over all questions may fall by so many **points** (hundredths) against the large model for everything.
#
# Worked in full with other numbers: 60 % of the questions are easy, the small model loses 0.02 on an easy one and 0.4 on a
# hard one, and 2 points are allowed. All easy questions go to the small model first, since there a question moved costs
# least: that uses 0.6 · 0.02 = 0.012. What is left is 0.02 - 0.012 = 0.008. If a share x of the *hard* questions goes to the
# small model, too, it uses 0.4 · x · 0.4. So x = 0.008 / 0.16 = 0.05: one hard question in twenty.
#
# ### Exercise 7.6: down to the quality floor
#
# Difficulty 3 of 5 · about 9 min
#
# Your own numbers are printed below; they are drawn for you: the share of easy questions, and the points that may be lost.
# The accuracies are those of section 6. The easy questions all go to the small model. Which share of the **hard** questions
# may go there, too, so that exactly the allowance is used? Check: `ch.check("7.6", hard_to_small)`.

# %% id="floor-given"
given = ch.given("7.6")
given

# %% id="answer-7.6" tags=["answer"] question="7.6"
# SOLUTION
loss = {sort: scores["large"][sort] - scores["small"][sort] for sort in sorts}
left = given["lost_points"] / 100 - given["easy_share"] * loss["easy"]
hard_to_small = left / ((1 - given["easy_share"]) * loss["hard"])
# END SOLUTION

# %% id="check-7.6" tags=["check"]
ch.check("7.6", hard_to_small)

# %% [markdown] id="floor-2"
# The easy questions are nearly free, and they are most of the saving. What lies beyond is bought dearly, and the average
# hides from whom: all of it is lost on the hard questions. So the accuracy on hard questions should be watched by itself.

# %% [markdown] id="real"
# ## 9 Measure: real routers
#
# Now the two real models answer, on your machine, some hundred questions, half of them easy. Three ways to choose:
#
# - **heuristic**: long questions, large numbers and words such as "and" or "who" look hard;
# - **learned**: a small classifier, trained on *other* questions, of which it was told which are hard;
# - **cascade**: the small model's own confidence, the mean of the logarithms of the probabilities that it gave its tokens.
#
# Each gives every question a score. The highest go to the large model, and the line between is moved from nobody to all.

# %% id="real-run" tags=["measured"]
import numpy as np

from miniserve.policies.routing.model_router import HeuristicHardness, confidence, train_hardness

learn, asked = lab.questions()
small, small_s = lab.ask_all("small", asked)
large, large_s = lab.ask_all("large", asked)
learned = train_hardness(*zip(*learn, strict=True))
by = {
    "heuristic": [HeuristicHardness()(question) for question, _, _ in asked],
    "learned": [learned(question) for question, _, _ in asked],
    "cascade": [-confidence(answer.logprobs) for answer in small],
}
print(f"{len(asked)} questions; an answer of small took {1000 * small_s:.1f} ms, of large {1000 * large_s:.1f} ms")
look_s = lab.scoring_s(learned, asked)
print(f"the learned router looked at a question for {1e6 * look_s:.0f} microseconds")

# %% id="real-figure" tags=["measured"]
to_large = np.linspace(0, 1, 11)
right = {name: lab.routed(scored, small, large, to_large) for name, scored in by.items()}
routed_usd = (1 - to_large) * usd["small"] + to_large * usd["large"]
asked_twice_usd = usd["small"] + to_large * usd["large"]
curves = {name: (asked_twice_usd if name == "cascade" else routed_usd, values) for name, values in right.items()}
ends = [(usd["small"], right["learned"][0]), (usd["large"], right["learned"][-1])]
lab.draw_routers(curves, *ends)

# %% [markdown] id="real-2"
# All start at the small model alone. The random mix is the straight line; what lies above it is what a router is worth.
# The curve of the cascade is stretched to the right, since every answer of the large model has cost one of the small model,
# too; it ends beyond the large model. The figure leaves the routers' own cost out: a look of so few microseconds is nothing
# beside an answer that Larkspur's models take seconds for. A router that asks a language model is another matter, and
# belongs into the formula of section 6.

# %% [markdown] id="decide"
# ## 10 Where should it go?
#
# ### Exercise 7.7: where should it go?
#
# Difficulty 2 of 5 · about 7 min
#
# The next cell prints eight situations and six decisions. Give each situation the decision that fits **best**; one is used
# three times. Check: `ch.check("7.7", decisions)`.

# %% id="decide-items"
course.show_choices(lab.SITUATIONS, lab.CHOICES)

# %% id="answer-7.7" tags=["answer"] question="7.7"
# SOLUTION
decisions = {
    "a": "by prefix",
    "b": "by load",
    "c": "by load",
    "d": "small model",
    "e": "large model",
    "f": "cascade",
    "g": "no sharing",
    "h": "by load",
}
# END SOLUTION

# %% id="check-7.7" tags=["check"]
ch.check("7.7", decisions)

# %% [markdown] id="reply-intro"
# ### Exercise 7.8: a reply to the manager
#
# Difficulty 3 of 5 · about 10 min · a person reads it
#
# Larkspur's manager writes: *"From Monday on, all questions go to the small model, which costs a fraction. And every question
# goes to the replica that has read its guide, since hits are free."* Reply in four to eight sentences: what each proposal
# saves and what it breaks, with numbers of this chapter, what you would do instead, and what should be watched. Put it
# between `"""` and `"""`. Check: `ch.check("7.8", reply)`.

# %% id="answer-7.8" tags=["answer"] question="7.8"
# SOLUTION
reply = """
All to the small model costs 0.057 instead of 0.322 USD per 1,000 answers, but on hard questions it is right in 24 % of
the cases instead of 91 %, and the average hides that. All by prefix alone would ruin a day like our Saturday: one
replica got 66 % of the requests and the p99 of the first token was 49 s, where by load it was 1 s. I would weigh
prefix and load: that finds 93 % of the tokens instead of 95 %, and the p99 stays at 1 s. Easy questions go to the small
model, and hard ones only as far as a floor allows that you set. We should watch the accuracy on hard questions by
itself, the p99, and the share of the busiest replica.
"""
# END SOLUTION

# %% id="check-7.8" tags=["check"]
ch.check("7.8", reply)

# %% [markdown] id="real-code"
# ## 11 Read the real code
#
# The balancer of section 3, from `miniserve/policies/routing/affinity.py`, and both ways to choose a model, from
# `miniserve/policies/routing/model_router.py`. Look for two things: where the score of section 3 is computed (as a load: the
# smallest wins; `_beta` is 1, and 0 by prefix alone), and what the balancer remembers when it has sent a request elsewhere.

# %% id="real-code-shown"
import inspect

from miniserve.policies.routing.affinity import PrefixAffinity
from miniserve.policies.routing.model_router import Cascade, ModelRouter

print(inspect.getsource(PrefixAffinity.choose))
print(inspect.getsource(ModelRouter.choose))
print(inspect.getsource(Cascade.keeps))

# %% [markdown] id="summary"
# ## 12 Summary
#
# - A prefix hit saves the time to read its whole blocks. The rest of the prompt, and a step's base, remain.
# - Without a plan, a follow-up on n replicas meets the replica of its last turn in one case of n. Cache-aware routing does not
#   depend on that luck.
# - Affinity alone sends a popular prefix to one replica, and its queue costs more than the hits save. Weigh both, and a hot
#   prefix spreads.
# - A balancer knows what it has sent, not what the caches still hold. **Tenants**, customers of one service who must not
#   learn of each other, share no cache: nobody is to learn from the speed of an answer what others ask.
# - A model router is worth what it lies above the random mix at the same cost, its own cost included. A cascade pays for two
#   answers whenever it is not sure.
# - The floor for quality is set first, and hard questions are watched by themselves.
#
# Chapter 15 builds the cache-aware router, chapter 16 the model router. Sharing one prefix cache among all replicas is in
# chapter 3.
#
# **Go deeper**
#
# - L. Zheng and others, *SGLang: Efficient Execution of Structured Language Model Programs*, NeurIPS 2024,
#   arXiv:2312.07104: prefixes kept in a tree, and scheduling by them.
# - R. Qin and others, *Mooncake: Trading More Storage for Less Computation*, FAST 2025: a service built around its caches.
# - V. Mirrokni and others, *Consistent Hashing with Bounded Loads*, SODA 2018: affinity with a hard bound on load.
# - L. Chen and others, *FrugalGPT*, 2023, arXiv:2305.05176: cascades of models.
# - I. Ong and others, *RouteLLM: Learning to Route LLMs with Preference Data*, 2024, arXiv:2406.18665: routers, and how to
#   set their threshold.
