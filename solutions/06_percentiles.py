# %% [markdown] id="intro"
# # Chapter 6: Percentiles, not averages
#
# **You will learn**
#
# - what p50, p95 and p99 are, and how to compute them exactly;
# - how an average hides a bad tail, and how to build data that proves it;
# - how likely a customer's session is to meet the tail;
# - why you can't average the percentiles of replicas, and what you can add up instead;
# - how many requests a p99 needs before it means anything;
# - how to read a promise about latency like a lawyer.
#
# **You need** Python, but no knowledge of serving. **Time**: about an hour; all cells together run in {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 What a percentile is · 3 Break it · 4 Predict, then measure ·
# 5 Sessions · 6 Three replicas, one p99 · 7 How many requests a p99 needs · 8 Promises · 9 Read the real code ·
# 10 Summary
#
# **How exercises work.** Put your answer where you see `...`, then run the check below it. It says CORRECT, or what is
# wrong and why. `ch.hint("6.1")` gives a hint; call it again for the next one. After an attempt,
# `ch.solution("6.1")` shows a solution.

# %% id="setup"
import math

import numpy as np

from miniserve import course
from miniserve.course.chapters.ch06_percentiles import lab

ch = course.chapter(6)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# **Larkspur** is a fictional service, and the running example of the whole course: an assistant for a chain of garden
# centres. Customers chat with it, and staff use it to draft articles. A language model runs on three GPUs. Each GPU
# with its own copy of the model is a **replica**. All chapters use the same price list and the same distribution of
# question and answer lengths.
#
# An answer appears word by word. The first thing a customer waits for is the first word, so we measure the **time to
# first token** (TTFT): from sending the question to the first piece of the answer. Larkspur promises 4 seconds.
#
# The next cell simulates one of Larkspur's days. Each replica runs the project's real scheduling code; only time is
# simulated.

# %% id="the-day" tags=["nbval-check-output"]
day = lab.larkspur_day()
print(day)
print(f"average time to first token: {course.as_text(float(np.mean(day.ttft_s)))} s")

# %% [markdown] id="bite-2"
# That average is well inside the promise. Yet on that day the garden centres' phones rang: customers had waited for half a
# minute. Is the average wrong? No. It answers a question that nobody asked.
#
# **Where we are on a request's path.** A request goes from the client to the gateway, which picks a replica; there it
# waits, is read (the *prefill*), and its first token travels back. The gateway measures TTFT at the end of that path,
# so it includes whatever goes wrong on the way.

# %% [markdown] id="what"
# ## 2 What a percentile is
#
# Sort the values. The **p-th percentile** is the smallest value such that at least p % of all values are no larger. So
# it is a value that really occurred, at place ⌈p/100 · n⌉ of n, counted from 1. This definition is called *nearest
# rank*. The p50 is also called the median.
#
# Worked example for ten answers from another morning:

# %% id="ten" tags=["nbval-check-output"]
ten_s = [0.6, 0.4, 0.5, 15.0, 0.5, 0.8, 0.4, 0.6, 0.7, 0.5]
in_order = sorted(ten_s)
print("in order:", in_order)
places = {p: math.ceil(p / 100 * 10) for p in (50, 90, 95, 99)}
course.table(
    {
        "figure": ["mean", *(f"p{p}" for p in places)],
        "place": ["-", *places.values()],
        "seconds": [sum(ten_s) / 10, *(in_order[place - 1] for place in places.values())],
    },
    "Ten answers",
)

# %% [markdown] id="what-2"
# Nobody waited as long as the mean says: nine waited much less, and one much longer. The p50 tells you what's usual.
# The p95 and p99 tell you about the **tail**, the slow few. With only ten values, both are simply the slowest one;
# section 7 asks how many values they need.
#
# ### Exercise 6.1: a mean below 1 s, a p99 above 20 s
#
# Difficulty 2 of 5 · about 6 min
#
# Construct 100 to 1,000 latencies in seconds, all above 0, whose mean is **below 1 s** and whose p99 is **above 20 s**.
# Give them as a list of numbers; `[0.3] * 50` makes fifty equal ones. Check: `ch.check("6.1", latencies_s)`.

# %% id="answer-6.1" tags=["answer"] question="6.1"
# SOLUTION
latencies_s = [0.3] * 197 + [25.0] * 3
# END SOLUTION

# %% id="check-6.1" tags=["check"]
ch.check("6.1", latencies_s)

# %% [markdown] id="break"
# ## 3 Break it
#
# Three colleagues have each written a percentile function. Each passes the others' tests, and each has one bug.


# %% id="three-bugs"
def never_sorts(values, p):
    return values[math.ceil(p / 100 * len(values)) - 1]


def rounds_down(values, p):
    place = max(1, math.floor(p / 100 * len(values)))
    return sorted(values)[place - 1]


def equals_once(values, p):
    different = sorted(set(values))
    return different[math.ceil(p / 100 * len(different)) - 1]


for function in (never_sorts, rounds_down, equals_once):
    print(f"{function.__name__}: the p50 of 1, 2, 3, 4 is {function([1, 2, 3, 4], 50)}")

# %% [markdown] id="break-2"
# ### Exercise 6.2: one test that finds three bugs
#
# Difficulty 3 of 5 · about 8 min
#
# On the input above, all three give the right result. Find **one** input on which **each of the three** gives a wrong
# one: `{"values": [...], "p": ...}` with at most 20 numbers and 0 < p ≤ 100. Check: `ch.check("6.2", test_input)`.

# %% id="answer-6.2" tags=["answer"] question="6.2"
# SOLUTION
test_input = {"values": [4, 4, 1, 1, 4], "p": 50}
# END SOLUTION

# %% id="check-6.2" tags=["check"]
ch.check("6.2", test_input)

# %% [markdown] id="predict"
# ## 4 Predict, then measure
#
# Here is what happened on Larkspur's day. At 13:00 one of the three GPUs ran hot and throttled itself: for 40 minutes
# each of its *steps*, in which every answer in progress grows by a token, took twelve times as long. It still reported
# that it was healthy, so it kept getting requests. A request without a first token after 30 s is tried again on another
# replica.

# %% id="facts" tags=["nbval-check-output"]
lunch = day.between(13, 14)
print(f"{len(lunch) / len(day.ttft_s):.0%} of the day's requests arrive between 13:00 and 14:00")
print(f"the p99 of the hours before noon is {course.as_text(lab.p99(day.between(0, 12)))} s")

# %% [markdown] id="predict-2"
# ### Exercise 6.3: the p99 of a day with one slow lunch
#
# Difficulty 2 of 5 · about 6 min
#
# Before you go on: between which two values does the p99 of the **whole day** lie? Give `(low, high)` in seconds, with
# high at most three times low. Think first: what share of the day's requests met the slow GPU, and is that more or less
# than 1 %? Check: `ch.check("6.3", p99_between_s)`.

# %% id="answer-6.3" tags=["answer"] question="6.3"
# SOLUTION
# 13 % of the day's requests, 40 of 60 minutes, one GPU of three: about 3 % met it. So the p99 is one of theirs, a third
# of the way down from the slowest (30 s and more).
p99_between_s = (10, 30)
# END SOLUTION

# %% id="check-6.3" tags=["check"]
ch.check("6.3", p99_between_s)

# %% [markdown] id="measure-day"
# Now for the measurement, first hour by hour, then for all requests of the day at once: for each number of seconds,
# what share of the requests waited longer? The seconds are on a logarithmic axis, on which each step multiplies.

# %% id="hours"
lab.draw_hours(day)

# %% id="tail"
lab.draw_tail(day)

# %% [markdown] id="measure-day-2"
# Read the second figure from its right end: the curve's height at a time is the share of requests that waited longer.
# The percentiles sit where it crosses 50 %, 5 % and 1 %. The mean sits somewhere between them: the tail has pulled it
# away from the usual wait, but not far enough to alarm anyone. How far did each figure move because of that lunch?

# %% id="moved" tags=["nbval-check-output"]
outside = day.ttft_s[(day.hour < 13) | (day.hour >= 14)]
lab.summary({"without that hour": outside, "the whole day": day.ttft_s}, "Time to first token")

# %% [markdown] id="sessions"
# ## 5 Sessions: who meets the tail?
#
# "Only one in a hundred" sounds rare, but a customer doesn't send just one request. A chat of ten questions has ten
# chances to meet the tail.
#
# Worked example for two requests, if one request in ten is slow: both are fast with probability 0.9 · 0.9 = 0.81.
# What's left of 1 is the probability that at least one is slow: 0.19. That's a little less than 0.1 + 0.1, because both
# may be slow at once.
#
# ### Exercise 6.4: how many sessions meet the tail
#
# Difficulty 2 of 5 · about 6 min
#
# A request is slow with probability `p`, independently of the others. Write a function that returns the probability
# that a session of `k` requests has **at least one** slow one. It's checked on 64 random pairs. Check:
# `ch.check("6.4", sees_the_tail)`.


# %% id="answer-6.4" tags=["answer"] question="6.4"
# SOLUTION
def sees_the_tail(p, k):
    """Return the chance that at least one of k requests is slow."""
    return 1 - (1 - p) ** k


# END SOLUTION

# %% id="check-6.4" tags=["check"]
ch.check("6.4", sees_the_tail)

# %% [markdown] id="sessions-2"
# **Measure.** Call a request slow if it broke the promise of 4 s. We make up sessions from the day's requests in two
# ways: either each request is *any* request of the day, or the session's requests came *one after the other*.

# %% id="sessions-measured"
slow = (day.ttft_s > lab.SLOW_S).tolist()
lengths = (1, 2, 4, 8, 16, 32)
shares = {
    "any requests": {k: lab.sessions_at_random(slow, k) for k in lengths},
    "one after the other": {k: lab.sessions_in_a_row(slow, k) for k in lengths},
}
formula = ch.yours("6.4", sees_the_tail)
if formula is not None:
    shares["your formula"] = {k: formula(sum(slow) / len(slow), k) for k in lengths}
lab.draw_sessions(shares)

# %% [markdown] id="sessions-3"
# **Break it.** The formula fits the first way but not the second. It assumes that requests are slow independently of
# each other, but on this day the slow ones came together, over lunch. Fewer sessions met them, and those that did met
# several. So the formula tells you what to fear from a tail that is spread evenly; for real sessions, count real
# sessions.

# %% [markdown] id="merge"
# ## 6 Three replicas, one p99
#
# Each replica measures its own answers. How do you get the p99 of the fleet? Not from the replicas' p99s: a percentile
# doesn't say how many requests lie where. What you can add up are **counts**. If all replicas count their answers in
# the same buckets, the fleet's count in a bucket is the sum of theirs.
#
# Worked example for two replicas and three buckets:

# %% id="merge-example" tags=["nbval-check-output"]
left, right = [60, 39, 1], [20, 10, 70]
merged = [a + b for a, b in zip(left, right, strict=True)]
course.table(
    {
        "up to (s)": [1.0, 2.0, 4.0],
        "left": left,
        "right": right,
        "merged": merged,
        "cumulative": np.cumsum(merged),
        "holds": ["-", "p50", "p95"],
    },
    "200 answers of both",
)

# %% [markdown] id="merge-2"
# Of 200 answers, the p50 is at place 100 and the p95 at place 190. *left* has its p50 in the first bucket, *right* in
# the third, and the fleet in the second.
#
# ### Exercise 6.5: three replicas, one p99
#
# Difficulty 3 of 5 · about 10 min
#
# This time there are three replicas, *A*, *B* and *C*, and *C* is the slow one:

# %% id="merge-counts" tags=["nbval-check-output"]
course.table({"up to (s)": lab.UPPER_S, **lab.COUNTS}, "Answers in each bucket")

# %% [markdown] id="merge-3"
# The first two rows of the merged table are
# `(0.5, 280, 280, "-")` and `(1.0, 485, 765, "p50")`: upper bound, merged count, running total, and which of p50, p95 and
# p99 lies in this bucket (`"-"` if none). Write the other **five** rows in the same form, as a list.
# Check: `ch.check("6.5", rows)`.

# %% id="answer-6.5" tags=["answer"] question="6.5"
# SOLUTION
rows = [
    (2.0, 188, 953, "p95"),
    (4.0, 28, 981, "-"),
    (8.0, 7, 988, "-"),
    (16.0, 8, 996, "p99"),
    (32.0, 4, 1000, "-"),
]
# END SOLUTION

# %% id="check-6.5" tags=["check"]
ch.check("6.5", rows)

# %% [markdown] id="merge-4"
# **Measure.** A *sketch* is such a set of buckets, many and narrow; in this one, each percentile is right to within 1 %
# of its value. Each of Larkspur's three GPUs fills a sketch. We add them up and compare the result with the truth, and
# with the mean of the three p99s.

# %% id="merge-measured" tags=["nbval-check-output"]
from miniserve.observe.sketch import Sketch, sketch_of

fleet = Sketch()
for name in day.replicas:
    fleet.merge(sketch_of(day.of_replica(name)))

p99s = {name: lab.p99(day.of_replica(name)) for name in day.replicas}
course.table(
    {
        "p99 of": [*p99s, "mean of these three", "merged sketch", "all requests, exactly"],
        "seconds": [*p99s.values(), np.mean([*p99s.values()]), fleet.percentile(99), lab.p99(day.ttft_s)],
    },
    f"{fleet.num_buckets} buckets in place of {len(fleet):,} values",
)

# %% [markdown] id="samples"
# ## 7 How many requests a p99 needs
#
# Suppose you have measured n requests. If *all* of them happen to lie below the true p99, your sample says nothing
# about how large the p99 may be. How large must n be to make this unlikely?
#
# Worked example for the p90, with 95 % confidence. One request lies below the p90 with probability 0.9, and all n of
# them with probability 0.9ⁿ. We look for the first n at which that is at most 5 %.

# %% id="samples-example" tags=["nbval-check-output"]
for n in (10, 20, 28, 29):
    print(f"{n} requests: all below the p90 with probability {0.9**n:.4f}")
print(f"log(0.05) / log(0.9) = {math.log(0.05) / math.log(0.9):.2f}")

# %% [markdown] id="samples-2"
# So n is the next whole number above that ratio of logarithms.
#
# ### Exercise 6.6: how many requests a percentile needs
#
# Difficulty 3 of 5 · about 8 min
#
# Your own percentile and confidence, drawn for you, are printed below. How many requests does it take until, with that
# confidence, **at least one** lies at or above the percentile? Give a whole number. Check:
# `ch.check("6.6", requests_needed)`.

# %% id="samples-given"
given = ch.given("6.6")
given

# %% id="answer-6.6" tags=["answer"] question="6.6"
# SOLUTION
requests_needed = math.ceil(math.log(1 - given["confidence"]) / math.log(given["p"] / 100))
# END SOLUTION

# %% id="check-6.6" tags=["check"]
ch.check("6.6", requests_needed)

# %% [markdown] id="samples-3"
# **Measure.** Forty people each draw a random sample from Larkspur's day and report its p99.

# %% id="samples-measured"
estimates = {size: lab.samples(day.ttft_s, size, lab.p99) for size in (50, 200, 1000, 3000)}
lab.draw_samples(estimates, lab.p99(day.ttft_s))

# %% [markdown] id="samples-4"
# A p99 from a few dozen requests is a lottery ticket. You've already seen one: in the hour-by-hour figure, the p99 has
# a second, smaller peak during the night. How many requests is that peak made of?

# %% id="night" tags=["nbval-check-output"]
for hour in (4, 11):
    found = day.between(hour, hour + 1)
    print(
        f"from {hour:>2}:00: {len(found):>3} requests, p99 {course.as_text(lab.p99(found))} s, the slowest {max(found):.2f} s"
    )

# %% [markdown] id="samples-5"
# So say with each percentile how many requests it rests on, or give a *confidence interval*. `percentile_interval`
# finds one without any assumption about the shape of the data: it counts how many of n values may fall below the true
# percentile by chance. Where n is too small for an interval, it returns None; bounds on both sides take more requests
# than the one bound that you computed.

# %% id="intervals" tags=["nbval-check-output"]
from miniserve.observe.intervals import percentile_interval

rng = np.random.default_rng(6)
for size in (100, 300, 1000, 3000):
    found = percentile_interval(rng.choice(day.ttft_s, size), 99)
    print(f"{size:>5} requests:", f"p99 between {found.low:.1f} s and {found.high:.1f} s" if found else "no interval")

# %% [markdown] id="promises-intro"
# ## 8 Promises
#
# A **service level agreement** (SLA) promises a customer how well a service will do, and says what the provider owes if
# it doesn't. Its latency part says which requests (and what counts as failed), which percentile, which limit, and over
# which time.
#
# ### Exercise 6.7: what is wrong with this promise?
#
# Difficulty 2 of 5 · about 8 min
#
# The next cell prints nine promises and eight options. Give each promise the option that fits **best**, as
# `{"a": "...", "b": "..."}` and so on; one option is used twice. Check: `ch.check("6.7", promises)`.

# %% id="promises-items"
course.show_choices(lab.PROMISES, lab.OPTIONS)

# %% id="answer-6.7" tags=["answer"] question="6.7"
# SOLUTION
promises = {
    "a": "sound",
    "b": "hides the tail",
    "c": "names no limit",
    "d": "names no window",
    "e": "averages percentiles",
    "f": "can never be kept",
    "g": "rests on too few",
    "h": "leaves out failures",
    "i": "sound",
}
# END SOLUTION

# %% id="check-6.7" tags=["check"]
ch.check("6.7", promises)

# %% [markdown] id="report-intro"
# ### Exercise 6.8: the line in the weekly report
#
# Difficulty 3 of 5 · about 8 min · a person reads it
#
# Your manager wants to write: *"Average time to first token 1.4 s, well within the promised 4 s."* Write three to six
# sentences to take its place: which figure, what happened, what it meant for customers, and how you got the figure. Use
# the outputs above. Put your text between `"""` and `"""`. Check: `ch.check("6.8", report)`.

# %% id="answer-6.8" tags=["answer"] question="6.8"
# SOLUTION
report = """
The p99 of the time to first token, over all requests of the day on all three GPUs together, was 16 s; we promise 4 s.
The average of 1.4 s hid that: from 13:00 to 13:40 one GPU was slow, and about one in thirty of the day's requests
waited longer than 4 s, some for half a minute. They came together, so customers during that lunch hour met several in
one session, while the others saw none. From now on we report the daily p99 against 4 s, from the merged counts of all
GPUs, and count failed requests as slow.
"""
# END SOLUTION

# %% id="check-6.8" tags=["check"]
ch.check("6.8", report)

# %% [markdown] id="real-code"
# ## 9 Read the real code
#
# This is how the framework computes percentiles. Look for two things: why `p` is read as a decimal fraction before it is
# multiplied, and what `0` and `100` give.

# %% id="real-code-shown"
import inspect

from miniserve.observe import percentiles

print(inspect.getsource(percentiles.percentiles_of_sorted))
print(inspect.getsource(percentiles.rank))

# %% id="real-code-why" tags=["nbval-check-output"]
print("ceil(7 / 100 * 100) =", math.ceil(7 / 100 * 100), "in binary floating point")
print("rank(7, 100)        =", percentiles.rank(7, 100))

# %% [markdown] id="summary"
# ## 10 Summary
#
# - A mean answers "how much in total?". A percentile answers "how bad is it for how many?".
# - Nearest rank: the p-th percentile is the value at place ⌈p/100 · n⌉, so it is a value that really occurred.
# - The p99 shows nothing until more than 1 % of requests are slow; then it shows how slow they are in full.
# - If slow requests are independent, a share 1 - (1 - p)ᵏ of sessions with k requests meets the tail. Slow requests
#   that come together hit fewer sessions, but harder.
# - You can't average percentiles. You can add up counts in equal buckets.
# - A percentile needs enough requests. Say how many there were.
# - A sound promise names the requests, the percentage, the limit and the window, and counts failures.
#
# Chapter 12 uses percentiles to compare balancers. In chapter 14 you build the sketch.
#
# **Go deeper**
#
# - J. Dean and L. A. Barroso, *The Tail at Scale*, Communications of the ACM 56(2), 2013: where tails come from and how
#   large systems live with them.
# - C. Masson, J. E. Rim and H. K. Lee, *DDSketch*, VLDB 2019: the sketch of section 6.
# - G. J. Hahn and W. Q. Meeker, *Statistical Intervals*, Wiley 1991, chapter 5: the interval of section 7.
# - B. Beyer and others (editors), *Site Reliability Engineering*, O'Reilly 2016, chapter 4: service level objectives.
