"""The files for Prometheus and Grafana: well formed, and about metrics that a gateway really has."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from requirements_probe import require_program

from miniserve.operations.cost import CostPart

pytestmark = pytest.mark.anyio

OPS = Path(__file__).parents[2] / "data" / "ops"
NAME = re.compile(r"\bminiserve_\w+")


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((OPS / "dashboard.json").read_text())
    return found


def expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def promtool(rules: Path) -> str:
    command = [require_program("promtool"), "check", "rules", str(rules)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_prometheus_takes_the_alerts() -> None:
    assert "6 rules found" in promtool(OPS / "alerts.yml")


def test_prometheus_takes_what_the_dashboard_asks(tmp_path: Path) -> None:
    asked = [one.replace("$__rate_interval", "1m") for one in expressions()]
    rules = [{"record": f"asked:{number}", "expr": expression} for number, expression in enumerate(asked)]
    file = tmp_path / "asked.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    assert f"{len(asked)} rules found" in promtool(file)


def test_the_dashboards_panels_do_not_overlap_and_each_has_a_name_and_a_source() -> None:
    places: list[tuple[int, int]] = []
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        places += [
            (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + 8)
        ]
        assert panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${source}"}
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24, "as wide as a page of Grafana's is"
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


async def test_every_metric_that_they_name_is_there(gateway_of: Any, until: Any) -> None:
    named = set(NAME.findall((OPS / "alerts.yml").read_text())) | set(NAME.findall(" ".join(expressions())))
    async with gateway_of(parts=(CostPart,)) as (client, gateway):
        cost: Any = gateway.desk.part("cost")
        await until(lambda: cost.ledger.seconds > 0)
        told = (await client.get("/metrics")).text
    families = dict(re.findall(r"# TYPE (\S+) (\w+)", told))
    there = set(families) | {f"{name}_bucket" for name, kind in families.items() if kind == "histogram"}
    assert named - there == set()
