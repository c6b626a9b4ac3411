# question: 18.3
from miniserve.policies.recovery import waits
from miniserve.policies.recovery.retry import check_settings, may_retry
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
        if attempt >= self._max_attempts or not may_retry(error):
            return None
        wait_s = self._draw(attempt)
        if error.retry_after_s is not None:
            wait_s = max(wait_s, error.retry_after_s)
        return wait_s if deadline_s is None or now_s + wait_s < deadline_s else None
