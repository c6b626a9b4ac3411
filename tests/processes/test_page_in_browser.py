"""The page in a real browser, over real replica processes: charts move, a button kills, an answer survives it."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from browser import Browser, running_browser
from requirements_probe import require_program

from miniserve.operations.standard import STANDARD_PARTS
from miniserve.processes.http_server import bind
from miniserve.processes.pools import Pool
from miniserve.processes.stack import GatewayOptions, Stack, running_pools

pytestmark = pytest.mark.anyio

ARGUMENTS = ("--offline", "--threads", "1", "--log-level", "warning")
# A random model may end its answer at any token. Here it must last.
LONG_ANSWERS = """
const ask = window.fetch;
window.fetch = (path, init) => path === "/v1/chat/completions"
  ? ask(path, {...init, body: JSON.stringify({...JSON.parse(init.body), ignore_eos: true})}) : ask(path, init);
"""
EVENTS = "[...document.querySelectorAll('#events .text')].map(e => e.textContent)"


def opened(browser: Browser, url: str) -> None:
    browser.call("Page.addScriptToEvaluateOnNewDocument", source=LONG_ANSWERS)
    browser.open(url)
    browser.until("document.body && document.body.dataset.live === 'yes'")
    browser.until("document.querySelectorAll('.tile[data-tone=good]').length === 2")


def charts_move(browser: Browser) -> None:
    before = browser.ask("Number(document.body.dataset.samples)")
    browser.until(f"Number(document.body.dataset.samples) >= {before} + 2")
    assert browser.ask("document.querySelectorAll('.chart canvas').length") == 6


def ask(browser: Browser) -> None:
    browser.until("document.getElementById('model').value !== ''")
    browser.ask("document.getElementById('ask').requestSubmit()")
    browser.until("document.getElementById('answer-text').textContent.length > 5")


def kill(browser: Browser, replica_id: str) -> None:
    browser.ask(f"document.querySelector('[data-replica=\"{replica_id}\"] button').click()")
    browser.until(f"{EVENTS}.some(text => text.includes('{replica_id} was killed; 1 stream went on elsewhere'))")


def the_answer_is_whole(browser: Browser) -> None:
    browser.until("document.getElementById('answer').dataset.state === 'done'")
    note = browser.ask("document.getElementById('answer-note').textContent")
    assert "300 tokens" in note, note
    assert "tiny" in note
    befell = browser.ask("document.getElementById('answer-events').textContent")
    assert "was killed" in befell


def it_fits_a_telephone_and_changes_its_colours(browser: Browser) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    assert browser.until("document.documentElement.scrollWidth") <= 390
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    browser.ask("document.getElementById('theme').click()")
    assert browser.ask("getComputedStyle(document.body).backgroundColor") != ground


def everything_has_a_name(browser: Browser) -> None:
    """Whatever takes the keyboard's focus says what it is."""
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    takes_focus = {"button", "combobox", "textbox", "link", "meter", "image"}
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in takes_focus and not node["name"]["value"]
    ]
    assert nameless == []


def busy_replica(stack: Stack) -> str | None:
    return next((one.replica_id for one in stack.gateway.fleet.view().replicas if one.outstanding), None)


async def test_the_page_kills_a_process_and_its_answer_goes_on(long_folder: Path, tmp_path: Path) -> None:
    program = require_program("chromium")
    pool = Pool("tiny", long_folder, replicas=2, pace="base_s=0.025", arguments=ARGUMENTS)
    options = GatewayOptions("tiny", long_folder, parts=STANDARD_PARTS)
    async with running_pools(options, [pool], bind(0)) as stack, AsyncExitStack() as up:
        browser = await asyncio.to_thread(up.enter_context, running_browser(program, tmp_path))
        await asyncio.to_thread(opened, browser, stack.url)
        await asyncio.to_thread(charts_move, browser)
        await asyncio.to_thread(everything_has_a_name, browser)
        await asyncio.to_thread(ask, browser)
        chosen = busy_replica(stack)
        assert chosen is not None
        pid = next(child.pid for child in stack.supervisor.children if child.replica_id == chosen)
        assert pid is not None
        await asyncio.to_thread(kill, browser, chosen)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        await asyncio.to_thread(the_answer_is_whole, browser)
        await asyncio.to_thread(browser.until, f"{EVENTS}.some(text => text.includes('{chosen} is back after'))")
        await asyncio.to_thread(it_fits_a_telephone_and_changes_its_colours, browser)
        assert browser.errors == []
