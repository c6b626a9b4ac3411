# %% [markdown] id="intro"
# # Chapter 18: Retries
#
# **You will learn**
#
# - how to write exponential backoff with a cap and three kinds of jitter;
# - how to tell failures that are worth another try from those that aren't;
# - how to write a client's loop that pays for its retries from a budget and never sends half an answer twice;
# - how naive retries keep a service down after its fault is over, and your own clients let it come back.
#
# **You need** Python (classes, `async def`); no knowledge of serving. Chapter 10 does the arithmetic of
# retry storms with pen and paper; here you build the clients. **Time**: about 75 minutes. The notebook itself runs in
# {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 When to come back · 3 Which failures · 4 Whether, and after how long ·
# 5 Is patience enough? · 6 The loop and the budget · 7 What retries cost · 8 Larkspur's storm · 9 Break it ·
# 10 Read the real code · 11 Summary
#
# **How exercises work.** Write where it says `raise NotImplementedError` or `...`, then run the check below it. It says
# CORRECT, or what is wrong and why, with the smallest example that it found. `ch.hint("18.1")` gives a hint; call it
# again for the next one. After an attempt, `ch.solution("18.1")` shows a solution.

# %% id="setup"
import inspect

from miniserve import course
from miniserve.clients import retry_loop as persistence
from miniserve.course.chapters.ch10_retry_storms import lab as ch10
from miniserve.course.chapters.ch18_retries import lab
from miniserve.policies.recovery import retry, waits
from miniserve.policies.recovery.retry_budget import RetryBudget, Unlimited
from miniserve.seeds import generator

ch = course.chapter(18)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# A **retry** is another try of a request that has failed. On a good day retries are a blessing: one try in a hundred
# fails, the next one succeeds, and nobody notices. Now for a bad day. A server gets eight requests per second, and can
# do **ten tries per second**, in the order in which they arrive. From second 30 to second 40 it is down. A client waits
# 2 s for an answer; if none comes it tries again at once, at most four times in all. A request is **answered in time**
# if one of its tries gets an answer within these 2 s. Nothing tells the server that a client has given up, so it does
# that work anyway. (This is chapter 10's server. Time is simulated; the clients are real code.)

# %% id="naive" tags=["nbval-check-output"]
at_once = retry.NaiveRetry(max_attempts=4)
naive = lab.storm(persistence.persist, at_once, Unlimited())
never = lab.storm(persistence.persist, retry.NeverRetry(), Unlimited())
for name, run in (("no retries", never), ("four tries at once", naive)):
    print(f"{name}: {run.late_share:.0%} of the last minute's requests are answered in time")

# %% id="naive-load"
lab.draw_load({"no retries": never, "four tries at once": naive})

# %% [markdown] id="bite-2"
# The fault is over after ten seconds. Three minutes later still nobody gets an answer, although nothing is broken: the
# clients themselves send more tries than the server can do. Without retries all would be well, but then each small
# failure of a good day reaches a customer. **Before you go on, predict**: can a client help on good days *and* do no
# harm on bad ones? What would it have to know?
#
# **Where we are on a request's path.** At its very start: in the app, or in whatever calls the service.

# %% [markdown] id="card-18-1"
# ## 2 When to come back
#
# Waiting before the next try gives the service time. **Exponential backoff** doubles the wait with each failure, from a
# *base* up to a *cap*. But clients that failed together and wait equally long come back together, as a **thundering
# herd**. **Jitter** replaces part of the wait with a random amount:
#
# - *full*: anything from 0 to the bare wait;
# - *equal*: half of the bare wait, plus anything up to the other half;
# - *decorrelated*: anything from the base to three times **the wait before**; anything above the cap becomes the cap.
#   Here the count of failures doesn't matter.
#
# Worked with a base of 2 s and a cap of 12 s: the bare waits are 2, 4, 8, 12, 12, ... s. After three failures, full
# lies in 0 to 8 s and equal in 4 to 8 s. If the wait before was 3 s, decorrelated lies in 2 to 9 s; if it was 5 s, in 2
# to 15 s, and everything above 12 s becomes 12 s.
#
# ### Exercise 18.1
#
# Difficulty 2 of 5 · about 15 min
#
# **Goal.** Write the four methods of `Waits`.
#
# **Contract.** Each returns seconds, and each takes the same two arguments, so that one can replace another: `failures`
# so far (1, 2, 3, ...) and `previous_s`, the wait before. All random numbers come from `self.rng`, a `random.Random`:
# the same generator in the same state gives the same waits, so you can repeat a run. `self.rng.random()` is equally
# likely anywhere from 0 to 1.
#
# **Cost.** A patient client may have failed 100,000 times: no loop over failures, and no overflow (`2.0 ** 5000`
# raises).
#
# **Check**: `ch.check("18.1", Waits)`

# %% id="answer-18.1" tags=["answer"] question="18.1" target="miniserve/policies/recovery/waits.py::Waits.bare+full+equal+decorrelated"
from random import Random

# %% id="check-18.1" tags=["check"]
ch.check("18.1", Waits)

# %% [markdown] id="measure-18-1"
# **Measure.** Two hundred clients fail together at second 0. From then on the service does ten tries per second, and
# the rest fail at once. The base is 4 s, the cap 32 s. First come the bare waits, the naive ones; then your full jitter
# (or the library's until yours is right).

# %% id="waves"
mine = ch.yours("18.1", Waits)
make_waits = mine or waits.Waits


def wave_of(way):
    next_wait = lab.by_waits(make_waits(generator(18, way), 4, 32), way)
    return ch10.wave(next_wait, clients=200, served_per_s=10, seconds=120)


waves = {way: wave_of(way) for way in ("bare", "full", "equal", "decorrelated")}
ch10.draw_waves(
    {"bare": waves["bare"], "full jitter, yours" if mine else "full jitter": waves["full"]}, served_per_s=10
)

# %% id="waves-table" tags=["nbval-check-output"]
lab.compare_waves(waves, "Two hundred clients that failed together, two minutes")

# %% [markdown] id="waves-2"
# The bare waits bring all clients back in the same few seconds, and in between the server is idle. Each of the three
# jitters serves everyone, in fewer tries.

# %% [markdown] id="card-18-2"
# ## 3 Which failures
#
# A failure comes with a number, as in HTTP, and maybe with a **push-back**: how long the server asks you to wait
# (`retry-after`). A retry is worthwhile if the same request could fare better later. And a streaming service adds a
# twist: an answer comes word by word, so a try can fail when the customer has read half of it.
#
# ### Exercise 18.2: classify
#
# Difficulty 2 of 5 · about 5 min
#
# **Goal.** The next cell prints eight failures. Classify each as `"again"` (after a wait) or `"never"`, in a dictionary
# `{"a": "...", ...}`. For example, 404 (no such model) is `"never"`: the model won't be there in five seconds either.
#
# **Check**: `ch.check("18.2", tried)`

# %% id="failures"
for key, failure in lab.FAILURES.items():
    print(f"{key}: {failure}")

# %% id="answer-18.2" tags=["answer"] question="18.2"
# SOLUTION
tried = {
    "a": "again",
    "b": "never",
    "c": "again",
    "d": "again",
    "e": "never",
    "f": "never",
    "g": "never",
    "h": "never",
}
# END SOLUTION

# %% id="check-18.2" tags=["check"]
ch.check("18.2", tried)

# %% [markdown] id="classes"
# In the framework each of these errors is a class that knows its number. `may_retry(error)` says whether another try
# can help, as far as the error tells: its class is `retryable`, and no negative push-back forbids it. (The error
# doesn't know what the customer has read; section 6 deals with that.) A 500 is a bug in the server, usually one that
# this very request triggers: sent again, it would trigger the bug again.

# %% id="classes-table" tags=["nbval-check-output"]
from miniserve import errors

kinds = [errors.InvalidRequest, errors.Unauthorized, errors.NotFound, errors.RateLimited, errors.InternalError]
kinds += [errors.UpstreamError, errors.Overloaded, errors.DeadlineExceeded]
course.table(
    {
        "error": [kind.__name__ for kind in kinds],
        "number": [str(kind.status) for kind in kinds],
        "may_retry": [str(retry.may_retry(kind("..."))) for kind in kinds],
    },
    "What the framework's errors say",
)

# %% [markdown] id="card-18-3"
# ## 4 Whether, and after how long
#
# ### Exercise 18.3
#
# Difficulty 3 of 5 · about 15 min
#
# **Goal.** Write `Backoff.delay_s`. The class around it is given; `self._draw(attempt)` draws its own wait, with
# jitter.
#
# **Contract.** Return the seconds to wait before the next try, or None to give up. `attempt` counts the failures so
# far.
#
# - After `max_attempts` tries, including the first, give up. Give up as well if `may_retry(error)` is false.
# - If the server said how long to wait (`error.retry_after_s` is not None; it may be 0), wait exactly that long, even
#   beyond the cap. Otherwise draw.
# - `now_s` and `deadline_s` are times in seconds; from the deadline on nobody needs the answer. If the wait would end
#   at the deadline or after it, give up. None, and only None, means that there is no deadline.
# - One policy serves many requests, and the error belongs to the caller: leave both as they are.
#
# Worked: at most five tries, and a drawn wait of 3 s after the second failure. At 60 s with a deadline of 64 s, the
# wait ends at 63 s, in time: 3. With a deadline of 62 s: None. With a push-back of 1 s and a deadline of 62 s: 1. After
# the fifth failure: None.
#
# **Check**: `ch.check("18.3", Backoff)`

# %% id="answer-18.3" tags=["answer"] question="18.3" target="miniserve/policies/recovery/retry.py::Backoff.delay_s"
from miniserve.errors import RequestError
from miniserve.policies.recovery import waits
from miniserve.policies.recovery.retry import check_settings, may_retry
from miniserve.seeds import generator

# %% id="check-18.3" tags=["check"]
ch.check("18.3", Backoff)

# %% [markdown] id="measure-18-3"
# **Measure.** Take a request that always fails in the same way: how many tries does each of two clients make of it?

# %% id="single" tags=["nbval-check-output"]
mine = ch.yours("18.3", Backoff)
make_backoff = mine or retry.Backoff


def tries_of(policy, error):
    """Return how many tries a request makes that keeps failing with `error`."""
    failures = 1
    while policy.delay_s(failures, error, 0.0, None) is not None:
        failures += 1
    return failures


careful = make_backoff(max_attempts=4, base_s=0.5, cap_s=10)
course.table(
    {
        "error": [kind.__name__ for kind in kinds],
        "four tries at once": [tries_of(at_once, kind("...")) for kind in kinds],
        "backoff, yours" if mine else "backoff": [tries_of(careful, kind("...")) for kind in kinds],
    },
    "Tries of a request that always fails in this way",
)

# %% [markdown] id="patience"
# ## 5 Is patience enough?
#
# Back to the server of section 1, with fewer requests and more persistent clients: two requests per second, and up to
# ten tries each. Both kinds of clients may make equally many tries; they differ only in *when*. (The base is 4 s, the
# cap 60 s.)


# %% id="patient" tags=["nbval-check-output"]
def patient():
    return make_backoff(max_attempts=10, base_s=4, cap_s=60)


ten_at_once = retry.NaiveRetry(max_attempts=10)
light = {
    "ten tries at once": lab.storm(persistence.persist, ten_at_once, Unlimited(), arrivals_per_s=2),
    "ten tries, backoff": lab.storm(persistence.persist, patient(), Unlimited(), arrivals_per_s=2),
}
heavy = lab.storm(persistence.persist, make_backoff(max_attempts=4, base_s=0.5, cap_s=10), Unlimited())
runs = {
    **{f"2 requests/s, {name}": run for name, run in light.items()},
    "4 requests/s, ten tries, backoff": lab.storm(persistence.persist, patient(), Unlimited(), arrivals_per_s=4),
    "8 requests/s, four tries, backoff": heavy,
}
for name, run in runs.items():
    print(f"{name}: {run.late_share:.0%} of the last minute's requests are answered in time")

# %% id="patient-figure"
lab.draw_load(dict(list(runs.items())[:3]))

# %% [markdown] id="patience-2"
# With light traffic, backoff lets the server recover where naive clients keep it down: the waits hold the tries below
# the line until the server has worked off its queue, and a later try answers the requests that came during the fault.
# With more traffic the same waits aren't enough. The tries cross the line before the queue is gone, so more of them
# fail, so more come, in the end up to 4 · 10 or 8 · 4 per second, however they are spread. So only *fewer* tries help.

# %% [markdown] id="budget"
# ## 6 The loop and the budget
#
# A **retry budget** counts for all clients together. Every request pays in a small share of a retry (`deposit`), every
# retry takes out a whole one (`withdraw`), and when nothing is left the answer is no. Worked with a share of one half,
# and without a floor (free retries, which no request pays for):

# %% id="budget-worked" tags=["nbval-check-output"]
budget = RetryBudget(ratio=0.5, floor_per_s=0)
for request in (1, 2, 3, 4):
    budget.deposit(0.0)
    print(f"request {request} came; may it be tried again? {budget.withdraw(0.0)}")

# %% [markdown] id="budget-2"
# When one try in a hundred fails, nobody notices such a budget. When all fail, it bounds the load: with a share of a
# tenth, clients make at most 1.1 tries per request, 8.8 per second, and the server can do ten.
#
# ### Exercise 18.4
#
# Difficulty 3 of 5 · about 20 min
#
# **Goal.** Write `persist`, the loop of a client: it makes the tries of one request.
#
# **Contract.** You get everything you need:
#
# - `await send(words)` makes one try and returns a `Try`: its `.words`, the ones that came in this try (a tuple, maybe
#   empty), and its `.error` (None: the answer is complete). It raises nothing. `words` are all words from the tries
#   before. It may hold on to them, so leave what you handed over as it was;
# - `await sleep(seconds)` waits, `clock()` is the time, `policy.delay_s(failures, error, now, deadline_s)` is section
#   4's;
# - call `budget.deposit(now)` once for each request, before its first try; `budget.record(ok, now)` right after each
#   try (`ok`: it had no error), for budgets that look at results; and `budget.withdraw(now)` before each retry that the
#   policy wants, and only then. If it says no, give up. `now` is what `clock()` says at that moment;
# - make the first try at once. After each failure: if words have come (in any try) and `resume` is false, give up,
#   because the reader has half an answer. Otherwise ask the policy, then the budget, then wait.
#
# Return a `Try` with all words that came and the last error, or None as the error if the answer is complete.
#
# Worked: the first try brings no words and fails, the policy says 2 s, the budget says yes; the second brings "prune in
# March". The calls are then, in this order: deposit, send, record (False), policy, withdraw, sleep 2, send, record
# (True).
#
# **Cost.** Any number of tries: use a loop, no recursion.
#
# **Check**: `ch.check("18.4", persist)`

# %% id="answer-18.4" tags=["answer"] question="18.4" target="miniserve/clients/retry_loop.py::persist"
from collections.abc import Awaitable, Callable

from miniserve.clients.retry_loop import SendOnce, Try
from miniserve.policies.recovery.retry import RetryPolicy
from miniserve.policies.recovery.retry_budget import Budget
from miniserve.types import Clock

# %% id="check-18.4" tags=["check"]
ch.check("18.4", persist)

# %% [markdown] id="measure-18-4"
# **Measure.** Section 1's bad day, with eight requests per second. All clients of a run share one budget.

# %% id="storms" tags=["nbval-check-output"]
loop = ch.yours("18.4", persist) or persistence.persist


def careful_clients(loop):
    """Return a run of the bad day with backoff, jitter, and a tenth of a retry per request."""
    policy = make_backoff(max_attempts=4, base_s=0.5, cap_s=10)
    return lab.storm(loop, policy, RetryBudget(ratio=0.1, floor_per_s=0))


storms = {"four tries at once": naive, "backoff alone": heavy, "backoff and budget": careful_clients(loop)}
for name, run in storms.items():
    print(
        f"{name}: {run.late_share:.0%} of the last minute's requests answered; {run.between(40, 60)[1]:.2f} tries of each "
        "that came in the 20 s after the fault"
    )

# %% id="storms-figure"
lab.draw_storms(storms)

# %% id="storms-load"
lab.draw_load(storms)

# %% [markdown] id="storms-2"
# The careful clients' load stays below the line, so the queue shrinks, so answers come in time again. Nobody had to
# intervene.

# %% [markdown] id="costs"
# ## 7 What retries cost
#
# A budget also refuses retries that would have helped. How many? Now take a service with room for every try, where each
# try fails at random, with the probability on the axis.

# %% id="shaky" tags=["nbval-check-output"]
chances = (0.01, 0.05, 0.1, 0.2, 0.5, 1.0)
shaky = {
    "four tries at once": [lab.shaky(persistence.persist, at_once, Unlimited(), chance) for chance in chances],
    "backoff and budget": [
        lab.shaky(
            loop, make_backoff(max_attempts=4, base_s=0.5, cap_s=10), RetryBudget(ratio=0.1, floor_per_s=0), chance
        )
        for chance in chances
    ],
}
lab.draw_shaky(chances, shaky)

# %% [markdown] id="costs-2"
# While few tries fail, both kinds of clients get nearly everyone an answer, and you hardly feel the budget. When many
# fail, the naive clients still get more answers (here the service has room for all their tries), at a load that grows
# up to fourfold. The careful ones stay at 1.1 and fail honestly. Which one you want depends on *why* tries fail, and a
# client can't know that. So size the budget for the worst case, overload.

# %% [markdown] id="larkspur"
# ## 8 Larkspur's storm
#
# **Larkspur** is the course's fictional service, an assistant for a chain of garden centres. Chapter 10 sent 19
# requests per second to its two GPUs, which can do 24, and slowed both down for 20 s. Each GPU runs the project's real
# scheduler; only time is simulated. The apps wait 5 s. Here are chapter 10's naive apps, and careful ones with *your*
# `Backoff` (at most three tries, a budget of a tenth).

# %% id="larkspur-run" tags=["nbval-check-output"]
gpus = {"four tries at once": ch10.larkspur_storm("naive"), "backoff and budget": lab.larkspur(make_backoff)}
for name, run in gpus.items():
    share, tries = run.between(*ch10.LATE_S)
    print(f"{name}: {share:.0%} answered within 5 s long after the fault, {tries:.2f} tries per request")

# %% id="larkspur-figure"
ch10.draw_storms(gpus, fault=ch10.LARKSPUR_FAULT)

# %% [markdown] id="break"
# ## 9 Break it
#
# A customer reads while the answer comes. After three words the connection breaks. A client that simply starts again
# shows this (a model's second answer differs from its first):

# %% id="half-read" tags=["nbval-check-output"]
from miniserve.clients.retry_loop import Try

FIRST, SECOND = ("Prune", "roses", "in"), ("Roses", "are", "pruned", "in", "March.")


class Breaking:
    """Breaks off once. Then it answers: after the words it is given if it can resume, otherwise from the start."""

    def __init__(self, resumes):
        self.resumes, self.tries, self.screen = resumes, 0, []

    async def send(self, words):
        self.tries += 1
        broken = self.tries == 1
        come = FIRST if broken else ("March.",) if self.resumes and words else SECOND
        self.screen += come
        return Try(come, errors.UpstreamError("broke off") if broken else None)


async def no_sleep(seconds):
    pass


async def begins_again(send, sleep, clock, policy, budget, **settings):
    """Try until there is no error, whatever the customer has read."""
    while (last := await send(())).error is not None:
        await sleep(0)
    return last


for name, client, resumes in (("begins again", begins_again, False), ("persist", loop, False), ("persist", loop, True)):
    service = Breaking(resumes)
    await client(service.send, no_sleep, lambda: 0.0, careful, Unlimited(), resume=resumes)
    print(f"{name}{', server can resume' if resumes else ''}: {' '.join(service.screen)}")

# %% [markdown] id="break-2"
# The second line stops in the middle, with an error that the app can show. The third goes on where it broke off,
# because the client told the server what the customer already has. Miniserve's gateway, which stands before several
# copies of a server (its **replicas**), can do this from one replica to the next, token by token, but only as a policy
# that is off by default, and only in simulation so far. The live gateway does what the second line shows.

# %% [markdown] id="real-code"
# ## 10 Read the real code
#
# The gateway has a loop of its own, because it knows several replicas. This is the part that decides whether to try
# again. Look for the same three questions (half read? how long? who pays?), and for one that only a gateway can ask: is
# there another replica? (`stuck_on`: the replicas that broke while they worked on this request. Budgets count in
# thousandths of a retry, so `_MILLI` is one whole retry; `_reserve` is what the floor gives.)

# %% id="real-code-shown"
from miniserve.policies import dispatch

print(inspect.getsource(dispatch._Dispatch._wait_s))
print(inspect.getsource(RetryBudget.withdraw))

# %% [markdown] id="summary"
# ## 11 Summary
#
# - Doubling waits give a service time, a cap keeps them bearable, jitter keeps clients apart. Jitter replaces part of
#   the wait; it isn't added to it.
# - Retry what could fare better later. Don't retry a 400, anything too late, anything the server forbids, or an answer
#   that is half read, unless you can continue it.
# - The server's push-back comes before your own wait, and the deadline overrides both.
# - Naive retries keep a service down after its fault. With light traffic, backoff lets it recover; near the limit only
#   fewer tries do: a budget for all clients together.
# - A budget pays for all retries on a good day, and for one per ten requests on a bad one.
#
# **What this leaves out.** The models have one server and equal clients, and a service with room for all its retries does
# better without a budget (section 7). And only one layer should retry: three layers of three tries make 27.
#
# **Go deeper**
#
# - M. Brooker, *Exponential Backoff and Jitter*, AWS Architecture Blog, 2015: the jitters of
#   `miniserve/policies/recovery/waits.py`.
# - N. Bronson and others, *Metastable Failures in Distributed Systems*, HotOS 2021: why a service stays down.
# - B. Beyer and others (editors), *Site Reliability Engineering*, O'Reilly 2016, chapters 21 and 22: budgets, overload.
# - gRPC proposal A6, *Client Retries*: push-back, throttling, and why a stream that has begun is not retried.
