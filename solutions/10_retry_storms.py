# %% [markdown] id="intro"
# # Chapter 10: Retry storms
#
# **You will learn**
#
# - how many tries a request makes when tries fail, and how layers multiply them;
# - why clients that failed together come back together, and how jitter spreads them;
# - how a service can stay down after its fault is over, and how to find parameters for which it does;
# - what backoff, jitter, a cap, a budget and a circuit breaker each change, and what they don't;
# - how one small test finds mistakes in a retry policy.
#
# **You need** Python; no knowledge of serving. Chapter 1 introduces the running example. **Time**: a
# good hour; all cells together run in {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 How many tries · 3 Layers · 4 Waves · 5 Predict, then run · 6 A state that
# lasts · 7 Budget and breaker · 8 Break it · 9 Which remedy? · 10 Read the real code · 11 Summary
#
# **How exercises work.** Put your answer where you see `...`, then run the check below it. It says CORRECT, or what is
# wrong and why. `ch.hint("10.1")` gives a hint; call it again for the next one. After an attempt, `ch.solution("10.1")`
# shows a solution.

# %% id="setup"
from miniserve import course
from miniserve.course.chapters.ch10_retry_storms import lab

ch = course.chapter(10)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# **Larkspur** is the fictional service of this course: an assistant for a chain of garden centres. In this chapter it
# gets 19 requests per second, and its two GPUs together can do 24. For 20 seconds both run four times slower, then they
# recover. A customer's app waits 5 s for an answer.
#
# The next cell simulates this. Each GPU runs the project's real scheduling code; only time is simulated. The apps of
# this first run retry with care: section 7 shows how.

# %% id="careful" tags=["nbval-check-output"]
careful = lab.larkspur_storm("budgeted")
for start, end in ((0, 15), (20, 40), (45, 90)):
    print(f"arrived from {start:>2} s to {end} s: {careful.between(start, end)[0]:.0%} answered within 5 s")

# %% [markdown] id="bite-2"
# The fault ends, and a few seconds later all is well. Now take the same fault with apps that try again at once, up to
# four times. Is the service back at second 45? You'll predict that in section 5. First, two pieces of arithmetic.
#
# **Where we are on a request's path.** A **retry** is another try of a request that has failed. It can happen at the
# very start of the path, in the client, or anywhere that passes a request on: a web server, the gateway. In this
# chapter the clients retry.

# %% [markdown] id="tries"
# ## 2 How many tries
#
# Suppose each try fails with probability p, independently of the others, and a request makes at most n tries, including
# the first. How many does it make on average? That number is the **retry amplification**: the load on the service, as a
# multiple of the demand.
#
# Worked example for p = 0.2 and n = 2: the first try always happens. The second happens if the first failed, with
# probability 0.2. So a request makes 1 + 0.2 = 1.2 tries on average.
#
# ### Exercise 10.1: how many tries one request makes
#
# Difficulty 2 of 5 · about 7 min
#
# Write the mean number of tries for any `p` (below 1) and `n`. Your function is checked on 64 random pairs.
# Check: `ch.check("10.1", mean_tries)`.


# %% id="answer-10.1" tags=["answer"] question="10.1"
# SOLUTION
def mean_tries(p, n):
    """Return how many tries a request makes on average."""
    return (1 - p**n) / (1 - p)


# END SOLUTION

# %% id="check-10.1" tags=["check"]
ch.check("10.1", mean_tries)

# %% [markdown] id="tries-2"
# **Measure.** Four thousand requests, each with its own random draws, beside your formula:

# %% id="tries-measured" tags=["nbval-check-output"]
from miniserve.seeds import generator

rng = generator(10, "tries")


def tries_of_one(p, n):
    for number in range(1, n + 1):
        if rng.random() >= p:
            return number
    return n


chances = (0.01, 0.2, 0.5, 0.9, 1.0)
counted = {f"up to {n} tries": [sum(tries_of_one(p, n) for _ in range(4000)) / 4000 for p in chances] for n in (2, 4)}
formula = ch.yours("10.1", mean_tries)
if formula is not None:
    counted["your formula, 4"] = [formula(p, 4) if p < 1 else "4 (the limit)" for p in chances]
course.table({"a try fails with chance": chances, **counted}, "Mean tries of one request")

# %% [markdown] id="tries-3"
# While one try in a hundred fails, retries cost next to nothing and help nearly everyone. When all tries fail, retries
# multiply the load by n, at the very moment when the service can least bear it. The formula also takes p as given.
# Under overload p isn't given: more tries make more of them fail.

# %% [markdown] id="layers"
# ## 3 Layers
#
# A request passes through several layers, and each may retry. Worked example for two layers of two tries each, when
# everything fails: the client tries twice, and for each of these the gateway tries twice, so the GPU sees 2 · 2 = 4
# tries.

# %% id="layers-example" tags=["nbval-check-output"]
for client_try in (1, 2):
    for gateway_try in (1, 2):
        print(f"client's try {client_try}, gateway's try {gateway_try}: fails")

# %% [markdown] id="layers-2"
# ### Exercise 10.2: layers that all retry
#
# Difficulty 2 of 5 · about 5 min
#
# The cell below prints your own numbers, drawn for you: how many `layers` there are, and how many `tries` each makes,
# including the first. All tries fail. How many tries of one request reach the GPU?
# Check: `ch.check("10.2", tries_at_the_gpu)`.

# %% id="layers-given"
given = ch.given("10.2")
given

# %% id="answer-10.2" tags=["answer"] question="10.2"
# SOLUTION
tries_at_the_gpu = given["tries"] ** given["layers"]
# END SOLUTION

# %% id="check-10.2" tags=["check"]
ch.check("10.2", tries_at_the_gpu)

# %% [markdown] id="layers-3"
# Hence the rule: one layer retries, and the others pass the error on.

# %% [markdown] id="waves"
# ## 4 Waves
#
# Waiting before the next try gives the service time. **Exponential backoff** doubles the wait with each failure, up to
# a **cap**. But clients that failed at the same moment and wait equally long come back at the same moment: a
# **thundering herd**. **Jitter** draws each wait at random instead.
#
# ### Exercise 10.3: a wave, with and without jitter
#
# Difficulty 3 of 5 · about 12 min
#
# Twelve clients, A to L, fail together at second 0. From then on the service can do **three tries per second**: of the
# clients that arrive in a second, it serves the first three in alphabetical order, and the others fail at once. After
# its first failure a client waits its first wait, after its second failure its second wait. *Bare*: every client waits
# 4 s, then 8 s. *Jitter*: each client waits what it drew, as printed below.

# %% id="waves-given" tags=["nbval-check-output"]
first, second = zip(*lab.JITTERED_S.values(), strict=True)
course.table({"client": list(lab.JITTERED_S), "first wait (s)": first, "second wait (s)": second}, "Drawn with jitter")

# %% [markdown] id="waves-2"
# The row of second 1 is `(1, 0, 0, 4, 3)`. Without jitter no client arrives. With jitter A, D, G and H arrive; A, D and
# G are served, and H fails and will arrive again at second 1 + 3 = 4. Write the rows of **seconds 2 to 8** in the same
# form, as a list: second, bare arrive, bare served, jitter arrive, jitter served. Check: `ch.check("10.3", rows)`.

# %% id="answer-10.3" tags=["answer"] question="10.3"
# SOLUTION
rows = [
    (2, 0, 0, 4, 3),
    (3, 0, 0, 2, 2),
    (4, 12, 3, 3, 3),
    (5, 0, 0, 0, 0),
    (6, 0, 0, 0, 0),
    (7, 0, 0, 1, 1),
    (8, 0, 0, 0, 0),
]
# END SOLUTION

# %% id="check-10.3" tags=["check"]
ch.check("10.3", rows)

# %% [markdown] id="waves-3"
# **Measure.** Now 200 clients follow the framework's own policy: a first wait (the **base**) of 4 s and a cap of 32 s.
# The service does ten tries per second. *Full* jitter draws each wait between 0 and what it would be without jitter.
# The two panels differ in nothing else.

# %% id="waves-measured"
from miniserve.policies.recovery.retry import Backoff
from miniserve.policies.recovery.waits import full_jitter, no_jitter

waves = {}
for name, jitter in (("without jitter", no_jitter), ("with full jitter", full_jitter)):
    policy = Backoff(max_attempts=30, base_s=4, cap_s=32, jitter=jitter)
    waves[name] = lab.wave(lab.by_policy(policy), clients=200, served_per_s=10, seconds=120)
lab.draw_waves(waves, served_per_s=10)

# %% id="waves-served" tags=["nbval-check-output"]
for name, found in waves.items():
    arrived, served = sum(row[1] for row in found), sum(row[2] for row in found)
    print(f"{name}: {arrived} tries, {served} of 200 served within two minutes")

# %% [markdown] id="waves-4"
# Without jitter the service is idle most of the time: between the waves no client comes. Longer waits only move the
# waves apart. With jitter the same service gets through everyone, in fewer tries.

# %% [markdown] id="predict"
# ## 5 Predict, then run
#
# Back to Larkspur. Its apps wait 5 s for an answer, then try again **at once**, with at most **four** tries in all. The
# fault lasts from second 20 to second 40.
#
# ### Exercise 10.4: tries when nothing is broken any more
#
# Difficulty 3 of 5 · about 6 min
#
# Look at the requests that arrive from second 55 to second 85, when both GPUs have long recovered. How many tries does
# such a request make **on average**? Give `(low, high)`, with high at most one and a half times low.
# Check: `ch.check("10.4", tries_between)`.

# %% id="answer-10.4" tags=["answer"] question="10.4"
# SOLUTION
# If all tries fail, 4 x 19 = 76 per second reach GPUs that can do 24. So they go on failing: p = 1, and n = 4 tries.
tries_between = (3.5, 4)
# END SOLUTION

# %% id="check-10.4" tags=["check"]
ch.check("10.4", tries_between)

# %% [markdown] id="run"
# Now run it, beside the careful apps of section 1.

# %% id="run-naive" tags=["nbval-check-output"]
naive = lab.larkspur_storm("naive")
for name, found in (("careful apps", careful), ("four tries at once", naive)):
    share, tries = found.between(*lab.LATE_S)
    print(f"{name}: {share:.0%} answered within 5 s, {tries:.2f} tries per request")

# %% id="run-figure"
lab.draw_storms({"careful apps": careful, "four tries at once": naive}, fault=lab.LARKSPUR_FAULT)

# %% [markdown] id="lasts"
# ## 6 A state that lasts
#
# The GPUs are healthy again, demand is below what they can do, and still hardly anyone gets an answer. Such a state is
# called **metastable**: a *trigger* brought the service into it, and a *feedback loop* holds it there after the trigger
# is gone. Here is the loop: answers come too late, so clients try again, so the queue stays long, so answers come too
# late.
#
# A model of a few lines has the same loop: one server, which does ten tries per second in the order in which they
# arrive. Clients wait 2 s. Nothing tells the server that a client has given up, so it does that work anyway. At second
# 30 the server goes down for some seconds.

# %% id="lasts-model" tags=["nbval-check-output"]
from miniserve.policies.recovery.retry import NaiveRetry, NeverRetry

calm = lab.storm(NeverRetry(), arrivals_per_s=3, fault_s=10)
twice = lab.storm(NaiveRetry(max_attempts=2), arrivals_per_s=3, fault_s=10)
print(f"3 requests/s, no retries: {calm.late_share:.0%} of the last minute's requests answered in time")
print(f"3 requests/s, two tries:  {twice.late_share:.0%}")

# %% [markdown] id="lasts-2"
# At three requests per second, two tries each make six per second. The server can do ten, so it comes back.
#
# ### Exercise 10.5: down, though nothing is broken
#
# Difficulty 3 of 5 · about 10 min
#
# Find parameters for which retries keep the recovered server down: **without** retries at least 95 % of the last
# minute's requests are answered in time, **with** them at most 10 %. Give a dictionary
# `{"arrivals_per_s": ..., "fault_s": ..., "tries": ..., "wait_s": ...}`: 1 to 9 requests per second, a fault of 1 to 20
# s, 2 to 10 tries, and a wait of 0 to 10 s before each further try. The run ends at second 240. Try things with
# `lab.storm`, as above: `NaiveRetry(max_attempts=4, wait_s=1)` makes four tries and waits 1 s before each retry.
# Check: `ch.check("10.5", parameters)`.

# %% id="answer-10.5" tags=["answer"] question="10.5"
# SOLUTION
parameters = {"arrivals_per_s": 6, "fault_s": 8, "tries": 3, "wait_s": 1}
# END SOLUTION

# %% id="check-10.5" tags=["check"]
ch.check("10.5", parameters)

# %% [markdown] id="budget"
# ## 7 Budget and breaker
#
# Would patience have helped? Take the same model at eight requests per second, with four tries and three ways to retry.
# A **retry budget** counts for all clients together: here each request pays for a tenth of a retry, and a retry
# that isn't paid for doesn't happen. (`floor_per_s=0`: no retry is free.)

# %% id="budget-run" tags=["nbval-check-output"]
from miniserve.policies.recovery.retry_budget import RetryBudget


def patient():
    return Backoff(max_attempts=4, base_s=0.5, cap_s=10)  # exponential, with full jitter


storms = {
    "no retries": lab.storm(NeverRetry()),
    "at once": lab.storm(NaiveRetry(max_attempts=4)),
    "backoff and jitter": lab.storm(patient()),
    "... and a budget": lab.storm(patient(), budget=RetryBudget(ratio=0.1, floor_per_s=0)),
}
for name, found in storms.items():
    print(
        f"{name:<19} {found.late_share:>4.0%} of the last minute's requests, {found.between(40, 60)[1]:.2f} tries each"
    )
print("(tries: of the requests that arrived in the 20 s after the fault)")
in_time, tries = storms["... and a budget"].between(30, 40)
print(f"with a budget, of those that arrived during the fault: {in_time:.0%} in time, {tries:.2f} tries each")

# %% id="budget-figure"
lab.draw_storms(storms, fault=(30, 40), window_s=10)

# %% [markdown] id="budget-2"
# Backoff and jitter change *when* the tries come. At this steady demand the tries of all clients add up to the same
# number per second, so backoff and jitter don't break the loop. (They do break up a wave, as in section 4, where no new
# requests arrive.) The budget changes *how many* tries come: at most 1.1 per request, so 8.8 per second, and the server
# can do ten. The figure also shows the price: the server comes back somewhat later than without any retries, and during
# the fault nearly every request fails after one try.
#
# Larkspur's careful apps do just this: backoff with jitter, at most three tries, and such a budget.
#
# A **circuit breaker** watches one replica. *Closed*: calls go through. If too many recent calls fail, it *opens*, and
# for a while no calls go through. Then it is *half-open* and lets a few through. If they succeed, it closes; if one
# fails, it opens again, for twice as long. Here the first opening lasts 5 s:

# %% id="breaker" tags=["nbval-check-output"]
from miniserve.policies.recovery.breaker import Breaker

breaker = Breaker(minimum_calls=4, window=8, open_s=5, trials=2)
calls = []
for now_s in range(22):
    well = now_s >= 10  # the replica fails until second 10
    state = breaker.state(now_s).value
    if breaker.allows(now_s):
        breaker.record(breaker.enter(now_s), well, now_s)
        calls.append((now_s, state, "succeeds" if well else "fails"))
    else:
        calls.append((now_s, state, "not made"))
seconds, states, ends = zip(*calls, strict=True)
course.table({"second": seconds, "circuit": states, "call": ends}, "A replica that fails until second 10")

# %% [markdown] id="breaker-2"
# The breaker spares the replica the load and the clients their timeouts. It doesn't make anything succeed: the calls
# need another replica to go to, or an honest error.

# %% [markdown] id="break"
# ## 8 Break it
#
# Here is a retry policy without jitter: a base of 0.5 s, a cap of 20 s, ten tries. A failure has four parts: `attempt`,
# how often the request has failed; `retry_after_s`, how long the server asks you to wait (**push-back**; None if it
# doesn't say); `now_s`; and `deadline_s`, the moment from which the answer is useless (None: no deadline). The policy
# returns the wait in seconds, or None to give up.

# %% id="break-policy" tags=["nbval-check-output"]
from miniserve.errors import Overloaded

policy = Backoff(max_attempts=10, base_s=0.5, cap_s=20, jitter=no_jitter)
example = {"attempt": 3, "retry_after_s": None, "now_s": 0, "deadline_s": 60}
error = Overloaded("busy", retry_after_s=example["retry_after_s"])
policy.delay_s(example["attempt"], error, example["now_s"], example["deadline_s"])

# %% [markdown] id="break-2"
# Three colleagues have each left something out: *never-caps* has no cap, *never-listens* uses its own wait whatever the
# server asks for, *never-looks-at-the-clock* ignores the deadline. On the example all three agree with the policy.
#
# ### Exercise 10.6: two failures that find three bugs
#
# Difficulty 4 of 5 · about 10 min
#
# Give a list of **at most two** failures, each a dictionary like the example, so that each of the three versions gets
# at least one of them wrong. `attempt` is 1 to 9. Check: `ch.check("10.6", failures)`.

# %% id="answer-10.6" tags=["answer"] question="10.6"
# SOLUTION
failures = [
    {"attempt": 8, "retry_after_s": None, "now_s": 0, "deadline_s": None},
    {"attempt": 1, "retry_after_s": 30, "now_s": 10, "deadline_s": 20},
]
# END SOLUTION

# %% id="check-10.6" tags=["check"]
ch.check("10.6", failures)

# %% [markdown] id="remedies-intro"
# ## 9 Which remedy?
#
# ### Exercise 10.7: which remedy for which storm
#
# Difficulty 2 of 5 · about 8 min
#
# The next cell prints eight situations and seven remedies. Give each situation the remedy that fits **best**; you will
# need one of them twice. Check: `ch.check("10.7", remedies)`.

# %% id="remedies-items"
course.show_choices(lab.SITUATIONS, lab.REMEDIES)

# %% id="answer-10.7" tags=["answer"] question="10.7"
# SOLUTION
remedies = {
    "a": "jitter",
    "b": "breaker",
    "c": "no retry",
    "d": "one layer",
    "e": "budget",
    "f": "cap",
    "g": "backoff",
    "h": "no retry",
}
# END SOLUTION

# %% id="check-10.7" tags=["check"]
ch.check("10.7", remedies)

# %% [markdown] id="review-intro"
# ### Exercise 10.8: after the storm
#
# Difficulty 3 of 5 · about 10 min · a person reads it
#
# Larkspur stayed down long after its 20 seconds of fault (section 5). Write four to eight sentences for the review:
# what started it, what kept it going, with numbers, what you would change, what that costs, and what to do if it
# happens again. Put your text between `"""` and `"""`. Check: `ch.check("10.8", review)`.

# %% id="answer-10.8" tags=["answer"] question="10.8"
# SOLUTION
review = """
The GPUs were slow for 20 s, and recovered by themselves. What kept us down was our own retries: 19 requests/s times
four tries make 76 tries/s, and the GPUs can do 24, so they worked on answers whose readers had left. Backoff alone
would have moved these tries to later seconds, not removed them. From now on only the apps retry, with jitter and at
most three tries, from a budget of one retry per ten requests: at most 20.9 tries/s, which the GPUs can bear. The price
is that during a fault most requests fail after one try. If it happens again, we refuse requests until the queue is
empty.
"""
# END SOLUTION

# %% id="check-10.8" tags=["check"]
ch.check("10.8", review)

# %% [markdown] id="real-code"
# ## 10 Read the real code
#
# Here are the policy of section 8 and the budget of section 7, from `miniserve/policies/recovery/retry.py` and
# `retry_budget.py`. Look for two things. A push-back may exceed the cap: the server knows best how long it needs. And
# the budget asks for its balance at `now_s`, because what isn't used expires; otherwise a calm day would pay for a
# storm.

# %% id="real-code-shown"
import inspect

print(inspect.getsource(Backoff.delay_s))
print(inspect.getsource(full_jitter))
print(inspect.getsource(RetryBudget.withdraw))

# %% [markdown] id="summary"
# ## 11 Summary
#
# - With at most n tries that each fail with probability p, a request makes (1 - pⁿ) / (1 - p) of them: hardly more than
#   one on a good day, n on a bad one. Layers multiply.
# - Clients that failed together come back together. Jitter spreads them; a cap bounds the longest wait.
# - If requests per second times tries exceeds what a service can do, an outage can outlive the fault that caused it.
# - Backoff and jitter change when tries come. Only fewer tries, as under a budget for all clients together, break the
#   loop.
# - A breaker keeps calls away from a replica that fails. Don't resend a request that is wrong, or whose answer is half
#   read.
#
# In chapter 18 you build backoff with jitter, and a budget. To run the whole scenario, longer and with ten tries:
# `python -m miniserve simulate data/scenarios/retry_storm.toml`.
#
# **Go deeper**
#
# - N. Bronson and others, *Metastable Failures in Distributed Systems*, HotOS 2021: trigger and loop.
# - L. Huang and others, *Metastable Failures in the Wild*, OSDI 2022: how often it happens, and where.
# - M. Brooker, *Exponential Backoff and Jitter*, AWS Architecture Blog, 2015: the kinds of jitter, compared.
# - B. Beyer and others (editors), *Site Reliability Engineering*, O'Reilly 2016, chapters 21 and 22: budgets, overload.
# - M. Nygard, *Release It!*, 2nd edition, Pragmatic Bookshelf 2018: the circuit breaker.
