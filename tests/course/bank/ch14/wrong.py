"""Wrong answers that are values, with the problem that they are told."""

WRONG = [
    ("14.3", "200", "no-interval"),
    ("14.3", (10, 4000), "too-wide"),
    ("14.3", (20, 40), "too-low"),
    ("14.3", (2000, 4000), "too-high"),
    ("14.3", (200, 100), "no-interval"),
]
