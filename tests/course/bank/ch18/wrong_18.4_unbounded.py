# question: 18.4


async def persist(send, sleep, clock, policy, budget, *, deadline_s=None, resume=False):
    budget.deposit(clock())
    while True:
        last = await send(())
        budget.record(last.error is None, clock())
        if last.error is None:
            return last
        await sleep(1)
