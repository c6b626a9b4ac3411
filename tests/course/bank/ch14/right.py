"""Right answers that are values."""

RIGHT = [("14.3", (200, 300)), ("14.3", [150, 290])]
