# %% [markdown] id="intro"
# # Chapter 12: A balancer that knows what a language model does
#
# **You will learn**
#
# - why taking turns is a bad way to spread requests of very different size, and to see it in a p99;
# - to write three balancers: by unfinished requests, by room in the replicas, and by the better of two;
# - what old numbers do to a balancer, and why looking at less can be better;
# - why one long prompt can hold up everybody in a replica, and what chunks change;
# - to run your own balancer before real replicas, and in the whole stack.
#
# **You need** Python (classes, `min`, `sorted`), and nothing about serving. Chapter 6 explains percentiles; in short, a
# *p99* is a time that 99 of 100 requests do not exceed, a *p50* one that half of them do not. **Time**: about
# 75 minutes. The notebook itself runs in {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 What a balancer sees · 3 Fewest unfinished requests · 4 Where there is room ·
# 5 Old numbers · 6 The better of two · 7 A long prompt in the way · 8 Real replicas · 9 Read the real code · 10 Summary
#
# **How exercises work.** Write where it says `raise NotImplementedError` or `...`, then run the check below it. It says
# CORRECT, or what is wrong and why, with the smallest example that it found. `ch.hint("12.1")` gives a hint, and a
# further one when you call it again. After an attempt, `ch.solution("12.1")` shows a solution.

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
# **Larkspur** is the course's fictional service: an assistant for a chain of garden centres. Customers chat with it, and
# staff have it draft articles. Both kinds of requests go to the same four GPUs, each with its own copy of the model. A
# copy with all that it needs is a **replica**.
#
# The sizes differ a lot. Nine requests in ten are chats; their answers are as long as those of a published trace, from
# about 10 to 1,000 tokens (a *token* is a piece of a word). One in ten is an article of 2,000 tokens.
#
# Somebody must decide which replica gets a request. That is the **balancer**. The oldest one takes turns: the first
# request to replica 0, the next to replica 1, and so on. It is called *round robin*, and it is fair: each replica gets
# exactly a quarter of the requests.
#
# The next cell simulates an afternoon. In each replica runs the project's real scheduler; only the GPU's work is replaced
# by a formula for its time. We look at the **time to first token** (TTFT), which is what a customer waits for first.

# %% id="naive" tags=["nbval-check-output"]
afternoon = {"round robin": lab.run(library.RoundRobin)}
lab.compare(afternoon)

# %% [markdown] id="bite-2"
# Half of all customers wait about half a second. One in a hundred waits more than twenty times as long. The GPUs are not
# too few: the next figure shows how many requests each of the four replicas held, around the worst moment of the
# afternoon. A replica writes 12 answers at a time; what is above the black line waits.

# %% id="naive-queues"
lab.queues(afternoon)

# %% [markdown] id="predict"
# While one replica has a queue, others have free places. **Before you go on, predict**: how low would p99 be if nobody ever
# waited in one replica while there was a place in another? Say a number of seconds to yourself. Section 3 measures it.
#
# **Where we are on a request's path.** Client → gateway → **balancer** → replica → scheduler → model. The balancer sits
# in the *gateway*, the process to which all clients send. It decides once per request, within microseconds, and cannot
# change its mind: once a replica has begun to answer, the request stays there.

# %% [markdown] id="views"
# ## 2 What a balancer sees
#
# A balancer is a class with one method, `choose(request, replicas)`. It returns the id of one of the replicas, or `None`
# if there are none. It never sees a replica itself, only a **view**: a few numbers that were true at some moment.

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
# - `outstanding`: requests that **this gateway** has sent there and that have not ended. The gateway counts them itself, so
#   the number is always fresh.
# - `queue_depth` and `running`: requests that wait in the replica, and those that it works on, whoever sent them. The
#   replica reports them every half second, so they are old.
# - `kv_used_fraction`: how full the replica's *KV cache* is. That is the memory in which a model keeps what it has read
#   and written so far; it is handed out in blocks, from a *pool*. A request needs blocks for its whole *prompt*, the text
#   that is sent to the model, before it may begin.
#
# Two rules of the house. Only replicas that may get work are on offer: those that are down, draining (about to stop), or
# failing were left out before `choose` is asked. And views are frozen: a balancer computes, it changes nothing.

# %% [markdown] id="card-12-1"
# ## 3 Fewest unfinished requests
#
# ### Exercise 12.1
#
# Difficulty 2 of 5 · about 15 min
#
# **Goal.** Write `LeastOutstanding.choose`: send to the replica with the fewest unfinished requests of ours.
#
# **Contract.** Return the `replica_id` of a replica with the smallest `outstanding`; `None` if there are no replicas.
# Equals are common (in a quiet hour all have 0). Among equals *luck* decides, and the luck belongs to the request:
#
# - the same request with the same views goes to the same replica, also when it is asked again, and in whatever order the
#   replicas are listed;
# - many requests spread evenly over the equals.
#
# For luck that belongs to a request, `number("any word", request.request_id)` gives a large whole number: the same one
# for the same request, everywhere; another one for the next request. `random` would not do, since a run could never be
# repeated; nor would `hash`, since Python's hash of a text differs from process to process; nor would counting, since
# two gateways that count alike run in step.
#
# **Cost.** Up to a thousand replicas: one pass over them, no sorting of all.
#
# **Check**: `ch.check("12.1", LeastOutstanding)`

# %% id="answer-12.1" tags=["answer"] question="12.1" target="miniserve/policies/routing/balancer.py::LeastOutstanding.choose"
from collections.abc import Sequence

from miniserve.seeds import number
from miniserve.types import ReplicaView, Request

# %% id="check-12.1" tags=["check"]
ch.check("12.1", LeastOutstanding)

# %% [markdown] id="measure-12-1"
# **Measure.** The same afternoon, the same requests at the same moments; only the balancer differs.

# %% id="compare-12-1" tags=["nbval-check-output"]
afternoon["reference"] = lab.run(library.LeastOutstanding)
if mine := ch.yours("12.1", LeastOutstanding):
    afternoon["yours"] = lab.run(mine)
lab.compare(afternoon)

# %% [markdown] id="measure-12-1b"
# p50 hardly moves, p99 falls to a fraction. That is typical: balancing does nothing for the lucky half, it takes the
# unlucky ones out of queues that need not be there. Where your numbers differ a little from the reference's, your luck
# among equals fell otherwise. Look at the replicas again:

# %% id="queues-12-1"
lab.queues({"round robin": afternoon["round robin"], "fewest unfinished": afternoon["reference"]})

# %% [markdown] id="card-12-2"
# ## 4 Where there is room
#
# One gateway counts what it sent itself. A larger service has several gateways, and each knows only its own requests. Then
# the replicas' reports are better news, though old: they count everybody's.
#
# A tempting idea: a replica's scarce resource is its KV cache, so send to where the pool is emptiest. Break it first:

# %% id="naive-kv" tags=["nbval-check-output"]
from miniserve.policies.routing.ties import least


class EmptiestPool:
    """Looks at the KV pool, and at nothing else."""

    def choose(self, request, replicas):
        return least(request, replicas, [view.kv_used_fraction for view in replicas])


afternoon_kv = {"round robin": afternoon["round robin"], "emptiest pool": lab.run(EmptiestPool)}
lab.compare(afternoon_kv)

# %% [markdown] id="kv-why"
# It is worse than taking turns! A request that waits holds no blocks yet. So a replica with a long queue of short
# requests may report an emptier pool than its neighbour, gets the next ones too, and reports the same again.
#
# ### Exercise 12.2
#
# Difficulty 2 of 5 · about 12 min
#
# **Goal.** Write `LeastKv.choose`: where somebody waits there is no room, whatever the pool says. So first the shortest
# queue, then the emptiest pool.
#
# **Contract.** Return a replica with the smallest `queue_depth`, and of those one with the smallest `kv_used_fraction`;
# `None` if there are no replicas. Equals as in 12.1.
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
# ## 5 Old numbers
#
# `LeastKv` is much better than taking turns and yet worse than `LeastOutstanding`, since its numbers are up to half a
# second old: *fresh*, with a report every 20 ms, it does about as well. What if they were older? The next class shows a
# balancer the fleet as it was at the last report, and nothing newer, `outstanding` included. A gateway that is one of
# many sees the fleet like that.

# %% id="old-code"
print(inspect.getsource(lab.OldViews.choose))

# %% [markdown] id="card-12-3"
# ### Exercise 12.3: predict
#
# Difficulty 3 of 5 · about 5 min
#
# With fresh numbers `LeastOutstanding` had the p99 that you saw in section 3. Now it sees reports that come every
# **8 seconds**. Larkspur gets 1.1 requests per second, for four replicas of 12 places each. Round robin, which looks at
# nothing, stays where it was.
#
# **Goal.** Predict p99 of the time to first token, in seconds, as an interval `(low, high)`. `high` may be three times
# `low` at most. The check runs the experiment and tells you whether your interval covers the result.
#
# **Check**: `ch.check("12.3", p99_with_old_views_s)`

# %% id="answer-12.3" tags=["answer"] question="12.3"
# SOLUTION
p99_with_old_views_s = (8.0, 20.0)
# END SOLUTION

# %% id="check-12.3" tags=["check"]
ch.check("12.3", p99_with_old_views_s)

# %% [markdown] id="herd"
# The name for what happens is **herding**: between two reports all requests see the same numbers, so all go to the same
# replica, and with the next report the herd moves on. The more gateways and the older the numbers, the larger the herd.

# %% [markdown] id="card-12-4"
# ## 6 The better of two
#
# A remedy that sounds too simple: draw **two** replicas by luck, look at these two only, and take the less loaded one.
# Luck keeps the herd apart, since different requests compare different pairs; the comparison keeps requests away from the
# fullest replica. Two choices are worth far more than one: with n requests in n replicas the fullest holds about
# ln n / ln ln n with one choice, and ln ln n / ln 2 with two (Mitzenmacher, 2001).
#
# ### Exercise 12.4
#
# Difficulty 3 of 5 · about 15 min
#
# **Goal.** Write `PowerOfTwo.choose`. The class around it is given: it keeps a `seed`, and `self._load(view)` is what is to
# be compared.
#
# **Contract.** Draw two *different* replicas, each pair with the same chance, and return the id of the one with the lower
# `_load` (either one if they are equal). Look at no other replica. The draw belongs to `self._seed` and the request; two
# seeds draw differently. With one replica return that one, with none `None`.
#
# **Cost.** The same for ten replicas and for a thousand: do not go through all of them.
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
# With fresh numbers, looking at all replicas and looking at two is about the same. With old ones, whoever looks at all of
# them ends near round robin, and whoever looks at two stays far below. *More information is not better if everybody
# acts on the same old piece of it.*
#
# ### Exercise 12.5: which one would you run? (a person reads this one)
#
# Difficulty 3 of 5 · about 5 min
#
# Larkspur grows to 24 replicas behind six gateways. Replicas report every two seconds. Which balancer would you run in the
# gateways, why, and which figure would you watch to see whether you were wrong? Three or four sentences.
#
# **Check**: `ch.check("12.5", which_one)`

# %% id="answer-12.5" tags=["answer"] question="12.5"
# SOLUTION
which_one = """Two choices. Each of six gateways counts only its own sixth of the requests, and learns of the others from
reports that are up to two seconds old; taking the least of all would send six herds to the same replica. I would add our
own outstanding requests to the reported queue. I would watch p99 of the time to first token beside the spread of the
queues between replicas: waves as long as the age of a report are the herd."""
# END SOLUTION

# %% id="check-12.5" tags=["check"]
ch.check("12.5", which_one)

# %% [markdown] id="hol"
# ## 7 A long prompt in the way
#
# A perfect balancer cannot help inside a replica. All requests there share the model's *steps*: in each step every answer
# in progress grows by one token, and waiting prompts are read. If a prompt of 4,000 tokens is read in one step, that step
# takes long, and everybody's text pauses. This is **head-of-line blocking**. The remedy is to read long prompts in
# *chunks*: `max_batch_tokens` limits how many tokens a step may read.
#
# Below, 8 customers read answers while an article with a long prompt comes in every three seconds. The loop is what a
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
# The median stays where it was, and the longest pause shrinks from more than a second to a fraction of it. Nothing is
# free: a step that also reads a chunk takes longer than one that only writes, so there are now several slower steps in
# place of one very slow step. Larkspur's replicas use chunks of at most 512 tokens.

# %% [markdown] id="real"
# ## 8 Real replicas
#
# So far time was simulated. Now two real processes, each with a real engine and the course's `small` model (a transformer
# so small that a laptop's core runs it), a real gateway, and real HTTP between them. The requests leave at their own
# times, whether or not earlier ones have been answered, and as fast as keeps this machine about four fifths busy.
#
# What you see depends on your machine and on what else it does, and 40 requests are too few for a p99: run the cell twice
# and see how much is luck. It shows that your class works on real processes; *how much* it helps is what the simulation
# measured, with a thousand requests and nothing else going on.

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
# starts replicas and a gateway that asks *your* class about every request. `LeastKv` and `PowerOfTwo` work the same way.
# The command takes the class from the answer cell above. While it runs, a table shows where the requests go, and any
# client of OpenAI's API can talk to it.

# %% [markdown] id="code"
# ## 9 Read the real code
#
# Where does your method get called? In `dispatch`, which tells a request's story. Two things to find in it: who was left
# out before `choose` is asked, and what happens to a balancer that chooses somebody who was not on offer.

# %% id="code-dispatch"
from miniserve.policies import dispatch

print(inspect.getsource(dispatch._Dispatch._candidates))
print(inspect.getsource(dispatch._Dispatch._choose))

# %% [markdown] id="summary"
# ## 10 Summary
#
# - Requests to a language model differ a hundredfold in size, so equal *numbers* of requests are not equal *load*.
# - Count what is unfinished, never what was sent. Good balancing shows in p99, hardly in p50.
# - A single number of a replica can mislead: an empty pool with a queue before it is not room.
# - Numbers are old. Whoever always takes the best by old numbers joins a herd; two choices stand it.
# - Equals need luck, and luck that belongs to the request keeps runs repeatable.
# - Inside a replica, long prompts block the line; chunks keep everybody's text flowing.
#
# **What does not hold.** The fleet above is four equal replicas with one gateway, and the long requests have one length.
# With unequal replicas counts mislead (see `Weighted` and `PeakEwma` in `miniserve/policies/routing/balancer.py`), and where chats
# come back, sending them to where their past is cached may beat any balancing by load: that is chapter 15.
#
# **Go deeper**
#
# - M. Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing*, IEEE TPDS, 2001.
# - J. Dean, L. A. Barroso, *The Tail at Scale*, Communications of the ACM, 2013.
# - G.-I. Yu et al., *Orca: A Distributed Serving System for Transformer-Based Generative Models*, OSDI 2022.
# - A. Agrawal et al., *Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve*, OSDI 2024.
