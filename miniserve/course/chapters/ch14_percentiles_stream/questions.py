"""Chapter 14's questions: the place of a percentile, buckets of relative width, a prediction, the sketch.

`ranks` and `sketches` ask and judge them.
"""

from __future__ import annotations

from miniserve.course.chapters.ch14_percentiles_stream import lab, ranks, sketches
from miniserve.course.chapters.ch14_percentiles_stream.drive import drive_sketch
from miniserve.course.check.code import Code, five_layers
from miniserve.course.check.kinds import Predict
from miniserve.observe.sketch import sketch_of

# --- 14.1 ----------------------------------------------------------------------------------------------------------

RANK = Code(
    id="14.1",
    name="rank",
    title="The place of a percentile",
    minutes=10,
    difficulty=2,
    target="miniserve/observe/percentiles.py::rank",
    forbidden=("percentile", "percentiles", "percentiles_of_sorted"),
    driver=ranks.drive_rank,
    layers=five_layers(ranks, "rank"),
    hints=(
        "Which is the first place with at least p % of the values at or before it?",
        "With k places out of n, the share is k / n. Solve k / n >= p / 100 for the smallest whole k. Then think of "
        "p = 0, and of what 7 / 100 * 100 gives in binary floating point.",
        "With other numbers: 30 % of n = 7 is 2.1 places; two would be too few, so place 3. Fraction(1, 3) * 3 is "
        "exactly 1, and math.ceil takes a Fraction.",
    ),
)

# --- 14.2 ----------------------------------------------------------------------------------------------------------

BUCKETS = Code(
    id="14.2",
    name="Buckets",
    title="Buckets of relative width",
    minutes=15,
    difficulty=3,
    target="miniserve/observe/buckets.py::Buckets.gamma+key+middle",
    forbidden=("Sketch", "sketch_of"),
    driver=ranks.drive_buckets,
    layers=five_layers(ranks, "buckets"),
    hints=(
        "Start with one bucket from `low` to `high` and its middle m. m may be alpha too high for low, and alpha too "
        "low for high. What is high / low?",
        "m = (1 + alpha) * low and m = (1 - alpha) * high. For the key: gamma ** k >= value, so k >= log(...) / "
        "log(...), and k is whole.",
        "With alpha = 1/3: gamma = 2. The value 5 lies between 4 and 8, and log(5) / log(2) is 2.32, so k = 3. Its "
        "middle is 4 * (4/3) = 5.33, a third above 4 and a third below 8.",
    ),
)

# --- 14.3 ----------------------------------------------------------------------------------------------------------

HOW_MANY = Predict(
    id="14.3",
    name="buckets_needed",
    title="How many buckets does a day need?",
    minutes=5,
    difficulty=2,
    experiment=lambda: float(sketch_of(lab.larkspur_day().ttft_s.tolist()).num_buckets),
    widest=2.0,
    unit="buckets",
    too_low="A bucket is 2 % wide; how many such steps lead from the fastest request to the slowest?",
    too_high="A sketch keeps only buckets that hold something, and the number of requests hardly matters.",
    hints=(
        "How many factors gamma does it take from the fastest request to the slowest?",
        "At most log(slowest / fastest) / log(gamma). In the sparse tail many of them stay empty.",
        "With other numbers: from 0.01 s to 10 s with alpha = 5 % it is log(1000) / log(1.105) = 69 at most.",
    ),
)

# --- 14.4 ----------------------------------------------------------------------------------------------------------

SKETCH = Code(
    id="14.4",
    name="Sketch",
    title="A sketch that can be merged",
    minutes=25,
    difficulty=4,
    weight=2.0,
    target="miniserve/observe/sketch.py::Sketch.add+merge+percentile",
    forbidden=("sketch_of", "percentiles_of_sorted"),
    lends=sketches.LENDS,
    driver=drive_sketch,
    layers=five_layers(sketches, "sketch", sketches.fewer_values),
    hints=(
        "A sketch is a histogram. Which three things must it know about a value, and which of two sketches can you "
        "add?",
        "add: refuse, record smallest and largest, count a zero or a bucket. percentile: the rank among all, less the "
        "zeros; then go from bucket to bucket, lowest first, until you have enough. merge: the same three things.",
        "Worked: 2 zeros, and counts 3, 1, 4 in buckets -5, 0, 7. p50 of 10 values is place 5. After the zeros, 3 are "
        "left; bucket -5 holds 3, so 0 are left: the answer is the middle of bucket -5.",
    ),
)

QUESTIONS = (RANK, BUCKETS, HOW_MANY, SKETCH)
