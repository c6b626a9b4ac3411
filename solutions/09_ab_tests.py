# %% [markdown] id="intro"
# # Chapter 9: A/B tests and offline benchmarks
#
# **You will learn**
#
# - why a benchmark and your customers can disagree, and why neither of them is wrong;
# - what a random split buys that no other comparison has, and when you can't have one;
# - how many users a test needs, and what looking early does to its result;
# - how to tell from two counts that a test is broken;
# - how to catch an assignment that isn't random;
# - how the two kinds of evidence work together when you decide about a new model.
#
# **You need** Python and the idea of a mean; chapter 6 helps. **Time**: about 90 minutes. That's an estimate (200
# words a minute, plus the minutes at each exercise, plus {{run_time}} for the cells); nobody was timed.
#
# **Contents**: 1 The question that bites · 2 What a benchmark measures · 3 Why a random split is the gold standard ·
# 4 How many users · 5 Looking early · 6 Are the groups what you planned? · 7 Break it · 8 What wears off ·
# 9 Gold standard and complement · 10 In the wild · 11 Read the real code · 12 Open problem · 13 Summary
#
# **How exercises work.** Put your answer where you see `...`, then run the check below it. It says CORRECT, or what is
# wrong and why. `ch.hint("9.1")` gives a hint; call it again for the next one. After an attempt, `ch.solution("9.1")`
# shows a solution.

# %% id="setup"
import math

from miniserve import course
from miniserve.course.chapters.ch09_ab_tests import lab

ch = course.chapter(9)
ch

# %% [markdown] id="bite"
# ## 1 The question that bites
#
# **Larkspur**, the fictional service of this course, is an assistant for a chain of garden centres. It serves a small
# model today, and a larger one is waiting. Before anyone meets the candidate, both answer the same 4,000 benchmark
# questions. Then comes a test with real traffic: 24,000 customers are split at random, half of them get the candidate,
# everyone may press "thumbs up", and the counts are read once, at the end. Is the candidate better?

# %% id="bite-figure"
offline = lab.benchmark()
online = lab.ab_test()
lab.draw_bite(offline, online)
print(online)

# %% [markdown] id="bite-2"
# The benchmark sees a clear winner, the customers see a clear loser, and both intervals stay well away from zero. So
# it's not chance. Which of the two would you believe, and what would you tell the team that trained the candidate?
#
# *What is real here?* The models and their accuracies: both are this project's own small transformers, and their
# answers to the benchmark were recorded and counted. (The candidate's last fine-tuning was made to go wrong, and
# Larkspur doesn't know.) The customers are simulated: they ask a given mix of questions, the answer is right as
# often as the model's recorded accuracy says, and they press "thumbs up" after nine right answers in ten and after
# three wrong ones in ten.
#
# **Where we are on a request's path.** At its very beginning and after its end. The gateway decides which version of a
# model a user gets, and much later something comes back: a thumb, another question, or silence.

# %% [markdown] id="measures"
# ## 2 What a benchmark measures
#
# A **benchmark** (offline evaluation, *eval*) is a set of questions with known answers. The score is the share that a
# model gets right. That's one number made of many, and this is what's inside:

# %% id="mix-table" tags=["nbval-check-output"]
lab.mix_table()

# %% [markdown] id="measures-2"
# So a score is a weighted mean, and its authors chose the weights when they put the set together. Half of this
# benchmark is hard; Larkspur's customers mostly ask easy things. The next cell weights the same recorded answers twice:
# with the benchmark's own mix, and with Larkspur's.

# %% id="reweighted" tags=["nbval-check-output"]
for name, mix in (("benchmark", lab.benchmark_mix()), ("Larkspur", lab.LARKSPUR)):
    current, candidate = lab.score(lab.CURRENT, mix), lab.score(lab.CANDIDATE, mix)
    lead = f"{100 * (candidate - current):+.1f} points"
    print(f"{name:<10} current {current:.1%}   candidate {candidate:.1%}   {lead}")

# %% [markdown] id="measures-3"
# The models didn't change, and neither did their answers. Only the weights did. Is it that simple: the candidate is
# better at hard questions, and Larkspur asks easy ones?
#
# ### Exercise 9.1: a mix that turns the benchmark round
#
# Difficulty 3 of 5 · about 8 min
#
# Find a mix in which **at least half of the questions are hard** and the *current* model still leads by **10 points or
# more**. Give a dictionary from kinds, as in the table, to shares that add up to 1; no kind may have more than 0.35,
# and kinds that you leave out count as 0. Check: `ch.check("9.1", mix)`.

# %% id="answer-9.1" tags=["answer"] question="9.1"
# SOLUTION
# The current model is ahead in hard strings (by 67 points) and easy facts (by 32).
mix = {
    "hard string": 0.35,
    "easy fact": 0.35,
    "hard arithmetic": 0.05,
    "hard fact": 0.10,
    "easy arithmetic": 0.15,
}
# END SOLUTION

# %% id="check-9.1" tags=["check"]
ch.check("9.1", mix)

# %% [markdown] id="measures-4"
# "Hard" hid two opposite stories. When a total and its parts disagree like this, look for a shift in the weights; in
# its sharpest form it's called **Simpson's paradox**. A benchmark is exact about its own questions. Whether those are
# *your* questions, it can't know.

# %% [markdown] id="gold"
# ## 3 Why a random split is the gold standard
#
# Reweighting brought the benchmark to the right side, but only because we knew Larkspur's mix and because "right" is
# what these customers happen to like. They may also care about length, tone or waiting. And a comparison of last month
# with this month compares two months: weather, holidays, a newspaper article.
#
# An **A/B test** (online controlled experiment) makes one comparison in which everything else is equal. A coin decides
# who gets which variant. Whatever distinguishes people, known or unknown, falls on both sides alike, so a difference in
# the outcome that is too large for chance has **one** possible cause. That's why it's called the gold standard.
#
# The price is that the coin must be tossed for the right thing, the **randomisation unit**. If a customer's second
# request can fall on the other side, the customer belongs to both groups, and an effect that builds up over several
# visits disappears. If users influence one another (*interference*), a user isn't a fair unit either: toss for whole
# groups, or let the whole service take turns.
#
# ### Exercise 9.2: which evidence for which question?
#
# Difficulty 2 of 5 · about 8 min
#
# Larkspur's list of proposals. Give each the way to decide that fits **best**, as `{"a": "...", "b": "..."}` and so on.
# Check: `ch.check("9.2", evidence)`.

# %% id="evidence-items"
course.show_choices(lab.PROPOSALS, lab.WAYS)

# %% id="answer-9.2" tags=["answer"] question="9.2"
# SOLUTION
evidence = {
    "a": "A/B by user",
    "b": "benchmark",
    "c": "A/B by period",
    "d": "A/B by group",
    "e": "no test",
    "f": "benchmark",
    "g": "A/B by user",
    "h": "A/B by group",
}
# END SOLUTION

# %% id="check-9.2" tags=["check"]
ch.check("9.2", evidence)

# %% [markdown] id="users"
# ## 4 How many users
#
# A test that's too small finds nothing, and "nothing found" then gets read as "no difference". So before the test you
# choose three numbers: the smallest difference worth finding (the **minimum detectable effect**, here the *lift*), how
# often you accept a false alarm (**alpha**, usually 5 %), and how often a real lift of that size should be found (the
# **power**, usually 80 %).
#
# Worked example: with n users in each group, the difference of two rates p₁ and p₂ has the standard error
# √((p₁(1-p₁) + p₂(1-p₂)) / n). For a two-sided alpha of 5 % the border lies 1.96 of these above zero. For a power of 80
# % the lift has to lie another 0.84 above the border.

# %% id="users-example" tags=["nbval-check-output"]
for n in (100, 400, 1600):
    error = math.sqrt((0.5 * 0.5 + 0.6 * 0.4) / n)
    lift = 0.10 / error
    print(f"50 % to 60 %, {n:>4} users: the lift is {lift:.1f} standard errors")

# %% [markdown] id="users-2"
# It has to be 1.96 + 0.84 = 2.8 of them. Four times the users halve the standard error.
#
# ### Exercise 9.3: how many users a test needs
#
# Difficulty 3 of 5 · about 8 min
#
# Your own plan, drawn for you, is printed below: the rate of thumbs up today, the lift you want to find (absolute: 0.02
# is two percentage points, from 0.80 to 0.82, say), and the two z. How many users does **each group** need?
# Check: `ch.check("9.3", users_per_group)`.

# %% id="users-given"
given = ch.given("9.3")
given

# %% id="answer-9.3" tags=["answer"] question="9.3"
# SOLUTION
p1, p2 = given["rate"], given["rate"] + given["lift"]
z = given["z_alpha"] + given["z_power"]
users_per_group = z**2 * (p1 * (1 - p1) + p2 * (1 - p2)) / given["lift"] ** 2
# END SOLUTION

# %% id="check-9.3" tags=["check"]
ch.check("9.3", users_per_group)

# %% [markdown] id="users-3"
# **Measure.** The same plan, carried out 4,000 times in simulation, with a lift that is really there. What share of the
# tests finds it?

# %% id="users-measured"
planned = ch.yours("9.3", users_per_group) or 4_000
rate, lift = ch.given("9.3").get("rate", 0.8), ch.given("9.3").get("lift", 0.02)
sizes = [planned / 16, planned / 4, planned, 2 * planned]
course.table(
    {
        "users per group": [round(n) for n in sizes],
        "find the lift": [f"{lab.found_share(rate, lift, n):.0%}" for n in sizes],
        "days at Larkspur": [f"{2 * n / lab.USERS_PER_DAY:.1f}" for n in sizes],
    },
    "Tests of a lift that is really there",
)

# %% [markdown] id="peek"
# ## 5 Looking early
#
# Few teams wait two weeks without looking. So imagine an honest one at Larkspur. Every day or so they compute the
# p-value of the data so far, ten times in all. As soon as it's below 5 %, they stop and announce a winner; otherwise
# they go on to the planned end. To see what that does, let them test the current model **against itself** (an *A/A
# test*): every winner they announce is a false positive.
#
# ### Exercise 9.4: ten looks at nothing
#
# Difficulty 3 of 5 · about 5 min
#
# Before you go on: in how many of 100 such A/A tests does the team announce a winner? Give `(low, high)` in per cent,
# with high at most one and a half times low. Check: `ch.check("9.4", false_positives_between)`.

# %% id="answer-9.4" tags=["answer"] question="9.4"
# SOLUTION
# More than 5 %, one look; less than 1 - 0.95**10 = 40 %, ten independent looks.
# The looks share most of their users, so nearer to the first.
false_positives_between = (15, 22)
# END SOLUTION

# %% id="check-9.4" tags=["check"]
ch.check("9.4", false_positives_between)

# %% [markdown] id="peek-2"
# Now run it. First some of these tests one by one, from look to look; a square marks where the team stops. Then 20,000
# tests for each number of looks.

# %% id="walks"
lab.draw_walks()

# %% id="peeking"
lab.draw_peeking()

# %% [markdown] id="peek-3"
# No single look did anything wrong. But z wanders, and the team stops it at its highest point: this is **peeking**
# (optional stopping), and there's no number of looks at which it levels off. The dashed curve comes from the library
# (`peeking_error`). It follows the whole random walk instead of adding up looks, and the simulation agrees with it.
#
# Three rules let you look without fooling yourself. **Group-sequential** tests plan their looks and raise the borders:
# Pocock's are level, O'Brien and Fleming's are very high early and nearly the usual one at the end. **Always-valid**
# tests (anytime-valid, mSPRT) may be looked at whenever you like.

# %% id="rules" tags=["nbval-check-output"]
lab.stopping_rules(lift=0.02)

# %% [markdown] id="peek-4"
# Peeking looks cheapest, because it stops early on noise as well. Of the honest rules, the ones that stop early save
# about half of the users when there's something to find. That's the reason to use them: fewer customers meet the worse
# variant.

# %% [markdown] id="ratio"
# ## 6 Are the groups what you planned?
#
# Before you read any result, count heads. If a coin was meant to put half of the users into each group and the counts
# say otherwise, something has removed users: a crash, a redirect, a filter for bots. What removes users chooses among
# them, and then the groups differ in more than the variant. This is a **sample ratio mismatch** (SRM).
#
# ### Exercise 9.5: are the groups of the right size?
#
# Difficulty 3 of 5 · about 8 min
#
# Write a function that returns how many standard deviations the size of group A lies above its plan: `n_a` and `n_b`
# users were counted, and each user was to fall on A with probability `share_a`. It's checked on 64 random sets.
# Check: `ch.check("9.5", split_z)`.


# %% id="answer-9.5" tags=["answer"] question="9.5"
# SOLUTION
def split_z(n_a, n_b, share_a):
    """Return how many standard deviations A is above its planned size."""
    n = n_a + n_b
    return (n_a - n * share_a) / (n * share_a * (1 - share_a)) ** 0.5


# END SOLUTION

# %% id="check-9.5" tags=["check"]
ch.check("9.5", split_z)

# %% [markdown] id="ratio-2"
# **Measure.** Three experiments from Larkspur's archive. Which one would you have thrown away by eye?

# %% id="ratio-table"
lab.srm_table(ch.yours("9.5", split_z))

# %% [markdown] id="ratio-3"
# The most uneven split is as planned, and one that looks like half and half is broken: among this many users, a share
# of 50.7 % can't be chance. Section 1's own test shows what a mismatch can do. This time the app gives up on nine in
# ten of the candidate's answers to hard questions, because they come too late, and the log never hears of those
# customers.

# %% id="ratio-logged" tags=["nbval-check-output"]
lab.compared({"everyone": online, "without those": lab.ab_test(gave_up=0.9)})

# %% [markdown] id="ratio-4"
# Hiding its worst answers turned the candidate from a clear loser into a harmless change. The interval shows no trace
# of that. The group sizes do.

# %% [markdown] id="break"
# ## 7 Break it
#
# In practice the coin isn't tossed. It's computed from the user's name, which saves a table of who got what. Three
# colleagues have each written such an assignment. Each passed a review, and each has one bug.

# %% id="assignments"
import inspect

for version in (lab.fair, lab.per_visit, lab.unsalted, lab.truncated):
    print(inspect.getsource(version))

# %% [markdown] id="break-2"
# (`bucket` hashes its arguments: the same arguments always fall into the same bucket, and others fall as if by chance.)
# `lab.audit` replays a log and returns which of three rules an assignment breaks on it: **sticky**, a user keeps the
# variant; **balanced**, the groups have the planned sizes; **independent**, the split of one experiment tells nothing
# about that of another.

# %% id="audit-example" tags=["nbval-check-output"]
small = {"experiments": ["tone"], "users": ["ada", "grace", "edsger"], "visits": 1}
for version in (lab.fair, lab.per_visit, lab.unsalted, lab.truncated):
    print(f"{version.__name__:<10} breaks {lab.audit(version, small) or 'nothing'}")

# %% [markdown] id="break-3"
# ### Exercise 9.6: a log that convicts three assignments
#
# Difficulty 4 of 5 · about 10 min
#
# Find **one** log on which each of the three breaks a rule and the fair one breaks none: 1 to 5 experiments, 1 to 300
# different users, 1 to 5 visits of each user. Check: `ch.check("9.6", log)`.

# %% id="answer-9.6" tags=["answer"] question="9.6"
# SOLUTION
log = {
    "experiments": ["tone", "length"],
    "users": [f"customer-{i}" for i in range(60)],  # the same first 8 characters
    "visits": 2,
}
# END SOLUTION

# %% id="check-9.6" tags=["check"]
ch.check("9.6", log)

# %% [markdown] id="wears-off"
# ## 8 What wears off
#
# One more trap remains even in a sound test. Larkspur gives its assistant a new face, and people try it because it's
# new (a **novelty effect**). Six weeks, 14,000 customers each (simulated):

# %% id="novelty" tags=["nbval-check-output"]
lab.novelty()

# %% [markdown] id="wears-off-2"
# The row for all weeks is significant and correct, and still a bad forecast: what stays is the difference of the last
# weeks. A test answers for the time in which it ran. So look at the effect week by week, run whole weeks, and if the
# decision is a large one, keep a small group on the old variant afterwards (a **holdout**).

# %% [markdown] id="complement"
# ## 9 Gold standard and complement
#
# So is the A/B test all you need? Put both of section 1's kinds of evidence side by side:

# %% id="costs" tags=["nbval-check-output"]
lab.evidence_table(offline, online)

# %% [markdown] id="complement-2"
# (The benchmark's seconds are those of the recorded runs.) The A/B test says what customers prefer, and needs days and
# people for it, half of whom get the candidate, good or bad. You can't run it for eleven checkpoints, for every build,
# for rare disasters, or where a wrong answer does harm. The benchmark takes seconds, hurts no customer and can be
# repeated, but it answers a question that its authors chose. So use them one after the other: **offline** to find out
# what mustn't reach a customer, a canary (chapter 8) to limit the damage, and the **A/B test** to decide. When the two
# disagree, as here, the disagreement is itself a finding: the benchmark's mix needs mending.
#
# ### Exercise 9.7: ship it?
#
# Difficulty 3 of 5 · about 10 min · a person reads it
#
# You sign the decision about the candidate. Write five to eight sentences to the head of Larkspur, who knows the
# benchmark's result only: what you decide, on which figures, why the two kinds of evidence disagree, why this test can
# be trusted, and what changes in how you use the benchmark. Check: `ch.check("9.7", memo)`.

# %% id="answer-9.7" tags=["answer"] question="9.7"
# SOLUTION
memo = """
Don't ship the candidate. In a test with 24,000 customers, split at random by user, it
got 1.9 points fewer thumbs up (95 % interval: 1.0 to 2.9 fewer). Both groups had the
size we planned, and we looked once, at the end that we'd fixed. The benchmark isn't
wrong, it answers another question: half of its items are hard, and nine in ten of our
customers' questions are easy, among them facts, where the candidate is right less
than half of the time. Weighted by our own mix, the same recorded answers put the
candidate 3 points behind. So from now on the benchmark is weighted by last month's
questions and decides which models may be tested at all; customers decide which of
those we keep. I don't know yet whether customers with hard questions, who'd gain, are
worth a router of their own.
"""
# END SOLUTION

# %% id="check-9.7" tags=["check"]
ch.check("9.7", memo)

# %% [markdown] id="wild"
# ## 10 In the wild
#
# > **The book** is R. Kohavi, D. Tang and Y. Xu,
# > [*Trustworthy Online Controlled Experiments*](https://experimentguide.com): its authors come from companies that
# > each run more than 20,000 controlled experiments a year.
# >
# > **Group sizes first.** Statsig runs a chi-squared test for sample ratio mismatch on *all* experiments, and splits a
# > mismatch by the client's version, operating system and region to find what removed the users
# > ([docs](https://docs.statsig.com/api/content/experiments/statistical-methods/methodologies/srm-checks-whn)). For two
# > groups the chi-squared value is the square of your z.
# >
# > **Power.** GrowthBook's formula has an alpha of 0.05 as its default, and speaks of *relative* lifts
# > ([docs](https://docs.growthbook.io/statistics/power-technical)). Which wrong answer to 9.3 is nearly right there?
# >
# > **Benchmarks of preference.** The [Chatbot Arena](https://arxiv.org/abs/2403.04132) shows two anonymous models'
# > answers side by side and asks which is better; the paper has 240,000 votes. It's randomised, and it measures
# > preference. But whose questions are these: yours, or those of people who enjoy comparing models?

# %% [markdown] id="real-code"
# ## 11 Read the real code
#
# This is how the framework assigns users, and how it looks at group sizes. Look for two things: what the *salt* is by
# default, and why it's the edges that are rounded, and not the shares.

# %% id="real-code-shown"
from miniserve.abtest import assignment, srm

print(inspect.getsource(assignment.SplitExperiment.bucket_of))
print(inspect.getsource(assignment.SplitExperiment.variant_of))
print(inspect.getsource(srm.chi_square))

# %% [markdown] id="open"
# ## 12 Open problem: stop sooner
#
# Larkspur will test thousands of ideas. Half of them do nothing; the lifts of the others vary around zero, by 2 points.
# (The year is simulated, from z values.) Each test may look ten times, after every 2,000 users. A **rule** has a pair
# `(give_up, win)` for each look. At a look the test ends as decided if |z| is above `win`, ends as "nothing there" if
# |z| is below `give_up` (*futility stopping*), and goes on otherwise. The tenth look ends it anyway.
#
# Two things are fixed. A test of nothing crosses `win` in at most 5 % of all cases, even if nobody ever gives up; and a
# lift of 2 points is found in at least 90 %. What's left to you is the price: users per test, averaged over the year.

# %% id="open-start" tags=["nbval-check-output"]
from miniserve.abtest.sequential import (
    equal_looks,
    lan_demets,
    obrien_fleming,
    pocock,
    power_spending,
)
from miniserve.course.chapters.ch09_ab_tests import stopping

rules = {
    "one look": [(0, 10)] * 9 + [(0, 1.96)],
    "Pocock": [(0, win) for win in pocock(10)],
    "O'Brien and Fleming": [(0, win) for win in obrien_fleming(10)],
    "Pocock, impatient": [(1, win) for win in pocock(10)],
}
stopping.show_rules(rules)

# %% [markdown] id="open-2"
# ### Exercise 9.8: stop sooner
#
# Difficulty 4 of 5 · about 20 min · open: there's no single right answer
#
# Write a `rule`, a list of ten pairs, that costs as little as you can. `stopping.show_rules({"mine": rule})` measures
# it. The check uses a year that you haven't seen, and grading another one. *Par* is 10 % above the best rule that we
# found in a simple family. Marks: a quarter for a rule that keeps the two promises, half below one look, three quarters
# below Pocock, and all at par. PARTIAL says how far you've come. Check: `ch.check("9.8", rule)`.

# %% id="answer-9.8" tags=["answer"] question="9.8"
# SOLUTION
wins = lan_demets(equal_looks(10), 0.05, power_spending(1))
rule = [(max(0.0, 0.2 * look - 0.3), win) for look, win in enumerate(wins, 1)]
# END SOLUTION

# %% id="check-9.8" tags=["check"]
ch.check("9.8", rule)

# %% id="open-figure"
mine = ch.yours("9.8", rule)
if mine is not None:
    stopping.show_rules({**rules, "yours": mine})
    stopping.draw_rule(mine)

# %% [markdown] id="summary"
# ## 13 Summary
#
# - A benchmark's score is a weighted mean. Other weights can have another winner.
# - A random split makes everything else equal, so a difference has one cause. Toss for users, not for requests; for
#   groups or periods where users affect one another.
# - n = (z_alpha + z_power)² · (p₁(1-p₁) + p₂(1-p₂)) / lift² users in each group. Half the lift takes four times the
#   users.
# - Ten looks at 5 % are one false positive in five. Plan the looks, or use a test that is always valid.
# - Count heads first. A sample ratio mismatch voids everything else.
# - An assignment is sticky, balanced and independent of other experiments. Hash the experiment's name with the user's.
# - Benchmarks decide what may be tested, A/B tests decide what stays. Where they disagree, mend the benchmark.
#
# In chapter 17 you build these tests yourself; chapter 8 has the canary that comes before.
#
# **Go deeper**
#
# - R. Kohavi, D. Tang and Y. Xu, [*Trustworthy Online Controlled Experiments*](https://experimentguide.com), Cambridge
#   University Press 2020.
# - A. Fabijan and others, *Diagnosing Sample Ratio Mismatch in Online Controlled Experiments*, KDD 2019.
# - R. Johari, P. Koomen, L. Pekelis and D. Walsh, *Peeking at A/B Tests*, KDD 2017: the always-valid rule of section 5.
# - C. Jennison and B. W. Turnbull, *Group Sequential Methods*, Chapman and Hall 1999: the planned looks of section 5.
# - W.-L. Chiang and others, [*Chatbot Arena*](https://arxiv.org/abs/2403.04132), 2024.
