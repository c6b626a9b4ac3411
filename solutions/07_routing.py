# %% [markdown] id="intro"
# # Chapter 7: Cache-aware and model routing
#
# **You will learn**
#
# - how much of the time to first token a prefix cache saves, by formula and on a real replica;
# - how a balancer weighs what a replica knows against what it has to do, and how to place requests by hand;
# - why a larger fleet finds less in its caches if the balancer doesn't look, and how much less;
# - how to construct a day on which more cache hits make the waits longer;
# - what a router between a small and a large model saves and what it costs, on two real models;
# - how far you can go before the answers get too bad.
#
# **You need** Python, but no knowledge of serving. **Time**: a good hour; all cells together run in {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 What a replica knows · 3 Prefix against load · 4 Predict, then run ·
# 5 Break it · 6 Two models, one bill · 7 Ask twice · 8 The quality floor · 9 Measure: real routers · 10 Where should it
# go? · 11 Read the real code · 12 Summary
#
# **How exercises work.** Put your answer where you see `...`, then run the check below it. It says CORRECT, or what is
# wrong and why. `ch.hint("7.1")` gives a hint; call it again for the next one. After an attempt,
# `ch.solution("7.1")` shows a solution.

# %% id="setup"
from miniserve import course
from miniserve.course.chapters.ch07_routing import lab

ch = course.chapter(7)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# **Larkspur** is the fictional service of this course: an assistant for a chain of garden centres. Language models run
# on a few GPUs. Each GPU with its own copy of a model is a **replica**. The first thing a customer waits for is the
# first word, so we measure the **time to first token** (TTFT): from sending the question to the first piece of the
# answer.
#
# Every request needs two decisions: **which replica** answers it, and **which model**. Making them is *routing*. Below
# are two days at Larkspur with the same number of requests, on the same four replicas. "By load" sends each request to
# the replica with the least to do. "By prefix alone" sends it to the replica that has read the beginning of its text
# before.
#
# The next cell simulates both days. Each replica runs the project's real scheduling code; only time is simulated. Half
# of the requests stay within the p50 of the TTFT, and 99 % within its p99.

# %% id="two-days" tags=["nbval-check-output"]
from miniserve.observe.percentiles import percentile

for day in ("Friday", "Saturday"):
    for policy in ("by load", "by prefix alone"):
        p50_s, p99_s = (percentile(lab.day(day, policy).ttft_s, p) for p in (50, 99))
        print(f"{day:<8} {policy:<15} p50 {p50_s:6.2f} s   p99 {p99_s:6.2f} s")

# %% [markdown] id="bite-2"
# The same rule helps on one day and ruins the other. What is different on Saturday, and is there a rule that works on
# both? And half of Larkspur's questions are easy: why should the large, expensive model answer them?
#
# **Where we are on a request's path.** A request goes from the client to the **gateway**, which routes it; in the replica it
# waits for its turn, its text is read, and the answer comes back token by token. This chapter is about the moment in the
# gateway.

# %% [markdown] id="known"
# ## 2 What a replica knows
#
# A model reads text in **tokens**, pieces of words. The **prompt** is everything it has to read: in a chat, the whole
# conversation so far, often after a long text of instructions that all chats share (the *system prompt*). Reading it is
# called **prefill**. For each token the model computes some numbers that it needs again at every later token. They are
# kept in the GPU's memory, in the **KV cache**, which is cut into **blocks** of a fixed number of tokens.
#
# If another prompt begins with the same tokens, they are a shared **prefix**, and the replica needn't compute their
# blocks again: a **prefix hit**. A block counts only if all of its tokens, and all those before it, are the same. So a
# hit consists of *whole* blocks, counted from the first token.
#
# A replica works in steps. If there is no queue, and one step has room for everything that must be read, the first
# token comes after one step. That takes
#
# TTFT = base + (tokens to read) · (time per token)
#
# The **base** is what every step takes, however little it reads: the time to fetch the model's weights from memory
# once.
#
# Worked example for Larkspur's GPU and model, with a prompt of 1,000 tokens, 500 of them shared, and blocks of 16:

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
# Write a function that returns this time in seconds. The prompt has `prompt_tokens` tokens in all, of which the first
# `shared_tokens` (fewer than `prompt_tokens`) are in the replica's cache. Blocks have `block_tokens` tokens, and both
# times are in seconds. Your function is checked on 64 random sets of parameters. Check: `ch.check("7.1", ttft_s)`.


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
# **Measure.** Now we measure a real replica's engine, on your machine, with the course's own model `large`. It reads a
# prompt of 480 tokens, of which it already knows the first 0, 128, ... from an earlier request. Its blocks have 16
# tokens.

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
# The more the cache knows, the earlier the first token comes. The points aren't exactly on a line, and not only because
# your machine is doing other things: to read a token, a model looks back at all tokens before it, so the last tokens of
# a prompt take longer than the first. The formula's time per token is a mean. By the times above, each thousand known
# tokens save Larkspur's much larger model a quarter of a second, and they save the GPU that work.
#
# If you have the larger model SmolLM2 on this machine (`python -m miniserve weights fetch smollm2`), the next cell
# measures it as well.

# %% id="known-smollm2" tags=["measured"]
lab.smollm2_ttft()

# %% [markdown] id="weigh"
# ## 3 Prefix against load
#
# So it pays to send a request to the replica that knows its prefix: **cache-aware routing**, or *affinity*. But if that
# replica has a queue, the wait eats up what the hit saves. The framework's balancer gives each replica a score and
# picks the highest:
#
# score = found / prompt - (outstanding - mean) / max(1, mean)
#
# Here *found* is the number of tokens at the beginning of this prompt that were sent to that replica before, in whole
# blocks, and *prompt* is the prompt's length in tokens. *outstanding* is the number of requests that were sent there
# and haven't finished, and *mean* is the mean of that over all replicas; the max keeps us from dividing by 0 when the
# fleet is idle. Neither part has a unit, so one can be subtracted from the other. With a mean of 5, a prompt known to
# its very end makes up for 5 more outstanding requests, and no more.
#
# Worked example: A has 3 outstanding and B has 1, so the mean is 2. Of a prompt of 1,000 tokens, A has seen 800 and B
# 200.
#
# - A: 800/1,000 - (3 - 2)/2 = 0.8 - 0.5 = 0.3
# - B: 200/1,000 - (1 - 2)/2 = 0.2 + 0.5 = 0.7
#
# The request goes to B, where 200 tokens are found.
#
# ### Exercise 7.2: prefix against load, by hand
#
# Difficulty 3 of 5 · about 14 min
#
# There are two replicas, A and B, both empty and idle. Chats are called a to e; a2 is the second request of chat a.
# **Every prompt begins with the same guide of 200 tokens**, followed by the chat's own text, and a later request of a
# chat begins with the whole prompt of the earlier one. Chats have nothing else in common. Blocks have 100 tokens. The
# balancer remembers every prompt it has sent, and where it sent it.

# %% id="weigh-given" tags=["nbval-check-output"]
for name, tokens in lab.EVENTS:
    print(f"{name} has its answer" if tokens is None else f"{name} arrives: a prompt of {tokens:,} tokens")

# %% [markdown] id="weigh-2"
# The row for a1 is `("a1", 0, 0, "B", 0)`: neither replica has anything outstanding, neither knows anything, and a
# random draw picks B. Next comes b1: A has 0 outstanding and B has 1, so the mean is 0.5. A has seen nothing and scores
# 0 + 0.5 = 0.5; B has seen the guide and scores 200/400 - 0.5 = 0. So the row is `("b1", 0, 1, "A", 0)`.
#
# Write the rows for **c1, a2, d1, e1, b2, a3 and b3** in the same form, as a list: request, outstanding on A and on B
# before it is sent, the replica, tokens found there. Check: `ch.check("7.2", rows)`.

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
# known there, and that's worth a queue. Another leaves the replica that knows more of it, because it has little to
# lose. And a chat that comes back finds only the part of itself that was read there.

# %% [markdown] id="predict"
# ## 4 Predict, then run
#
# How much is there to gain? Take a quiet evening at Larkspur: 0.4 requests per second on four replicas. Four in ten
# requests are **follow-ups**, later turns of a chat, whose prompts repeat everything said so far. No request queues for
# long. The next cell sends each request "by prefix alone": to the replica that has seen most of it.

# %% id="evening-alone" tags=["nbval-check-output"]
evening = lab.evening("by prefix alone")
print(f"{len(evening):,} requests; of all prompt tokens {lab.found_share(evening):.1%} were found in a cache")

# %% [markdown] id="predict-2"
# ### Exercise 7.3: what the caches give without a plan
#
# Difficulty 3 of 5 · about 6 min
#
# Now take the same evening "by load": each request goes to the least busy replica, with ties broken at random, and
# prefixes play no part. The caches are the same. What share of all prompt tokens is found in them? Give `(low, high)`
# as fractions of 1, with high at most 1.7 times low. Check: `ch.check("7.3", found_between)`.

# %% id="answer-7.3" tags=["answer"] question="7.3"
# SOLUTION
# A follow-up finds the replica of the previous turn one time in four; otherwise it may find one that read an earlier
# turn of the chat. So a quarter of what was found by prefix, and up to two thirds more.
found_between = (0.25 * lab.found_share(evening), 0.42 * lab.found_share(evening))
# END SOLUTION

# %% id="check-7.3" tags=["check"]
ch.check("7.3", found_between)

# %% [markdown] id="predict-3"
# Now run it, on smaller and larger fleets as well, and "by both": with the score of section 3.

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
# By load, a larger fleet finds less: on n replicas, luck finds the previous turn one time in n, and sometimes an
# earlier turn. By prefix alone it finds more, because its caches together are larger. "By both" lies in between. The
# last line above the figure is the mean number of outstanding requests. The smaller it is, the more a single request in
# the way counts; below 1, as much as the whole prompt. So on a larger fleet more chats move. Is that a mistake? Look at
# the waits:

# %% id="evening-waits" tags=["nbval-check-output"]
course.table(
    {
        "balancer": list(lab.POLICIES),
        **{f"p{p} (s)": [percentile(lab.evening(policy).ttft_s, p) for policy in lab.POLICIES] for p in (25, 50, 95)},
    },
    "Time to first token on four replicas",
)

# %% [markdown] id="predict-5"
# By prefix alone, most requests get their first token soonest; by both, the tail (p95) is a little shorter.
#
# A cache also **forgets**: when it's full, the blocks that haven't been used for longest are overwritten (*LRU
# eviction*). The balancer isn't told. It goes on sending chats "home" where nothing is left of them:

# %% id="evening-forgets" tags=["nbval-check-output"]
room = lab.cache_blocks()
for blocks in (room, room // 2, room // 4):
    found = lab.found_share(lab.evening("by prefix alone", blocks=blocks))
    print(f"{blocks:>5} blocks in each cache: {found:.1%} of all prompt tokens found")

# %% [markdown] id="evening-room"
# Four caches of half the size find about as much as two whole ones did above: what counts is their total size.

# %% [markdown] id="break"
# ## 5 Break it
#
# On a spring day, each question from Larkspur's customers follows a **guide**: 2,000 tokens about roses, or lawns, or
# hedges that the model should read first. Many customers share each guide. There are no chats now, only single
# questions, 1.2 per second on four replicas. How many can one replica serve if it finds the guide in its cache?

# %% id="break-capacity" tags=["nbval-check-output"]
print(f"guide known: {lab.capacity_per_s(2000, known=True):.2f} requests per second")
print(f"guide new:   {lab.capacity_per_s(2000, known=False):.2f} requests per second")
print(f"a cache has room for {16 * lab.cache_blocks():,} tokens; 40 guides are {40 * 2000:,}")

# %% [markdown] id="break-2"
# Here is the Friday of section 1: 500 requests about 40 guides, all equally popular, under each of the three rules. "By
# both" is the score of section 3; "by prefix alone" is the same score without the load part.

# %% id="break-friday" tags=["nbval-check-output"]
friday = {policy: lab.day("Friday", policy) for policy in lab.POLICIES}
lab.spring_table(friday, "Friday: 40 guides, equally popular")

# %% [markdown] id="break-3"
# By load, every replica has to know all 40 guides, and they don't all fit into its cache. By prefix, each guide has a
# home, and a replica needs to know only its own, about ten.
#
# ### Exercise 7.4: more hits, longer waits
#
# Difficulty 3 of 5 · about 10 min
#
# Construct a day on which **prefix alone is bad**: the p99 of its TTFT is at least **three times** that of "by load",
# while "by load" keeps its p99 within 4 s, so that the fleet is large enough. Give a dictionary
# `{"guides": ..., "guide_tokens": ..., "hot_share": ..., "requests_per_s": ...}`: 2 to 40 guides of 200 to 3,000
# tokens, the share of all requests that are about the *hot* guide, 0 to 0.95 (the others share the rest equally), and
# 0.2 to 2.5 requests per second. For a day without a hot guide, set `hot_share` to 0. Experiment with
# `lab.ttft_p99_s(lab.spring("by load", guides=5, guide_tokens=800, hot_share=0.1, requests_per_s=1))`. Check:
# `ch.check("7.4", demand)`.

# %% id="answer-7.4" tags=["answer"] question="7.4"
# SOLUTION
demand = {"guides": 12, "guide_tokens": 2000, "hot_share": 0.6, "requests_per_s": 1.2}
# END SOLUTION

# %% id="check-7.4" tags=["check"]
ch.check("7.4", demand)

# %% [markdown] id="break-4"
# And here is the Saturday of section 1, when everyone asks about roses.

# %% id="break-saturday" tags=["nbval-check-output"]
saturday = {policy: lab.day("Saturday", policy) for policy in lab.POLICIES}
lab.spring_table(saturday, "Saturday: 12 guides, one of them for 60 % of the questions")

# %% id="break-figure"
lab.draw_shares(saturday)

# %% [markdown] id="break-5"
# By prefix alone, the replica that happened to read the rose guide first gets all of its questions, and becomes a **hot
# spot**. Its queue grows all day while others are idle. The caches find more, but that doesn't help. With the load in
# the score the hot guide **spreads**: as soon as its home is busy, another replica reads the guide, and from then on
# two of them know it. This rule is good on both days. Pure affinity works only while demand is spread evenly.

# %% [markdown] id="models"
# ## 6 Two models, one bill
#
# Now for the other decision. This course has trained two small models for short questions: `small`, and `large` with
# nine times as many parameters. Some questions are *easy* ("47 plus 32", a famous capital), others *hard* ("823 minus
# 664", the river of an invented village). Each model was asked 2,000 questions of each sort, none of which it had seen
# before. The shares of right answers are real, recorded measurements:

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
# Larkspur doesn't run these two; it would use a small and a large model from the price list, with 1.2 and 8 billion
# parameters. What 1,000 answers of typical length cost, on the same GPU with all its slots busy, follows from the time
# they take and the price per hour. So from here on the *accuracy* is that of our two models, and the *cost* that of
# Larkspur's: they belong to different models, but the arithmetic is the same.

# %% id="models-usd" tags=["nbval-check-output"]
usd = lab.usd_per_1000()
for size, cost in usd.items():
    print(f"{size}: {lab.PRICED[size]}, {cost:.3f} USD per 1,000 answers")

# %% [markdown] id="models-3"
# Without looking at the questions, you could toss a coin: send a share f of them to the small model, and the rest to
# the large one. Cost and accuracy then both lie between those of the two models, on a straight line: the **random
# mix**. A **router** looks at each question first, before anything is generated. Its cost is
#
# cost = router + f · small + (1 - f) · large
#
# where *router* is the price of looking at one question, *small* and *large* are those of an answer, and f is the small
# model's share. A router is worth the accuracy that it adds *above the line at the same cost*, its own cost included.
# Worked example for Larkspur, with f = 0.7, 70 % of the questions easy, and an imaginary router that is always right
# about which is which and costs nothing:

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
# How could you know in advance which question is hard? A **cascade** doesn't try. The small model answers *every*
# question. A check looks at how sure the model was of its answer. If it was sure, the answer is kept. If not, the
# answer is thrown away and the large model answers the question again.
#
# ### Exercise 7.5: what a cascade costs
#
# Difficulty 2 of 5 · about 7 min
#
# Write a function that returns the mean cost of a request. `kept_share` is the share of the small model's answers that
# are kept; `small_usd` and `large_usd` are what one answer of each model costs, `check_usd` what it costs to look at
# one answer. Your function is checked on 64 random sets of parameters. Check: `ch.check("7.5", cascade_usd)`.


# %% id="answer-7.5" tags=["answer"] question="7.5"
# SOLUTION
def cascade_usd(kept_share, small_usd, large_usd, check_usd):
    """Return the mean cost of a request."""
    return small_usd + check_usd + (1 - kept_share) * large_usd


# END SOLUTION

# %% id="check-7.5" tags=["check"]
ch.check("7.5", cascade_usd)

# %% [markdown] id="cascade-2"
# By your formula, or without it if 7.5 is still open: above what share of kept answers does a cascade cost less than
# the large model alone?

# %% id="cascade-even" tags=["nbval-check-output"]
kept = [0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
columns = {"kept": kept, "large alone (USD)": [usd["large"]] * len(kept)}
formula = ch.yours("7.5", cascade_usd)
if formula is not None:
    columns["cascade (USD)"] = [formula(share, usd["small"], usd["large"], 0.0) for share in kept]
course.table(columns, "1,000 answers; the check costs nothing")

# %% [markdown] id="cascade-3"
# A cascade that keeps too little costs *more* than no router at all. And a customer whose question is asked twice waits
# twice: the first token that counts comes only after the small model's whole answer.

# %% [markdown] id="floor"
# ## 8 The quality floor
#
# How many questions may the small model get? That isn't for engineers alone to decide. Larkspur's management sets a
# **floor**: how many **points** (hundredths) of accuracy, over all questions, it accepts losing against the large model
# for everything.
#
# Worked example with other numbers: 60 % of the questions are easy, the small model loses 0.02 on an easy one and 0.4
# on a hard one, and 2 points are allowed. All easy questions go to the small model first, because they cost least to
# move: that uses 0.6 · 0.02 = 0.012 and leaves 0.02 - 0.012 = 0.008. If a share x of the *hard* questions goes to the
# small model as well, that uses 0.4 · x · 0.4. So x = 0.008 / 0.16 = 0.05: one hard question in twenty.
#
# ### Exercise 7.6: down to the quality floor
#
# Difficulty 3 of 5 · about 9 min
#
# Your own numbers, drawn for you, are printed below: the share of easy questions, and the points that may be lost. The
# accuracies are those of section 6. The easy questions all go to the small model. What share of the **hard** questions
# may go there as well, to use exactly the allowance? Check: `ch.check("7.6", hard_to_small)`.

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
# The easy questions are nearly free to move, and they bring most of the saving. Anything beyond them is expensive, and
# the average hides who pays: all of the loss falls on the hard questions. So watch the accuracy on hard questions by
# itself.

# %% [markdown] id="real"
# ## 9 Measure: real routers
#
# Now the two real models answer a few hundred questions on your machine, half of them easy. There are three ways to
# choose:
#
# - **heuristic**: takes long questions, large numbers and words such as "and" or "who" as signs of a hard question;
# - **learned**: a small classifier, trained on *other* questions that are labelled easy or hard;
# - **cascade**: the small model's own confidence, the mean of the logarithms of the probabilities it gave its tokens
#   (the mean *logprob*).
#
# Each gives every question a score. The highest go to the large model, and we move the threshold from no questions to
# all of them.

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
# All curves start at the small model alone. The straight line is the random mix; what lies above it is what a router is
# worth. The cascade's curve is stretched to the right, because every answer from the large model has cost one from the
# small model first; it ends beyond the large model. The figure leaves out the routers' own cost: a look that takes
# microseconds is nothing compared with an answer that takes Larkspur's models seconds. A router that asks a language
# model is another matter, and its cost belongs in the formula of section 6.

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
# Larkspur's manager writes: *"From Monday on, all questions go to the small model, which costs a fraction. And every
# question goes to the replica that has read its guide, because hits are free."* Reply in four to eight sentences: what
# each proposal saves and what it breaks, with numbers from this chapter, what you would do instead, and what to watch.
# Put your reply between `"""` and `"""`. Check: `ch.check("7.8", reply)`.

# %% id="answer-7.8" tags=["answer"] question="7.8"
# SOLUTION
reply = """
Sending everything to the small model costs 0.057 instead of 0.322 USD per 1,000 answers, but the model gets only 24 %
of the hard questions right instead of 91 %, and the average hides that. Routing by prefix alone would ruin a day like
our Saturday: one replica got 66 % of the requests and the p99 of the first token was 49 s, where by load it was 1 s. I
would weigh prefix against load: that finds 93 % of the tokens instead of 95 %, and the p99 stays at 1 s. Easy questions
go to the small model, and hard ones only as far as a floor that you set allows. We should watch the accuracy on hard
questions by itself, the p99, and the share of the busiest replica.
"""
# END SOLUTION

# %% id="check-7.8" tags=["check"]
ch.check("7.8", reply)

# %% [markdown] id="real-code"
# ## 11 Read the real code
#
# Here are the balancer of section 3, from `miniserve/policies/routing/affinity.py`, and both ways to choose a model, from
# `miniserve/policies/routing/model_router.py`. Look for two things: where the score of section 3 is computed (there it's a
# load, so the smallest wins; `_beta` is 1, and 0 by prefix alone), and what the balancer remembers when it has sent a
# request elsewhere.

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
# - Without a plan, a follow-up on n replicas finds the replica of its previous turn one time in n. Cache-aware routing
#   doesn't depend on that luck.
# - Affinity alone sends every request with a popular prefix to one replica, whose queue costs more than the hits save.
#   Weigh both, and a hot prefix spreads.
# - A balancer knows what it has sent, not what the caches still hold. **Tenants**, customers of one service who must
#   not learn about each other, share no cache: otherwise the speed of an answer would reveal what others ask.
# - A model router is worth the accuracy that it adds above the random mix at the same cost, its own cost included. A
#   cascade pays for two answers whenever it isn't sure.
# - Set the floor for quality first, and watch hard questions by themselves.
#
# In chapter 15 you build the cache-aware router, in chapter 16 the model router. Chapter 3 shows how all replicas can
# share one prefix cache.
#
# **Go deeper**
#
# - L. Zheng and others, *SGLang: Efficient Execution of Structured Language Model Programs*, NeurIPS 2024,
#   arXiv:2312.07104: prefixes kept in a tree, and scheduling by prefix.
# - R. Qin and others, *Mooncake: Trading More Storage for Less Computation*, FAST 2025: a service built around its caches.
# - V. Mirrokni and others, *Consistent Hashing with Bounded Loads*, SODA 2018: affinity with a hard bound on load.
# - L. Chen and others, *FrugalGPT*, 2023, arXiv:2305.05176: cascades of models.
# - I. Ong and others, *RouteLLM: Learning to Route LLMs with Preference Data*, 2024, arXiv:2406.18665: routers, and how to
#   set their threshold.
