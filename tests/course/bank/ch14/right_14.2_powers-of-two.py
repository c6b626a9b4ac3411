# question: 14.2
import math


class Buckets:
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def gamma(self) -> float:
        return (1 + self.alpha) / (1 - self.alpha)

    def key(self, value: float) -> int:
        return 1 + math.floor(math.log2(value) / math.log2(self.gamma()))

    def middle(self, key: int) -> float:
        return math.exp((key - 1) * math.log(self.gamma()) + math.log1p(self.alpha))
