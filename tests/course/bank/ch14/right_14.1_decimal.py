# question: 14.1
from decimal import ROUND_CEILING, Decimal


def rank(p: float, n: int) -> int:
    if not 0 <= p <= 100:
        raise ValueError(f"no percentile: {p}")
    return max(1, int((Decimal(str(p)) * n / 100).to_integral_value(ROUND_CEILING)))
