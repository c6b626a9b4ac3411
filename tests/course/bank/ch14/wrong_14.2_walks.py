# question: 14.2


class Buckets:
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def gamma(self) -> float:
        return (1 + self.alpha) / (1 - self.alpha)

    def key(self, value: float) -> int:
        k = 0
        while self.gamma() ** k < value:
            k += 1
        while self.gamma() ** (k - 1) >= value:
            k -= 1
        return k

    def middle(self, key: int) -> float:
        return self.gamma() ** (key - 1) * (1 + self.alpha)
