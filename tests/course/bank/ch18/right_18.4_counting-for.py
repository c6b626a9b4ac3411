# question: 18.4
from itertools import count

from miniserve.clients.retry_loop import Try


async def persist(send, sleep, clock, policy, budget, *, deadline_s=None, resume=False):
    budget.deposit(clock())
    words = ()
    for failures in count(1):
        last = await send(words)
        now_s = clock()
        budget.record(last.error is None, now_s)
        words = (*words, *last.words)
        if last.error is None or (words and not resume):
            break
        wait_s = policy.delay_s(failures, last.error, now_s, deadline_s)
        if wait_s is None:
            break
        if not budget.withdraw(now_s):
            break
        await sleep(wait_s)
    return Try(words, last.error)
