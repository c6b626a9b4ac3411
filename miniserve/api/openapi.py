"""The description of the API, as honest as the code: bodies are validated by hand, so they are described by hand.

FastAPI writes the paths and the answers. Added here are the request bodies and chunks, the served models' own limits
(their names and the largest vocabulary), and the errors each route can give.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from miniserve.api.answers import ChatCompletionChunk, Completion, ErrorResponse
from miniserve.api.catalogue import Catalogue
from miniserve.api.hints import (
    COHORT,
    FEATURE,
    HINT_HEADERS,
    MOST_TIMEOUT_S,
    PRIORITY,
    REGION,
    SESSION,
    TENANT,
    TIMEOUT,
    WORD_PATTERN,
)
from miniserve.api.requests import ChatCompletionRequest, CompletionRequest
from miniserve.types import Priority

_REF = "#/components/schemas/{model}"
_WHEN = {
    400: "The request is not valid, or asks for something that is not supported here.",
    404: "The model does not exist.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is packed in a way that is not read here.",
    429: "A quota or a rate limit is used up; see `retry-after`.",
    500: "A bug of this server.",
    502: "A replica broke off.",
    503: "Overloaded or not ready; see `retry-after`.",
    504: "The time is over after which no answer was wanted.",
}
_ABOUT = {
    TENANT: "Whose request it is: for quotas and the bill.",
    SESSION: "Which conversation or user it belongs to: for routes that stay, and for experiments.",
    REGION: "Where the client is.",
    FEATURE: "What the answer is for.",
    COHORT: "Which group of users it belongs to: for feature flags.",
    PRIORITY: "How urgent it is: interactive (0), standard (1) or batch (2).",
    TIMEOUT: "In how many seconds from now no answer is wanted any more.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of these error answers, for a route's `responses`."""
    return {status: {"model": ErrorResponse, "description": _WHEN[status]} for status in statuses}


def generation_responses(chunk: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of all answers of a route that generates and may stream `chunk`s."""
    stream = {"text/event-stream": {"schema": _event(chunk)}}
    answer = {"description": "The answer; with `stream`, server-sent events that end with `[DONE]`.", "content": stream}
    return {200: answer, **errors(*_WHEN)}


def _event(chunk: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of one server-sent event: a chunk, an error that ends the stream, or the mark of its end."""
    bodies = [{"$ref": _REF.format(model=model.__name__)} for model in (chunk, ErrorResponse)]
    as_json = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"anyOf": bodies}}
    data = {"anyOf": [{"const": "[DONE]"}, as_json]}
    return {"type": "object", "properties": {"data": data}, "required": ["data"]}


def generation_request(body: type[BaseModel]) -> dict[str, Any]:
    """Return the documentation of a request that asks for a generation, for a route's `openapi_extra`."""
    schema = {"$ref": _REF.format(model=body.__name__)}
    content = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {"requestBody": content, "parameters": [_header(name) for name in HINT_HEADERS]}


def _header(name: str) -> dict[str, Any]:
    """Return the documentation of a header that says something about a request (`hints`).

    An empty one says nothing, and space around a value is no part of it.
    """
    if name == TIMEOUT:
        seconds = {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_TIMEOUT_S}
        schema: dict[str, Any] = {"anyOf": [seconds, {"type": "string", "maxLength": 0}]}
    elif name == PRIORITY:
        classes = [_in_any_case(one.name) for one in Priority] + [str(one.value) for one in Priority]
        schema = {"type": "string", "pattern": rf"^\s*({'|'.join(classes)})?\s*$"}
    else:
        schema = {"type": "string", "pattern": rf"^\s*({WORD_PATTERN})?\s*$"}
    return {"name": name, "in": "header", "required": False, "description": _ABOUT[name], "schema": schema}


def _in_any_case(word: str) -> str:
    return "".join(f"[{letter.upper()}{letter.lower()}]" for letter in word)


def described_body(body: type[BaseModel]) -> dict[str, Any]:
    """Return the same for a body whose schema stands in no other place: a route of the gateway alone."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": body.model_json_schema()}}}}


def describe_api(app: FastAPI, catalogue: Catalogue) -> None:
    """Give `app` an OpenAPI document that tells the truth about the models it serves."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _forget_422(document)
            document["components"]["schemas"].update(_schemas(catalogue))
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend its document


def _forget_422(document: dict[str, Any]) -> None:
    """Remove what FastAPI documents for its own validation: ours answers 400."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _schemas(catalogue: Catalogue) -> dict[str, Any]:
    bodies: tuple[type[BaseModel], ...] = (ChatCompletionRequest, CompletionRequest)
    chunks: tuple[type[BaseModel], ...] = (ChatCompletionChunk, Completion)
    wanted = [(body, "validation") for body in bodies] + [(chunk, "serialization") for chunk in chunks]
    _, document = models_json_schema(wanted, ref_template=_REF)  # type: ignore[arg-type]  # its Literal is lost above
    schemas: dict[str, Any] = document["$defs"]
    for body in bodies:
        properties = schemas[body.__name__]["properties"]
        properties["model"] |= {"enum": [entry.name for entry in catalogue], "default": catalogue.default_name}
        largest = catalogue.vocab_size - 1
        for name in ("prompt", "stop_token_ids"):
            _limit(properties.get(name), "minimum", "maximum", largest)
        (biases,) = [option for option in properties["logit_bias"]["anyOf"] if "patternProperties" in option]
        biases["patternProperties"] = {numbers_up_to(largest): one for one in biases["patternProperties"].values()}
    return schemas


def numbers_up_to(largest: int) -> str:
    """Return a regular expression for the whole numbers up to `largest`: a schema cannot bound a key otherwise."""
    text = str(largest)
    smaller = [
        f"{text[:i]}[0-{int(digit) - 1}][0-9]{{{len(text) - i - 1}}}" for i, digit in enumerate(text) if digit != "0"
    ]
    shorter = [f"[0-9]{{1,{len(text) - 1}}}"] if len(text) > 1 else []
    return f"^({'|'.join([text, *smaller, *shorter])})$"


def _limit(schema: Any, beside: str, key: str, value: int) -> None:
    """Set `key` in every subschema that has `beside`."""
    if isinstance(schema, dict):
        if beside in schema:
            schema[key] = value
        for child in schema.values():
            _limit(child, beside, key, value)
    elif isinstance(schema, list):
        for child in schema:
            _limit(child, beside, key, value)
