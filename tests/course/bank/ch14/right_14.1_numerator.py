# question: 14.1
from fractions import Fraction


def rank(p: float, n: int) -> int:
    if not 0 <= p <= 100:
        raise ValueError(f"no percentile: {p}")
    share = Fraction(repr(p))
    whole, rest = divmod(share.numerator * n, share.denominator * 100)
    return whole + (rest > 0) or 1
