# question: 18.1
import random


class Waits:
    def __init__(self, rng, base_s, cap_s):
        self.rng = rng
        self.base_s = base_s
        self.cap_s = cap_s

    def bare(self, failures, previous_s):
        return min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 60))

    def full(self, failures, previous_s):
        return self.rng.uniform(0, self.bare(failures, previous_s))

    def equal(self, failures, previous_s):
        half_s = self.bare(failures, previous_s) / 2
        return half_s + self.rng.uniform(0, half_s)

    def decorrelated(self, failures, previous_s):
        return min(self.cap_s, random.uniform(self.base_s, 3 * previous_s))
