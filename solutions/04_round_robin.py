# %% [markdown] id="intro"
# # Chapter 4: Round robin fails
#
# **You will learn**
#
# - why equal numbers of requests aren't equal work, and how to trace two balancers with pen and paper;
# - what queueing theory says about waiting behind long answers, and how to check it against a run;
# - how to build a trace on which taking turns is three times worse, and one on which it wins;
# - what stale numbers do to a balancer, and why looking at two replicas is nearly as good as looking at all of them;
# - what no balancer can fix: a long prompt inside a replica, and how reading it in chunks helps.
#
# **You need** Python, but no knowledge of serving. **Time**: a good hour; all cells together run in {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 Eight requests on paper · 3 What theory says · 4 Break it · 5 Turns win ·
# 6 Stale numbers · 7 Predict, then run · 8 A long prompt in the way · 9 What would you do? · 10 Read the real code · 11
# Summary
#
# **How exercises work.** Put your answer where you see `...`, then run the check below it. It says CORRECT, or what is
# wrong and why. `ch.hint("4.1")` gives a hint; call it again for the next one. After an attempt,
# `ch.solution("4.1")` shows a solution.

# %% id="setup"
import inspect

from miniserve import course
from miniserve.course.chapters.ch04_round_robin import lab
from miniserve.policies.routing import balancer as library

ch = course.chapter(4)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# **Larkspur** is the fictional service of this course: an assistant for a chain of garden centres. Customers chat with
# it, and staff use it to draft articles. A language model runs on four GPUs. Each GPU with its own copy of the model is
# a **replica**. All chapters use the same price list and the same distribution of question and answer lengths.
#
# An answer is made of **tokens**, pieces of words. Nine requests in ten are chats, whose answers run from about 10 to
# 1,000 tokens; one in ten is an article of 2,000. The more tokens an answer has, the longer it keeps a replica busy.
#
# The component that decides which replica gets a request is the **balancer**, or *load balancer*. The oldest kind
# simply takes turns, replica 0, 1, 2, 3, 0, 1, ..., and is called **round robin**. The next cell simulates an afternoon
# with it. Each replica runs the project's real scheduling code; only time is simulated. We look at the **time to first
# token**: how long a customer stares at an empty screen. Half of all requests stay within its **p50**, and 99 of 100
# within its **p99** (chapter 6 has more on both).

# %% id="naive" tags=["nbval-check-output"]
naive = lab.afternoon(library.RoundRobin)
lab.shares(naive)

# %% [markdown] id="bite-2"
# Each GPU got exactly a quarter of the requests. What could be fairer? But the tokens aren't equal, and the p99s are
# far apart: one customer in a hundred looks at an empty screen for more than ten times as long as usual. Are four GPUs
# too few? You'll see the same afternoon again in section 6.
#
# **Where we are on a request's path.** Client → gateway → **balancer** → replica → scheduler → model. The balancer sits
# in the gateway, the one door that every request comes through. (The scheduler, inside each replica, decides what the
# model works on next.) The balancer decides once, when the request arrives, and can't change its mind.

# %% [markdown] id="paper"
# ## 2 Eight requests on paper
#
# Let's take a replica that fits on paper: it answers **one request at a time**, in order of arrival, and writes 50
# tokens per second. So an answer of 2,000 tokens takes 40 s and one of 50 takes 1 s. (A real replica writes several
# answers at once; section 8 comes back to that.) A request's **wait** runs from its arrival to the moment its own
# answer begins.
#
# Take two such replicas, *A* and *B*, and these eight requests:

# %% id="paper-trace" tags=["nbval-check-output"]
course.table(
    {
        "request": range(1, 9),
        "arrives (s)": [at_s for at_s, _ in lab.PAPER],
        "tokens": [tokens for _, tokens in lab.PAPER],
        "answer takes (s)": [tokens / lab.TOKENS_PER_S for _, tokens in lab.PAPER],
    },
    "A trace: what comes when",
)

# %% [markdown] id="paper-2"
# And two balancers:
#
# - **Turns**: requests 1, 3, 5, 7 go to A, the others to B.
# - **Counts**: a request goes to the replica with the fewest *unfinished* requests: those waiting there plus the one
#   being answered. A tie goes to A.
#
# Here are the first two, worked in full. Request 1 arrives at second 0. By turns it goes to A; by counting it does as
# well, because both have 0. Its answer begins at once, so it waits 0 s, and it keeps A busy until second 40. Request 2
# arrives at second 1. By turns it goes to B, and by counting as well: A has 1 and B has 0. It waits 0 s and keeps B
# busy until second 3. So the first two rows are `(1, "A", 0, "A", 0)` and `(2, "B", 0, "B", 0)`.
#
# ### Exercise 4.1: eight requests, two balancers
#
# Difficulty 3 of 5 · about 12 min
#
# Write the rows for **requests 3 to 8** in the same form, as a list. Each row holds the request, its replica and its
# wait in seconds by turns, then its replica and its wait by counting. Check: `ch.check("4.1", rows)`.

# %% id="answer-4.1" tags=["answer"] question="4.1"
# SOLUTION
rows = [
    (3, "A", 38, "A", 38),
    (4, "B", 0, "B", 0),
    (5, "A", 36, "B", 1),
    (6, "B", 0, "B", 9),
    (7, "A", 43, "A", 33),
    (8, "B", 0, "B", 0),
]
# END SOLUTION

# %% id="check-4.1" tags=["check"]
ch.check("4.1", rows)

# %% [markdown] id="paper-3"
# **Measure.** Here is the same trace with four balancers. In the lab, a balancer is one line: it gets the request's
# number and what is *seen* of each replica, and returns the place (the index) of the one it picks.

# %% id="paper-code"
for choose in (lab.by_turns, lab.fewest_requests, lab.fewest_tokens, lab.emptiest_pool):
    print(inspect.getsource(choose))

# %% id="paper-run" tags=["nbval-check-output"]
eight = {
    name: lab.serve(lab.PAPER, choose, replicas=2)
    for name, choose in {
        "turns": lab.by_turns,
        "fewest requests": lab.fewest_requests,
        "fewest tokens": lab.fewest_tokens,
        "emptiest pool": lab.emptiest_pool,
    }.items()
}
course.table(
    {"request": range(1, 9), **{f"{name}: wait (s)": run.wait_s for name, run in eight.items()}},
    "Eight requests, four balancers",
)

# %% id="paper-figure"
lab.draw_answers({name: eight[name] for name in ("turns", "fewest requests", "fewest tokens")})

# %% [markdown] id="paper-4"
# A hatched bar is a request waiting, a solid bar one being answered, and the letter names the replica. A balancer can
# look at different numbers, and each has its weakness:
#
# - **Unfinished requests** are easy to count. But one article of 2,000 tokens counts as much as one short question, so
#   requests 3 and 7 still end up behind it.
# - **Tokens still to be written** would be the best measure of work. But nobody knows an answer's length before it's
#   written, unless the request states it.
# - **How full the memory is.** A replica keeps what it has read and written of an answer in a memory called the *KV
#   cache*, or its pool. Waiting requests hold nothing there. So a replica that has just begun a long answer, with a
#   queue behind it, may show the emptiest pool of all. Eight requests are too few to show this; the next section has
#   more.

# %% [markdown] id="theory"
# ## 3 What theory says
#
# Suppose requests reach **one** replica at random times, `per_s` of them per second on average. A share `long_share` of
# the answers take `long_s` seconds each, the others `short_s`. Three numbers decide how long a request waits on
# average:
#
# - the mean answer time, m = long_share · long_s + (1 - long_share) · short_s, in seconds;
# - the mean **square**, s = long_share · long_s² + (1 - long_share) · short_s², in seconds²;
# - the **load** or *utilisation*, per_s · m: the share of time that the replica is busy. It must be below 1.
#
# The mean wait is then **per_s · s / (2 · (1 - load))**, the *Pollaczek-Khinchine formula*. Where does it come from? An
# arriving request finds an answer in progress, and has to wait for the rest of it: per_s · s / 2 on average. (The
# square is there because a request is more likely to arrive during a long answer, *and* a long answer has more left to
# go.) It also finds a queue of requests that came before it, which makes the wait 1 / (1 - load) times as long.
#
# Worked example with other numbers: half of the answers take 1 s and half 3 s, and one request arrives every 4 s on
# average. Then m = 2 s, s = (1 + 9) / 2 = 5 s², the load is 0.25 · 2 = 0.5, and the mean wait is 0.25 · 5 / (2 · 0.5) =
# 1.25 s. If all answers took 2 s, s would be 4 and the wait 1 s.
#
# ### Exercise 4.2: the mean wait behind answers of two sizes
#
# Difficulty 3 of 5 · about 10 min
#
# Write a function that returns the mean wait in seconds. It's checked on 64 random sets of parameters. Check:
# `ch.check("4.2", mean_wait_s)`.


# %% id="answer-4.2" tags=["answer"] question="4.2"
# SOLUTION
def mean_wait_s(per_s, long_share, short_s, long_s):
    """Return how long a request waits on average before its answer begins."""
    mean_s = long_share * long_s + (1 - long_share) * short_s
    square = long_share * long_s**2 + (1 - long_share) * short_s**2
    return per_s * square / (2 * (1 - per_s * mean_s))


# END SOLUTION

# %% id="check-4.2" tags=["check"]
ch.check("4.2", mean_wait_s)

# %% [markdown] id="theory-2"
# **Measure.** We send 40,000 requests to four paper replicas: one in twenty takes 40 s and the others 2 s. If each
# request draws a replica by lot, each replica sees random arrivals at a quarter of the rate, and the formula holds for
# it. (A single run is a few per cent off, even with 40,000 requests, because a few bursts of long answers account for
# much of the mean.)

# %% id="theory-run" tags=["nbval-check-output"]
two_sizes = {"long_share": 0.05, "short_s": 2, "long_s": 40}
per_s = 0.6  # for all four
trace = lab.random_trace(40_000, per_s, **two_sizes)
runs = {
    "by lot": lab.serve(trace, lab.by_lot),
    "by turns": lab.serve(trace, lab.by_turns),
    "fewest requests": lab.serve(trace, lab.fewest_requests),
    "fewest tokens": lab.serve(trace, lab.fewest_tokens),
    "emptiest pool": lab.serve(trace, lab.emptiest_pool),
}
lab.wait_table(runs, "Two sizes of answers, four replicas")

# %% id="theory-formula" tags=["nbval-check-output"]
from miniserve.planning.queueing import mg1_waiting_s  # the framework's own: the same formula for any mix of sizes

mean_s = 0.05 * 40 + 0.95 * 2
square = 0.05 * 40**2 + 0.95 * 2**2
print(f"theory, by lot: {mg1_waiting_s(per_s / 4, mean_s, square / mean_s**2 - 1):.2f} s")
formula = ch.yours("4.2", mean_wait_s)
if formula is not None:
    print(f"your formula:   {formula(per_s / 4, **two_sizes):.2f} s")
    print(f"all alike:      {formula(per_s / 4, 0.5, mean_s, mean_s):.2f} s, at the same load")

# %% [markdown] id="theory-3"
# Three lessons. First, taking turns isn't much better than drawing lots: it evens out the *moments* of arrival and does
# nothing about the *sizes*, and the sizes cause most of the wait. Second, most of that wait is avoidable: with the same
# requests and the same replicas, counting makes it several times shorter. Third, it matters what you count: the pool
# shows nothing of the requests that wait, so choosing by it leaves a longer tail than counting requests.

# %% [markdown] id="break"
# ## 4 Break it
#
# Now build a trace yourself, for four paper replicas and four balancers:
#
# - *counts requests*: picks the replica with the fewest unfinished requests, by fresh numbers; a tie goes to the first;
# - *takes turns*: replica 0, 1, 2, 3, 0, ...;
# - *draws lots*: picks a replica at random;
# - *looks too late*: counts requests as well, but sees numbers that are reported only every 10 s, at seconds 0, 10, 20,
#   ...
#
# A trace is a list of pairs: second of arrival, tokens of the answer. `lab.compare(trace)` runs all four.

# %% id="break-example" tags=["nbval-check-output"]
lab.compare([(0.5 * i, 50) for i in range(200)])

# %% [markdown] id="break-2"
# Here 200 answers of 1 s keep the fleet half busy. By turns and by counting no request waits; the other two balancers
# make some wait for nothing.
#
# ### Exercise 4.3: a trace that catches three balancers out
#
# Difficulty 3 of 5 · about 12 min
#
# Give a trace of **100 to 1,000** requests of **10 to 2,000** tokens on which **each** of the other three balancers has
# a p99 of the wait that is **at least three times** that of *counts requests*, and at least 3 s (nobody minds shorter
# waits). For example, `[(0.5 * i, 100 if i % 2 == 0 else 50) for i in range(200)]` makes two hundred requests, every
# other one longer. `lab.compare(killer)` shows how all four do on your trace. Check: `ch.check("4.3", killer)`.

# %% id="answer-4.3" tags=["answer"] question="4.3"
# SOLUTION
killer = [(0.5 * i, 2000 if i % 50 == 0 else 10) for i in range(600)]
# END SOLUTION

# %% id="check-4.3" tags=["check"]
ch.check("4.3", killer)

# %% id="break-run"
if (mine := ch.yours("4.3", killer)) is not None:
    lab.compare(mine)

# %% [markdown] id="wins"
# ## 5 Turns win
#
# Is counting always better, then? A count says how *many* requests a replica has. It doesn't say how far along the
# current answer is.
#
# ### Exercise 4.4: a trace on which taking turns wins
#
# Difficulty 4 of 5 · about 12 min
#
# Give a trace of 100 to 1,000 requests of 10 to 2,000 tokens on which the p99 of the wait by *turns* is **at most
# half** of that by *counting* (with fresh numbers), which has to be at least 2 s. Experiment with `lab.compare`. Check:
# `ch.check("4.4", winner)`.

# %% id="answer-4.4" tags=["answer"] question="4.4"
# SOLUTION
winner = [(9.9 * i, 2000) for i in range(100)]
# END SOLUTION

# %% id="check-4.4" tags=["check"]
ch.check("4.4", winner)

# %% [markdown] id="wins-2"
# **Measure.** So far your traces have run on paper. Here they run on the project's simulator, with the framework's own
# balancers and the real scheduler in each replica, set to one answer at a time. The framework's counting balancer
# breaks ties at random.

# %% id="wins-run" tags=["nbval-check-output"]
traces = {"killer": ch.yours("4.3", killer), "winner": ch.yours("4.4", winner)}
traces = {name: trace for name, trace in traces.items() if trace is not None}
lab.replay_table(traces, {"round robin": library.RoundRobin, "fewest requests": library.LeastOutstanding})

# %% [markdown] id="wins-3"
# So round robin isn't a mistake in itself. Where all requests are alike, it's the right choice: equal numbers *are*
# equal work, and it needs no information at all. But requests to a language model aren't alike.

# %% [markdown] id="old"
# ## 6 Stale numbers
#
# Back to Larkspur's afternoon, with the same requests at the same moments, but under other balancers. A GPU has a fixed
# number of places (*slots*) for answers in progress; the last column is the share of requests sent to a GPU whose
# places were all taken while another GPU had a free one.

# %% id="old-afternoon" tags=["nbval-check-output"]
lab.afternoon_table(
    {
        "round robin": library.RoundRobin,
        "fewest requests": library.LeastOutstanding,
        "better of two": library.PowerOfTwo,
    }
)

# %% [markdown] id="old-2"
# The p99 falls to less than a third, without a single new GPU. By turns, requests stood in one GPU's queue while
# another had a free place: the last column says how many.
#
# *Fewest requests* works so well because the gateway counts the requests it sends itself, so its numbers are always
# fresh. With several gateways, each knows only its own requests and has to rely on **reports** from the replicas, which
# arrive every so often. On paper, with three answers of 1 s per second and a report every 10 s, it looks like this:

# %% id="old-held"
steady = [(i / 3, 50) for i in range(180)]
late = {
    "counts, reports every 10 s": lab.serve(steady, lab.fewest_requests, reports_every_s=10),
    "better of two, the same reports": lab.serve(steady, lab.better_of_two, reports_every_s=10),
}
lab.draw_held(late, until_s=60)

# %% id="old-table" tags=["nbval-check-output"]
late["counts, fresh"] = lab.serve(steady, lab.fewest_requests)
late["turns"] = lab.serve(steady, lab.by_turns)
lab.wait_table(late, "Answers of 1 s, three per second, four replicas")

# %% [markdown] id="old-3"
# Between two reports all requests see the same numbers, so they all pick the same replica; at the next report they all
# move on to another. This is **herding**, or the *herd effect*. One replica stays empty throughout. *Better of two*,
# known as the *power of two choices*, looks at less: each request draws two replicas and takes the one with the smaller
# count, however stale. Different requests draw different pairs, so no herd forms.

# %% [markdown] id="predict"
# ## 7 Predict, then run
#
# How much do you lose by looking at only two replicas? Take fifty paper replicas, each busy nine tenths of the time,
# with fresh numbers. Answers take 1 s on average but vary widely: the longer, the rarer, with no typical size (an
# *exponential* distribution). If a request draws **one** replica by lot, theory says that it takes 1 / (1 - 0.9) = 10 s
# on average from its arrival to the end of its answer: nine of waiting and one of writing.
#
# ### Exercise 4.5: what a second look is worth
#
# Difficulty 3 of 5 · about 6 min
#
# If each request draws **two** replicas and takes the one with fewer requests, what is the mean time from arrival to
# the end? Give `(low, high)` in seconds, with high at most twice low. Check: `ch.check("4.5", mean_time_between_s)`.

# %% id="answer-4.5" tags=["answer"] question="4.5"
# SOLUTION
# A replica holds at least 1, 2, 3, 4, 5 requests with probability 0.9, 0.9^3, 0.9^7, 0.9^15, 0.9^31. That makes
# 0.9 + 0.73 + 0.48 + 0.21 + 0.04 = 2.35 requests in a replica, and 0.9 arrive there per second, so each stays 2.6 s.
mean_time_between_s = (2, 3.6)
# END SOLUTION

# %% id="check-4.5" tags=["check"]
ch.check("4.5", mean_time_between_s)

# %% [markdown] id="predict-2"
# **Run it**, next to what theory says about very many replicas.

# %% id="predict-run" tags=["nbval-check-output"]
from miniserve.planning.queueing import power_of_d_sojourn_s

ways = {
    "one, by lot": (lab.by_lot, 1, 120_000),
    "the better of two": (lab.better_of_two, 2, 120_000),
    "the best of all fifty": (lab.fewest_requests, 50, 20_000),
}
course.table(
    {
        "drawn": list(ways),
        "run, fifty replicas (s)": [lab.mean_time_s(choose, requests) for choose, _, requests in ways.values()],
        "theory, very many (s)": [power_of_d_sojourn_s(0.9, 1.0, looks) for _, looks, _ in ways.values()],
    },
    "Mean time from arrival to the end of the answer, load 0.9",
)

# %% [markdown] id="predict-3"
# The second look alone brings most of the gain; the other 48 together add far less. (The last run stays above the
# theory because all fifty replicas are sometimes busy, while among very many, one is always free.) For a queue to get
# long, both drawn replicas must have long queues, and the chance of that is a square; for it to grow by one more, both
# queues must be *that* long, a square of the square.

# %% [markdown] id="hol"
# ## 8 A long prompt in the way
#
# Inside a replica, no balancer can help. A real replica works in **steps**: in each step every answer in progress gets
# one token, and waiting **prompts** (the texts that requests bring) are read. A step takes a fixed time, plus a little
# for each token that it computes, whether it reads or writes that token:
#
# time of a step = fixed_ms + token_ms · (tokens computed in the step).
#
# Call the customers whose answers are being written **readers**. If a replica reads a prompt of 2,000 tokens **whole**,
# in one step, all readers wait for that step: their text pauses. This is **head-of-line blocking**: the one in front
# holds up everyone behind. The remedy is a **budget**, a limit on the tokens that one step computes, including the
# readers' own. A long prompt is then read in **chunks** (*chunked prefill*), one per step, from whatever the readers
# leave over.
#
# Worked with other numbers: fixed_ms = 20, token_ms = 0.5, ten readers, and a prompt of 400 tokens. Reading it whole
# takes one step of 410 tokens, which lasts 20 + 205 = 225 ms. A step without the prompt computes ten tokens and takes
# 25 ms.
#
# ### Exercise 4.6: a long prompt in chunks
#
# Difficulty 3 of 5 · about 8 min
#
# Your own numbers are printed below; fixed_ms and token_ms are those of Larkspur's GPUs, from the course's price list.
# `readers` answers are being written when a prompt of `prompt_tokens` arrives; a step computes at most `budget_tokens`.
# What is the **longest pause** between two tokens of a reader's text, in ms? Check:
# `ch.check("4.6", longest_pause_ms)`.

# %% id="hol-given"
given = ch.given("4.6")
given

# %% id="answer-4.6" tags=["answer"] question="4.6"
# SOLUTION
longest_pause_ms = given["fixed_ms"] + given["token_ms"] * given["budget_tokens"]
# END SOLUTION

# %% id="check-4.6" tags=["check"]
ch.check("4.6", longest_pause_ms)

# %% [markdown] id="hol-2"
# **Measure.** We give the real scheduler 48 readers and a prompt of 2,000 tokens, with a short one of 50 right behind
# it.

# %% id="hol-run" tags=["nbval-check-output"]
behind = {
    "whole": lab.behind_a_long_prompt(8192),
    "chunks, budget 512": lab.behind_a_long_prompt(512),
    "chunks, budget 256": lab.behind_a_long_prompt(256),
}
course.table(
    {
        "the prompt is read": list(behind),
        "longest pause of a reader (ms)": [row.longest_pause_ms for row in behind.values()],
        "first token of the long one (ms)": [row.long_first_ms for row in behind.values()],
        "... of the short one behind it (ms)": [row.short_first_ms for row in behind.values()],
    },
    "48 readers, a prompt of 2,000 tokens, and a short one behind it",
)

# %% [markdown] id="hol-3"
# The pause gets several times shorter. (It's a little longer than your formula says, because looking back at earlier
# tokens takes time as well.) The other columns show the price: each chunk pays the fixed part again, so the long prompt
# finishes later, and so does the short one behind it. Chunks help the customers who are already *reading*, not the ones
# queueing behind the long prompt.

# %% [markdown] id="remedies-intro"
# ## 9 What would you do?
#
# ### Exercise 4.7: which remedy for which situation
#
# Difficulty 2 of 5 · about 8 min
#
# The next cell prints eight situations and six remedies. Give each situation the remedy that fits **best**; two are
# used twice. Write a dictionary: `{"a": "...", "b": "...", ...}`. Check: `ch.check("4.7", remedies)`.

# %% id="remedies-items"
course.show_choices(lab.SITUATIONS, lab.REMEDIES)

# %% id="answer-4.7" tags=["answer"] question="4.7"
# SOLUTION
remedies = {
    "a": "turns",
    "b": "requests",
    "c": "tokens",
    "d": "two",
    "e": "chunks",
    "f": "replicas",
    "g": "two",
    "h": "turns",
}
# END SOLUTION

# %% id="check-4.7" tags=["check"]
ch.check("4.7", remedies)

# %% [markdown] id="reply-intro"
# ### Exercise 4.8: fair, so leave it?
#
# Difficulty 3 of 5 · about 8 min · a person reads it
#
# A colleague writes: *"Each GPU gets exactly a quarter of the requests. It couldn't be fairer, so leave it. If
# customers wait, we need a fifth GPU."* Answer in four to eight sentences: what isn't equal, what customers notice
# (with numbers from above), what you would change, what could go wrong with that, and how you'd tell whether it helped.
# Put your answer between `"""` and `"""`. Check: `ch.check("4.8", reply)`.

# %% id="answer-4.8" tags=["answer"] question="4.8"
# SOLUTION
reply = """
Equal numbers are not equal work: a chat has about a hundred tokens and an article two thousand. By turns, short
questions land behind articles while another GPU has a free place; half of our customers notice nothing, but the p99 of
the time to first token is 13 s. Sent to the GPU with the fewest unfinished requests, the same requests on the same four
GPUs wait for a fraction of that, so we don't need a fifth one. Our single gateway does its own counting, so its numbers
are fresh; with several gateways, all of them would rush to the same GPU between two reports, so I would draw two GPUs
and take the better one. I would compare the p99 of a week before and a week after, and watch how far the four queues
differ.
"""
# END SOLUTION

# %% id="check-4.8" tags=["check"]
ch.check("4.8", reply)

# %% [markdown] id="real-code"
# ## 10 Read the real code
#
# Here is the framework's round robin, from `miniserve/policies/routing/balancer.py`, and the way the scheduler cuts a prompt
# into chunks, from `miniserve/engine/scheduler.py`. Look for two things: what happens to the turns when a replica
# leaves the fleet, and who gets a share of the budget first, readers or prompts.

# %% id="real-code-shown"
from miniserve.engine.scheduler import Scheduler

print(inspect.getsource(library.RoundRobin))
print(inspect.getsource(Scheduler._plan_running))
print(inspect.getsource(Scheduler._chunk))

# %% [markdown] id="summary"
# ## 11 Summary
#
# - Requests to a language model differ a hundredfold in size, so equal numbers aren't equal work. Round robin counts
#   what it has sent; what matters is what's unfinished.
# - Waiting grows with the mean *square* of the answer times: a few long answers make all the others wait.
# - Of everything that is easy to know, the request count helps most. Tokens would be better if you knew them. A pool
#   can look empty in front of a full queue.
# - Where all answers are alike and the counts say little, taking turns wins.
# - Stale numbers cause herding. Taking the better of two drawn replicas brings nearly all of the gain, and no herd.
# - Inside a replica a long prompt holds up all readers: head-of-line blocking. Chunks shorten their pause but make the
#   prompt itself slower.
#
# **What this leaves out.** A paper replica writes one answer at a time; a real one writes many, and each slows it down a
# little. Our four replicas are identical, and no chat returns to the replica that caches its past (chapter 7).
#
# In chapter 12 you build these balancers, for replicas that really run.
#
# **Go deeper**
#
# - M. Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing*, IEEE TPDS 12(10), 2001.
# - M. Dahlin, *Interpreting Stale Load Information*, IEEE TPDS 11(10), 2000: herds, and what to do about stale numbers.
# - M. Harchol-Balter, *Performance Modeling and Design of Computer Systems*, Cambridge 2013, chapters 23 and 24: the
#   formula of section 3, and how to assign requests to servers by size.
# - A. Agrawal and others, *Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve*, OSDI 2024: chunked
#   prefill.
