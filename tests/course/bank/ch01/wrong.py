"""Wrong answers of chapter 1, one mistake each, and the problem that they must be told."""

from miniserve.course.check.chapter import chapter

SIDES = dict(
    zip("abcdefgh", ("systems", "model", "systems", "systems", "model", "systems", "model", "systems"), strict=True)
)
OTHER = {"model": "systems", "systems": "model"}
FLEET = chapter(1, learner="").given("1.2")  # the numbers that nobody in particular is given
BILL = chapter(1, learner="").given("1.5")
GPUS, FAILS = FLEET["gpus"], FLEET["fails_per_day"]
CENTS = 100 * BILL["machines"] * BILL["usd_per_hour"] * 24 / BILL["requests_per_day"]

WRONG = [
    ("1.1", lambda per_hour, waits_s, answers_s: per_hour * (waits_s + answers_s), "per-hour"),
    ("1.1", lambda per_hour, waits_s, answers_s: per_hour / 60 * (waits_s + answers_s), "per-minute"),
    ("1.1", lambda per_hour, waits_s, answers_s: per_hour / 3600 * answers_s, "answering-only"),
    ("1.1", lambda per_hour, waits_s, answers_s: per_hour / 3600 * waits_s, "waiting-only"),
    ("1.1", lambda per_hour, waits_s, answers_s: per_hour / 3600 / (waits_s + answers_s), "divided"),
    ("1.1", lambda per_hour, waits_s, answers_s: per_hour / 3600, "rate-alone"),
    ("1.1", lambda per_hour, waits_s, answers_s: waits_s + answers_s, "off"),
    ("1.1", lambda per_hour: per_hour / 3600, "signature"),
    ("1.1", 10, "signature"),
    ("1.1", lambda per_hour, waits_s, answers_s: f"{per_hour}", "no-number"),
    ("1.1", lambda per_hour, waits_s, answers_s: 1 / (per_hour - per_hour), "raises"),
    ("1.2", 1 - GPUS * FAILS, "added"),
    ("1.2", 1 - (1 - FAILS) ** GPUS, "at-least-one"),
    ("1.2", GPUS * FAILS, "expected-failures"),
    ("1.2", 1 - FAILS, "one-gpu"),
    ("1.2", FAILS**GPUS, "all-fail"),
    ("1.2", "0.4", "no-number"),
    ("1.2", "3 days", "wrong-unit"),
    ("1.2", True, "no-number"),
    ("1.2", 17, "off"),
    ("1.3", {"arrivals_per_s": 0.05, "replicas": 3}, "promise-kept"),
    ("1.3", {"arrivals_per_s": 0.5, "replicas": 3}, "broken-by-little"),
    ("1.3", {"arrivals_per_s": 5, "replicas": 1}, "mean-is-bad"),
    ("1.3", {"arrivals_per_s": 50, "replicas": 3}, "no-rate"),
    ("1.3", {"arrivals_per_s": "1", "replicas": 3}, "no-rate"),
    ("1.3", {"arrivals_per_s": True, "replicas": 3}, "no-rate"),
    ("1.3", {"arrivals_per_s": 1, "replicas": 1.5}, "no-replicas"),
    ("1.3", {"arrivals_per_s": 1, "replicas": 9}, "no-replicas"),
    ("1.3", {"replicas": 3}, "no-load"),
    ("1.3", [1, 3], "no-load"),
    ("1.4", lambda per_hour, exposure, hours, bad_before, bad_after: per_hour * exposure * hours, "everybody-exposed"),
    ("1.4", lambda per_hour, exposure, hours, bad_before, bad_after: per_hour * hours * (bad_after - bad_before),
     "whole-service"),
    ("1.4", lambda per_hour, exposure, hours, bad_before, bad_after: per_hour * exposure * hours * bad_after,
     "all-bad-answers"),
    ("1.4", lambda per_hour, exposure, hours, bad_before, bad_after: per_hour * exposure * (bad_after - bad_before),
     "one-hour"),
    ("1.4", lambda per_hour, exposure, hours, bad_before, bad_after: per_hour * (1 - exposure) * hours
     * (bad_after - bad_before), "the-others"),
    ("1.4", lambda per_hour, exposure, hours, bad_before, bad_after: hours, "off"),
    ("1.4", lambda per_hour, exposure: per_hour * exposure, "signature"),
    ("1.4", 10, "signature"),
    ("1.5", CENTS * BILL["busy_fraction"], "busy-only"),
    ("1.5", CENTS / BILL["busy_fraction"], "per-busy-hour"),
    ("1.5", CENTS / 24, "one-hour"),
    ("1.5", CENTS / BILL["machines"], "one-machine"),
    ("1.5", CENTS / 100, "dollars"),
    ("1.5", 100 / CENTS, "upside-down"),
    ("1.5", "2 tok/s", "wrong-unit"),
    ("1.5", float(10**6), "off"),
    ("1.6", (1, 1.4), "too-low"),  # as if all were worked on for nothing
    ("1.6", (60, 80), "too-low"),
    ("1.6", (320, 380), "too-high"),  # one after the other
    ("1.6", (50, 500), "too-wide"),
    ("1.6", 100, "no-interval"),
    ("1.6", (150, 120), "no-interval"),
    *(("1.7", {**SIDES, key: OTHER[side]}, f"item-{key}") for key, side in SIDES.items()),
    ("1.7", {key: side for key, side in SIDES.items() if key != "g"}, "items-missing"),
    ("1.7", {**SIDES, "b": "both"}, "no-option"),
    ("1.7", list(SIDES.values()), "no-dict"),
    ("1.8", "The model is good.", "too-short"),
    ("1.8", ["slow"], "no-text"),
]  # fmt: skip
