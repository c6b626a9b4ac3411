# question: 18.3
from miniserve.errors import Overloaded, RateLimited, UpstreamError
from miniserve.policies.recovery import waits
from miniserve.policies.recovery.retry import check_settings
from miniserve.seeds import generator


class Backoff:
    def __init__(self, *, max_attempts=3, base_s=0.05, cap_s=20.0, jitter=waits.full_jitter, seed=0):
        check_settings(max_attempts, base_s, cap_s)
        self._max_attempts = max_attempts
        self._waits = waits.Waits(generator(seed, "retry"), base_s, cap_s)
        self._jitter = jitter

    def _draw(self, attempt):
        wait_s = self._waits.base_s
        for failures in range(1, attempt + 1):
            wait_s = self._jitter(self._waits, failures, wait_s)
        return wait_s

    def delay_s(self, attempt, error, now_s, deadline_s):
        if not isinstance(error, RateLimited | UpstreamError | Overloaded):
            return None
        told_s = error.retry_after_s
        if told_s is not None and told_s < 0:
            return None
        if not attempt < self._max_attempts:
            return None
        if told_s is None:
            told_s = self._draw(attempt)
        if deadline_s is not None and deadline_s <= now_s + told_s:
            return None
        return told_s
