"""Other right answers of chapter 1."""

RIGHT = [
    ("1.1", lambda per_hour, waits_s, answers_s: per_hour * (waits_s / 3600 + answers_s / 3600)),
    ("1.1", lambda answers_s, waits_s, per_hour: (answers_s + waits_s) / (3600 / per_hour)),
    ("1.3", {"arrivals_per_s": 0.4, "replicas": 1}),
    ("1.3", {"arrivals_per_s": 1.4, "replicas": 3}),
    ("1.4", lambda per_hour, exposure, hours, bad_before, bad_after: per_hour * exposure * hours * bad_after
     - per_hour * exposure * hours * bad_before),
    ("1.6", (85, 120)),
    ("1.6", [95, 104.5]),
    ("1.7", dict(zip("abcdefgh", (
        "systems", "model", "systems", "systems", "model", "systems", "model", "systems"), strict=True))),
    ("1.8", "one two three four five six seven eight nine ten " * 5),
]  # fmt: skip
