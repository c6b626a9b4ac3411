# question: 18.4
from miniserve.clients.retry_loop import Try


async def persist(send, sleep, clock, policy, budget, *, deadline_s=None, resume=False):
    budget.deposit(clock())
    words, failures, going = [], 0, True
    while going:
        last = await send(tuple(words))
        words.extend(last.words)
        budget.record(not last.error, clock())
        going = False
        if last.error and (resume or not words):
            failures += 1
            wait_s = policy.delay_s(failures, last.error, clock(), deadline_s)
            if wait_s is not None and budget.withdraw(clock()):
                await sleep(wait_s)
                going = True
    return Try(tuple(words), last.error)
