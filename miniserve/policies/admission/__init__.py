"""Who may come in, and when: admission, quotas, limits on concurrency, fair shares.

Scenarios use all of them but `fair_share`, which only its tests use so far.
"""
