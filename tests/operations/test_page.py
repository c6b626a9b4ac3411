"""The page over HTTP: who gets it, what it may do in a browser, and what its stream says."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from miniserve.config import ApiConfig
from miniserve.errors import Overloaded
from miniserve.operations.page import part as page_part
from miniserve.operations.page import viewers as page_viewers
from miniserve.operations.page.samples import COLUMNS, KEPT_SAMPLES, PageSamples
from miniserve.operations.page.viewers import MOST_VIEWERS, Viewers
from miniserve.operations.part import DeskPart
from miniserve.operations.replicas import ReplicasPart
from miniserve.sse import SSEDecoder
from miniserve.types import FleetView, ReplicaState, ReplicaView

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "miniserve" / "operations" / "page" / "static"
UPLOT = {  # of version 1.6.32, as its authors published it
    "uPlot.esm.js": "5dd9b3281aa64b461b42d9945f6adb2649d346502b12281a9ae0d46599a80eba",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


class Sections(DeskPart):
    """A part whose figures have gone wrong."""

    name = "cost"

    def status(self) -> object:
        return {"usd": float("nan"), "by_model": [{"tiny": float("inf")}]}


async def messages(client: httpx.AsyncClient) -> AsyncIterator[dict[str, Any]]:
    """Yield what the page's stream says."""
    decoder = SSEDecoder()
    async with client.stream("GET", "/page/events") as answer:
        assert answer.status_code == 200
        async for chunk in answer.aiter_bytes():
            for data in decoder.feed(chunk):
                yield json.loads(data)


async def test_the_page_has_its_token_and_nothing_that_its_policy_forbids(gateway_of: Any) -> None:
    async with gateway_of() as (client, gateway):
        page = await client.get("/")
        assert page.status_code == 200
        assert f'content="{gateway.desk.door.token}"' in page.text
        linked = re.findall(r'(?:src|href)="(/page/[^"]+)"', page.text)
        assert len(linked) >= 5
        for path in linked:
            answer = await client.get(path)
            assert answer.status_code == 200, path
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert gateway.desk.door.token not in answer.text
        assert (await client.get("/page/page.html")).status_code == 404  # without its token it is no use
        assert (await client.get("/page/../part.py")).status_code == 404
        assert gateway.desk.door.token not in (await client.get("/status")).text
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-frame-options"] == "DENY"
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", page.text)


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/events"])
@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}])
async def test_another_site_gets_nothing_even_where_it_may_call_the_api(
    gateway_of: Any, path: str, headers: dict[str, str]
) -> None:
    async with gateway_of(api=ApiConfig(cors_origins=("*",))) as (client, gateway):
        answer = await client.get(path, headers=headers)
    assert answer.status_code == 403
    assert gateway.desk.door.token not in answer.text


async def test_the_stream_begins_with_everything_and_goes_on_with_snapshots(gateway_of: Any) -> None:
    async with gateway_of() as (client, gateway):
        body = {"model": "tiny", "prompt": "Hello", "max_tokens": 4, "ignore_eos": True}
        stream = messages(client)
        first = await anext(stream)
        assert (await client.post("/v1/completions", json=body)).status_code == 200
        gateway.events.say("replica", "tiny-0 was killed; 7 streams went on elsewhere.", "warning")
        second, third = await anext(stream), await anext(stream)
        await stream.aclose()
    assert first["history"]["columns"] == list(COLUMNS)
    assert first["status"]["replicas"][0]["replica_id"] == "tiny-0"
    assert "token" not in json.dumps(first["status"]["replicas"]).replace("tokens_per_s", "")
    rows = [dict(zip(COLUMNS, message["row"], strict=True)) for message in (second, third)]
    assert rows[0]["ready"] == rows[0]["replicas"] == 1
    assert rows[1]["at_s"] > rows[0]["at_s"]
    assert rows[1]["ttft_p50_s"] > 0
    assert rows[1]["requests_per_s"] > 0
    said = [event for message in (first, second, third) for event in message["events"]]
    assert "tiny-0 was killed; 7 streams went on elsewhere." in [event["text"] for event in said]
    assert {event["number"] for event in said} == set(range(1, len(said) + 1)), "each once"
    assert first["run"] == second["run"]


async def test_a_figure_that_is_no_number_costs_only_itself(gateway_of: Any) -> None:
    parts = (ReplicasPart, lambda work: Sections(), page_part.PagePart)
    async with gateway_of(parts=parts) as (client, _):
        stream = messages(client)
        first = await anext(stream)
        await stream.aclose()
    assert first["status"]["cost"] == {"usd": None, "by_model": [{"tiny": None}]}


async def test_one_viewer_too_many_is_told_so(gateway_of: Any, monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
    monkeypatch.setattr(page_viewers, "MOST_VIEWERS", 1)
    async with gateway_of() as (client, gateway):
        stream = messages(client)
        await anext(stream)
        refused = await client.get("/page/events")
        assert refused.status_code == 503
        assert "close one" in refused.json()["error"]["message"]
        await stream.aclose()
        await until(lambda: gateway.desk.part("page").viewers.count == 0)
        again = messages(client)  # one has left, so another may come
        await anext(again)
        await again.aclose()


# ---- viewers ----


async def test_whoever_cannot_keep_up_gets_the_newest_and_nothing_is_kept_for_them() -> None:
    published = []
    viewers = Viewers(lambda: f"everything up to {len(published)}")
    slow, quick = viewers.follow(), viewers.follow()
    assert await anext(slow) == await anext(quick) == "everything up to 0"
    for number in range(1, 101):
        published.append(number)
        viewers.publish(f"text {number}")
        assert await anext(quick) == f"text {number}"
    assert await anext(slow) == "everything up to 100"
    viewers.publish("text 101")
    assert await anext(slow) == "text 101"
    assert viewers.count == 2
    viewers.close()
    assert [text async for text in slow] == []
    await quick.aclose()
    assert viewers.count == 0


async def test_viewers_are_counted_and_everything_is_made_once_for_all_of_them() -> None:
    made = []
    viewers = Viewers(lambda: made.append(1) or "all")  # type: ignore[func-returns-value]
    streams = [viewers.follow() for _ in range(MOST_VIEWERS)]
    for stream in streams:
        await anext(stream)
    assert len(made) == 1
    with pytest.raises(Overloaded, match="close one"):
        await anext(viewers.follow())
    for stream in streams:
        await stream.aclose()
    assert viewers.count == 0


# ---- samples ----


def test_samples_are_of_the_last_seconds_and_the_last_ten_minutes() -> None:
    samples = PageSamples()
    view = FleetView(
        (
            ReplicaView("a", kv_used_fraction=0.2, running=3, queue_depth=2),
            ReplicaView("b", kv_used_fraction=0.4, running=1),
            ReplicaView("c", ReplicaState.DOWN),
        )
    )
    assert samples.take(0.0, 1e9, view, 0.0)[1:4] == [None, None, None]
    for i in range(100):
        samples.answered(10.0, (i + 1) / 100, failed=i < 5)
    row = dict(zip(COLUMNS, samples.take(11.0, 1e9, view, 12.34), strict=True))
    assert (row["ttft_p50_s"], row["ttft_p95_s"], row["ttft_p99_s"]) == (0.5, 0.95, 0.99)
    assert (row["requests_per_s"], row["failed_per_s"], row["tokens_per_s"]) == (20.0, 1.0, 12.3)
    assert (row["waiting"], row["running"], row["ready"], row["replicas"]) == (2, 4, 2, 3)
    assert (row["kv_mean"], row["kv_most"]) == (0.3, 0.4)
    later = dict(zip(COLUMNS, samples.take(20.0, 1e9, view, 0.0), strict=True))
    assert (later["requests_per_s"], later["ttft_p50_s"]) == (0.0, 0.5)
    for i in range(2 * KEPT_SAMPLES):
        samples.take(100.0 + i, 1e9, view, 0.0)
    assert len(samples.rows()) == KEPT_SAMPLES
    assert samples.rows()[-1][1] is None


# ---- its files ----


def test_the_chart_library_is_as_its_authors_published_it_with_its_licence() -> None:
    for name, digest in UPLOT.items():
        assert hashlib.sha256((STATIC / "uplot" / name).read_bytes()).hexdigest() == digest, name
    assert "MIT License" in (STATIC / "uplot" / "LICENSE").read_text(encoding="utf-8")


def test_an_installed_package_has_every_file_of_the_page() -> None:
    package = ROOT / "miniserve"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    globs = settings["tool"]["setuptools"]["package-data"]["miniserve"]
    packed = {path for pattern in globs for path in package.glob(pattern)}

    assert {path for path in STATIC.rglob("*") if path.is_file()} <= packed
