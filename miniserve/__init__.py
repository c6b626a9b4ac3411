"""miniserve: a small, real framework for serving large language models, and the course it teaches with.

Read along a request's path: `gateway` (HTTP edge) -> `policies` (every decision) -> `live` (asyncio world) ->
`engine` (one replica's inside) -> `stream` (tokens to text to bytes) -> `observe` (what happened).
`types.py` is the vocabulary that all of them share.
"""

__version__ = "0.1.0"
