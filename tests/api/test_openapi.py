"""The API's own description is honest: a schema fuzzer that trusts it finds nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.api.answers import ErrorResponse
from miniserve.api.backend import ServedModel
from miniserve.api.catalogue import Catalogue, ModelNames
from miniserve.api.hints import HINT_HEADERS
from tests.api.conftest import ByteTokenizer, Edge, StartEdge

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def fuzz(edge: Edge, folder: Path, examples: int) -> subprocess.CompletedProcess[str]:
    """Run all checks with valid and invalid data. The stateful phase is left out: no operation links to another.

    Headers that nobody has heard of are left out: HTTP has them ignored, and a schema has no word for that.
    One worker: with several, Python 3.11's own parser, which the fuzzer uses to describe itself, fails now and then.
    """
    command = [SCHEMATHESIS, "run", f"{edge.url}/openapi.json"]
    options = ["--checks=all", "--mode=all", "--no-color"]
    options += ["--phases=examples,coverage,fuzzing", f"--max-examples={examples}", "--seed=1"]
    (folder / "schemathesis.toml").write_text(
        "[phases.coverage.generation]\nallow-extra-parameters = false\n", encoding="utf-8"
    )
    environment = {**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(folder), "NO_PROXY": "*"}
    return subprocess.run(
        [*command, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("examples", [50, pytest.param(300, marks=pytest.mark.full)])
def test_a_schema_fuzzer_finds_nothing(start_edge: StartEdge, tmp_path: Path, examples: int) -> None:
    """The context is large because a schema cannot say how many tokens a text has."""
    edge = start_edge(max_model_len=1 << 16)
    result = fuzz(edge, tmp_path, examples)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert edge.backend.started > 100, "enough of the requests were valid ones"


@pytest.mark.full
def test_a_schema_fuzzer_finds_nothing_with_several_models_either(start_edge: StartEdge, tmp_path: Path) -> None:
    """Without one that is chosen by the question: a schema cannot say that its prompts must be in words."""
    large = ServedModel("large", ByteTokenizer(), 1 << 16, created=1, versions=("1", "2"))
    names = ModelNames(
        aliases={"default": "large@1"}, cascades={"careful": ("small", "large")}, deprecated={"large@1": 1}
    )
    edge = start_edge(model=Catalogue([large, replace(large, name="small", versions=())], names))
    result = fuzz(edge, tmp_path, 50)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert {request.model for request in edge.backend.requests} >= {"large", "large@1", "large@2", "small", "careful"}


def test_every_generating_route_documents_its_errors(edge: Edge) -> None:
    document = edge.get("/openapi.json").json()
    reference = {"$ref": "#/components/schemas/ErrorResponse"}
    for path in ("/v1/chat/completions", "/v1/completions"):
        responses = document["paths"][path]["post"]["responses"]
        assert set(responses) == {"200", "400", "404", "408", "413", "415", "429", "500", "502", "503", "504"}
        for status in set(responses) - {"200"}:
            assert responses[status]["content"]["application/json"]["schema"] == reference
    assert "422" not in str([operation for path in document["paths"].values() for operation in path.values()])


def test_the_headers_that_say_something_about_a_request_are_described(edge: Edge) -> None:
    document = edge.get("/openapi.json").json()
    for path in ("/v1/chat/completions", "/v1/completions"):
        schemas = {one["name"]: one["schema"] for one in document["paths"][path]["post"]["parameters"]}
        assert set(schemas) == set(HINT_HEADERS)
        for name, fits in (("x-tenant-id", "acme/eu"), ("x-priority", "Batch"), ("x-priority", "2"), ("x-region", "")):
            assert re.search(schemas[name]["pattern"], fits)
        for name, is_wrong in (("x-tenant-id", "two words"), ("x-priority", "urgent"), ("x-priority", "3")):
            assert not re.search(schemas[name]["pattern"], is_wrong)
        assert schemas["x-request-timeout-s"]["anyOf"][0]["maximum"] == 86_400


def test_the_description_tells_the_limits_of_the_model(edge: Edge) -> None:
    schemas = edge.get("/openapi.json").json()["components"]["schemas"]
    chat = schemas["ChatCompletionRequest"]["properties"]
    assert chat["model"]["enum"] == ["tiny"]
    assert chat["stop_token_ids"]["anyOf"][0]["items"] == {"type": "integer", "minimum": 0, "maximum": 258}
    (key,) = chat["logit_bias"]["anyOf"][0]["patternProperties"]
    assert [number for number in range(2000) if re.search(key, str(number))] == list(range(259))
    assert '"maximum": 258' in str(schemas["CompletionRequest"]["properties"]["prompt"]).replace("'", '"')
    assert {"ChatCompletionChunk", "ChatCompletion", "Completion", "ErrorResponse"} <= set(schemas)


@given(st.text(), st.none() | st.text())
def test_any_text_fits_into_an_error(message: str, param: str | None) -> None:
    """Messages quote what clients send, so whatever that is, it must come out as JSON."""
    detail = {"message": message, "type": "t", "param": param, "code": None}
    model = ErrorResponse.model_validate({"error": detail})
    assert ErrorResponse.model_validate_json(model.model_dump_json()) == model


def test_the_edge_never_imports_torch() -> None:
    """A gateway process is small: it must start without the engine's weight."""
    code = "import sys, miniserve.api.app; print([m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
