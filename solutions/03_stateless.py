# %% [markdown] id="intro"
# # Chapter 3: Stateless against stateful
#
# **You will learn**
#
# - what it costs to read a whole chat again at each turn, and why that cost grows with the square of the turns;
# - what a prefix cache gives back, and what it costs to lose it;
# - what happens to sticky sessions when a server fails, or when the fleet shrinks by one;
# - to compare four designs: sticky, stateless, a cache in each replica, one shared cache behind them all;
# - where state may live.
#
# **You need** Python, but no knowledge of serving. **Time**: a good hour; all cells together run in {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 Reading again · 3 What a cache gives back · 4 Four turns, two caches · 5 One
# server fewer · 6 Predict, then run · 7 A replica goes away · 8 Break it · 9 Where state lives · 10 Read the real code ·
# 11 Summary
#
# **How exercises work.** Put your answer where you see `...`, then run the check below it. It says CORRECT, or what is
# wrong and why. `ch.hint("3.1")` gives a hint; call it again for the next one. After an attempt,
# `ch.solution("3.1")` shows a solution.

# %% id="setup"
from __future__ import annotations

from miniserve import course
from miniserve.course.chapters.ch03_stateless import lab

ch = course.chapter(3)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# **Larkspur** is the fictional service of this course: an assistant for a chain of garden centres. A customer asks, gets an
# answer, asks again. Each such round is a **turn**. The model reads and writes **tokens**, pieces of words.
#
# A model remembers nothing between two requests. To go on with a chat, the model must be shown everything said so far. Who
# keeps that?
#
# - A **stateful** service keeps the chat in the server that began it. The next turn must go to that same server: the
#   session is **sticky**.
# - A **stateless** service keeps nothing. Each request brings the whole chat along, and any server can take it.
#
# **Where we are on a request's path.** A *balancer* has just chosen a **replica**, one of several identical servers.
# The replica reads the **prompt**, everything shown to the model; that work is called **prefill**. Then it writes the
# answer, token by token.
#
# Reading takes time. The next cell says how much on one of Larkspur's replicas (one GPU, the chip that runs the model):

# %% id="bite-cost" tags=["nbval-check-output"]
for tokens in (100, 1000, 8000):
    print(f"a prompt of {tokens:>5,} tokens: about {tokens * lab.prefill_s_per_token():.2f} s of prefill")

# %% [markdown] id="again"
# ## 2 Reading again
#
# Every prompt begins with Larkspur's **guide** (its *system prompt*), a text that tells the model how to behave. Then
# come all earlier messages and answers, then the new message. Worked example for a guide of 200 tokens, messages of 30
# and answers of 100:

# %% id="again-example" tags=["nbval-check-output"]
print("turn 1: guide 200 + message 30 =", 200 + 30)
print("turn 2: guide 200 + messages 2 * 30 + answer 100 =", 200 + 60 + 100)
print("turn 3: guide 200 + messages 3 * 30 + answers 2 * 100 =", 200 + 90 + 200)
print("the whole chat of three turns:", 230 + 360 + 490)

# %% [markdown] id="again-2"
# ### Exercise 3.1: a chat that is read again and again
#
# Difficulty 2 of 5 · about 8 min
#
# A stateless service without a cache computes each prompt in full. Write a function that returns how many prompt tokens
# it computes in a chat of `turns` turns. `guide`, `message` and `answer` are lengths in tokens; all messages are
# equally long, and so are all answers. Your function is checked on 64 random sets of these numbers. Check:
# `ch.check("3.1", without_cache)`.


# %% id="answer-3.1" tags=["answer"] question="3.1"
# SOLUTION
def without_cache(turns, guide, message, answer):
    """Return the prompt tokens that are computed in the whole chat."""
    return turns * guide + message * turns * (turns + 1) / 2 + answer * turns * (turns - 1) / 2


# END SOLUTION

# %% id="check-3.1" tags=["check"]
ch.check("3.1", without_cache)

# %% [markdown] id="cache"
# ## 3 What a cache gives back
#
# While a model reads, it computes two lists of numbers for each token, *keys* and *values*. A **prefix cache** keeps
# them. When a later prompt begins with the same tokens, the model needn't compute that part again. The cache keeps the
# answer's tokens as well: the model computed their keys and values while it wrote the answer.
#
# So in the example above, turn 1 computes 230 tokens, and turns 2 and 3 only their messages: 230 + 30 + 30 = 290. But a
# cache may be lost: the replica restarts, or the next turn goes to another one. Worked example for a loss before turn
# 3: 230 + 30, and then the whole prompt of turn 3, which is 490: together 750.
#
# ### Exercise 3.2: what a cache gives back, and what its loss costs
#
# Difficulty 3 of 5 · about 9 min
#
# Now the service has a cache that keeps everything, but it is lost **once**, right before turn `lost` (2 to `turns`).
# From then on it keeps everything again. How many prompt tokens are computed in the whole chat? Check:
# `ch.check("3.2", with_cache)`.


# %% id="answer-3.2" tags=["answer"] question="3.2"
# SOLUTION
def with_cache(turns, guide, message, answer, lost):
    """Return the prompt tokens that are computed in the whole chat."""
    return 2 * guide + (turns + lost - 1) * message + (lost - 1) * answer


# END SOLUTION

# %% id="check-3.2" tags=["check"]
ch.check("3.2", with_cache)

# %% [markdown] id="cache-2"
# **Measure.** Your two functions side by side, for a guide of 200, messages of 60 and answers of 211 tokens:

# %% id="cache-measured" tags=["nbval-check-output"]
longer = (2, 4, 8, 16, 32)
shown = {"turns": longer}
plain, kept = ch.yours("3.1", without_cache), ch.yours("3.2", with_cache)
if plain is not None:
    shown["without a cache"] = [plain(n, 200, 60, 211) for n in longer]
if kept is not None:
    shown["with one, lost before the last turn"] = [kept(n, 200, 60, 211, n) for n in longer]
course.table(shown, "Prompt tokens that are computed in a chat")

# %% [markdown] id="cache-3"
# Without a cache, twice as many turns mean nearly four times as many tokens once the chat is long: the sum is
# **quadratic** in the turns. With a cache it grows **linearly**, even if everything is lost once.

# %% [markdown] id="caches"
# ## 4 Four turns, two caches
#
# Real caches have two subtleties. They keep whole **blocks**, here of 16 tokens: tokens that don't fill a block aren't
# found. And the model wrote the **last** token of an answer but never read it, so its keys and values are missing:
# after a turn, prompt + answer - 1 tokens are kept. Worked example: a prompt of 50 and an answer of 33 leave 82 tokens,
# five whole blocks; the next turn on that replica finds 80. (A prompt is never found in full: something is always left
# to compute.)
#
# ### Exercise 3.3: four turns and two caches
#
# Difficulty 3 of 5 · about 10 min
#
# A balancer that knows nothing about caches sends the turns of one chat to replicas A, A, B and A. Each has its own
# cache, which is empty at first and never evicts anything. There is no guide. The next cell prints the turns.

# %% id="caches-given" tags=["nbval-check-output"]
places, messages, answers = zip(*lab.CHAT, strict=True)
course.table(
    {"turn": (1, 2, 3, 4), "replica": places, "message (tokens)": messages, "answer (tokens)": answers}, "One chat"
)

# %% [markdown] id="caches-2"
# The row of turn 1 is `(1, 100, 0, 100)`: turn, prompt tokens, tokens found in its replica's cache, tokens computed.
# Write the rows of **turns 2 to 4** in the same form, as a list. Check: `ch.check("3.3", rows)`.

# %% id="answer-3.3" tags=["answer"] question="3.3"
# SOLUTION
rows = [
    (2, 200, 144, 56),
    (3, 320, 0, 320),
    (4, 445, 288, 157),
]
# END SOLUTION

# %% id="check-3.3" tags=["check"]
ch.check("3.3", rows)

# %% [markdown] id="caches-3"
# **Measure.** The check compared your table with the framework's own scheduler and cache. They can serve other chats as
# well. Here are two of four turns, with messages of 50 and answers of 100 tokens: one stays on its replica, and the
# other goes back and forth.

# %% id="caches-measured" tags=["nbval-check-output"]
for route in ("AAAA", "ABAB"):
    served = lab.on_replicas([(name, 50, 100) for name in route])
    print(f"{route}: {sum(prompt - found for prompt, found in served)} tokens computed")

# %% [markdown] id="fewer"
# ## 5 One server fewer
#
# A sticky balancer must know which server has a session. The simplest rule sends session number i to server i mod N,
# the remainder of i divided by the number of servers N. When demand falls, one server is removed: a **scale-in**. The
# rule now divides by N - 1.
#
# Worked example for six sessions and 3 servers that become 2:

# %% id="fewer-example" tags=["nbval-check-output"]
sessions = range(6)
course.table(
    {
        "session": list(sessions),
        "of 3 servers": [i % 3 for i in sessions],
        "of 2 servers": [i % 2 for i in sessions],
        "so it": ["stays" if i % 3 == i % 2 else "moves" for i in sessions],
    },
    "Where a session is, before and after",
)

# %% [markdown] id="fewer-2"
# Four of six move, a share of 1 - 1/3, though only two were on the server that left. Every session that moves must be
# read again by its new server.
#
# ### Exercise 3.4: one server fewer
#
# Difficulty 3 of 5 · about 7 min
#
# The numbers printed below are drawn for you. A fleet of `servers` shrinks by **one**. Each of the `sessions` (numbered
# from 0) has a context of `context_tokens`. How many tokens must be read again in all, if sessions are placed by
# remainder? Check: `ch.check("3.4", tokens_again)`.

# %% id="fewer-given"
given = ch.given("3.4")
given

# %% id="answer-3.4" tags=["answer"] question="3.4"
# SOLUTION
moved = given["sessions"] * (1 - 1 / given["servers"])
tokens_again = moved * given["context_tokens"]
# END SOLUTION

# %% id="check-3.4" tags=["check"]
ch.check("3.4", tokens_again)

# %% [markdown] id="fewer-3"
# **Consistent hashing** does better: servers and sessions are points on a ring, and a session belongs to the next
# server along it. If a server leaves, only its own sessions move. Here is the framework's ring next to the remainder
# rule, for four servers:

# %% id="fewer-measured" tags=["nbval-check-output"]
from miniserve.policies.routing.affinity import ConsistentHash
from miniserve.types import ReplicaView, Request

ring = ConsistentHash()


def on_the_ring(i, servers):
    views = [ReplicaView(f"server-{n}") for n in range(servers)]
    return ring.choose(Request(f"q{i}", "model", (1,), session_key=f"s{i}"), views)


print(f"by remainder: {lab.moved_share(lambda i, servers: i % servers, 4):.0%} move")
print(f"on a ring:    {lab.moved_share(on_the_ring, 4):.0%} move")

# %% [markdown] id="fewer-4"
# A server could also **drain**: wait until its chats have ended before it leaves. That takes a long time, because
# people pause:

# %% id="fewer-gaps" tags=["nbval-check-output"]
from miniserve.workload.conversations import GAP_S

print(
    f"between two turns: half of all pauses are longer than {GAP_S.at(0.5)} s, one in ten longer than {GAP_S.at(0.9)} s"
)

# %% [markdown] id="predict"
# ## 6 Predict, then run
#
# Now Larkspur, **simulated**: each of four replicas runs the real scheduler and cache, and only time is virtual. Four
# designs face the same quarter of an hour of chats:
#
# - *sticky*: a session stays with one replica, which keeps a cache;
# - *stateless*: each request goes to the least busy replica, and there is no cache;
# - *cache per replica*: the same, but each replica has its own prefix cache;
# - *shared tier*: the same, plus one **shared tier** behind all replicas, a large store to which they copy their
#   blocks. Instead of computing what another replica has already computed, a replica fetches it over the network.
#
# Chats are drawn at random. A **seed** fixes the draw: the same seed gives the same chats again, and another seed gives
# other chats of the same kind. Here is the demand of a run, averaged over seeds 1 to 5:

# %% id="predict-demand" tags=["nbval-check-output"]
for what, number in lab.demand().items():
    print(f"{what}: {number:,}")

# %% [markdown] id="predict-2"
# ### Exercise 3.5: how much the shared tier saves
#
# Difficulty 3 of 5 · about 8 min
#
# How many **times** as many prompt tokens does *stateless* compute as *shared tier*, in these five runs together? Give
# `(low, high)`, with high at most 1.6 times low. (Some chats began before the run. Their first request in the run
# counts as a first one here: the tier hasn't seen what was said before.) The check makes the runs, which takes a few
# seconds: `ch.check("3.5", times_more)`.

# %% id="answer-3.5" tags=["answer"] question="3.5"
# SOLUTION
# Without: 418 * 1,667 + 471 * 2,371 = 1.81 million. With the tier: 418 * 1,667 + 471 * 60 = 0.73 million. 2.5 times; a bit
# less, since a follow-up also computes the block that wasn't full.
times_more = (2, 3)
# END SOLUTION

# %% id="check-3.5" tags=["check"]
ch.check("3.5", times_more)

# %% [markdown] id="run"
# Now run all four, with seed 3. **TTFT** is the time to first token, from the request to the first piece of its answer;
# half of the requests wait at most the **p50**, and 99 of 100 at most the **p99**.

# %% id="run-four" tags=["nbval-check-output"]
calm = {design: lab.larkspur(design) for design in lab.DESIGNS}


def compared(runs):
    return {
        "design": list(runs),
        "computed (thousand tokens)": [round(lab.computed_tokens(run) / 1000) for run in runs.values()],
        "found in a cache": [f"{lab.found_share(run):.0%}" for run in runs.values()],
        "p50 TTFT (s)": [round(lab.ttft_s(run, 50), 2) for run in runs.values()],
        "p99 TTFT (s)": [round(lab.ttft_s(run, 99), 2) for run in runs.values()],
        "busiest replica's share": [f"{max(run.by_replica().values()) / len(run):.0%}" for run in runs.values()],
    }


course.table(compared(calm), "A quarter of an hour of Larkspur, four ways")

# %% [markdown] id="run-2"
# *Stateless* computes everything again, as it must. With a *cache per replica*, a follow-up finds its past only if it
# happens to come to the same replica, and if the past is still there. With *sticky*, it always comes back to its
# replica, and yet most of its tokens aren't found. Why? A replica's memory is small, and it **evicts** the blocks that
# were used least recently (**LRU**):

# %% id="run-room" tags=["nbval-check-output"]
done = calm["stateless"]
per_s = (done.prompt_tokens.sum() + done.output_tokens.sum()) / lab.SECONDS / lab.REPLICAS
print(f"a replica has room for {lab.room_tokens():,} tokens, and reads and writes {per_s:.0f} per second")
print(f"so its memory is full of new ones after about {lab.room_tokens() / per_s:.0f} s")
print(f"the tier has room for {lab.TIER_BYTES / lab.kv_bytes_per_token() / 1e6:.1f} million tokens")

# %% [markdown] id="run-3"
# Half of all pauses are longer than that (section 5). So a stateful service would have to keep the chats of people who
# may never come back, and it has no room for them; the tier is far larger. The sticky design has a second handicap: it
# ignores load, so its busiest replica gets somewhat more than a quarter of the requests.
#
# **What is one run worth?** The table is a single draw. Here are all five seeds:

# %% id="run-seeds" tags=["nbval-check-output"]
by_seed = {"seed": lab.SEEDS, "computed, stateless / shared tier": [round(lab.times_more([s]), 2) for s in lab.SEEDS]}
for design in ("sticky", "stateless", "shared tier"):
    by_seed[f"p99 TTFT, {design} (s)"] = [lab.ttft_s(lab.larkspur(design, seed=s), 99) for s in lab.SEEDS]
course.table(by_seed, "Five runs")

# %% [markdown] id="run-4"
# The ratio is much the same in each run, because it rests on all the tokens of the run. A p99 rests on the nine slowest
# of some 900 requests, so it goes up and down a lot. One run can't tell whether *sticky* or *stateless* has the smaller
# p99; in these five, the *shared tier* always has the smallest.

# %% [markdown] id="away"
# ## 7 A replica goes away
#
# The same demand, but one of the four replicas crashes at second 600 and is back, with an empty cache, at second 780.
# For the others this looks like a scale-in without notice. The table shows only the requests that arrive in these three
# minutes.

# %% id="away-run" tags=["nbval-check-output"]
crashed = {design: lab.larkspur(design, crash=True) for design in lab.DESIGNS}
course.table(
    compared({design: run.arrived_between(*lab.FAULT_S) for design, run in crashed.items()}),
    "The three minutes in which a replica is away",
)

# %% id="away-figure"
lab.draw_found({design: run for design, run in crashed.items() if design != "stateless"})

# %% [markdown] id="away-2"
# Its sessions move to other replicas, which haven't seen them, and three do the work of four. In this run, the slowest
# requests of the *sticky* fleet wait longest, but chance plays a large part in the p99 of a single run (section 6). It
# plays a smaller part in the share of tokens found. Here it is with and without the crash, for the same minutes:

# %% id="away-compared" tags=["nbval-check-output"]
for design in ("sticky", "shared tier"):
    well, hit = (lab.found_share(runs[design].arrived_between(*lab.FAULT_S)) for runs in (calm, crashed))
    print(f"{design}: {well:.0%} of prompt tokens found without the crash, {hit:.0%} with it")

# %% [markdown] id="away-tier"
# The shared tier's blocks weren't in the replica that died, so requests find as much as ever. (That is more than in the
# whole run of section 6, where the tier starts empty.)
#
# No cache helps the answers that were being written at that moment:

# %% id="away-failed" tags=["nbval-check-output"]
for design, run in crashed.items():
    print(f"{design}: {len(run) - run.served.sum()} of {len(run)} answers broke off")

# %% [markdown] id="away-3"
# The customer sees an error and asks again. In a stateless service any replica can answer then, since the app still has
# the chat. If the only copy had been in the replica, the chat would be lost.

# %% [markdown] id="break"
# ## 8 Break it
#
# Sticky sessions find their cache. When do they lose anyway? Take a model of a few lines: two servers, A and B. A turn
# takes 1 s. *Sticky*: chats 1, 3, 5, ... stay on A, the others on B. *Stateless*: a turn goes to whichever server is
# free first, and takes 0.25 s more for each earlier turn of its chat, which it reads again. All chats begin at second
# 0, and each asks its next question as soon as it has its answer. `lab.finish_s` says when everything is done:

# %% id="break-example" tags=["nbval-check-output"]
for chats_tried in ([4, 4], [8, 1, 8, 1]):
    ends = [lab.finish_s(chats_tried, sticky=sticky) for sticky in (True, False)]
    print(f"chats of {chats_tried} turns: sticky ends after {ends[0]:g} s, stateless after {ends[1]:g} s")

# %% [markdown] id="break-2"
# ### Exercise 3.6: where sticky loses
#
# Difficulty 3 of 5 · about 9 min
#
# Find a list of 2 to 8 chats, each given as its number of turns (1 to 12), for which sticky takes **at least 1.2
# times** as long as stateless. Check: `ch.check("3.6", chats)`.

# %% id="answer-3.6" tags=["answer"] question="3.6"
# SOLUTION
chats = [3, 1, 3, 1, 3, 1, 3, 1]
# END SOLUTION

# %% id="check-3.6" tags=["check"]
ch.check("3.6", chats)

# %% [markdown] id="break-3"
# And when does the shared tier lose? When its **link**, the network to it, is slower than computing. Fetching a token
# takes the bytes of its keys and values, divided by the bandwidth:

# %% id="break-link" tags=["nbval-check-output"]
print(f"a token has {lab.kv_bytes_per_token():,.0f} bytes; computing it takes {lab.prefill_s_per_token() * 1e6:.0f} µs")
for link_bytes_per_s in (5e9, 1e8):
    fetch_s = lab.kv_bytes_per_token() / link_bytes_per_s
    run = lab.larkspur("shared tier", link_bytes_per_s=link_bytes_per_s)
    print(
        f"link of {link_bytes_per_s / 1e9:g} GB/s: fetching it takes {fetch_s * 1e6:,.0f} µs; "
        f"p50 TTFT {lab.ttft_s(run, 50):.2f} s, p99 {lab.ttft_s(run, 99):.2f} s"
    )

# %% [markdown] id="state"
# ## 9 Where state lives
#
# Stateless doesn't mean that there is no state. It means that no replica holds the only copy.
#
# ### Exercise 3.7: where state may live
#
# Difficulty 2 of 5 · about 6 min
#
# The next cell prints eight pieces of state and three places. Give each piece the place that fits best. Check:
# `ch.check("3.7", places_of_state)`.

# %% id="state-items"
course.show_choices(lab.STATES, lab.PLACES)

# %% id="answer-3.7" tags=["answer"] question="3.7"
# SOLUTION
places_of_state = {
    "a": "request",
    "b": "cache",
    "c": "store",
    "d": "store",
    "e": "request",
    "f": "cache",
    "g": "store",
    "h": "cache",
}
# END SOLUTION

# %% id="check-3.7" tags=["check"]
ch.check("3.7", places_of_state)

# %% [markdown] id="advice"
# ### Exercise 3.8: sticky, or not?
#
# Difficulty 3 of 5 · about 10 min · a person reads it
#
# Should Larkspur's next version keep chats in its replicas? Write four to eight sentences: what you recommend, why,
# what it costs (with numbers from this chapter), what happens in a crash and at a scale-in, and when you would decide
# otherwise. Put it between `"""` and `"""`. Check: `ch.check("3.8", advice)`.

# %% id="answer-3.8" tags=["answer"] question="3.8"
# SOLUTION
advice = """
Let the app send the whole chat each time, so that any replica can answer and a crash loses no chat. The price is that
earlier turns are read again, and that cost grows with the square of the turns. A prefix cache saves most of it, and one
shared tier saves it for all replicas: in our run it cut the computed tokens by a factor of 2.4, and it found just as
much while a replica was away. Sticky sessions found about a quarter, since replicas have little room, and less in the
crash; at a scale-in by remainder most sessions move. I would decide otherwise if the link to the tier were slower than
computing, or if chats had only one turn.
"""
# END SOLUTION

# %% id="check-3.8" tags=["check"]
ch.check("3.8", advice)

# %% [markdown] id="real-code"
# ## 10 Read the real code
#
# Here is how a replica asks the tier, from `miniserve/sim/prefix_tier.py`, and how the ring finds a server, from
# `miniserve/policies/routing/affinity.py`. Look for two things: why the tier returns only what it has from the *first* block
# onwards, and what the ring does when the next server is too busy.

# %% id="real-code-shown"
import inspect

from miniserve.sim.prefix_tier import PrefixTier

print(inspect.getsource(PrefixTier.fetch))
print(inspect.getsource(ConsistentHash.choose))

# %% [markdown] id="summary"
# ## 11 Summary
#
# - Stateless: each request brings its whole context, so any replica can take it, and any replica may leave.
# - Without a cache, the tokens read in a chat grow with the square of its turns. With one, they grow linearly.
# - A cache may be lost at any time; that costs prefill, but never an answer.
# - When one of N servers leaves, placement by remainder moves a share of 1 - 1/N of the sessions, and a ring about 1/N.
# - A shared tier lets every replica use what one has computed, as long as its link is faster than computing.
#
# Chapter 7 lets the balancer look at caches *and* load; chapter 15 builds that.
#
# **Go deeper**
#
# - D. Karger and others, *Consistent Hashing and Random Trees*, STOC 1997: the ring.
# - V. Mirrokni and others, *Consistent Hashing with Bounded Loads*, SODA 2018: a ring that avoids overloaded servers.
# - W. Kwon and others, *Efficient Memory Management for Large Language Model Serving with PagedAttention*, SOSP 2023: blocks.
# - L. Zheng and others, *SGLang: Efficient Execution of Structured Language Model Programs*, NeurIPS 2024: prefix caching.
# - R. Qin and others, *Mooncake: A KVCache-centric Disaggregated Architecture for LLM Serving*, FAST 2025: a shared cache.
