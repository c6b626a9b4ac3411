# question: 14.1
from fractions import Fraction


def rank(p: float, n: int) -> int:
    if not 0 <= p <= 100:
        raise ValueError(f"no percentile: {p}")
    k = 1
    share = Fraction(str(p)) * n
    while 100 * k < share:
        k += 1
    return k
