# question: 18.4
from miniserve.clients.retry_loop import Try


def failures_of(policy):
    return 0


async def persist(send, sleep, clock, policy, budget, *, deadline_s=None, resume=False):
    budget.deposit(clock())
    await sleep(0.0) if failures_of(policy) else None
    return Try()
