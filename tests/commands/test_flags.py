"""The `flags` command: what it asks of the gateway, and how it shows a flag."""

from __future__ import annotations

from typing import Any

import pytest

import miniserve.commands.flags as command
from miniserve.__main__ import main
from miniserve.commands.flags import flag_line


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("list", {"action": "list"}),
        ("clear brief", {"action": "clear", "name": "brief"}),
        (
            "set brief --share 10 --on ann eve --off bob --cohort beta=50 --cohort staff=100 --serves large@2",
            {
                "action": "set",
                "name": "brief",
                "share": 0.1,
                "on": ["ann", "eve"],
                "off": ["bob"],
                "cohorts": {"beta": 0.5, "staff": 1.0},
                "serves": "large@2",
            },
        ),
        ("set brief --on", {"action": "set", "name": "brief", "on": []}),
    ],
)
def test_a_command_line_is_a_body(
    line: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(command, "call_gateway", lambda *asked: sent.append(asked[3]) or {"flags": []})
    assert main(["flags", *line.split()]) == 0
    assert sent == [body]
    assert capsys.readouterr().out == "no flags\n"


@pytest.mark.parametrize("text", ["beta", "=50", "beta=half", "beta=101", "beta=nan"])
def test_a_cohort_that_cannot_be_read_is_told(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flags", "set", "brief", "--cohort", text]) == 2
    assert "such as beta=50" in capsys.readouterr().err


def test_a_flag_is_a_line() -> None:
    flag = {"name": "a", "share": 0.0, "cohorts": {"beta": 0.5}, "on": ["ann"], "off": [], "serves": "large@2"}
    assert flag_line(flag) == "a: 0 % of all users; 50 % of beta; on for ann; serves large@2"
