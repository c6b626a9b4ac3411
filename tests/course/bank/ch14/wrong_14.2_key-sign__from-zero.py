# question: 14.2
import math


class Buckets:
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def gamma(self) -> float:
        return (1 + self.alpha) / (1 - self.alpha)

    def key(self, value: float) -> int:
        return max(0, math.ceil(math.log(value) / math.log(self.gamma())))

    def middle(self, key: int) -> float:
        return self.gamma() ** (key - 1) * (1 + self.alpha)
