# question: 18.4
import asyncio

from miniserve.clients.retry_loop import Try


async def persist(send, sleep, clock, policy, budget, *, deadline_s=None, resume=False):
    budget.deposit(clock())
    words = ()
    failures = 0
    while True:
        last = await send(words)
        words += last.words
        budget.record(last.error is None, clock())
        if last.error is None:
            return Try(words)
        failures += 1
        if words and not resume:
            return Try(words, last.error)
        wait_s = policy.delay_s(failures, last.error, clock(), deadline_s)
        if wait_s is None or not budget.withdraw(clock()):
            return Try(words, last.error)
        await asyncio.sleep(wait_s)
