# %% [markdown] id="intro"
# # Chapter 5: Cold starts and prediction
#
# **You will learn**
#
# - how long it takes from asking for a replica to its first answer, and why;
# - how many wait when it is ready at last, and how many spares would have bridged the time;
# - what a fleet does that is scaled by the load of the moment, minute by minute;
# - how far ahead a forecast must look;
# - to find a demand that breaks such a fleet while a forecast keeps the promise, and one where a forecast wastes money.
#
# **You need** Python, and nothing about serving. **Time**: a good hour; all cells together run in {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 From asking to answering · 3 The queue that builds up · 4 Spares · 5 A reactive
# fleet · 6 Predict, then run · 7 Looking ahead · 8 Break it · 9 The real scheduler · 10 Which measure? · 11 Read the real
# code · 12 Summary
#
# **How exercises work.** Put your answer where you see `...`, then run the check below it. It says CORRECT, or what is
# wrong and why. `ch.hint("5.1")` gives a hint, and a further one when you call it again. After an attempt,
# `ch.solution("5.1")` shows a solution.

# %% id="setup"
from miniserve import course
from miniserve.course.chapters.ch05_cold_starts import lab

ch = course.chapter(5)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# **Larkspur** is the fictional service of this course: an assistant for a chain of garden centres. It runs on **replicas**:
# rented machines, each with one graphics processor (GPU) and a copy of the language model. It has a spring sale, and word
# spreads. A **demand curve** says how many requests come per second; we write it as points of (minute, requests per
# second) with straight lines in between.
#
# An **autoscaler** looks at the fleet every few seconds and says how many replicas there should be. This one is
# **reactive**: it looks at the load that is there now. Larkspur promises that 99 of 100 requests wait at most 4 s for a
# replica; for each that waits longer it gives five cents back.

# %% id="bite-run" tags=["nbval-check-output"]
word_spreads = lab.WORD_SPREADS
print(word_spreads)
by_load = lab.play(word_spreads, lab.reactive())
by_load

# %% [markdown] id="bite-2"
# The autoscaler made no mistake, and nothing broke. Yet the promise of 99 % is far away. Could somebody have done better,
# and at what price? And would it always be worth it?
#
# **Where we are on a request's path.** Beside it: an autoscaler touches no request. It decides how many replicas there are
# to choose from.
#
# `lab.play` is a model of a few lines, so that you can check it with pen and paper. Requests are a liquid that flows in by
# the curve, without luck. One queue holds those that wait, in the order of arrival, and every ready replica serves the
# same number per second. Its autoscalers, machines and prices are the framework's. Section 9 runs the real scheduler.

# %% [markdown] id="start"
# ## 2 From asking to answering
#
# A replica that is asked for now does not answer now. Three stages follow one another: **provision**, until the machine is
# there and its program runs; **load**, until the model's **weights**, the numbers it consists of, have come from storage;
# **warm up**, until the program has prepared what it needs for speed. Together they are the **cold start**.
#
# Loading takes the number of bytes divided by the **bandwidth**, the bytes per second that arrive. Worked in full: a model
# of 3 billion weights, 2 bytes each, has 6e9 bytes. At 0.4e9 bytes per second that is 15 s. With 30 s before and 10 s after
# it: 30 + 15 + 10 = 55 s.
#
# ### Exercise 5.1: from asking to the first answer
#
# Difficulty 2 of 5 · about 6 min
#
# Write the cold start in seconds. `provision_s` and `warm_up_s` are seconds, `parameters` is the number of weights,
# `bytes_per_weight` the size of one, and `bytes_per_s` the bandwidth. Your function is checked on 64 random sets.
# Check: `ch.check("5.1", cold_start_s)`.


# %% id="answer-5.1" tags=["answer"] question="5.1"
# SOLUTION
def cold_start_s(provision_s, parameters, bytes_per_weight, bytes_per_s, warm_up_s):
    """Return the seconds from asking for a replica to its first answer."""
    return provision_s + parameters * bytes_per_weight / bytes_per_s + warm_up_s


# END SOLUTION

# %% id="check-5.1" tags=["check"]
ch.check("5.1", cold_start_s)

# %% [markdown] id="start-2"
# The price list of this course (`data/hardware.toml`) has all of this for Larkspur's GPU, an L4, and its model, Llama 3.1
# 8B. The times there are assumptions, and say so. What do smaller weights, or a faster disk, gain?

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
# Here most of the time is not the loading. To shorten one stage helps only as much as that stage is long.

# %% [markdown] id="queue"
# ## 3 The queue that builds up
#
# Demand jumps above what the ready replicas can serve, and somebody asks for more at once. Until they answer, the queue
# grows. Let λ be the requests that come per second, c the ready replicas, μ the requests that each serves per second, and t
# the cold start in seconds. In each second λ come and c·μ leave; the rest stays.
#
# Worked in full: 6 per second come, two replicas serve 2 per second each, and the cold start is 40 s. Each second 6 - 4 = 2
# stay, so after 40 s 80 wait. The last of them has 80 before it. With the two old replicas alone it would wait 80 / 4 = 20 s.
#
# ### Exercise 5.2: who waits when help arrives
#
# Difficulty 2 of 5 · about 6 min
#
# Your own numbers are printed below; they are drawn for you. Nobody waits at the jump. How many wait after the cold start?
# Check: `ch.check("5.2", backlog)`.

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
# New replicas end the growth, and no more than that if they are just enough: when as many leave as come, the queue stays as
# long as it is. Only what is **beyond** the demand shortens it. How long does it take until the 80 of the example are gone?

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
# A **spare** is a replica that is ready and not needed yet. Demand that grows steadily can be bridged by spares: whoever
# asks for a replica now gets it one cold start later, and until then demand has grown further. The spares must serve that
# growth.
#
# Worked in full: demand grows by 1.5 requests per second in each minute, a replica serves 0.7 per second, and the cold start
# is 100 s, which is 1.67 minutes. Until then demand grows by 1.5 · 1.67 = 2.5 per second. 2.5 / 0.7 = 3.57, so four spares.
#
# ### Exercise 5.3: spares that bridge a cold start
#
# Difficulty 3 of 5 · about 8 min
#
# Write how many spares are needed so that nobody waits. `growth_per_min`: by how many requests per second demand grows in
# each minute; `each_per_s`: requests per second that one replica serves; `cold_start_s`: seconds. A whole number. Your
# function is checked on 64 random sets. Check: `ch.check("5.3", spares)`.


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
# **Measure.** In the model each of Larkspur's replicas serves 0.5 requests per second. Demand grows from 1 to 5 per second
# within ten minutes, and the reactive autoscaler keeps so many spares on top of what it wants:

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
# The formula is on the safe side here: this autoscaler means its replicas to be only four fifths full. They can serve a
# quarter more than that, and this **room** is a spare, too. The price is paid day and night, whether or not demand ever
# grows.

# %% [markdown] id="reactive"
# ## 5 A reactive fleet
#
# On paper, minute by minute. At the end of each minute, somebody counts the requests that **came** in it and those that
# **wait** now, and divides by what one replica serves in a minute; rounded up, so many replicas are **wanted**. Those that
# are ready or starting are there already; the rest is **asked** for. What is asked for at the end of minute 2 misses
# minutes 3 and 4, and serves from minute 5 on. Nothing is taken away.

# %% id="reactive-given" tags=["nbval-check-output"]
print(f"ready in minute 1: {lab.PAPER_REPLICAS}; one replica serves {lab.PAPER_EACH} requests per minute")
course.table({"minute": list(range(1, 8)), "requests that come": lab.PAPER_CAME}, "Demand")

# %% [markdown] id="reactive-2"
# ### Exercise 5.4: seven minutes of a reactive fleet
#
# Difficulty 3 of 5 · about 12 min
#
# The row of minute 1 is `(1, 2, 60, 0, 0)`: two are ready, 60 come and are served, nobody waits at its end, (60 + 0) / 30 = 2
# are wanted, and two are there. Write the rows of **minutes 2 to 7** in the same form, as a list: minute, ready, served,
# waiting at the end, asked for at the end. Check: `ch.check("5.4", rows)`.

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
# When your table is right, look at its last rows. First the fleet is too small for minutes, then it is more than twice as
# large as the 120 per minute need. Both come from the cold start: what is asked for answers a question that is three
# minutes old.

# %% [markdown] id="predict"
# ## 6 Predict, then run
#
# Back to the model and its real autoscaler. A replica serves 0.5 per second. It is meant to be four fifths full, so the
# fleet has three replicas for one request per second. At minute 10 demand jumps **from 1 to 4 per second**. The autoscaler
# looks every 15 s, and a cold start takes as long as section 2 printed.
#
# ### Exercise 5.5: the longest queue after a jump
#
# Difficulty 3 of 5 · about 6 min
#
# How many requests wait when the queue is longest? Give `(low, high)`, with high at most one and a half times low.
# Check: `ch.check("5.5", most_waiting)`.

# %% id="answer-5.5" tags=["answer"] question="5.5"
# SOLUTION
# Three replicas serve 1.5 per second, so 2.5 stay: for a cold start at least, and up to a look longer. A tenth of reserve.
most_waiting = (2.5 * lab.cold_start().nominal_s, 1.1 * 2.5 * (lab.cold_start().nominal_s + lab.PERIOD_S))
# END SOLUTION

# %% id="check-5.5" tags=["check"]
ch.check("5.5", most_waiting)

# %% [markdown] id="run"
# Now run it, beside the same jump for a fleet that keeps four spares:

# %% id="run-jump" tags=["nbval-check-output"]
jumps = {
    "reactive": lab.play(lab.JUMP, lab.reactive()),
    "reactive, four spares": lab.play(lab.JUMP, lab.reactive(spares=4), spares=4),
}
for name, run in jumps.items():
    print(f"{name}: at most {run.waiting.max():.0f} wait, {run.wait_s.max():.0f} s at most. {run}")

# %% id="run-figure"
lab.draw_played(jumps)

# %% [markdown] id="run-2"
# Four spares do not remove the queue here, but it stays much shorter, and they cost less than the refunds that they avoid.
# See also what comes after the queue: capacity far above the demand of 4. A reactive autoscaler takes those who wait for
# demand that stays, as in your table of exercise 5.4. The flat top is the most replicas that are allowed, and this
# autoscaler takes nothing away until it has been unneeded for some minutes.

# %% [markdown] id="ahead"
# ## 7 Looking ahead
#
# A **predictive** autoscaler asks for what demand will need when the replica is there. Ours counts the requests of each
# minute, follows their **level** (how many there are) and **trend** (by how much they grow per minute), and draws a
# straight line (Holt's method). Its **horizon** is how far ahead it looks. It takes the highest point of the line up to
# there, and is never below what the reactive rule wants: a forecast may be wrong, and then only adds.
#
# Worked in full: the level is 3 requests per second, the trend 0.4 per minute, the horizon three minutes. The line ends at
# 3 + 3 · 0.4 = 4.2. A replica is meant to serve 0.4 per second, so 4.2 / 0.4 = 10.5, that is 11 replicas. The reactive rule
# wants 3 / 0.4 = 7.5, that is 8.
#
# How long must the horizon be? The demand of section 1:

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
# A forecast that ends before the replica is there does not help: what it shows comes too soon to be served. Beyond the cold
# start it is in time. With 120 s it even costs less than reaction, which first lets a queue grow and then asks for the
# replicas that the queue calls for. Each further minute buys replicas for a future that a straight line knows less about.
# The framework refuses a horizon that is too short:

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
# Why was the reactive fleet late? Compare how much demand grew within a cold start with the room. And the least that was
# possible? Somebody **clairvoyant**, who knew the demand, asked one cold start ahead, and kept no room, would have paid:

# %% id="ahead-clairvoyant" tags=["nbval-check-output"]
print(f"growth within a cold start {lab.growth_in_cold_start(word_spreads):.0%} at most, room {lab.ROOM_FRACTION:.0%}")
print(
    f"clairvoyant {lab.clairvoyant_usd(word_spreads):.2f} USD, reactive {by_load.usd:.2f}, predictive {ahead[180].usd:.2f}"
)

# %% [markdown] id="break"
# ## 8 Break it
#
# Now it is your turn to choose the demand. A curve is a list of 2 to 12 points of (minute, requests per second), from
# minute 0 on. It ends between minute 20 and minute 120, and has 0.5 to 10 requests per second. Two points at one minute are
# a jump. Try things with `lab.play(curve, lab.reactive())` and `lab.play(curve, lab.predictive())`, whose horizon is 180 s.
# A curve that neither minds, and one that both do:

# %% id="break-example" tags=["nbval-check-output"]
for curve in ([(0, 2), (60, 2)], [(0, 1), (20, 1), (20, 3), (60, 3)]):
    print(curve)
    print("  reactive:  ", lab.play(curve, lab.reactive()))
    print("  predictive:", lab.play(curve, lab.predictive()))

# %% [markdown] id="break-2"
# The jump is the hardest case for everybody: no minute before it tells anything.
#
# ### Exercise 5.6: a curve that only prediction survives
#
# Difficulty 3 of 5 · about 10 min
#
# Find a curve, **another one than section 1's**, on which reactive scaling breaks the promise badly, with **fewer than 95 %**
# in time, and predictive scaling keeps it: **at least 99 %**. Check: `ch.check("5.6", surge)`.

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
# Find a curve on which prediction costs **at least a tenth more** for machines than reactive scaling, and saves **less** in
# refunds than it costs more. Same rules for the curve. Check: `ch.check("5.7", calm)`.

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
# So neither is better as such. It depends on how fast demand changes beside the cold start, and on what a late answer costs
# beside a machine. The same two fleets, on three kinds of demand:

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
# The model has no luck, and its requests are all alike. Now a sale of half an hour, in which word spreads as before, on
# simulated L4s with the real scheduling code in each, with Larkspur's questions and answers of all lengths, and with cold
# starts that vary by a fifth. What counts here is the **time to first token**, the first piece of the answer: 4 s. First a
# fleet that never changes, to see what one replica can do:

# %% id="real-rates" tags=["nbval-check-output"]
from miniserve.course.chapters.ch01_systems_problem.lab import under_load

for rate in (0.1, 0.3, 0.5, 0.6):
    print(f"{rate} requests/s for each of four replicas: {under_load(4 * rate, 4).within_share:.1%} within 4 s")

# %% [markdown] id="real-2"
# There is no sharp edge at 0.5: more load makes more of them late, and even a lightly loaded fleet is late for some, whose
# questions are long. (Chapter 1 shows why.) So look at the difference between the two autoscalers:

# %% id="real-run" tags=["nbval-check-output"]
sales = {how: lab.sale(how) for how in ("reactive", "predictive")}
for how, run in sales.items():
    parts = ", ".join(f"{lab.kept_between(run, *part):.1%}" for part in ((0, 900), (900, 1500), (1500, 1920)))
    print(f"{how:<10} {lab.kept_in_all(run):.1%} in time; before, while and after demand grows fast: {parts}")
    print(f"{'':<10} {run.totals['late_requests']:.0f} late, machines {run.totals['cost_usd']:.2f} USD")

# %% id="real-figure"
lab.draw_sale(sales)

# %% [markdown] id="real-3"
# The order is the same, and the difference is smaller than in the model, where everything happens at a sharp edge. Neither
# fleet keeps 99 %; even the steady one above, with hardly anything to do, did not. A simulation of one sale is no proof,
# either: chapter 13 compares more forecasts, also with the simplest one, *it will be as it is*.

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
# Next spring there is a sale again. Its beginning is announced; how word will spread is not known. Write four to eight
# sentences to Larkspur's manager: what you would do, why the reactive fleet alone is not enough, with numbers, what it
# costs and saves, and what happens if the forecast is wrong. Put it between `"""` and `"""`.
# Check: `ch.check("5.9", plan)`.

# %% id="answer-5.9" tags=["answer"] question="5.9"
# SOLUTION
plan = f"""
A new replica answers after {lab.cold_start().nominal_s:.0f} s. When word spread, demand grew by up to
{lab.growth_in_cold_start(word_spreads):.0%} in that time, and the replicas had room for {lab.ROOM_FRACTION:.0%}, so
{1 - by_load.kept_share:.0%} of the requests were late. The beginning is announced: the clock starts two more replicas ten
minutes before. From then on a forecast of {lab.HORIZON_S:.0f} s, longer than a cold start, adds to the reactive rule. In
the model it cost {ahead[180].usd - by_load.usd:.2f} USD more for machines and saved
{by_load.refunds_usd - ahead[180].refunds_usd:.2f} USD of refunds. If it is too high, we pay for idle replicas for a few
minutes, and a jump without notice it does not see. So we keep four spares that day, for {4 * gpu.usd_per_hour:.2f} USD per
hour: when demand jumped in section 6, at most {jumps["reactive, four spares"].waiting.max():.0f} waited, and not
{jumps["reactive"].waiting.max():.0f}. After the sale all of this is switched off, because on calm days it only costs money.
"""
print(plan)
# END SOLUTION

# %% id="check-5.9" tags=["check"]
ch.check("5.9", plan)

# %% [markdown] id="real-code"
# ## 11 Read the real code
#
# From `miniserve/control/autoscaler.py`, `predictive.py` and `forecast.py`. Look for two things: how a reactive autoscaler
# avoids asking again for what is starting already (exercise 5.4), and where a forecast is kept from taking replicas away.
# A `view` is what it sees of the fleet; `ScaleTo(n)` asks for n replicas in all, and of several `merged` keeps the largest.

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
# - Cold start = provision + bytes / bandwidth + warm up. A replica that is asked for now serves then.
# - Meanwhile (λ - c·μ)·t requests pile up, and only capacity beyond the demand gets rid of them.
# - Spares bridge a growth that is known: growth within a cold start / what one replica serves, rounded up.
# - Reactive scaling is late when demand outgrows its room within a cold start, and too large afterwards.
# - A forecast must look further ahead than the cold start. It helps where a rise is announced by the minutes before.
# - It cannot see a jump, and on gentle demand it only costs money. Known dates belong to the clock, surprises to spares.
#
# Chapter 13 builds an autoscaler. Section 9's sale: `python -m miniserve simulate data/scenarios/larkspur_sale.toml --variant
# predictive`. Chapter 19 prices this and other ways to save.
#
# **Go deeper**
#
# - R. Hyndman, G. Athanasopoulos, *Forecasting: Principles and Practice*, chapter 8: level, trend and season.
# - Kubernetes documentation, *Horizontal Pod Autoscaling*: the reactive rule of this chapter.
# - A. Gandhi and others, *AutoScale: Dynamic, Robust Capacity Management for Multi-Tier Data Centers*, ACM Transactions on
#   Computer Systems 2012: set-up times, and why not to give servers back too soon.
# - Y. Fu and others, *ServerlessLLM: Low-Latency Serverless Inference for Large Language Models*, OSDI 2024: faster loading.
