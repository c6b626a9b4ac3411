# question: 14.1
import math
from fractions import Fraction


def rank(p: float, n: int) -> int:
    if not 0 <= p <= 100:
        raise ValueError(f"no percentile: {p}")
    print(max(1, math.ceil(Fraction(str(p)) * n / 100)))
