"""One replica's inside: weights, tokenizer, model, scheduler, KV cache. Knows nothing of HTTP or of other replicas."""
