# question: 14.2
import math


class Buckets:
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def gamma(self) -> float:
        return (1 + self.alpha) / (1 - self.alpha)

    def key(self, value: float) -> int:
        return math.ceil(math.log(value) / math.log(self.gamma()))

    def middle(self, key: int) -> float:
        middle = 1 + self.alpha
        for _ in range(abs(key - 1)):
            middle = middle * self.gamma() if key > 1 else middle / self.gamma()
        return middle
