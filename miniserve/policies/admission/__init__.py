"""Who may come in, and when: admission, quotas, limits on concurrency, fair shares."""
