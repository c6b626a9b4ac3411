# %% [markdown] id="intro"
# # Chapter 14: Percentiles from a stream
#
# **You will learn**
#
# - how to compute p50, p95 and p99 exactly, and why the last digit of 99.9 can matter;
# - what the average hides over a day;
# - how to count latencies in a few hundred buckets so that *every* percentile is right to within 1 % of itself;
# - how to write a sketch that can be merged: across replicas, and across hours;
# - why cheaper ways (means of percentiles, equal buckets, samples) fail in the tail.
#
# **You need** Python (classes, dictionaries, logarithms); no knowledge of serving. Chapter 6 asks what
# percentiles mean; this one builds the machine. **Time**: about 75 minutes. The notebook itself runs in {{run_time}}.
#
# **Contents**: 1 The question that bites · 2 The exact way · 3 Over the day · 4 Buckets that grow · 5 How many? ·
# 6 The sketch · 7 Merge the replicas · 8 Break it · 9 Read the real code · 10 Summary
#
# **How exercises work.** Write where it says `raise NotImplementedError` or `...`, then run the check below it. It says
# CORRECT, or what is wrong and why, with the smallest example that it found. `ch.hint("14.1")` gives a hint; call it
# again for the next one. After an attempt, `ch.solution("14.1")` shows a solution.

# %% id="setup"
import inspect
import math
import random

import numpy as np

from miniserve import course
from miniserve.course.chapters.ch14_percentiles_stream import lab

ch = course.chapter(14)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# **Larkspur** is the course's fictional service: an assistant for a chain of garden centres, on three GPUs, each with
# its own copy of the model (a **replica**; here `l4-0` to `l4-2`). The **time to first token** (TTFT) is how long a
# customer waits for the first piece of an answer. Larkspur promises at most 4 seconds.
#
# The next cell simulates the same day as in chapter 6, on which one GPU ran hot over lunch. Each replica records its
# own times and, as in many services, reports its own p99 at midnight. (99 of 100 requests take no longer than the
# **p99**.) The dashboard shows the mean of the three.

# %% id="the-day" tags=["nbval-check-output"]
day = lab.larkspur_day()
ttft_s = day.ttft_s.tolist()
p99s = {name: lab.exact(day.of_replica(name), 99) for name in day.replicas}
course.table(
    {
        "p99 of": [*p99s, "mean of these three", "all requests"],
        "seconds": [*p99s.values(), float(np.mean([*p99s.values()])), lab.exact(day.ttft_s, 99)],
    },
    "What the dashboard says, and what is true",
)

# %% [markdown] id="bite-2"
# The mean of three p99s is no customer's p99. You could send every single time to one place and sort them all there;
# for 4,300 requests that is easy. A service with a hundred replicas and ten thousand requests per second would send and
# sort 864 million numbers a day, to learn three. Is there something small that each replica can keep, that can be
# *added up*, and that still gives the right p99?
#
# **Where we are on a request's path.** At its end: the gateway, the door through which all requests come, has seen the
# first token, and records how long it took. From here the number travels to a dashboard, to an alert, and to the
# autoscaler, which starts and stops replicas.
#
# **Before you go on, predict**: how many counters would one replica need to get each percentile of its day right to
# within 1 %? Ten, a hundred, a thousand, or as many as requests? Section 5 measures it.

# %% [markdown] id="card-14-1"
# ## 2 The exact way
#
# Sort n values and count along them. The **p-th percentile** is the first value at which you have counted at least p %
# of them all, so it is always a value that really occurred. Its place, counted from 1, is its **rank**. The rest
# follows:
#
#     percentile(values, p) = sorted(values)[rank(p, n) - 1]
#
# Worked: five customers waited 0.2, 0.3, 0.4, 0.9 and 8 s. Two of five are 40 %, too few for p50; three of five are 60
# %. So p50 stands at place 3: 0.4 s. For p90 four of five are too few: place 5, 8 s. For p80 four of five are just
# enough.
#
# ### Exercise 14.1
#
# Difficulty 2 of 5 · about 10 min
#
# **Goal.** Write `rank(p, n)`.
#
# **Contract.** Return the smallest place k (an int, 1 to n) such that k of n is at least p %. The 0th percentile is the
# smallest value, so place 1. A p outside 0 to 100 (or NaN, not a number) raises `ValueError`. Take p as it is written,
# whatever n is: 99.9 % of 1,000 is exactly 999, though binary floating point says otherwise. Python's
# `Fraction("99.9")` is exact.
#
# **Cost.** No loop over places.
#
# **Check**: `ch.check("14.1", rank)`

# %% id="answer-14.1" tags=["answer"] question="14.1" target="miniserve/observe/percentiles.py::rank"
import math
from fractions import Fraction

# %% id="check-14.1" tags=["check"]
ch.check("14.1", rank)

# %% [markdown] id="measure-14-1"
# **Measure.** The whole day at once: what share of the requests had their first token by a given time? The marks are
# the mean and the percentiles, found by your `rank` once it is right.


# %% id="cdf" tags=["nbval-check-output"]
def figures_of(values):
    """Return the mean and percentiles, by your rank, or by the library's until yours is right."""
    found = {"mean": float(np.mean(values))}
    for p in (50, 95, 99):
        found[f"p{p}"] = sorted(values)[my_rank(p, len(values)) - 1] if my_rank else lab.exact(values, p)
    return found


my_rank = ch.yours("14.1", rank)
lab.draw_cdf(ttft_s, figures_of(ttft_s))

# %% [markdown] id="cdf-2"
# The mean lies well inside the promise of 4 s, and more than half of all requests are faster than the mean. It tells
# you neither what is usual (that is p50) nor how bad it gets (that is p99).

# %% [markdown] id="timeline"
# ## 3 Over the day
#
# A dashboard shows windows: here, half an hour each. The line is the promise.

# %% id="timeline-drawn"
half_hours = lab.windows(day, 30)
rows = [figures_of(values) for values in half_hours.values()]
lab.draw_timeline(
    list(half_hours), {name: [row[name] for row in rows] for name in ("mean", "p50", "p99")}, "What the average hides"
)

# %% [markdown] id="timeline-2"
# In the windows of that lunch the mean rises as well, but it understates what one customer in a hundred met. And p50
# shows hardly anything, because two replicas of three were fine. The peak before 5:00 is a single request: where a
# window holds fewer than 100, its p99 is the slowest of them.
#
# The windows raise the next question. Is the day's p99 the mean of the 48 windows' p99s? No more than it was the mean
# of the replicas':

# %% id="mean-of-windows" tags=["nbval-check-output"]
course.table(
    {
        "p99": ["mean of 48 windows' p99s", "the largest of them", "the whole day, exactly"],
        "seconds": [
            float(np.mean([row["p99"] for row in rows])),
            max(row["p99"] for row in rows),
            lab.exact(ttft_s, 99),
        ],
    },
    "Percentiles of parts",
)

# %% [markdown] id="card-14-2"
# ## 4 Buckets that grow
#
# You can add up **counts**. If you count how many values lie in each bucket, with the same buckets everywhere, the
# counts of all replicas are the sum of each one's counts. You only lose where *inside* its bucket a value lay. So the
# question is how wide buckets may be.
#
# Buckets of equal width, 0.5 s say, are far too coarse for an answer after 0.1 s, and needlessly fine for one after 30
# s. We want the same **relative** error `alpha` everywhere, so each bucket must be wider than the one before by the
# same factor, *gamma*:
#
#     bucket k holds the values v with   gamma^(k-1) < v <= gamma^k
#
# Bucket 0 ends at 1, bucket 1 at gamma; values below 1 have keys of 0 and less. We answer with one value for a whole
# bucket, its *middle*, which must be within alpha of the truth, whichever value of the bucket is the truth.
#
# Worked with a very coarse alpha = 50 %: bucket 1 holds all values above 1, up to 3. Answer 1.5 for all of them: half
# too much for a value just above 1, and half too little for 3. So gamma is 3 there: bucket 0 holds all values above
# 1/3, up to 1, and bucket 2 all above 3, up to 9. The value 2 has key 1, the value 0.4 has key 0.
#
# ### Exercise 14.2
#
# Difficulty 3 of 5 · about 15 min
#
# **Goal.** Write the three methods of `Buckets`.
#
# **Contract.**
#
# - `gamma()`: the largest factor for which a middle exists that is off by at most `alpha` from both bounds. That middle
#   m is `alpha` above the lower bound, m = (1 + alpha) · lower, and `alpha` below the upper one, m = (1 - alpha) ·
#   upper;
# - `key(value)`: the number of the bucket that holds a value above 0, an int (on a bound itself, where binary rounding
#   decides, the check also accepts the next bucket);
# - `middle(key)`: the m of that bucket.
#
# **Cost.** No loop from bucket to bucket.
#
# **Check**: `ch.check("14.2", Buckets)`

# %% id="answer-14.2" tags=["answer"] question="14.2" target="miniserve/observe/buckets.py::Buckets.gamma+key+middle"
import math

# %% id="check-14.2" tags=["check"]
ch.check("14.2", Buckets)

# %% [markdown] id="measure-14-2"
# **Measure.** Here are some latencies, and what alpha = 1 % makes of them, beside what buckets of half a second make of
# them (each answering with its centre).

# %% id="bucketed" tags=["nbval-check-output"]
some_s = [0.012, 0.31, 0.65, 1.4, 4.2, 31.0]
halves = [(math.ceil(value / 0.5) - 0.5) * 0.5 for value in some_s]
columns = {
    "value (s)": some_s,
    "in halves": halves,
    "error": [f"{abs(h / v - 1):.1%}" for h, v in zip(halves, some_s, strict=True)],
}
if mine := ch.yours("14.2", Buckets):
    buckets_1 = mine(0.01)
    columns["your key"] = [buckets_1.key(value) for value in some_s]
    columns["your middle"] = [buckets_1.middle(key) for key in columns["your key"]]
    columns["your error"] = [f"{abs(m / v - 1):.2%}" for m, v in zip(columns["your middle"], some_s, strict=True)]
course.table(columns, "Equal and growing buckets")

# %% [markdown] id="card-14-3"
# ## 5 How many?
#
# ### Exercise 14.3: predict
#
# Difficulty 2 of 5 · about 5 min
#
# The next cell prints what you need to know of Larkspur's day. All its times go into buckets with alpha = 1 %. How many
# buckets hold at least one request?
#
# **Goal.** Give an interval `(low, high)`; `high` may be at most twice `low`. The check runs the experiment and says
# whether your interval covers the result. Use `at_most` for your own working: how many can there be, if no bucket stays
# empty?
#
# **Check**: `ch.check("14.3", buckets_needed)`

# %% id="range" tags=["nbval-check-output"]
print(f"{len(ttft_s):,} requests, from {min(ttft_s):.3f} s to {max(ttft_s):.1f} s; gamma = {1.01 / 0.99:.5f}")

# %% id="answer-14.3" tags=["answer"] question="14.3"
# SOLUTION
at_most = math.log(max(ttft_s) / min(ttft_s)) / math.log(1.01 / 0.99)
buckets_needed = (0.5 * at_most, at_most)
# END SOLUTION

# %% id="check-14.3" tags=["check"]
ch.check("14.3", buckets_needed)

# %% [markdown] id="how-many"
# The number grows with the *logarithm* of the range, and hardly with the number of requests: more requests fill a few
# gaps, and then change nothing. Ten times the range costs a fixed number of buckets, whatever the traffic:

# %% id="decade" tags=["nbval-check-output"]
from miniserve.observe import sketch as library

for step in (4, 2, 1):
    some = ttft_s[::step]
    print(f"{len(some):,} of the requests: {library.sketch_of(some).num_buckets} buckets hold at least one")
for alpha in (0.05, 0.01, 0.001):
    print(f"alpha {alpha:.1%}: {math.log(10) / math.log((1 + alpha) / (1 - alpha)):.0f} buckets per power of ten")

# %% [markdown] id="card-14-4"
# ## 6 The sketch
#
# A **sketch** is a small summary that answers a question with a known error. Ours is a dictionary from bucket to count,
# and three numbers beside it.
#
# Worked, again with alpha = 50 %: of the values 0, 0.5, 0.6, 2 and 20 s, one is a zero, two lie in bucket 0, one in
# bucket 1 and one in bucket 3 (above 9, up to 27). p50 of five values has place 3. The zero takes place 1 and bucket 0
# takes places 2 and 3, so p50 is the middle of bucket 0: 0.5 s. The exact p50 is 0.6 s, so that is off by 17 %; 50 %
# would be allowed.
#
# ### Exercise 14.4
#
# Difficulty 4 of 5 · about 25 min
#
# **Goal.** Write `add`, `merge` and `percentile`. The other methods are given; read them first.
#
# **Contract.**
#
# - `add(value)` counts a value. A negative value, infinity or NaN raises `ValueError` and changes nothing. Zero has no
#   logarithm, and an answer from a cache takes 0 s: `_zeros` counts these. `_min` and `_max` are the smallest and the
#   largest value so far.
# - `merge(other)` adds everything that `other` counted to `self`, and leaves `other` as it was. A sketch with another
#   `alpha` or another `max_buckets` raises `ValueError`: its buckets are not the same.
# - `percentile(p)` returns the p-th percentile, off by at most `alpha` of it, and never outside the range of the values
#   seen. Without values it raises `ValueError`.
# - `self._bounds` is a `Buckets`, the library's; `percentiles.rank` is the library's rank. `self._count(key, count)`
#   adds to a bucket: always use it, because it keeps to `max_buckets`.
#
# **Cost.** The size of a sketch must not grow with the number of values.
#
# **Check**: `ch.check("14.4", Sketch)`

# %% id="answer-14.4" tags=["answer"] question="14.4" target="miniserve/observe/sketch.py::Sketch.add+merge+percentile"
import math
from collections import Counter
from typing import Self

from miniserve.observe import buckets, percentiles

# %% id="check-14.4" tags=["check"]
ch.check("14.4", Sketch)

# %% [markdown] id="measure-14-4"
# ## 7 Merge the replicas
#
# **Measure.** Each replica fills a sketch of its own; we merge these and ask the result. Beside it stands section 1's
# way.


# %% id="merged" tags=["nbval-check-output"]
def merged(make, parts):
    """Sketch each part on its own, then return the merge of all."""
    fleet = make()
    for values in parts:
        own = make()
        for value in values:
            own.add(value)
        fleet.merge(own)
    return fleet


of_replicas = [day.of_replica(name).tolist() for name in day.replicas]
ps = (50, 90, 95, 99, 99.9)
columns = {
    "percentile": [f"p{p:g}" for p in ps],
    "all requests, exactly": [lab.exact(ttft_s, p) for p in ps],
    "mean of three": [float(np.mean([lab.exact(own, p) for own in of_replicas])) for p in ps],
    "library": [merged(library.Sketch, of_replicas).percentile(p) for p in ps],
}
if mine := ch.yours("14.4", Sketch):
    fleet = merged(mine, of_replicas)
    columns["yours"] = [fleet.percentile(p) for p in ps]
    print(f"your sketch: {len(fleet):,} requests in {fleet.num_buckets} buckets")
course.table(columns, "Time to first token of the fleet (s)")

# %% [markdown] id="across-time"
# The same works across time. Write one sketch per half hour to disk: the day is their sum, and a year later you can
# still ask for the p99 of *any* span of whole half hours. The sum is not nearly but *exactly* the sketch of all values:

# %% id="across-time-run" tags=["nbval-check-output"]
for name, make in {"library": library.Sketch, "yours": ch.yours("14.4", Sketch)}.items():
    if make is not None:
        whole, summed = merged(make, [ttft_s]), merged(make, half_hours.values())
        lunch = merged(make, [values for hour, values in half_hours.items() if 13 <= hour < 14])
        print(f"{name}: sum of 48 half hours equals the day's sketch: {summed == whole}")
        print(f"{name}: p99 from 13:00 to 14:00: {course.as_text(lunch.percentile(99))} s")
print(f"exactly: p99 from 13:00 to 14:00: {course.as_text(lab.exact(day.between(13, 14), 99))} s")

# %% [markdown] id="break"
# ## 8 Break it
#
# Two cheaper ideas, each with about as many numbers as our sketch has. **Equal buckets** are 0.25 s wide. A **sample**
# keeps 200 of all values, drawn at random, each with the same probability; its percentiles have an error of *place*
# (rank): the p99 of a sample may well be the p98 or the p99.7 of all values.


# %% id="cheaper"
class EqualBuckets:
    """Counts values in buckets of 0.25 s, and answers with their centres."""

    def __init__(self, values):
        self.centres = [(math.ceil(value / 0.25) - 0.5) * 0.25 for value in values]

    def percentile(self, p):
        return lab.exact(self.centres, p)


class Sample:
    """Keeps 200 values, each with the same probability (Vitter's algorithm R)."""

    def __init__(self, values):
        luck = random.Random(14)
        self.kept = []
        for seen, value in enumerate(values):
            if seen < 200:
                self.kept.append(value)
            elif (place := luck.randrange(seen + 1)) < 200:
                self.kept[place] = value

    def percentile(self, p):
        return lab.exact(self.kept, p)


# %% id="errors"
answers = {
    "equal buckets": EqualBuckets(ttft_s).percentile,
    "sample of 200": Sample(ttft_s).percentile,
    "sketch": merged(library.Sketch, of_replicas).percentile,
}
if mine := ch.yours("14.4", Sketch):
    answers["sketch, yours"] = merged(mine, of_replicas).percentile
lab.draw_errors((1, 10, 50, 90, 95, 99, 99.9), answers, ttft_s, alpha=0.01)

# %% [markdown] id="break-2"
# The sketch stays below the line, its promise of 1 %; your curve, once it is right, coincides with the library's. Equal
# buckets fail where values are small. The sample does well in the middle, where a few places more or less change
# little; in the tail a few places are seconds. Where the sample comes near the truth there, that is luck: try
# `random.Random(15)`.
#
# **Break ours.** `max_buckets` puts a hard bound on the sketch's size, by folding the lowest buckets into one. Which
# percentiles pay for it?

# %% id="folded" tags=["nbval-check-output"]
bounds = (None, 150, 60)
folded = {bound: merged(lambda bound=bound: library.Sketch(max_buckets=bound), of_replicas) for bound in bounds}
course.table(
    {
        "percentile": [f"p{p:g}" for p in ps],
        **{
            "no bound" if bound is None else f"at most {bound}": [sketch.percentile(p) for p in ps]
            for bound, sketch in folded.items()
        },
    },
    "Time to first token (s), with a bound on the number of buckets",
)

# %% [markdown] id="break-3"
# The low ones: they move up into the lowest bucket that was kept. The highest percentiles stay as they were, and those
# are the ones you watch.

# %% [markdown] id="real-code"
# ## 9 Read the real code
#
# Your `Sketch` *is* the library's, with other method bodies. Look at how `_count` folds: only the largest key decides,
# so values and sketches may come in any order.

# %% id="real-code-shown"
print(inspect.getsource(library.Sketch._count))

# %% [markdown] id="summary"
# ## 10 Summary
#
# - Exactly: sort, and take the place ⌈p/100 · n⌉. Read p as a decimal.
# - The mean hides the tail in every window, and so does p50.
# - You can't average percentiles of parts, by replica or by hour. You can add counts.
# - Buckets that grow by gamma = (1 + alpha) / (1 - alpha) keep every percentile within alpha of itself. Their number
#   grows with the logarithm of the range.
# - A merge of sketches is exactly the sketch of everything, in any order. Zeros need a counter of their own.
# - An error of place is harmless in the middle and large in the tail.
#
# **What this leaves out.** The sketch says how slow, but not *who* was slow: keep some whole requests for that. And it
# can't know more than its requests: a p99.9 of 4,300 requests rests on four of them (chapter 6, section 7).
#
# **Go deeper**
#
# - C. Masson, J. E. Rim, H. K. Lee, *DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error
#   Guarantees*, VLDB 2019: the sketch of this chapter, `miniserve/observe/sketch.py`.
# - M. Greenwald, S. Khanna, *Space-Efficient Online Computation of Quantile Summaries*, SIGMOD 2001: bounded rank
#   error.
# - J. S. Vitter, *Random Sampling with a Reservoir*, ACM Transactions on Mathematical Software, 1985.
# - J. Dean, L. A. Barroso, *The Tail at Scale*, Communications of the ACM, 2013.
