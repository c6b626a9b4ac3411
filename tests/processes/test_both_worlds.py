"""One file, both worlds: paced replicas under a scenario's load are as fast as the same scenario says in simulation.

The live half is the stack as a user starts it, with the scenario as its policies file, and `clients.load` in this
process. Both halves get the same requests at the same times, so what differs is what the machine adds to a step's time
and the gateway to a request's.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from miniserve.clients.load import LoadRun
from miniserve.clock import monotonic
from miniserve.observe.intervals import percentile_interval
from miniserve.observe.outcomes import Floats, Outcomes
from miniserve.observe.percentiles import percentile
from miniserve.replica.pace import TOO_MANY_OVERRUNS
from miniserve.scenario import Scenario, load
from miniserve.sim.run import simulate

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
FILE = ROOT / "data" / "scenarios" / "paced.toml"
WITHIN = {50: 0.15, 95: 0.25}


@contextmanager
def paced_stack(scenario: Scenario) -> Iterator[str]:
    """Run the demo with the scenario's replicas and policies; yield its URL."""
    assert scenario.fleet is not None
    [group] = scenario.fleet.replicas
    pace = {name: value for name, value in asdict(group.step_time).items() if name.endswith("_s") and value}  # type: ignore[call-overload]
    spec = ",".join(f"{name}={value}" for name, value in pace.items())
    command = [sys.executable, "-m", "miniserve", "--model", "small", "--offline", "--port", "0", "--no-table"]
    command += ["--replicas", str(group.count), "--pace", spec, "--policies", str(FILE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("ready: "), line
            yield line.split()[1]
        finally:
            process.terminate()
            with contextlib.suppress(ValueError):
                process.communicate()


def overrun_share(url: str) -> float:
    """Return the share of the replicas' steps that took longer than their pace."""
    status: dict[str, Any] = httpx.get(f"{url}/status", timeout=20.0, trust_env=False).json()
    assert [row["paced"] for row in status["replicas"]] == [True] * 2
    return max(row["overrun_fraction"] for row in status["replicas"])


async def live(scenario: Scenario, url: str) -> Outcomes:
    requests = scenario.workload.requests(scenario.run.seed, duration_s=scenario.run.duration_s)
    text_only = {"logit_bias": {str(control): -100 for control in range(4)}}  # else the first token may have no text
    result = await LoadRun(url, "small", monotonic, body=text_only).run(requests)
    return result.outcomes


def times(outcomes: Outcomes) -> dict[str, Floats]:
    """Return the latencies of the served requests; those without a first character are left out."""
    served = outcomes.where(outcomes.served)
    ttft_s = served.ttft_s
    return {"ttft": ttft_s[~np.isnan(ttft_s)], "e2e": served.e2e_s}


@pytest.mark.full
async def test_a_paced_fleet_is_as_fast_as_its_simulation(record_property: Callable[[str, object], None]) -> None:
    scenario = load(FILE)
    simulated = times(simulate(scenario).outcomes)
    with paced_stack(scenario) as url:
        outcomes = await live(scenario, url)
        overruns = overrun_share(url)
    measured = times(outcomes)
    record_property("requests", len(outcomes))
    record_property("overrun_share", overruns)
    ratios = {}
    for name, theirs in simulated.items():
        for p in (50, 95, 99):
            ratios[name, p] = percentile(measured[name], p) / percentile(theirs, p)
            record_property(f"{name}_p{p}_live_over_simulated", round(ratios[name, p], 3))
        for world, values in (("live", measured[name]), ("simulated", theirs)):
            interval = percentile_interval(values, 99)
            assert interval is not None
            record_property(
                f"{name}_p99_{world}_s", [round(x, 3) for x in (interval.estimate, interval.low, interval.high)]
            )
    assert outcomes.by_status() == {200: len(outcomes)}
    if overruns > TOO_MANY_OVERRUNS:
        pytest.skip(f"this machine is too busy to compare: {overruns:.0%} of the steps overran their pace")
    wrong = {key: ratio for key, ratio in ratios.items() if key[1] in WITHIN and abs(ratio - 1) > WITHIN[key[1]]}
    assert wrong == {}
