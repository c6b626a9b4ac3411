# question: 18.4
from miniserve.clients.retry_loop import Try


def persist(send, sleep, clock, policy, budget, *, deadline_s=None, resume=False):
    return Try()
