# question: 14.2
import numpy as np


class Buckets:
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def gamma(self) -> float:
        return (1 + self.alpha) / (1 - self.alpha)

    def key(self, value: float) -> int:
        return int(np.ceil(np.log(value) / np.log(self.gamma())))

    def middle(self, key: int) -> float:
        return np.exp((key - 1) * np.log(self.gamma())) * (1 + self.alpha)
