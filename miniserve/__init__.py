"""miniserve: a small, real framework for serving large language models, and the course it teaches with.

Read along a request's path: `api` (HTTP) -> `policies` (every decision) -> `gateway` (performs them) -> `replica` ->
`engine` (the inside of one) -> `text` and `sse` (tokens to text to bytes) -> `observe` (what happened).
`types.py` is the vocabulary that all of them share.
"""

__version__ = "0.1.0"
