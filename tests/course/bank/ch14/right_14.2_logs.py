# question: 14.2
import math


class Buckets:
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def gamma(self) -> float:
        return 2 / (1 - self.alpha) - 1

    def key(self, value: float) -> int:
        return -math.floor(-math.log1p(value - 1) / (math.log1p(self.alpha) - math.log1p(-self.alpha)))

    def middle(self, key: int) -> float:
        return 2 * self.gamma() ** key / (self.gamma() + 1)
