"""Several models behind one edge: names, pins, aliases, what is deprecated, and who answered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from miniserve.api.backend import ServedModel
from miniserve.api.catalogue import Catalogue, ModelNames, catalogue_of, merged_versions, same_tokenizer
from miniserve.errors import InvalidRequest, NotFound, SetupError
from miniserve.types import FinishReason, Served, TokenEvent
from tests.api.conftest import CHAT, ByteTokenizer, Edge, StartEdge, event, events, steps

SMALL = ServedModel("small", ByteTokenizer(), 512, created=1)
LARGE = ServedModel("large", ByteTokenizer(), 1024, created=2, versions=("1", "2"))


class ShoutingTokenizer(ByteTokenizer):
    """Another one: of the same size, and yet it reads texts differently."""

    def encode(self, text: str) -> list[int]:
        return list(text.upper().encode())


class NoChat(ByteTokenizer):
    def encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        raise InvalidRequest("no template")


@dataclass(frozen=True)
class ByLength:
    """Sends what is longer than three characters to the large model."""

    small: str = "small"
    large: str = "large"

    def choose(self, question: str) -> str:
        return self.large if len(question) > 3 else self.small


NAMES = ModelNames(
    aliases={"default": "large", "gpt-4o-mini": "small", "stable": "large@1"},
    by_question={"auto": ByLength()},
    cascades={"careful": ("small", "large")},
    deprecated={"large@1": 1_688_169_599},
)
ALL = ["small", "large", "large@1", "large@2", "default", "gpt-4o-mini", "stable", "auto", "careful"]


@pytest.fixture
def several(start_edge: StartEdge) -> Edge:
    return start_edge(model=Catalogue([SMALL, LARGE], NAMES))


def asked(edge: Edge, **fields: object) -> Any:
    answer = edge.chat(**fields)
    assert answer.status_code == 200, answer.text
    return answer


# --- what a name stands for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("small", "small"),
        ("large", "large"),
        ("large@2", "large@2"),
        ("default", "large"),
        ("gpt-4o-mini", "small"),
        ("stable", "large@1"),
        ("careful", "careful"),
    ],
)
def test_a_name_is_resolved_and_the_answer_says_to_what(several: Edge, name: str, meant: str) -> None:
    answer = asked(several, model=name)
    assert answer.json()["model"] == meant
    assert several.backend.requests[-1].model == meant
    assert answer.headers["x-miniserve-model"] == meant


def test_where_no_model_is_named_the_default_answers(several: Edge, start_edge: StartEdge) -> None:
    body = {"messages": CHAT["messages"]}
    assert several.post("/v1/chat/completions", json=body).json()["model"] == "large"
    without_alias = start_edge(model=Catalogue([SMALL, LARGE]))
    assert without_alias.post("/v1/chat/completions", json=body).json()["model"] == "small"
    assert start_edge().post("/v1/completions", json={"prompt": "x"}).json()["model"] == "tiny"


@pytest.mark.parametrize("name", ["large@3", "small@1", "Large", "large@", "@1", ""])
def test_an_unknown_name_or_version_is_refused_with_those_there_are(several: Edge, name: str) -> None:
    answer = several.chat(model=name)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (404, "model", "model_not_found")
    assert all(f"`{valid}`" in error["message"] for valid in ALL)
    assert "x-miniserve-model" not in answer.headers


def test_all_names_are_listed_and_described(several: Edge) -> None:
    cards = several.get("/v1/models").json()["data"]
    assert [card["id"] for card in cards] == ALL
    assert all(several.get(f"/v1/models/{card['id']}").json() == card for card in cards)
    by_id = {card["id"]: card for card in cards}
    assert by_id["stable"]["root"] == "large@1"
    assert by_id["large@1"]["deprecated"] == 1_688_169_599
    assert by_id["careful"]["max_model_len"] == 512, "either may answer, so the shorter context counts"
    assert set(by_id["small"]) == {"id", "object", "created", "owned_by", "max_model_len"}


def test_each_model_has_its_own_context(several: Edge) -> None:
    assert several.chat(model="small", max_tokens=2000).status_code == 200
    assert several.backend.requests[-1].sampling.max_tokens < 512
    long = [{"role": "user", "content": "x" * 600}]
    assert several.chat(model="small", messages=long).json()["error"]["code"] == "context_length_exceeded"
    assert several.chat(model="large", messages=long).status_code == 200


# --- chosen by the question ----------------------------------------------------------------------------------------


def test_a_question_chooses_its_model(several: Edge) -> None:
    for content, meant in (("hi", "small"), ("a longer one", "large")):
        answer = asked(several, model="auto", messages=[{"role": "user", "content": content}])
        assert answer.json()["model"] == several.backend.requests[-1].model == meant


def test_the_last_thing_said_counts_and_not_what_the_model_answered(several: Edge) -> None:
    turns = [("user", "a longer question"), ("assistant", "a longer answer"), ("user", "ok"), ("assistant", "anything")]
    messages = [{"role": role, "content": content} for role, content in turns]
    assert asked(several, model="auto", messages=messages).json()["model"] == "small"


def test_prompts_of_the_older_api_choose_together_and_token_ids_cannot(several: Edge) -> None:
    def complete(prompt: object) -> Any:
        return several.post("/v1/completions", json={"model": "auto", "prompt": prompt})

    assert complete("abc").json()["model"] == "small"
    assert complete(["abc", "d"]).json()["model"] == "large"
    error = complete([1, 2, 3]).json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "model")
    assert "`small` or `large`" in error["message"]


# --- deprecated, and who answered ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["large@1", "stable"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_deprecated_says_since_when(several: Edge, name: str, stream: bool) -> None:
    assert asked(several, model=name, stream=stream).headers["deprecation"] == "@1688169599"
    assert "deprecation" not in asked(several, model="large@2", stream=stream).headers


@pytest.mark.parametrize("stream", [False, True])
def test_the_header_names_the_version_that_answered(several: Edge, stream: bool) -> None:
    several.backend.script = steps(
        event("a", served=Served("large@2")), event("b"), TokenEvent("", finish_reason=FinishReason.STOP)
    )
    answer = asked(several, model="large", stream=stream)
    assert answer.headers["x-miniserve-model"] == "large@2"
    whole = events(answer)[0] if stream else answer.json()
    assert whole["model"] == "large"


def test_a_strange_name_fits_into_a_header(several: Edge) -> None:
    several.backend.script = steps(event("a", FinishReason.STOP, served=Served("größe\r\nset-cookie: a=b")))
    answer = asked(several, model="large")
    assert answer.headers["x-miniserve-model"] == "gr%C3%B6%C3%9Fe%0D%0Aset-cookie: a%3Db"
    assert "set-cookie" not in answer.headers


def test_the_description_lists_every_name(several: Edge) -> None:
    schemas = several.get("/openapi.json").json()["components"]["schemas"]
    for body in ("ChatCompletionRequest", "CompletionRequest"):
        assert schemas[body]["properties"]["model"]["enum"] == ALL
        assert schemas[body]["properties"]["model"]["default"] == "default"
        assert "model" not in schemas[body]["required"]


# --- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (ModelNames(aliases={"small": "large"}), "two models are called 'small'"),
        (ModelNames(aliases={"large@2": "large"}), "'large@2' cannot be the name"),
        (
            ModelNames(aliases={"other": "large@9"}),
            "other: there is no model 'large@9'; there are small, large, large@1",
        ),
        (ModelNames(by_question={"auto": ByLength(large="huge")}), "auto: there is no model 'huge'"),
        (ModelNames(cascades={"careful": ("small", "huge")}), "careful: there is no model 'huge'"),
        (ModelNames(deprecated={"large@0": 1}), "deprecated: there is no model 'large@0'"),
    ],
)
def test_impossible_names_are_refused(names: ModelNames, message: str) -> None:
    with pytest.raises(SetupError) as refused:
        Catalogue([SMALL, LARGE], names)
    assert message in str(refused.value)


def test_an_empty_catalogue_is_refused() -> None:
    with pytest.raises(SetupError, match="at least one model"):
        Catalogue([])


def test_versions_share_a_tokenizer_and_have_the_shortest_context() -> None:
    merged = merged_versions("large", {"1": LARGE, "2": replace(LARGE, tokenizer=ByteTokenizer(), max_model_len=700)})
    assert (merged.name, merged.versions, merged.max_model_len) == ("large", ("1", "2"), 700)
    with pytest.raises(SetupError, match="large@bad has another tokenizer than large@1"):
        merged_versions("large", {"1": LARGE, "bad": replace(LARGE, tokenizer=ShoutingTokenizer())})


def test_a_cascade_needs_one_tokenizer_and_a_choice_by_question_does_not() -> None:
    models = [SMALL, replace(LARGE, tokenizer=ShoutingTokenizer())]
    with pytest.raises(SetupError, match="careful: small and large need the same tokenizer"):
        Catalogue(models, ModelNames(cascades={"careful": ("small", "large")}))
    Catalogue(models, ModelNames(by_question={"auto": ByLength()}))


def test_tokenizers_are_told_apart_by_what_they_do() -> None:
    assert same_tokenizer(ByteTokenizer(), ByteTokenizer())
    assert same_tokenizer(NoChat(), NoChat())
    assert not same_tokenizer(ByteTokenizer(), NoChat())
    assert not same_tokenizer(ByteTokenizer(), ShoutingTokenizer())


def test_a_model_alone_is_a_catalogue_whatever_it_is_called() -> None:
    """A replica serves one version, under the name that it reports."""
    alone = catalogue_of(replace(SMALL, name="large@2"))
    assert [entry.name for entry in alone] == ["large@2"]
    assert alone.resolve("default", lambda: None).name == "large@2"
    with pytest.raises(NotFound):
        alone.entry("large")


def test_a_version_comes_and_goes_while_the_edge_serves() -> None:
    catalogue = Catalogue([SMALL, LARGE], NAMES)
    catalogue.add_version("large", "3", replace(LARGE, max_model_len=512))
    catalogue.add_version("large", "3", replace(LARGE, max_model_len=1))

    assert catalogue.entry("large@3").model.name == "large@3"
    assert catalogue.entry("large").model.versions == ("1", "2", "3")
    assert {catalogue.entry(name).model.max_model_len for name in ("large", "default", "large@1")} == {512}
    catalogue.remove_version("large", "2")
    catalogue.remove_version("large", "1")  # `stable` stands for it
    assert catalogue.entry("large").model.versions == ("1", "3")


def test_a_version_that_cannot_stand_in_is_not_offered() -> None:
    catalogue = Catalogue([SMALL, LARGE])
    for name, version, tokenizer, message in (
        ("large", "3", ShoutingTokenizer(), r"large@3 has another tokenizer"),
        ("small", "2", ByteTokenizer(), "small is served without a version"),
        ("huge", "2", ByteTokenizer(), "there is no model 'huge'; there are small, large"),
        ("large", "a@b", ByteTokenizer(), "cannot be the name of a version"),
    ):
        with pytest.raises(SetupError, match=message):
            catalogue.add_version(name, version, replace(LARGE, tokenizer=tokenizer))
    assert [entry.name for entry in catalogue] == ["small", "large", "large@1", "large@2"]
