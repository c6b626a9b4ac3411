"""What the official `openai` client does with a running stack: sync and async, streaming and not, and its errors.

A script of its own, so that the same calls can be made by another major version in an environment of its own:
`python openai_calls.py URL MODEL` prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import openai

MESSAGES: list[Any] = [{"role": "user", "content": "Say something."}]


def sync_calls(url: str, model: str) -> dict[str, Any]:
    with openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as client:
        sampling: dict[str, Any] = {"model": model, "max_tokens": 12, "temperature": 1.0, "seed": 7}
        whole = client.chat.completions.create(messages=MESSAGES, **sampling)
        pieces = list(
            client.chat.completions.create(
                messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **sampling
            )
        )
        text = client.completions.create(prompt="Once", **sampling)
        varied: dict[str, Any] = {"n": 2, "frequency_penalty": 0.5, "presence_penalty": -0.5, "logit_bias": {"5": -100}}
        two = client.chat.completions.create(messages=MESSAGES, **sampling, **varied)
        two_streamed = ["", ""]
        for piece in client.chat.completions.create(messages=MESSAGES, stream=True, **sampling, **varied):
            for choice in piece.choices:
                two_streamed[choice.index] += choice.delta.content or ""
        return {
            "models": [card.id for card in client.models.list()],
            "chat": whole.choices[0].message.content,
            "chat_stream": "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices),
            "usage": whole.usage.completion_tokens if whole.usage else None,
            "stream_usage": pieces[-1].usage.completion_tokens if pieces[-1].usage else None,
            "text": text.choices[0].text,
            "two": [choice.message.content for choice in two.choices],
            "two_streamed": two_streamed,
            "text_stream": "".join(
                piece.choices[0].text for piece in client.completions.create(prompt="Once", stream=True, **sampling)
            ),
            "errors": [error_of(client, {"model": model} | change) for change in BAD_CALLS],
        }


BAD_CALLS: list[dict[str, Any]] = [
    {"model": "nope"},
    {"max_tokens": 0},
    {"temperature": -1.0},
    {"messages": []},
    {"n": 1000},
]


def error_of(client: openai.OpenAI, call: dict[str, Any]) -> tuple[str, int]:
    try:
        client.chat.completions.create(**{"messages": MESSAGES, "max_tokens": 4, **call})
    except openai.APIStatusError as error:
        return type(error).__name__, error.status_code
    return "nothing", 200


async def async_calls(url: str, model: str) -> dict[str, Any]:
    async with openai.AsyncOpenAI(base_url=url, api_key="unused", max_retries=0) as client:
        sampling: dict[str, Any] = {"model": model, "max_tokens": 12, "temperature": 1.0, "seed": 7}
        whole = await client.chat.completions.create(messages=MESSAGES, **sampling)
        stream = await client.chat.completions.create(messages=MESSAGES, stream=True, **sampling)
        pieces = [piece.choices[0].delta.content or "" async for piece in stream if piece.choices]
        return {"async_chat": whole.choices[0].message.content, "async_chat_stream": "".join(pieces)}


if __name__ == "__main__":
    result = sync_calls(*sys.argv[1:3]) | asyncio.run(async_calls(*sys.argv[1:3]))
    print(json.dumps({"version": openai.__version__, **result}))
