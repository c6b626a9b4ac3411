# %% [markdown] id="intro"
# # Chapter 12: A balancer that knows what a language model does
#
# **You will learn**
#
# - why taking turns spreads requests of very different size badly, and how a p99 shows it;
# - how to write three balancers: by unfinished requests, by room in the replicas, and by the better of two;
# - what stale numbers do to a balancer, and why looking at less can be better;
# - why one long prompt can hold up every answer in a replica, and what chunks change;
# - how to run your own balancer in front of real replicas, and in the whole stack.
#
# **You need** Python (classes, `min`, `sorted`); no knowledge of serving. Chapter 6 explains
# percentiles; in short, 99 of 100 requests take no longer than the *p99*, and half of them no longer than the *p50*.
# **Time**: about 75 minutes. The notebook itself runs in {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 What a balancer sees · 3 Fewest unfinished requests · 4 Where there is
# room · 5 Stale numbers · 6 The better of two · 7 A long prompt in the way · 8 Real replicas · 9 Read the real code ·
# 10 Summary
#
# **How exercises work.** Write where it says `raise NotImplementedError` or `...`, then run the check below it. It says
# CORRECT, or what is wrong and why, with the smallest example that it found. `ch.hint("12.1")` gives a hint; call it
# again for the next one. After an attempt, `ch.solution("12.1")` shows a solution.

# %% id="setup"
import inspect
import itertools

from miniserve import course
from miniserve.course.chapters.ch12_balancer import lab
from miniserve.policies.routing import balancer as library

ch = course.chapter(12)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# **Larkspur** is the course's fictional service: an assistant for a chain of garden centres. Customers chat with it,
# and staff have it draft articles. Both kinds of requests go to the same four GPUs, each with its own copy of the
# model. A GPU with its copy of the model, ready to answer, is a **replica**.
#
# The sizes differ a lot. Nine requests in ten are chats, whose answers are as long as those of a published trace: about
# 10 to 1,000 tokens (a *token* is a piece of a word). One in ten is an article of 2,000 tokens.
#
# The component that decides which replica gets a request is the **balancer** (or *load balancer*). The oldest kind
# takes turns: the first request goes to replica 0, the next to replica 1, and so on. This is *round robin*, and it is
# fair: each replica gets exactly a quarter of the requests.
#
# The next cell simulates an afternoon. Each replica runs the project's real scheduler; only the GPU's work is replaced
# by a formula for its time. We look at the **time to first token** (TTFT): how long a customer waits before the answer
# begins.

# %% id="naive" tags=["nbval-check-output"]
afternoon = {"round robin": lab.run(library.RoundRobin)}
lab.compare(afternoon)

# %% [markdown] id="bite-2"
# Half of all customers wait about half a second. One in a hundred waits more than twenty times as long. There are
# enough GPUs. Look at the next figure: it shows how many requests each of the four replicas held, around the worst
# moment of the afternoon. A replica writes 12 answers at a time; requests above the black line wait.

# %% id="naive-queues"
lab.queues(afternoon)

# %% [markdown] id="predict"
# While one replica has a queue, others have free places. **Before you go on, predict**: how low would p99 be if no
# request ever waited in one replica while there was a place in another? Say a number of seconds to yourself. Section 3
# measures it.
#
# **Where we are on a request's path.** Client → gateway → **balancer** → replica → scheduler → model. The balancer sits
# in the *gateway*, the process to which all clients send. It decides once per request, within microseconds, and can't
# change its mind: once a replica has begun to answer, the request stays there.

# %% [markdown] id="views"
# ## 2 What a balancer sees
#
# A balancer is a class with one method, `choose(request, replicas)`. It returns the id of one of the replicas, or
# `None` if there are none. It never sees a replica itself, only a **view**: a few numbers that were true at some
# moment.

# %% id="a-view"
from miniserve.types import ReplicaView, Request, SamplingParams

views = (
    ReplicaView("gpu-0", outstanding=3, queue_depth=0, running=3, kv_used_fraction=0.2),
    ReplicaView("gpu-1", outstanding=1, queue_depth=1, running=4, kv_used_fraction=0.9),
    ReplicaView("gpu-2", outstanding=2, queue_depth=2, running=1, kv_used_fraction=0.4),
)
request = Request("q17", "llama-3.1-8b", prompt_ids=(1, 2, 3))
library.RoundRobin().choose(request, views)

# %% [markdown] id="views-2"
# - `outstanding`: the requests that **this gateway** has sent there and that haven't ended. The gateway counts them
#   itself, so the number is always fresh.
# - `queue_depth` and `running`: the requests that wait in the replica, and those it is working on, from whichever
#   gateway. The replica reports these numbers every half second, so they are stale.
# - `kv_used_fraction`: how full the replica's *KV cache* is, the memory in which a model keeps what it has read and
#   written so far. The cache hands out its memory in blocks, from a *pool*. Before a request may begin, it needs blocks
#   for its whole *prompt*, the text that the client sends to the model.
#
# Two rules of the house. You are offered only replicas that may get work: the ones that are down, draining (about to
# stop), or failing are left out before `choose` is called. And views are frozen: a balancer computes, and changes
# nothing.

# %% [markdown] id="card-12-1"
# ## 3 Fewest unfinished requests
#
# ### Exercise 12.1
#
# Difficulty 2 of 5 · about 15 min
#
# **Goal.** Write `LeastOutstanding.choose`: send the request to the replica with the fewest unfinished requests of
# ours.
#
# **Contract.** Return the `replica_id` of a replica with the smallest `outstanding`; `None` if there are no replicas.
# **Ties** are common (in a quiet hour all replicas have 0). Break them *at random*, but let the random choice depend on
# the request and nothing else:
#
# - the same request with the same views goes to the same replica, even when you are asked again, and in whatever order
#   the replicas are listed;
# - many requests spread evenly over the tied replicas.
#
# To get such a choice, call `number("any word", request.request_id)`: it gives a large whole number that looks random
# but is the same for the same request, everywhere, and different for the next request. `random` won't do, because you
# could never repeat a run; nor will `hash`, because Python's hash of a text differs from process to process; nor will a
# counter, because two gateways that count alike run in step.
#
# **Cost.** There are up to a thousand replicas: go over them once, and don't sort all of them.
#
# **Check**: `ch.check("12.1", LeastOutstanding)`

# %% id="answer-12.1" tags=["answer"] question="12.1" target="miniserve/policies/routing/balancer.py::LeastOutstanding.choose"
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request

# %% id="check-12.1" tags=["check"]
ch.check("12.1", LeastOutstanding)

# %% [markdown] id="measure-12-1"
# **Measure.** The same afternoon, the same requests at the same moments: only the balancer differs.

# %% id="compare-12-1" tags=["nbval-check-output"]
afternoon["reference"] = lab.run(library.LeastOutstanding)
if mine := ch.yours("12.1", LeastOutstanding):
    afternoon["yours"] = lab.run(mine)
lab.compare(afternoon)

# %% [markdown] id="measure-12-1b"
# p50 hardly moves; p99 falls to a fraction. That is typical: balancing does nothing for the lucky half, but it takes
# the unlucky requests out of queues that needn't be there. If your numbers differ a little from the reference's, you
# broke ties differently. Look at the replicas again:

# %% id="queues-12-1"
lab.queues({"round robin": afternoon["round robin"], "fewest unfinished": afternoon["reference"]})

# %% [markdown] id="card-12-2"
# ## 4 Where there is room
#
# One gateway counts what it sent itself. A larger service has several gateways, and each knows only its own requests.
# Then the replicas' reports, though stale, tell you more: they count the requests of all gateways.
#
# A tempting idea: a replica's scarce resource is its KV cache, so send each request to the emptiest pool. Break that
# first:

# %% id="naive-kv" tags=["nbval-check-output"]
from miniserve.policies.routing.ties import least


class EmptiestPool:
    """Looks at the KV pool, and at nothing else."""

    def choose(self, request, replicas):
        return least(request, replicas, [view.kv_used_fraction for view in replicas])


afternoon_kv = {"round robin": afternoon["round robin"], "emptiest pool": lab.run(EmptiestPool)}
lab.compare(afternoon_kv)

# %% [markdown] id="kv-why"
# It does worse than taking turns! A request that waits holds no blocks yet. So a replica with a long queue of short
# requests may report an emptier pool than its neighbour, get the next requests as well, and report the same again.
#
# ### Exercise 12.2
#
# Difficulty 2 of 5 · about 12 min
#
# **Goal.** Write `LeastKv.choose`: where a request waits there is no room, whatever the pool says. So choose the
# shortest queue first, then the emptiest pool.
#
# **Contract.** Return a replica with the smallest `queue_depth`, and among those one with the smallest
# `kv_used_fraction`; `None` if there are no replicas. Break ties as in 12.1.
#
# **Check**: `ch.check("12.2", LeastKv)`

# %% id="answer-12.2" tags=["answer"] question="12.2" target="miniserve/policies/routing/balancer.py::LeastKv.choose"
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request

# %% id="check-12.2" tags=["check"]
ch.check("12.2", LeastKv)

# %% id="compare-12-2" tags=["nbval-check-output"]
afternoon_kv["reference"] = lab.run(library.LeastKv)
afternoon_kv["reference, fresh"] = lab.run(library.LeastKv, probe_interval_s=0.02)
if mine := ch.yours("12.2", LeastKv):
    afternoon_kv["yours"] = lab.run(mine)
lab.compare(afternoon_kv)

# %% [markdown] id="old"
# ## 5 Stale numbers
#
# `LeastKv` does much better than taking turns, but worse than `LeastOutstanding`, because its numbers are up to half a
# second old: *fresh*, with a report every 20 ms, it does about as well. What if they were even older? The next class
# shows a balancer the fleet as it was at the last report, and nothing newer, not even `outstanding`. A gateway that is
# one of many sees the fleet like that.

# %% id="old-code"
print(inspect.getsource(lab.OldViews.choose))

# %% [markdown] id="card-12-3"
# ### Exercise 12.3: predict
#
# Difficulty 3 of 5 · about 5 min
#
# With fresh numbers `LeastOutstanding` had the p99 that you saw in section 3. Now its reports come every **8 seconds**.
# Larkspur gets 1.1 requests per second, for four replicas of 12 places each. Round robin, which looks at nothing, stays
# where it was.
#
# **Goal.** Predict p99 of the time to first token, in seconds, as an interval `(low, high)`. `high` may be at most
# three times `low`. The check runs the experiment and tells you whether your interval covers the result.
#
# **Check**: `ch.check("12.3", p99_with_old_views_s)`

# %% id="answer-12.3" tags=["answer"] question="12.3"
# SOLUTION
p99_with_old_views_s = (8.0, 20.0)
# END SOLUTION

# %% id="check-12.3" tags=["check"]
ch.check("12.3", p99_with_old_views_s)

# %% [markdown] id="herd"
# This is called **herding**: between two reports all requests see the same numbers, so all go to the same replica, and
# with the next report the herd moves on. More gateways and older numbers make a larger herd.

# %% [markdown] id="card-12-4"
# ## 6 The better of two
#
# The remedy sounds too simple: draw **two** replicas at random, look at these two only, and take the less loaded one.
# The draw breaks up the herd, because different requests compare different pairs; the comparison keeps requests away
# from the fullest replica. This is the **power of two choices**, and two are worth far more than one: with n requests
# in n replicas, the fullest holds about ln n / ln ln n with one choice, and ln ln n / ln 2 with two (Mitzenmacher,
# 2001).
#
# ### Exercise 12.4
#
# Difficulty 3 of 5 · about 15 min
#
# **Goal.** Write `PowerOfTwo.choose`. The class around it is given: it keeps a `seed`, and `self._load(view)` is the
# number to compare.
#
# **Contract.** Draw two *different* replicas, each pair with the same probability, and return the id of the one with
# the lower `_load` (either one if they are equal). Look at no other replica. The draw depends on `self._seed` and the
# request; two seeds draw differently. If there is one replica return it, if there are none return `None`.
#
# **Cost.** The same for ten replicas as for a thousand: don't go through all of them.
#
# **Check**: `ch.check("12.4", PowerOfTwo)`

# %% id="answer-12.4" tags=["answer"] question="12.4" target="miniserve/policies/routing/balancer.py::PowerOfTwo.choose"
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request

# %% id="check-12.4" tags=["check"]
ch.check("12.4", PowerOfTwo)

# %% [markdown] id="measure-12-4"
# **Measure**: p99 against the age of the numbers. (0: the fresh counts of section 3.)

# %% id="herding" tags=["nbval-check-output"]
ages_s = (0.0, 2.0, 4.0, 8.0)
curves = {
    "round robin": library.RoundRobin,
    "fewest unfinished": library.LeastOutstanding,
    "better of two": library.PowerOfTwo,
}
if mine := ch.yours("12.4", PowerOfTwo):
    curves["better of two, yours"] = mine
p99s = {
    name: [lab.ttft_p99_s(make, age_s if name != "round robin" else 0.0) for age_s in ages_s]
    for name, make in curves.items()
}
lab.herding(p99s, ages_s)

# %% [markdown] id="herding-2"
# With fresh numbers, looking at all replicas and looking at two come to about the same. With stale ones, a balancer
# that looks at all of them ends up near round robin; one that looks at two stays far below. *More information doesn't
# help if every gateway acts on the same stale piece of it.*
#
# ### Exercise 12.5: which one would you run? (a person reads this one)
#
# Difficulty 3 of 5 · about 5 min
#
# Larkspur grows to 24 replicas behind six gateways. Replicas report every two seconds. Which balancer would you run in
# the gateways, why, and which figure would you watch to see whether you were wrong? Three or four sentences.
#
# **Check**: `ch.check("12.5", which_one)`

# %% id="answer-12.5" tags=["answer"] question="12.5"
# SOLUTION
which_one = """Two choices. Each of the six gateways counts only its own sixth of the requests, and learns of the others
from reports that are up to two seconds old; always taking the least loaded would send six herds to the same replica. I
would add our own outstanding requests to the reported queue. I would watch p99 of the time to first token beside the
spread of the queues between replicas: waves as long as the age of a report are the herd."""
# END SOLUTION

# %% id="check-12.5" tags=["check"]
ch.check("12.5", which_one)

# %% [markdown] id="hol"
# ## 7 A long prompt in the way
#
# Inside a replica even a perfect balancer can't help. All requests there share the model's *steps*: each step adds one
# token to every answer in progress, and reads waiting prompts. If a step reads a whole prompt of 4,000 tokens, it takes
# long, and every other answer pauses. This is **head-of-line blocking**. The remedy is to read long prompts in *chunks*
# (**chunked prefill**): `max_batch_tokens` limits how many tokens a step may read.
#
# Below, 8 customers read answers while every three seconds an article with a long prompt comes in. The loop does what a
# replica does, with the real scheduler: decide, compute (here: let the formula's time pass), book the new tokens.


# %% id="hol-run" tags=["nbval-check-output"]
def gaps_of_a_reader(max_batch_tokens: int) -> list[float]:
    """Return the time before each token of one reader's answer, while long prompts come in."""
    scheduler, step_time = lab.one_replica(max_batch_tokens)
    for i in range(8):
        scheduler.add(lab.generation(f"reader-{i}", prompt_tokens=100, answer_tokens=400))
    long_prompts = (lab.generation(f"long-{n}", 4000, 1, 3.0 * n) for n in itertools.count(1))
    next_prompt, now_s, seen_s, gaps_s = next(long_prompts), 0.0, 0.0, []
    while len(gaps_s) < 400:
        if next_prompt.queued_s <= now_s:
            scheduler.add(next_prompt)
            next_prompt = next(long_prompts)
        step = scheduler.schedule(now_s)
        now_s += step_time.seconds(step)
        if any(sequence.request_id == "reader-0" for sequence in scheduler.commit(step, itertools.repeat(0))):
            gaps_s.append(now_s - seen_s)
            seen_s = now_s
    return gaps_s[1:]  # the first is the reading of the reader's own prompt


gaps_s = {"whole": gaps_of_a_reader(8192), "in chunks of 512": gaps_of_a_reader(512)}
lab.token_gaps(gaps_s, "Time between two tokens of one reader")

# %% [markdown] id="hol-2"
# The median stays where it was, and the longest pause shrinks from more than a second to a fraction of one. Nothing is
# free: a step that also reads a chunk takes longer than one that only writes, so one very slow step has become several
# slower ones. Larkspur's replicas use chunks of at most 512 tokens.

# %% [markdown] id="real"
# ## 8 Real replicas
#
# So far we simulated time. Now you'll start two real processes, each with a real engine and the course's `small` model
# (a transformer so small that one core of a laptop runs it), and a real gateway, with real HTTP between them. The
# requests leave at their own times, whether or not earlier ones have been answered, at a rate that keeps this machine
# about four fifths busy.
#
# What you see depends on your machine and on what else it does, and 40 requests are too few for a p99: run the cell
# twice and see how much is luck. The cell shows that your class works on real processes; the simulation measured *how
# much* it helps, with a thousand requests and nothing else going on.

# %% id="real-run" tags=["measured"]
balancers = {"round robin": library.RoundRobin(), "reference": library.LeastOutstanding()}
if mine := ch.yours("12.1", LeastOutstanding):
    balancers["yours"] = mine()

real, sent, switch = {}, {}, lab.Switch()
async with lab.real_stack(switch) as url:
    switch.use(library.RoundRobin())
    rate_per_s = await lab.busy_rate(url)
    print(f"a gateway and two replicas answer; they get {rate_per_s:.0f} requests per second")
    for name, balancer in balancers.items():
        sent[name] = switch.use(balancer)
        real[name] = await lab.measure(url, rate_per_s)
print("all processes have ended")
lab.real_table(real, sent)

# %% [markdown] id="plug"
# ### Your class in the running stack
#
# Save this notebook. Then, in a terminal in the project's folder:
#
#     python -m miniserve --balancer chapters/12_balancer.ipynb:LeastOutstanding
#
# starts replicas and a gateway that asks *your* class about every request. `LeastKv` and `PowerOfTwo` work the same
# way. The command takes the class from the answer cell above. While it runs, a table shows where the requests go, and
# any client of OpenAI's API can talk to it.

# %% [markdown] id="code"
# ## 9 Read the real code
#
# Where is your method called? In `dispatch`, which tells a request's story. Look for two things: which replicas it
# leaves out before it calls `choose`, and what happens to a balancer that chooses a replica that wasn't on offer.

# %% id="code-dispatch"
from miniserve.policies import dispatch

print(inspect.getsource(dispatch._Dispatch._candidates))
print(inspect.getsource(dispatch._Dispatch._choose))

# %% [markdown] id="summary"
# ## 10 Summary
#
# - Requests to a language model differ a hundredfold in size, so equal *numbers* of requests are not equal *load*.
# - Count what is unfinished, not what was sent. Good balancing shows in p99, hardly in p50.
# - A single number can mislead: an empty pool with a queue in front of it is not room.
# - Numbers are stale. If you always pick the best by stale numbers you join a herd; two choices avoid it.
# - Break ties at random, but by a draw that depends on the request: that keeps runs repeatable.
# - Inside a replica, long prompts cause head-of-line blocking; chunks keep everybody's text flowing.
#
# **What this leaves out.** The fleet above has four equal replicas and one gateway, and the long requests have one
# length. With unequal replicas counts mislead (see `Weighted` and `PeakEwma` in `miniserve/policies/routing/balancer.py`). And
# where customers continue their chats, sending each chat back to the replica that has cached its past may beat any
# balancing by load: that is chapter 15.
#
# **Go deeper**
#
# - M. Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing*, IEEE TPDS, 2001.
# - J. Dean, L. A. Barroso, *The Tail at Scale*, Communications of the ACM, 2013.
# - G.-I. Yu et al., *Orca: A Distributed Serving System for Transformer-Based Generative Models*, OSDI 2022.
# - A. Agrawal et al., *Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve*, OSDI 2024.
