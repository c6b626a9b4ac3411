# %% [markdown] id="intro"
# # Chapter 1: Why serving at scale is a systems problem
#
# **You will learn**
#
# - how many requests are inside a service at once (Little's law);
# - how often something breaks in a fleet whose machines hardly ever break;
# - why a promise about latency is not a promise about the mean;
# - how many customers a bad update hurts, and what one answer costs;
# - to predict what 500 requests at once do to a machine, and then run them;
# - to tell a model problem from a systems problem.
#
# **You need** Python, but no knowledge of serving. **Time**: a good hour; all cells together run in {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 Larkspur · 3 How many at once · 4 Machines that break · 5 A promise ·
# 6 Updates · 7 The bill · 8 Predict, then run · 9 Break it · 10 A real replica · 11 Whose problem? · 12 Read the real code ·
# 13 Summary
#
# **How exercises work.** Put your answer where you see `...`, then run the check below it. It says CORRECT, or what is
# wrong and why. `ch.hint("1.1")` gives a hint; call it again for the next one. After an attempt,
# `ch.solution("1.1")` shows a solution.

# %% id="setup"
import numpy as np

from miniserve import course
from miniserve.course.chapters.ch01_systems_problem import lab

ch = course.chapter(1)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# **Larkspur** is a fictional service and the running example of this course: an assistant for a chain of garden
# centres. Customers chat with it, and staff have it draft articles. Before it opens, its developers try it on a small
# test machine.
#
# A language model reads and writes **tokens**, pieces of words. Here is one question of 60 tokens with an answer of 40,
# and no other customers:

# %% id="alone" tags=["nbval-check-output"]
alone = lab.at_once(1)
print(
    f"first token after {course.as_text(float(alone.first_s[0]))} s, answer complete after {course.as_text(alone.ends_s)} s"
)

# %% [markdown] id="bite-2"
# Good enough. On opening day 500 customers ask at the same moment. Same model, same machine. When does the last of them
# get an answer? You'll predict that in section 8, and then run it. Nothing about the *model* will have changed.
#
# The cell above is a simulation: the real scheduling code decides which request is worked on, and a formula fitted to
# measurements of that machine says how long each piece of work takes. Most chapters do it this way. Section 10 runs a
# real model.
#
# **Where we are on a request's path.** A request goes from the client to the **gateway**, the door of the service. The
# gateway passes it to one of several **replicas**: machines that each hold a copy of the model. There it waits, is
# read, and is answered token by token. This chapter looks at the whole path from above.

# %% [markdown] id="larkspur"
# ## 2 Larkspur
#
# All chapters use one workload and one price list. A **GPU** is the processor that runs the model; Larkspur rents three
# of type L4. Here is what its customers ask for, and what a machine costs:

# %% id="larkspur-facts" tags=["nbval-check-output"]
day = lab.scenario()
gpu = lab.machine()
replicas = len(day.fleet.replica_ids)
a_day_s = day.run.duration_s
course.table(
    {
        "Larkspur": [
            "requests per day, on average",
            "tokens of a question, mean",
            "tokens of an answer, mean",
            "replicas, one GPU each",
            "USD per hour of one GPU",
            "USD per hour of one spot GPU",
            "interruptions per hour of one spot GPU",
            "promise: first token within (s)",
        ],
        "": [
            round(day.workload.arrivals.rate_per_s * a_day_s),
            day.workload.prompt.mean_tokens,
            day.workload.output.mean_tokens,
            replicas,
            gpu.usd_per_hour,
            gpu.spot_usd_per_hour,
            gpu.spot_interruptions_per_hour,
            day.slo.ttft_s,
        ],
    },
    "One workload and one price list, from data/scenarios/larkspur_day.toml and data/hardware.toml",
)

# %% [markdown] id="larkspur-2"
# The lengths come from data that a large chat service has published; a question is long because it includes the
# conversation so far. The prices are a cloud provider's. A **spot** machine is cheap because the provider may take it
# away at any moment.
#
# Now one simulated day. At 13:00 one of the three GPUs slows down for 40 minutes. Chapter 6 studies this same day.

# %% id="the-day" tags=["nbval-check-output"]
result = lab.larkspur_day()
seen = result.outcomes
print(f"{len(seen):,} requests, {seen.served.mean():.1%} of them answered")
print(f"mean time to first token {course.as_text(float(seen.ttft_s.mean()))} s")
print(f"mean time to the end of the answer {course.as_text(float(seen.e2e_s.mean()))} s")

# %% [markdown] id="inside"
# ## 3 How many at once
#
# The first thing that changes with scale is **concurrency**: how many requests are inside at the same time. Each of
# them takes up memory or a place in a queue, so this number decides how big the service must be.
#
# **Little's law** (1961) says that in the long run
#
# L = λ · W
#
# where L is the mean number inside, λ (lambda) the arrivals per second, and W the mean time in seconds that a request
# stays, *from arriving to leaving*. The law assumes nothing about when requests arrive or in which order they are
# served.
#
# Worked example: 2 customers per minute, or 2/60 per second, come to a bakery, and each stays for 5 minutes, or 300 s.
# So there are 2/60 · 300 = 10 customers in the shop, on average.
#
# ### Exercise 1.1: how many are inside at once
#
# Difficulty 2 of 5 · about 7 min
#
# `per_hour` requests arrive per hour. Each waits for `waits_s` seconds, and answering it then takes `answers_s`
# seconds. Write a function that returns how many are inside at once, on average. It is checked on 64 random triples.
# Check: `ch.check("1.1", in_flight)`.


# %% id="answer-1.1" tags=["answer"] question="1.1"
# SOLUTION
def in_flight(per_hour, waits_s, answers_s):
    """Return the mean number of requests inside."""
    return per_hour / 3600 * (waits_s + answers_s)


# END SOLUTION

# %% id="check-1.1" tags=["check"]
ch.check("1.1", in_flight)

# %% [markdown] id="inside-2"
# **Measure.** Count how many are inside every half minute of the simulated day, and compare with the law:

# %% id="inside-measured" tags=["nbval-check-output"]
came, left = np.sort(seen.arrived_s), np.sort(seen.ended_s)
moments = np.arange(0, a_day_s, 30)
inside = np.searchsorted(came, moments, side="right") - np.searchsorted(left, moments, side="right")
print(f"counted: {inside.mean():.2f} inside on average, {inside.max()} at most")
formula = ch.yours("1.1", in_flight)
if formula is not None:
    first_token, rest = seen.ttft_s.mean(), (seen.e2e_s - seen.ttft_s).mean()
    print(f"your formula: {formula(len(seen) / 24, first_token, rest):.2f}")

# %% [markdown] id="inside-3"
# A mean says nothing about the worst moment, which is far above it. And concurrency feeds on itself: longer stays put
# more requests inside, and because they share the same machines, each stay gets longer still.

# %% [markdown] id="breaks"
# ## 4 Machines that break
#
# A machine that fails once in a hundred days is reliable. What about many of them? Let each fail with probability p on
# a given day, independently of the others. (Real failures are not always independent: machines share power and
# networks.)
#
# Worked example for two machines and p = 0.1. The first gets through the day with probability 0.9, and so does the
# second. Both do with probability 0.9 · 0.9 = 0.81.
#
# ### Exercise 1.2: a day on which nothing breaks
#
# Difficulty 2 of 5 · about 5 min
#
# The numbers printed below are drawn for you: how many GPUs there are, and the probability that any one of them fails
# on a given day. How likely is a day without any failure? Give a number from 0 to 1. Check:
# `ch.check("1.2", quiet_day)`.

# %% id="breaks-given"
fleet = ch.given("1.2")
fleet

# %% id="answer-1.2" tags=["answer"] question="1.2"
# SOLUTION
quiet_day = (1 - fleet["fails_per_day"]) ** fleet["gpus"]
# END SOLUTION

# %% id="check-1.2" tags=["check"]
ch.check("1.2", quiet_day)

# %% [markdown] id="breaks-2"
# **Measure.** Here are a thousand days of fleets whose GPUs each fail on one day in two hundred:

# %% id="breaks-measured" tags=["nbval-check-output"]
from miniserve.seeds import generator

rng = generator(1, "failures")
sizes = (1, 3, 30, 300)
quiet = [sum(all(rng.random() >= 0.005 for _ in range(gpus)) for _ in range(1000)) for gpus in sizes]
course.table({"GPUs": sizes, "quiet days of 1,000": quiet}, "Days on which nothing broke")

# %% [markdown] id="breaks-3"
# With one GPU, a failure is an event. With 300, it is a normal day, and you must decide beforehand what happens to the
# requests on a broken machine. Larkspur needn't be large to get there. Suppose its three GPUs were spot machines:

# %% id="breaks-spot" tags=["nbval-check-output"]
import math

per_day = gpu.spot_interruptions_per_hour * 24
print(f"one spot GPU is taken away {per_day:.1f} times per day, on average")
print(f"chance of a day on which none of the three is: {math.exp(-per_day * replicas):.1%}")

# %% [markdown] id="breaks-4"
# (If interruptions come at random moments, m per day on average, a day has none with probability e⁻ᵐ.)

# %% [markdown] id="promise"
# ## 5 A promise
#
# The first thing a customer waits for is the first token; how long that takes is the **time to first token** (TTFT).
# Larkspur promises that 99 of 100 requests get theirs within 4 s. A promise like this, with a limit and a share, is a
# *service-level objective* (**SLO**); in a contract it becomes a *service-level agreement* (**SLA**). The **p99** is
# the time that 99 % of all requests stay within, so the promise says: p99 at most 4 s.
#
# Worked example: of 100 requests, 97 wait 1 s and three wait 20 s. The mean is 0.97 · 1 + 0.03 · 20 = 1.57 s. The p99
# is 20 s, since only 97 % wait less. The mean is fine, but the promise is broken.
#
# `lab.under_load(arrivals_per_s, replicas)` simulates a thousand requests that arrive at a steady mean rate, on that
# many of Larkspur's GPUs:

# %% id="promise-example" tags=["nbval-check-output"]
lab.under_load(2.0, 3)

# %% [markdown] id="promise-2"
# Here even the mean shows that something is wrong.
#
# ### Exercise 1.3: a fine mean and a broken promise
#
# Difficulty 3 of 5 · about 8 min
#
# Find a load at which the **mean** TTFT is at most 2 s and yet **fewer than 95 %** of the requests get their first
# token within 4 s: more than five times as many wait too long as the promise allows. Give a dictionary
# `{"arrivals_per_s": ..., "replicas": ...}` with 0.02 to 5 requests per second and 1 to 4 GPUs. Experiment with
# `lab.under_load`. Check: `ch.check("1.3", load)`.

# %% id="answer-1.3" tags=["answer"] question="1.3"
# SOLUTION
load = {"arrivals_per_s": 0.4, "replicas": 1}
# END SOLUTION

# %% id="check-1.3" tags=["check"]
ch.check("1.3", load)

# %% [markdown] id="promise-3"
# **Measure.** Three GPUs under a growing load (drawn once you have found a load of your own):

# %% id="promise-figure"
if ch.yours("1.3", load) is not None:
    lab.draw_loads({rate: lab.under_load(rate, 3) for rate in (0.05, 0.5, 1.0, 1.5, 1.75, 2.0)}, replicas=3)

# %% [markdown] id="promise-4"
# The p99 crosses its limit well before the mean does. It starts close to the limit, because a long question takes long
# to read even on an idle machine. A replica reads it in pieces, so that other answers can go on in between:

# %% id="promise-idle" tags=["nbval-check-output"]
long_tokens, piece_tokens = day.workload.prompt.at(0.99), day.engine.scheduler.max_batch_tokens
piece = gpu.step_time(lab.model())  # how long the reading of a piece takes
read_s = long_tokens / piece_tokens * piece.base_s + long_tokens * piece.per_prefill_token_s
print(f"one question in a hundred has {long_tokens:,} tokens or more, {long_tokens / piece_tokens:.0f} pieces")
print(f"reading it takes about {read_s:.1f} s, with no other request there")

# %% [markdown] id="promise-5"
# If you watch only the mean, you'll hear about the broken promise from your customers. Chapter 6 is about this.

# %% [markdown] id="updates"
# ## 6 Updates
#
# With one user, an update is a restart. With many, each update is an experiment on them. The harm that a bad one does
# is its **blast radius**: how many users meet it, for how long, and how much worse it is.
#
# Worked example: of 1,000 requests per hour, a share of 0.2, the **exposure**, goes to the new version. After 30
# minutes an engineer notices and **rolls it back**. So 1,000 · 0.2 · 0.5 = 100 requests met it. The old version answers
# 2 % of requests badly, the new one 12 %: of these 100, 2 would have been bad anyway, and **10** are bad because of the
# update.
#
# ### Exercise 1.4: how many an update hurts
#
# Difficulty 2 of 5 · about 6 min
#
# `per_hour` requests arrive per hour; for `hours` hours, a share `exposure` (0 to 1) of them goes to the new version.
# The share of bad answers is `bad_before` with the old version and `bad_after` with the new one. Write a function that
# returns how many requests are answered badly **because of** the update. Check: `ch.check("1.4", hurt)`.


# %% id="answer-1.4" tags=["answer"] question="1.4"
# SOLUTION
def hurt(per_hour, exposure, hours, bad_before, bad_after):
    """Return how many requests an update makes bad."""
    return per_hour * exposure * hours * (bad_after - bad_before)


# END SOLUTION

# %% id="check-1.4" tags=["check"]
ch.check("1.4", hurt)

# %% [markdown] id="updates-2"
# **Measure.** Larkspur rolls out a version that gives one bad answer in four; before, it was one in a hundred. The
# version is rolled back after two hours. For each request of the simulated day between 10:00 and 12:00, the cell draws
# at random which version answers it, and whether the answer is bad:

# %% id="updates-measured" tags=["nbval-check-output"]
from miniserve.seeds import uniform

during = int(((seen.arrived_s >= 36_000) & (seen.arrived_s < 43_200)).sum())
exposures, formula = (1.0, 0.1, 0.01), ch.yours("1.4", hurt)


def made_bad(exposure):
    meets = [i for i in range(during) if uniform("version", i) < exposure]
    return sum(0.01 <= uniform("luck", i) < 0.25 for i in meets)  # below 0.01 the old version fails as well


columns = {"exposure": exposures, "made bad": [made_bad(share) for share in exposures]}
if formula is not None:
    columns["your formula"] = [formula(during / 2, share, 2, 0.01, 0.25) for share in exposures]
course.table(columns, f"A bad update, {during} requests in two hours")

# %% [markdown] id="updates-3"
# A small exposure is the cheapest protection there is. It also shows you less: with few requests, you take longer to
# notice. Chapter 8 weighs one against the other.

# %% [markdown] id="bill"
# ## 7 The bill
#
# A rented machine costs the same whether it works or idles. Worked example: one machine at 0.50 USD per hour answers
# 2,400 requests per day. A day costs 0.50 · 24 = 12 USD, and an answer 12 / 2,400 = 0.005 USD, or 0.5 cents.
#
# ### Exercise 1.5: what one answer costs
#
# Difficulty 2 of 5 · about 5 min
#
# The numbers printed below are drawn for you: how many machines run all day long, what each costs per hour, how many
# requests per day they answer, and the share of the time that a machine is busy. What does one answer cost, in
# **cents** (hundredths of a USD)? Check: `ch.check("1.5", cents_per_answer)`.

# %% id="bill-given"
bill = ch.given("1.5")
bill

# %% id="answer-1.5" tags=["answer"] question="1.5"
# SOLUTION
usd_per_day = bill["machines"] * bill["usd_per_hour"] * 24
cents_per_answer = 100 * usd_per_day / bill["requests_per_day"]
# END SOLUTION

# %% id="check-1.5" tags=["check"]
ch.check("1.5", cents_per_answer)

# %% [markdown] id="bill-2"
# **Measure.** Here is the bill of the simulated day, and where the money went. The ledger is chapter 19's: it books
# each second of each GPU to exactly one account.

# %% id="bill-measured" tags=["nbval-check-output"]
ledger = result.ledger
print(f"the day cost {ledger.usd:.2f} USD: {100 * ledger.usd / len(seen):.2f} cents per request")
for line in ledger.by("account"):
    print(f"  {line.name:<9} {line.usd / ledger.usd:>6.1%}")

# %% [markdown] id="bill-3"
# *Prompt* is reading questions, and *output* is writing answers. *Failed* is work on answers that broke off, and
# *hedge* is work on answers that another replica gave sooner. *Idle* is time that you pay for and don't use. Running
# fewer machines at night would save much of it, but a new machine needs time before it can answer:

# %% id="bill-cold" tags=["nbval-check-output"]
print(f"from asking for one of Larkspur's GPUs to its first request: {gpu.cold_start(lab.model()).nominal_s:.0f} s")

# %% [markdown] id="bill-4"
# Chapters 5 and 13 are about that.

# %% [markdown] id="predict"
# ## 8 Predict, then run
#
# Back to the test machine and its 500 customers. A model works in **steps**. In each step, every request being worked
# on either gets one new token or has a piece of its question read. The time of a step, as measured on that machine, is
# a sum:

# %% id="step-times" tags=["nbval-check-output"]
step = lab.machine(lab.TEST_HARDWARE).step_time(lab.model(lab.TEST_MODEL))
slots = lab.machine(lab.TEST_HARDWARE).scheduler.max_running
course.table(
    {
        "part of a step": ["base", "row", "prompt", "context"],
        "ms": [
            1000 * s for s in (step.base_s, step.per_decode_row_s, step.per_prefill_token_s, step.per_context_token_s)
        ],
        "for each": [
            "step, however many share it",
            "answer that grows",
            "token of a question",
            "token that a row looks back at",
        ],
    },
    "What a step takes on the test machine",
)
print(f"at most {slots} requests are worked on at the same time; the others wait in a queue")

# %% [markdown] id="predict-2"
# The *base* is the time to read the model's weights from memory. The machine does that once per step, whether for one
# request or for sixteen. A *row* is a request that gets a token in this step. It looks back at its *context*: its
# question and its answer so far. (The formula has one more part, for the pairs of tokens within a question. With 60
# tokens it comes to 2 ms, so we leave it out.)
#
# Worked example, **for one request alone**: one step reads the question of 60 tokens and gives the first token. Then 39
# steps give one token each, and look back at 80 tokens on average (60, and half of 40):

# %% id="predict-example" tags=["nbval-check-output"]
read_s = step.base_s + 60 * step.per_prefill_token_s
token_s = step.base_s + step.per_decode_row_s + 80 * step.per_context_token_s
print(f"{read_s:.3f} s + 39 x {token_s:.4f} s = {read_s + 39 * token_s:.3f} s; section 1 found {alone.ends_s:.3f} s")

# %% [markdown] id="predict-3"
# ### Exercise 1.6: five hundred at once
#
# Difficulty 3 of 5 · about 10 min
#
# 500 such requests, of 60 tokens with answers of 40, arrive at second 0. After how many **seconds** is the last answer
# complete? Give `(low, high)`, with high at most one and a half times low. Pen and paper will do: what does each
# request pay for alone, and what do requests that run together share? Check: `ch.check("1.6", seconds_between)`.

# %% id="answer-1.6" tags=["answer"] question="1.6"
# SOLUTION
own_s = 60 * step.per_prefill_token_s + 40 * (step.per_decode_row_s + 80 * step.per_context_token_s)
shared_s = 40 * step.base_s / slots
guess_s = 500 * (own_s + shared_s)
seconds_between = (0.85 * guess_s, 1.2 * guess_s)
# END SOLUTION

# %% id="check-1.6" tags=["check"]
ch.check("1.6", seconds_between)

# %% [markdown] id="run"
# Now run it.

# %% id="run-crowd" tags=["nbval-check-output"]
crowd = lab.at_once(500)
lab.compare({"1 alone": alone, "500 at once": crowd}, "The test machine, measured step times")

# %% [markdown] id="run-2"
# Nothing about the model has changed, and the machine even writes more tokens per second than before. Yet nearly all
# customers wait far too long, because there are 500 requests to work through. All of them are inside from second 0, but
# at most sixteen are being worked on: the others are in the queue.

# %% [markdown] id="break"
# ## 9 Break it
#
# What if the machine handled one request after another, as a naive server would? And what if the 500 had Larkspur's own
# GPU and its larger model, with 16 running together as on the day of section 2, or with up to 256? (The GPU's step
# times follow from published figures; we haven't measured them.)

# %% id="break-run" tags=["nbval-check-output"]
one_by_one = lab.at_once(500, running=1)
crowds = {"test machine, one by one": one_by_one, "test machine, 16 together": crowd}
for together in (day.engine.scheduler.max_running, gpu.scheduler.max_running):
    larkspurs = lab.at_once(500, hardware=lab.HARDWARE, of_model=lab.MODEL, running=together)
    crowds[f"Larkspur's GPU, {together} together"] = larkspurs
lab.compare(crowds, "500 requests at once")

# %% id="break-figure"
lab.draw_crowd(crowds)

# %% [markdown] id="break-2"
# Sharing steps makes the test machine more than three times as fast and costs no extra machine; that is *batching*,
# explained in `start_here`. On Larkspur's GPU, a single setting makes most of the difference. Neither has anything to do
# with how good the model's answers are.

# %% [markdown] id="real"
# ## 10 A real replica
#
# Now the same on your machine, with nothing simulated: the larger of the two small models that come with this course
# answers one request, and then 32 at once. The numbers come from the machine that ran the cell last. If other programs
# kept it busy, that is in the numbers, so run the cell again to check.

# %% id="real-run" tags=["measured"]
lab.compare({"1 alone": lab.real_crowd(1), "32 at once": lab.real_crowd(32)}, "A real replica, here and now")

# %% [markdown] id="gpu-intro"
# **If you have an NVIDIA GPU**, the next cell asks it for up to 128 answers at the same time, more than a CPU would
# gain from. The kernels in `miniserve/engine/kernels/` then compute *attention*, the look back at earlier tokens.
# Without a GPU, the cell says what is missing. It hasn't run on a GPU yet where this chapter was written, so no GPU
# numbers are stored here.

# %% id="gpu-run" tags=["measured"]
lab.gpu_crowds()

# %% [markdown] id="whose-intro"
# ## 11 Whose problem?
#
# A **model problem** lies in the answers: with a single user, one healthy machine and no hurry they would be just as
# bad. A **systems problem** comes from how many people ask, how many machines there are, or how they are run.
#
# Worked example: *"It invents opening hours"* is a model problem: it would do so for a single user. *"It is down
# whenever a machine restarts"* is a systems problem.
#
# ### Exercise 1.7: a model problem or a systems problem
#
# Difficulty 2 of 5 · about 6 min
#
# The next cell prints eight complaints about Larkspur. Label each `"model"` or `"systems"`. Check:
# `ch.check("1.7", whose)`.

# %% id="whose-items"
course.show_choices(lab.CLAIMS, lab.SIDES)

# %% id="answer-1.7" tags=["answer"] question="1.7"
# SOLUTION
whose = {
    "a": "systems",
    "b": "model",
    "c": "systems",
    "d": "systems",
    "e": "model",
    "f": "systems",
    "g": "model",
    "h": "systems",
}
# END SOLUTION

# %% id="check-1.7" tags=["check"]
ch.check("1.7", whose)

# %% [markdown] id="letter-intro"
# ### Exercise 1.8: a better model will not fix it
#
# Difficulty 3 of 5 · about 10 min · a person reads it
#
# The manager of the garden centres writes: *"Customers are complaining. Let's buy a better model."* Answer in five to
# eight sentences, with numbers from this chapter: where the complaints come from, why another model won't change that,
# and what you propose instead, at what cost. Put it between `"""` and `"""`. Check: `ch.check("1.8", letter)`.

# %% id="answer-1.8" tags=["answer"] question="1.8"
# SOLUTION
letter = """
The answers are good; customers complain that they come late. Our test machine answers one question alone in 0.7 s,
but of 500 at once, the last waits for about 100 s, with the same model. A better model is usually a larger one, which
makes each step slower. Failures are normal in a fleet: eighty GPUs that each fail on one day in a hundred get through
fewer than half of all days without a failure. Our mean wait looks fine while more than one customer in a hundred
waits longer than we promised, so we must watch the p99. I propose a fourth GPU, about 17 USD a day, an alarm on the
p99, and updates that reach one customer in a hundred first.
"""
# END SOLUTION

# %% id="check-1.8" tags=["check"]
ch.check("1.8", letter)

# %% [markdown] id="real-code"
# ## 12 Read the real code
#
# Here is the step-time formula of section 8, from `miniserve/engine/step_time.py`; how it follows from a price list
# when nothing was measured, from `miniserve/hardware/prices.py`; and how a simulated replica accepts a request, from
# `miniserve/sim/replica.py`. Find the one line that says what a batch shares, and the fifth part, which section 8 left
# out. (An estimate from published figures, as here, is called a *roofline*.)

# %% id="real-code-shown"
import inspect

from miniserve.engine.step_time import StepTimeModel
from miniserve.hardware.prices import Hardware
from miniserve.sim.replica import SimReplica

print(inspect.getsource(StepTimeModel.seconds))
print(inspect.getsource(Hardware.step_time))
print(inspect.getsource(SimReplica.submit))

# %% [markdown] id="summary"
# ## 13 Summary
#
# - Concurrency: L = λ · W. Longer stays mean more requests inside.
# - Failure: n machines get through a day with probability (1 - p)ⁿ. In a fleet, failure is routine.
# - A promise about latency is about a share of requests; a good mean doesn't keep it.
# - An update hurts requests per hour · exposure · hours · the added share of bad answers.
# - One answer costs machines · price · time, divided by the number of answers. You pay for idle time as well.
# - One request against 500: the same model, but a different service.
#
# Next: chapter 2 asks what the customer sees while an answer grows. To run the day of section 2 from the command line:
# `python -m miniserve simulate data/scenarios/larkspur_day.toml`.
#
# **Go deeper**
#
# - J. D. C. Little, *A Proof for the Queuing Formula: L = λW*, Operations Research 9(3), 1961.
# - J. Dean and L. A. Barroso, *The Tail at Scale*, CACM 56(2), 2013: why rare slowness is common in large services.
# - B. Beyer and others (editors), *Site Reliability Engineering*, O'Reilly 2016: promises, updates, failures.
# - G.-I. Yu and others, *Orca*, OSDI 2022: batches that are rebuilt at each step.
# - P. Patel and others, *Splitwise*, ISCA 2024: the traces behind the lengths of section 2.
