# question: 18.4
from miniserve.policies.persistence import Try


def persist(send, sleep, clock, policy, budget, *, deadline_s=None, resume=False):
    return Try()
