# question: 14.1
import math
from fractions import Fraction


def rank(p: float, n: int) -> int:
    assert 0 <= p <= 100
    return max(1, math.ceil(Fraction(str(p)) * n / 100))
