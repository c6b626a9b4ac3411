# %% [markdown] id="intro"
# # Chapter 18: Retries
#
# **You will learn**
#
# - to write exponential backoff with a cap and three kinds of jitter;
# - to tell failures that are worth another try from those that are not;
# - to write a client's loop that pays for its retries from a budget and never sends half an answer twice;
# - to see naive retries keep a service down after its fault is over, and your own clients let it come back.
#
# **You need** Python (classes, `async def`), and nothing about serving. Chapter 10 does the arithmetic of retry storms with
# pen and paper; here you build the clients. **Time**: about 75 minutes. The notebook itself runs in {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 When to come back · 3 Which failures · 4 Whether, and after how long ·
# 5 Is patience enough? · 6 The loop and the budget · 7 What retries cost · 8 Larkspur's storm · 9 Break it ·
# 10 Read the real code · 11 Summary
#
# **How exercises work.** Write where it says `raise NotImplementedError` or `...`, then run the check below it. It says
# CORRECT, or what is wrong and why, with the smallest example that it found. `ch.hint("18.1")` gives a hint, and a
# further one when you call it again. After an attempt, `ch.solution("18.1")` shows a solution.

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
# A **retry** is a further try of a request that has failed. On a good day it is a blessing: one try in a hundred fails, the
# next one succeeds, and nobody notices. Now a bad day. A server can do **ten tries per second**, in the order of their
# arrival, and eight requests per second come. From second 30 to second 40 it is down. A client waits 2 s for an answer; if
# none comes it tries again at once, at most four times in all. A request is **answered in time** if one of its tries gets
# an answer within these 2 s. The server is not told that a client has left, so it also works for those who left. (It is
# chapter 10's server. Time is simulated; the clients are real code.)

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
# clients themselves send more tries than the server can do. Without any retry all would be well, but then each small
# failure of a good day reaches a customer. **Before you go on, predict**: can a client help on good days *and* do no harm
# on bad ones? What would it have to know?
#
# **Where we are on a request's path.** At its very start: in the app, or in whatever calls the service.

# %% [markdown] id="card-18-1"
# ## 2 When to come back
#
# To wait before the next try gives the service time. **Exponential backoff** doubles the wait with each failure, beginning
# with a *base*, and never waits longer than a *cap*. But clients that failed together and wait equally long come back
# together. **Jitter** puts luck in the place of a part of the wait:
#
# - *full*: anything from 0 to the bare wait;
# - *equal*: half of the bare wait for certain, and anything up to the other half on top of it;
# - *decorrelated*: anything from the base to three times **the wait before**, and what is above the cap becomes the cap.
#   Here the count of failures does not matter.
#
# Worked with a base of 2 s and a cap of 12 s: the bare waits are 2, 4, 8, 12, 12, ... s. After three failures, full lies in
# 0 to 8 s and equal in 4 to 8 s. If the wait before was 3 s, decorrelated lies in 2 to 9 s; if it was 5 s, in 2 to 15 s,
# and everything above 12 s becomes 12 s.
#
# ### Exercise 18.1
#
# Difficulty 2 of 5 · about 15 min
#
# **Goal.** Write the four methods of `Waits`.
#
# **Contract.** All return seconds, and all take the same two arguments, so that one can stand in for another: `failures`
# so far (1, 2, 3, ...) and `previous_s`, the wait before. All luck comes from `self.rng`, a `random.Random`: with the same
# generator in the same state the same waits come out, so that a run can be repeated. `self.rng.random()` is equally likely
# anywhere from 0 to 1.
#
# **Cost.** A patient client may have failed 100,000 times: no loop over failures, and no overflow (`2.0 ** 5000` raises).
#
# **Check**: `ch.check("18.1", Waits)`

# %% id="answer-18.1" tags=["answer"] question="18.1" target="miniserve/policies/recovery/waits.py::Waits.bare+full+equal+decorrelated"
from random import Random

# %% id="check-18.1" tags=["check"]
ch.check("18.1", Waits)

# %% [markdown] id="measure-18-1"
# **Measure.** Two hundred clients fail together at second 0. From then on ten can be served per second, and the others fail
# at once. They wait with a base of 4 s and a cap of 32 s. First the bare waits, the naive ones; then with your full jitter
# (the library's while yours is not right yet).

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
# The bare waits bring everybody back in the same few seconds, and between them the server is idle. Any of the three jitters
# serves all, with fewer tries.

# %% [markdown] id="card-18-2"
# ## 3 Which failures
#
# A failure comes with a number, as in HTTP, and maybe with a **push-back**: how long the server asks to wait
# (`retry-after`). A try is worth while if the same request, sent later, may have another fate. And there is one thing that
# only a streaming service knows: an answer comes word by word, so a try can fail when half of it has been read.
#
# ### Exercise 18.2: classify
#
# Difficulty 2 of 5 · about 5 min
#
# **Goal.** The next cell prints eight failures. Give each `"again"` (after a wait) or `"never"`, as a dictionary
# `{"a": "...", ...}`. For example, 404 (no such model) is `"never"`: the model will not be there in five seconds either.
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
# In the framework each of these errors is a class that knows its number. `may_retry(error)` says whether another try can
# help, as far as the error tells: its class is `retryable`, and no negative push-back forbids it. (What has been read is
# not in the error; section 6 deals with it.) A 500 is a bug in the server, and mostly one that just this request meets:
# sent again, it would meet it again.

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
# **Goal.** Write `Backoff.delay_s`. The class around it is given; `self._draw(attempt)` draws its own wait, with jitter.
#
# **Contract.** Return the seconds to wait before the next try, or None to give up. `attempt` counts the failures so far.
#
# - After `max_attempts` tries, the first one included, give up. Give up too if `may_retry(error)` is false.
# - If the server said how long to wait (`error.retry_after_s` is not None; it may be 0), wait exactly so long, even beyond
#   the cap. Otherwise draw.
# - `now_s` and `deadline_s` are times in seconds; from the deadline on nobody needs the answer. If the wait would end at the
#   deadline or after it, give up. None, and only None, means that there is no deadline.
#
# Worked: five tries at most, an own wait of 3 s after the second failure. At 60 s with a deadline of 64 s: 63 s is in time,
# so 3. With a deadline of 62 s: None. With a push-back of 1 s and a deadline of 62 s: 1. After the fifth failure: None.
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
# **Measure.** What becomes of single failures: how many tries each of two clients makes of a request that always fails so.

# %% id="single" tags=["nbval-check-output"]
mine = ch.yours("18.3", Backoff)
make_backoff = mine or retry.Backoff


def tries_of(policy, error):
    """Return how many tries one request makes that fails with `error` again and again."""
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
# The server of section 1 again, with fewer requests and more persistent clients: two requests per second, and up to ten
# tries of each. Both kinds of clients may make as many tries; only *when* they come differs. (The base is 4 s, the cap 60 s.)


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
# With light traffic, backoff lets the server recover where the naive clients keep it down: the waits hold the tries below
# the line until it has worked off its queue, and who came in the fault is answered by a later try. With more traffic the
# same waits are not enough. The tries pass the line before the queue is gone, so more of them fail, so more come, in the end
# up to 4 · 10 or 8 · 4 per second, whenever they come. So only *fewer* tries help.

# %% [markdown] id="budget"
# ## 6 The loop and the budget
#
# A **retry budget** counts for all clients together. Every request pays in a small share of a retry (`deposit`), every retry
# takes out a whole one (`withdraw`), and where nothing is left the answer is no. Worked with a share of one half, and
# without a floor (retries that nobody has to pay for):

# %% id="budget-worked" tags=["nbval-check-output"]
budget = RetryBudget(ratio=0.5, floor_per_s=0)
for request in (1, 2, 3, 4):
    budget.deposit(0.0)
    print(f"request {request} came; may it be tried again? {budget.withdraw(0.0)}")

# %% [markdown] id="budget-2"
# When one try in a hundred fails, nobody notices such a budget. When all fail, it bounds the load: with a share of a tenth
# at most 1.1 tries per request come, 8.8 per second, and the server can do ten.
#
# ### Exercise 18.4
#
# Difficulty 3 of 5 · about 20 min
#
# **Goal.** Write `persist`, the loop of a client: it makes the tries of one request.
#
# **Contract.** What it needs is given to it:
#
# - `await send(words)` makes one try and gives a `Try`: `.words` that came in this try (a tuple, maybe empty) and `.error`
#   (None: the answer is complete). It raises nothing. `words` are all that came in the tries before;
# - `await sleep(seconds)` waits, `clock()` is the time, `policy.delay_s(failures, error, now, deadline_s)` is section 4's;
# - `budget.deposit(now)` once for each request, before its first try; `budget.record(ok, now)` right after each try
#   (`ok`: it had no error), for budgets that look at results; `budget.withdraw(now)` before each retry that the policy
#   wants, and only then. If it says no, give up. `now` is what `clock()` says at that moment;
# - the first try is made at once. After each failure: if words have come (in any try) and `resume` is false, give up, since
#   the reader has half an answer. Then the policy, then the budget, then the wait.
#
# Return a `Try` with all words that came and the last error, or None as the error if the answer is complete.
#
# Worked: the first try brings no word and fails, the policy says 2 s, the budget says yes; the second brings "prune in
# March". Then deposit, send, record (False), policy, withdraw, sleep 2, send, record (True) have happened in this order.
#
# **Cost.** Any number of tries: a loop, no recursion.
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
# The careful clients' load stays below the line, so the queue shrinks, so answers come in time again. Nobody had to step in.

# %% [markdown] id="costs"
# ## 7 What retries cost
#
# A budget also refuses retries that would have helped. How many? Now a service with room for everybody, of which each try
# fails by luck, with the chance on the axis.

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
# While few tries fail, both answer nearly everybody, and the budget is hardly felt. When many fail, the naive clients still
# answer more (here there is room for all their tries), at a load that grows up to fourfold. The careful ones stay at 1.1
# and fail honestly. Which one you want depends on *why* tries fail, and a client cannot know that. So the budget is sized
# for the worst case, overload.

# %% [markdown] id="larkspur"
# ## 8 Larkspur's storm
#
# **Larkspur** is the course's fictional service, an assistant for a chain of garden centres. Chapter 10 sent 19 requests per
# second to its two GPUs, which can do 24, and slowed both down for 20 s. In each GPU the project's real scheduler runs; only
# time is simulated. The apps wait 5 s. Here are chapter 10's naive apps, and careful ones with *your* `Backoff` (at most
# three tries, a budget of a tenth).

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
# A customer reads while the answer comes. The connection breaks after three words. A client that just begins again shows
# this (a model's second answer differs from its first):

# %% id="half-read" tags=["nbval-check-output"]
from miniserve.clients.retry_loop import Try

FIRST, SECOND = ("Prune", "roses", "in"), ("Roses", "are", "pruned", "in", "March.")


class Breaking:
    """Breaks off once. Then it answers: on behind the words it is told if it can resume, else from the start."""

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
    """Try until there is no error, whatever has been read."""
    while (last := await send(())).error is not None:
        await sleep(0)
    return last


for name, client, resumes in (("begins again", begins_again, False), ("persist", loop, False), ("persist", loop, True)):
    service = Breaking(resumes)
    await client(service.send, no_sleep, lambda: 0.0, careful, Unlimited(), resume=resumes)
    print(f"{name}{', server can resume' if resumes else ''}: {' '.join(service.screen)}")

# %% [markdown] id="break-2"
# The second line stops in the middle, with an error that the app can show. The third goes on where it broke off, since the
# client told the server what the customer has. Miniserve's gateway, which stands before several copies of a server (its
# **replicas**), does so from one replica to the next, token by token.

# %% [markdown] id="real-code"
# ## 10 Read the real code
#
# The gateway has a loop of its own, since it knows several replicas. Here is the part in which it decides whether to try
# again. Find the same three questions (half read? how long? who pays?), and one more that only a gateway can ask: is there
# another replica? (`stuck_on`: those that broke while they worked on this request. Budgets count in thousandths of a
# retry, so `_MILLI` is one whole; `_reserve` is what the floor gives.)

# %% id="real-code-shown"
from miniserve.policies import dispatch

print(inspect.getsource(dispatch._Dispatch._wait_s))
print(inspect.getsource(RetryBudget.withdraw))

# %% [markdown] id="summary"
# ## 11 Summary
#
# - Doubling waits give a service time, a cap keeps them bearable, jitter keeps clients apart. The luck takes the place of the
#   wait; it is not added to it.
# - Retry what may have another fate later. Not 400s, not what is too late, not what the server forbids, and nothing that has
#   been half read, unless it can be continued.
# - The server's own wish about the wait comes first. The deadline comes last.
# - Naive retries keep a service down after its fault. With light traffic backoff lets it recover; near the limit it takes
#   fewer tries: a budget for all clients together.
# - A budget pays for all retries on a good day, and for a tenth on a bad one.
#
# **What does not hold.** The models have one server and equal clients, and a service that has room for all its retries does
# better without a budget (section 7). Only one layer should retry: three layers of three tries make 27.
#
# **Go deeper**
#
# - M. Brooker, *Exponential Backoff and Jitter*, AWS Architecture Blog, 2015: the jitters of `miniserve/policies/recovery/waits.py`.
# - N. Bronson and others, *Metastable Failures in Distributed Systems*, HotOS 2021: why it stays down.
# - B. Beyer and others (editors), *Site Reliability Engineering*, O'Reilly 2016, chapters 21 and 22: budgets, overload.
# - gRPC proposal A6, *Client Retries*: push-back, throttling, and why a stream that has begun is not retried.
