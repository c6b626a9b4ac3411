# %% [markdown] id="intro"
# # Chapter 5: Cold starts and prediction
#
# **You will learn**
#
# - how long it takes from asking for a replica to its first answer, and why;
# - how many requests are waiting by the time it's ready, and how many spares would have bridged the gap;
# - what a fleet scaled by its current load does, minute by minute;
# - how far ahead a forecast must look;
# - how to find a demand that breaks such a fleet while a forecast keeps the promise, and one on which a forecast only
#   wastes money.
#
# **You need** Python, but no knowledge of serving. **Time**: a good hour; all cells together run in {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 From asking to answering · 3 The queue that builds up · 4 Spares · 5 A reactive
# fleet · 6 Predict, then run · 7 Looking ahead · 8 Break it · 9 The real scheduler · 10 Which measure? · 11 Read the real
# code · 12 Summary
#
# **How exercises work.** Put your answer where you see `...`, then run the check below it. It says CORRECT, or what is
# wrong and why. `ch.hint("5.1")` gives a hint; call it again for the next one. After an attempt,
# `ch.solution("5.1")` shows a solution.

# %% id="setup"
from miniserve import course
from miniserve.course.chapters.ch05_cold_starts import lab

ch = course.chapter(5)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# **Larkspur** is the fictional service of this course: an assistant for a chain of garden centres. It runs on
# **replicas**: rented machines, each with one graphics processor (GPU) and a copy of the language model. Larkspur is
# having a spring sale, and word is spreading. A **demand curve** says how many requests arrive per second; we write it
# as points of (minute, requests per second) with straight lines in between.
#
# An **autoscaler** looks at the fleet every few seconds and says how many replicas there should be. This one is
# **reactive**: it goes by the current load. Larkspur promises that 99 of 100 requests wait at most 4 s for a replica,
# and refunds five cents for each one that waits longer. (Such a promise is a *service level objective*, or SLO; the
# share of requests that keep it is the *SLO attainment*.)

# %% id="bite-run" tags=["nbval-check-output"]
word_spreads = lab.WORD_SPREADS
print(word_spreads)
by_load = lab.play(word_spreads, lab.reactive())
by_load

# %% [markdown] id="bite-2"
# The autoscaler followed its rule at every step, and nothing broke. Yet Larkspur is far from its 99 %. What would you
# have done differently, and at what price? And would it always be worth it?
#
# **Where we are on a request's path.** Beside it: an autoscaler never touches a request. It decides how many replicas
# there are to choose from.
#
# `lab.play` is a model of a few lines, so you can check it with pen and paper. Requests are a liquid that flows in
# exactly as the curve says, without any randomness (a *fluid model*). Waiting requests stand in one queue, in order of
# arrival, and every ready replica serves the same number per second. The autoscalers, machines and prices are the
# framework's own. Section 9 runs the real scheduler.

# %% [markdown] id="start"
# ## 2 From asking to answering
#
# A replica you ask for now doesn't answer now. First a machine has to be found and its program started (**provision**).
# Then the model's **weights**, the numbers it consists of, have to come from storage (**load**). Finally the program
# prepares what it needs for speed, such as compiled code and buffers (**warm up**). The three stages together are the
# **cold start**.
#
# Loading takes the number of bytes divided by the **bandwidth**, the bytes that arrive per second. Worked example: a
# model of 3 billion weights at 2 bytes each has 6e9 bytes. At 0.4e9 bytes per second, loading takes 15 s. With 30 s
# before it and 10 s after, the cold start is 30 + 15 + 10 = 55 s.
#
# ### Exercise 5.1: from asking to the first answer
#
# Difficulty 2 of 5 · about 6 min
#
# Write a function that returns the cold start in seconds. `provision_s` and `warm_up_s` are seconds, `parameters` is
# the number of weights, `bytes_per_weight` the size of one, and `bytes_per_s` the bandwidth. Your function is checked
# on 64 random sets of parameters. Check: `ch.check("5.1", cold_start_s)`.


# %% id="answer-5.1" tags=["answer"] question="5.1"
# SOLUTION
def cold_start_s(provision_s, parameters, bytes_per_weight, bytes_per_s, warm_up_s):
    """Return the seconds from asking for a replica to its first answer."""
    return provision_s + parameters * bytes_per_weight / bytes_per_s + warm_up_s


# END SOLUTION

# %% id="check-5.1" tags=["check"]
ch.check("5.1", cold_start_s)

# %% [markdown] id="start-2"
# The course's price list (`data/hardware.toml`) has all of these numbers for Larkspur's GPU, an L4, and its model,
# Llama 3.1 8B. The times in it are assumptions, and marked as such. What do you gain from smaller weights, or from a
# faster disk?

# %% id="start-table" tags=["nbval-check-output"]
gpu, llm = lab.machine(), lab.model()
cases = {
    "Larkspur": (llm.bytes_per_weight, gpu.weights_bytes_per_s),
    "1 byte per weight": (1.0, gpu.weights_bytes_per_s),
    "four times the bandwidth": (llm.bytes_per_weight, 4 * gpu.weights_bytes_per_s),
}
print(f"provision {gpu.provision_s:.0f} s, warm up {gpu.warm_up_s:.0f} s, in all {lab.cold_start().nominal_s:.0f} s")
loads = [llm.parameters * size / speed for size, speed in cases.values()]
columns = {"": list(cases), "load (s)": loads}
formula = ch.yours("5.1", cold_start_s)
if formula is not None:
    columns["your cold start (s)"] = [
        formula(gpu.provision_s, llm.parameters, size, speed, gpu.warm_up_s) for size, speed in cases.values()
    ]
course.table(columns, "One of Larkspur's replicas")

# %% [markdown] id="start-3"
# Here loading isn't most of the time. Shortening one stage can't save more than that stage takes.

# %% [markdown] id="queue"
# ## 3 The queue that builds up
#
# Demand jumps above what the ready replicas can serve, and you ask for more replicas at once. Until they answer, the
# queue grows. Let λ be the requests that arrive per second, c the number of ready replicas, μ the requests that each of
# them serves per second, and t the cold start in seconds. In each second λ requests arrive and c·μ leave; the rest
# stay.
#
# Worked example: 6 requests arrive per second, two replicas serve 2 per second each, and the cold start is 40 s. Each
# second 6 - 4 = 2 stay, so after 40 s there are 80 waiting. The last one has 80 ahead of it. With the two old replicas
# alone it would wait 80 / 4 = 20 s.
#
# ### Exercise 5.2: who waits when help arrives
#
# Difficulty 2 of 5 · about 6 min
#
# Your own numbers, drawn for you, are printed below. No request is waiting when demand jumps. How many are waiting
# after the cold start? Check: `ch.check("5.2", backlog)`.

# %% id="queue-given"
jump = ch.given("5.2")
jump

# %% id="answer-5.2" tags=["answer"] question="5.2"
# SOLUTION
backlog = (jump["arrivals_per_s"] - jump["replicas"] * jump["each_per_s"]) * jump["cold_start_s"]
# END SOLUTION

# %% id="check-5.2" tags=["check"]
ch.check("5.2", backlog)

# %% [markdown] id="queue-2"
# New replicas end the growth, but if they are only just enough, they do no more than that: as many requests leave as
# arrive, and the queue keeps its length. Only capacity **beyond** the demand shortens it. How long does it take to
# clear the 80 of the example?

# %% id="queue-drain" tags=["nbval-check-output"]
waiting, come, each = 80, 6, 2
replicas = (3, 4, 5, 7)
left_over = [size * each - come for size in replicas]
course.table(
    {
        "replicas in the end": replicas,
        "served beyond demand (per s)": left_over,
        "queue gone after (s)": [waiting / more if more else "never" for more in left_over],
    },
    "Getting rid of a queue of 80",
)

# %% [markdown] id="spares"
# ## 4 Spares
#
# A **spare** is a replica that's ready but not needed yet; several of them are a *warm pool*. Spares can bridge steady
# growth: a replica you ask for now arrives one cold start later, and by then demand has grown further. The spares have
# to serve that growth.
#
# Worked example: demand grows by 1.5 requests per second every minute, a replica serves 0.7 per second, and the cold
# start is 100 s, which is 1.67 minutes. In that time demand grows by 1.5 · 1.67 = 2.5 per second. 2.5 / 0.7 = 3.57, so
# you need four spares.
#
# ### Exercise 5.3: spares that bridge a cold start
#
# Difficulty 3 of 5 · about 8 min
#
# Write a function that returns how many spares you need so that no request waits, as a whole number. `growth_per_min`:
# by how many requests per second demand grows every minute; `each_per_s`: requests per second that one replica serves;
# `cold_start_s`: seconds. Your function is checked on 64 random sets of parameters. Check: `ch.check("5.3", spares)`.


# %% id="answer-5.3" tags=["answer"] question="5.3"
import math


# SOLUTION
def spares(growth_per_min, each_per_s, cold_start_s):
    """Return how many spares serve the growth of one cold start."""
    growth_per_s = growth_per_min * cold_start_s / 60
    return math.ceil(growth_per_s / each_per_s)


# END SOLUTION

# %% id="check-5.3" tags=["check"]
ch.check("5.3", spares)

# %% [markdown] id="spares-2"
# **Measure.** In the model each of Larkspur's replicas serves 0.5 requests per second. Demand grows from 1 to 5 per
# second within ten minutes, and the reactive autoscaler keeps a few spares on top of the replicas it wants:

# %% id="spares-measured" tags=["nbval-check-output"]
steady_rise = [(0, 1), (20, 1), (30, 5), (90, 5)]
runs = {kept: lab.play(steady_rise, lab.reactive(spares=kept), spares=kept) for kept in (0, 1, 2)}
course.table(
    {
        "spares": list(runs),
        "late requests": [round(run.late) for run in runs.values()],
        "machines (USD)": [run.usd for run in runs.values()],
        "refunds (USD)": [run.refunds_usd for run in runs.values()],
    },
    "A steady rise, and spares",
)
formula = ch.yours("5.3", spares)
if formula is not None:
    needed = formula(growth_per_min=0.4, each_per_s=lab.EACH_PER_S, cold_start_s=lab.cold_start().nominal_s)
    print(f"your formula: {needed}; one of them costs {gpu.usd_per_hour * 24:.2f} USD per day")

# %% [markdown] id="spares-3"
# The formula errs on the safe side here, because this autoscaler aims to keep its replicas only four fifths full. They
# can serve a quarter more than that, and this **headroom** acts as a spare as well. You pay for spares day and night,
# whether or not demand ever grows.

# %% [markdown] id="reactive"
# ## 5 A reactive fleet
#
# Let's follow one on paper, minute by minute. At the end of each minute, the autoscaler adds the requests that **came**
# in that minute to those that **wait** now, divides by what one replica serves in a minute, and rounds up: that many
# replicas are **wanted**. It subtracts the replicas that are ready or starting; the rest are **asked** for. A replica
# asked for at the end of minute 2 misses minutes 3 and 4, and serves from minute 5 on. No replica is ever taken away.

# %% id="reactive-given" tags=["nbval-check-output"]
print(f"ready in minute 1: {lab.PAPER_REPLICAS}; one replica serves {lab.PAPER_EACH} requests per minute")
course.table({"minute": list(range(1, 8)), "requests that come": lab.PAPER_CAME}, "Demand")

# %% [markdown] id="reactive-2"
# ### Exercise 5.4: seven minutes of a reactive fleet
#
# Difficulty 3 of 5 · about 12 min
#
# The row for minute 1 is `(1, 2, 60, 0, 0)`: two replicas are ready, 60 requests come and are served, none waits at the
# end, (60 + 0) / 30 = 2 replicas are wanted, and two are there. Write the rows for **minutes 2 to 7** in the same form,
# as a list: minute, ready, served, waiting at the end, asked for at the end. Check: `ch.check("5.4", rows)`.

# %% id="answer-5.4" tags=["answer"] question="5.4"
# SOLUTION
rows = [
    (2, 2, 60, 30, 2),
    (3, 2, 60, 90, 3),
    (4, 2, 60, 150, 2),
    (5, 4, 120, 150, 0),
    (6, 7, 210, 60, 0),
    (7, 9, 180, 0, 0),
]
# END SOLUTION

# %% id="check-5.4" tags=["check"]
ch.check("5.4", rows)

# %% [markdown] id="reactive-3"
# When your table is right, look at its last rows. For minutes the fleet is too small; then it *overshoots*, and is more
# than twice as large as 120 requests per minute need. The cold start causes both: by the time a replica arrives, the
# need that it answers is three minutes old.

# %% [markdown] id="predict"
# ## 6 Predict, then run
#
# Back to the model and its real autoscaler. A replica serves 0.5 requests per second, and the autoscaler aims to keep
# it four fifths full, so the fleet has three replicas for one request per second. At minute 10 demand jumps **from 1 to
# 4 per second**. The autoscaler looks every 15 s, and a cold start takes as long as section 2 printed.
#
# ### Exercise 5.5: the longest queue after a jump
#
# Difficulty 3 of 5 · about 6 min
#
# How many requests are waiting when the queue is longest? Give `(low, high)`, with high at most one and a half times
# low. Check: `ch.check("5.5", most_waiting)`.

# %% id="answer-5.5" tags=["answer"] question="5.5"
# SOLUTION
# Three replicas serve 1.5 per second, so 2.5 stay: for at least a cold start, at most a look longer. A tenth to spare.
most_waiting = (2.5 * lab.cold_start().nominal_s, 1.1 * 2.5 * (lab.cold_start().nominal_s + lab.PERIOD_S))
# END SOLUTION

# %% id="check-5.5" tags=["check"]
ch.check("5.5", most_waiting)

# %% [markdown] id="run"
# Now run it, next to the same jump on a fleet that keeps four spares:

# %% id="run-jump" tags=["nbval-check-output"]
jumps = {
    "reactive": lab.play(lab.JUMP, lab.reactive()),
    "reactive, four spares": lab.play(lab.JUMP, lab.reactive(spares=4), spares=4),
}
for name, run in jumps.items():
    print(f"{name}: at most {run.waiting.max():.0f} wait, for at most {run.wait_s.max():.0f} s. {run}")

# %% id="run-figure"
lab.draw_played(jumps)

# %% [markdown] id="run-2"
# Four spares don't remove the queue here, but they keep it much shorter, and they cost less than the refunds they
# avoid. Look at what comes after the queue as well: capacity far above the demand of 4. A reactive autoscaler mistakes
# waiting requests for demand that lasts, as in your table of exercise 5.4. The flat top is the largest number of
# replicas allowed, and this autoscaler takes a replica away only after it has been unneeded for some minutes.

# %% [markdown] id="ahead"
# ## 7 Looking ahead
#
# A **predictive** autoscaler asks for the replicas that demand will need by the time they're ready. Ours counts the
# requests of each minute, tracks their **level** (how many there are) and their **trend** (by how much they grow per
# minute), and extends them in a straight line (*Holt's method*). Its **horizon** is how far ahead it looks. It takes
# the highest point of the line up to there, and never goes below what the reactive rule wants: a wrong forecast can
# only add replicas.
#
# Worked example: the level is 3 requests per second, the trend 0.4 per minute, the horizon three minutes. The line ends
# at 3 + 3 · 0.4 = 4.2. A replica should serve 0.4 per second, so the forecast wants 4.2 / 0.4 = 10.5, that is 11
# replicas. The reactive rule wants 3 / 0.4 = 7.5, that is 8.
#
# How long does the horizon have to be? Here are five, on the demand of section 1:

# %% id="ahead-horizons" tags=["nbval-check-output"]
horizons = (60, 120, 180, 300, 600)
ahead = {horizon: lab.play(word_spreads, lab.predictive(horizon)) for horizon in horizons}
course.table(
    {
        "": ["reactive", *(f"{horizon} s ahead" for horizon in horizons)],
        "late requests": [round(run.late) for run in (by_load, *ahead.values())],
        "machines (USD)": [run.usd for run in (by_load, *ahead.values())],
        "refunds (USD)": [run.refunds_usd for run in (by_load, *ahead.values())],
    },
    f"How far ahead? A cold start takes {lab.cold_start().nominal_s:.0f} s",
)

# %% [markdown] id="ahead-2"
# A forecast that ends before the replica is ready doesn't help: the demand that it foresees arrives before the replica
# does. With a horizon beyond the cold start, the replica is ready in time. At 120 s prediction even costs less than
# reaction, which first lets a queue grow and then asks for the replicas that the queue calls for. Each further minute
# buys replicas for a future that a straight line knows less about. The framework refuses a horizon that is too short:

# %% id="ahead-refused" tags=["nbval-check-output"]
from miniserve.control.autoscaler import check_horizon
from miniserve.errors import SetupError

try:
    check_horizon(lab.predictive(horizon_s=60), cold_start_s=lab.cold_start().nominal_s)
except SetupError as error:
    print(error)

# %% id="ahead-figure"
lab.draw_played({"reactive": by_load, "predictive, 180 s": ahead[180]})

# %% [markdown] id="ahead-3"
# Why was the reactive fleet late? Compare the growth of demand within a cold start with the headroom. And what is the
# least that anyone could have paid? An oracle, called **clairvoyant** here, knows the demand in advance, asks for each
# replica one cold start ahead, and keeps no headroom:

# %% id="ahead-clairvoyant" tags=["nbval-check-output"]
print(
    f"growth within a cold start {lab.growth_in_cold_start(word_spreads):.0%} at most, headroom {lab.ROOM_FRACTION:.0%}"
)
print(
    f"clairvoyant {lab.clairvoyant_usd(word_spreads):.2f} USD, reactive {by_load.usd:.2f}, predictive {ahead[180].usd:.2f}"
)

# %% [markdown] id="break"
# ## 8 Break it
#
# Now you choose the demand. A curve is a list of 2 to 12 points of (minute, requests per second), from minute 0 on. It
# ends between minute 20 and minute 120, and stays between 0.5 and 10 requests per second. Two points at the same minute
# are a jump. Experiment with `lab.play(curve, lab.reactive())` and `lab.play(curve, lab.predictive())`, whose horizon
# is 180 s. Here is a curve that troubles neither fleet, and one that troubles both:

# %% id="break-example" tags=["nbval-check-output"]
for curve in ([(0, 2), (60, 2)], [(0, 1), (20, 1), (20, 3), (60, 3)]):
    print(curve)
    print("  reactive:  ", lab.play(curve, lab.reactive()))
    print("  predictive:", lab.play(curve, lab.predictive()))

# %% [markdown] id="break-2"
# A jump is the hardest case for any autoscaler: nothing in the minutes before announces it.
#
# ### Exercise 5.6: a curve that only prediction survives
#
# Difficulty 3 of 5 · about 10 min
#
# Find a curve, **other than section 1's**, on which reactive scaling breaks the promise badly, with **fewer than 95 %**
# of requests in time, while predictive scaling keeps it, with **at least 99 %**. Check: `ch.check("5.6", surge)`.

# %% id="answer-5.6" tags=["answer"] question="5.6"
# SOLUTION
surge = [(0, 1), (10, 1), (14, 1.4), (17, 2), (20, 3), (25, 6), (45, 6)]
# END SOLUTION

# %% id="check-5.6" tags=["check"]
ch.check("5.6", surge)

# %% id="break-figure"
if ch.yours("5.6", surge) is not None:
    lab.draw_played({"reactive": lab.play(surge, lab.reactive()), "predictive": lab.play(surge, lab.predictive())})

# %% [markdown] id="waste"
# Prediction costs machines. What it can **save** is refunds: five cents for each request that it keeps from being late.
#
# ### Exercise 5.7: a curve on which prediction wastes money
#
# Difficulty 3 of 5 · about 8 min
#
# Find a curve on which prediction spends **at least a tenth more** on machines than reactive scaling does, and saves
# **less** in refunds than it spends extra. The curve has to obey the same rules. Check: `ch.check("5.7", calm)`.

# %% id="answer-5.7" tags=["answer"] question="5.7"
# SOLUTION
calm = [(0, 3), (4, 3.6), (8, 3), (12, 3.6), (16, 3), (20, 3.6), (24, 3), (28, 3.6), (32, 3), (36, 3.6), (40, 3)]
# END SOLUTION

# %% id="check-5.7" tags=["check"]
ch.check("5.7", calm)

# %% id="waste-figure"
if ch.yours("5.7", calm) is not None:
    lab.draw_played({"reactive": lab.play(calm, lab.reactive()), "predictive": lab.play(calm, lab.predictive())})

# %% [markdown] id="waste-2"
# So neither is better in itself. It depends on how fast demand changes compared with the cold start, and on what a late
# answer costs compared with a machine. Here are the same two fleets on three kinds of demand:

# %% id="waste-table" tags=["nbval-check-output"]
kinds = {
    "grows faster and faster": word_spreads,
    "jumps": lab.JUMP,
    "comes and goes slowly": [(0, 1), (60, 3), (120, 1)],
}
pairs = [(lab.play(curve, lab.reactive()), lab.play(curve, lab.predictive())) for curve in kinds.values()]
course.table(
    {
        "demand": list(kinds),
        "machines cost more (USD)": [ahead.usd - now.usd for now, ahead in pairs],
        "refunds saved (USD)": [now.refunds_usd - ahead.refunds_usd for now, ahead in pairs],
    },
    "Prediction against reaction",
)

# %% [markdown] id="real"
# ## 9 The real scheduler
#
# The model has no randomness, and all its requests are alike. Now we run a half-hour sale in which word spreads as
# before: on simulated L4s, each running the real scheduling code, with Larkspur's questions and answers of all lengths,
# and with cold starts that vary by a fifth. What counts here is the **time to first token**, the first piece of the
# answer: 4 s. First, a fleet of fixed size shows what one replica can do:

# %% id="real-rates" tags=["nbval-check-output"]
from miniserve.course.chapters.ch01_systems_problem.lab import under_load

for rate in (0.1, 0.3, 0.5, 0.6):
    print(f"{rate} requests/s for each of four replicas: {under_load(4 * rate, 4).within_share:.1%} within 4 s")

# %% [markdown] id="real-2"
# There's no sharp edge at 0.5: the more load, the more requests are late, and even a lightly loaded fleet is late for
# some with long questions. (Chapter 1 shows why.) So look at the difference between the two autoscalers:

# %% id="real-run" tags=["nbval-check-output"]
sales = {how: lab.sale(how) for how in ("reactive", "predictive")}
for how, run in sales.items():
    parts = ", ".join(f"{lab.kept_between(run, *part):.1%}" for part in ((0, 900), (900, 1500), (1500, 1920)))
    print(f"{how:<10} {lab.kept_in_all(run):.1%} in time; before, while and after demand grows fast: {parts}")
    print(f"{'':<10} {run.totals['late_requests']:.0f} late, machines {run.totals['cost_usd']:.2f} USD")

# %% id="real-figure"
lab.draw_sale(sales)

# %% [markdown] id="real-3"
# The order is the same as in the model, but the difference is smaller: the model has a sharp edge where everything
# happens. Neither fleet reaches 99 %; even the fixed one above, with hardly anything to do, didn't. And a simulation of
# one sale proves nothing: chapter 13 compares more forecasts, including the simplest one, *it will stay as it is now*.

# %% [markdown] id="measures-intro"
# ## 10 Which measure?
#
# ### Exercise 5.8: which measure for which demand
#
# Difficulty 2 of 5 · about 8 min
#
# The next cell prints eight situations and six measures. Give each situation the measure that fits **best**; two are used
# twice. Check: `ch.check("5.8", measures)`.

# %% id="measures-items"
course.show_choices(lab.SITUATIONS, lab.MEASURES)

# %% id="answer-5.8" tags=["answer"] question="5.8"
# SOLUTION
measures = {
    "a": "by the clock",
    "b": "by load",
    "c": "spares",
    "d": "by trend",
    "e": "faster start",
    "f": "refuse",
    "g": "by load",
    "h": "by the clock",
}
# END SOLUTION

# %% id="check-5.8" tags=["check"]
ch.check("5.8", measures)

# %% [markdown] id="plan-intro"
# ### Exercise 5.9: a plan for the sale
#
# Difficulty 3 of 5 · about 10 min · a person reads it
#
# There will be another sale next spring. Its start is announced; how word will spread isn't known. Write four to eight
# sentences to Larkspur's manager: what you would do, why the reactive fleet alone isn't enough (with numbers), what
# your plan costs and saves, and what happens if the forecast is wrong. Put your text between `"""` and `"""`. Check:
# `ch.check("5.9", plan)`.

# %% id="answer-5.9" tags=["answer"] question="5.9"
# SOLUTION
plan = f"""
A new replica takes {lab.cold_start().nominal_s:.0f} s to answer. When word spread, demand grew by up to
{lab.growth_in_cold_start(word_spreads):.0%} in that time, and the replicas had {lab.ROOM_FRACTION:.0%} of headroom, so
{1 - by_load.kept_share:.0%} of the requests were late. The start is announced, so a schedule adds two replicas ten
minutes before it. From then on a forecast {lab.HORIZON_S:.0f} s ahead, longer than a cold start, adds to the reactive
rule. In the model it cost {ahead[180].usd - by_load.usd:.2f} USD more for machines and saved
{by_load.refunds_usd - ahead[180].refunds_usd:.2f} USD in refunds. If it is too high, we pay for idle replicas for a few
minutes, and it can't see a jump that comes without notice. So we keep four spares that day, for
{4 * gpu.usd_per_hour:.2f} USD per hour: when demand jumped in section 6, at most
{jumps["reactive, four spares"].waiting.max():.0f} requests waited instead of {jumps["reactive"].waiting.max():.0f}. After
the sale we switch all of this off, because on calm days it only costs money.
"""
print(plan)
# END SOLUTION

# %% id="check-5.9" tags=["check"]
ch.check("5.9", plan)

# %% [markdown] id="real-code"
# ## 11 Read the real code
#
# The code below is from `miniserve/control/autoscaler.py`, `predictive.py` and `forecast.py`. Look for two things: how
# a reactive autoscaler avoids asking again for replicas that are already starting (exercise 5.4), and what keeps a
# forecast from taking replicas away. A `view` is what the autoscaler sees of the fleet; `ScaleTo(n)` asks for n
# replicas in all, and `merged` keeps the largest of several.

# %% id="real-code-shown"
import inspect

from miniserve.control.autoscaler import Reactive
from miniserve.control.forecast import Holt
from miniserve.control.predictive import Predictive

print(inspect.getsource(Reactive.tick))
print(inspect.getsource(Predictive.tick))
print(inspect.getsource(Holt))

# %% [markdown] id="summary"
# ## 12 Summary
#
# - Cold start = provision + bytes / bandwidth + warm up. A replica you ask for now serves only after that.
# - Meanwhile (λ - c·μ)·t requests pile up, and only capacity beyond the demand clears them.
# - Spares bridge growth at a known rate. You need the growth within a cold start / what one replica serves, rounded up.
# - Reactive scaling is late when demand outgrows its headroom within a cold start, and overshoots afterwards.
# - A forecast must look further ahead than the cold start. It helps where the minutes before announce a rise.
# - It can't see a jump coming, and on gentle demand it only costs money. Schedule for known dates; keep spares for
#   surprises.
#
# In chapter 13 you build an autoscaler. To run section 9's sale yourself:
# `python -m miniserve simulate data/scenarios/larkspur_sale.toml --variant predictive`. Chapter 19 prices this and
# other ways to save.
#
# **Go deeper**
#
# - R. Hyndman, G. Athanasopoulos, *Forecasting: Principles and Practice*, chapter 8: level, trend and season.
# - Kubernetes documentation, *Horizontal Pod Autoscaling*: the reactive rule of this chapter.
# - A. Gandhi and others, *AutoScale: Dynamic, Robust Capacity Management for Multi-Tier Data Centers*, ACM Transactions
#   on Computer Systems 2012: set-up times, and why not to give up servers too soon.
# - Y. Fu and others, *ServerlessLLM: Low-Latency Serverless Inference for Large Language Models*, OSDI 2024: faster loading.
