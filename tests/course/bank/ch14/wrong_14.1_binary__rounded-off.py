# question: 14.1
import math


def rank(p: float, n: int) -> int:
    if not 0 <= p <= 100:
        raise ValueError(f"no percentile: {p}")
    return max(1, math.ceil(round(p * n / 100, 6)))
