# question: 18.1
import math


class Waits:
    def __init__(self, rng, base_s, cap_s):
        self.rng = rng
        self.base_s = base_s
        self.cap_s = cap_s

    def bare(self, failures, previous_s):
        doublings = math.log2(self.cap_s / self.base_s)
        return self.cap_s if failures - 1 >= doublings else self.base_s * 2 ** (failures - 1)

    def full(self, failures, previous_s):
        return self.rng.uniform(0, self.bare(failures, previous_s))

    def equal(self, failures, previous_s):
        return self.bare(failures, previous_s) * (1 - self.rng.random() / 2)

    def decorrelated(self, failures, previous_s):
        span_s = 3 * previous_s - self.base_s
        wait_s = self.base_s + span_s * self.rng.random()
        return wait_s if wait_s < self.cap_s else self.cap_s
