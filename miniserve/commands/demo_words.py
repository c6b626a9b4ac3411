"""What the demo says to the person who started it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from miniserve.processes.pools import Pool


def described(pools: Sequence[Pool]) -> str:
    """Say what is started: "2 replicas of smollm2, 1 of small@1 (paced)"."""
    running = [pool for pool in pools if pool.replicas]
    each = [f"{pool.replicas} of {pool.served_name}{' (paced)' if pool.pace else ''}" for pool in running]
    return ", ".join(each).replace(" of", " replicas of", 1) or "a gateway"


def welcome(url: str, pools: Sequence[Pool], seconds: float) -> str:
    """Say where the stack is, and how to ask it."""
    name = pools[0].served_name
    names = " and ".join(f"{pool.served_name}{' (paced)' if pool.pace else ''}" for pool in pools)
    body = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello!"}}], "stream": true}}'
    return f"""ready: {url} serves {names} (after {seconds:.1f} s)

  curl -N {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="unused")
  messages = [{{"role": "user", "content": "Hello!"}}]
  for chunk in client.chat.completions.create(model="{name}", messages=messages, stream=True):
      print(chunk.choices[0].delta.content or "", end="", flush=True)

It is open to every program on this machine (bound to loopback only) and ignores any API keys that clients send.
Ctrl-C drains and stops.
"""
