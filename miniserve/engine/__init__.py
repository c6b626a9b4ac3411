"""One replica's inside: scheduler, KV cache, model, sampler. Knows nothing of HTTP or of other replicas."""
