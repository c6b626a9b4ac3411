# question: 18.4
from miniserve.clients.retry_loop import Try


async def persist(send, sleep, clock, policy, budget, *, deadline_s=None, resume=False):
    budget.deposit(clock())
    words, failures = (), 0

    async def one_try():
        last = await send(words)
        budget.record(last.error is None, clock())
        return last

    def wait_after(error):
        if words and not resume:
            return None
        wait_s = policy.delay_s(failures, error, clock(), deadline_s)
        return wait_s if wait_s is not None and budget.withdraw(clock()) else None

    while True:
        last = await one_try()
        words += last.words
        if last.error is None:
            return Try(words, None)
        failures += 1
        if (wait_s := wait_after(last.error)) is None:
            return Try(words, last.error)
        await sleep(wait_s)
