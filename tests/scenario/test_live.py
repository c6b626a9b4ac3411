"""A policies file: the tables of a scenario that a live gateway uses, by the same reader and the same builder."""

from __future__ import annotations

import dataclasses
import inspect
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import pytest

from miniserve.commands import demo, replica, serve, simulate
from miniserve.commands.policy_options import live_policies
from miniserve.config import SchedulerConfig
from miniserve.errors import SetupError
from miniserve.policies import admission, recovery, routing
from miniserve.policies.admission.admission import AllOf
from miniserve.policies.bundle import Policies
from miniserve.policies.recovery.retry import Backoff
from miniserve.policies.routing.balancer import BALANCERS, LeastOutstanding, PowerOfTwo, WithRoom
from miniserve.policies.routing.model_router import ModelRouter
from miniserve.policies.routing.router import ByModel, RegionRouter, Routers, VersionPin
from miniserve.scenario import load
from miniserve.scenario.build import resilience
from miniserve.scenario.kinds import KINDS
from miniserve.scenario.live import LivePolicies, read_live, read_scheduler
from miniserve.toml.source import Setting
from miniserve.types import FleetView, Priority, ReplicaView, Request

DATA = Path(__file__).parents[2] / "data"
SHIPPED = sorted((DATA / "scenarios").glob("*.toml"))
SHIPPED_POLICIES = sorted((DATA / "policies").glob("*.toml"))

FILE = """\
[policies]
balancer = "p2c"
router = ["version", "region"]
admission = ["shed", { kind = "quota", limits = { a = { tokens_per_min = 1000 } } }]
retry = { kind = "backoff", base_s = 0.2 }

[fleet.latency_s]
eu = { us = 0.04 }

[autoscaler]
policy = { kind = "reactive", target = 8 }
max_replicas = 3

[engine.scheduler]
turn_tokens = "off"
max_output_tokens = [100, 50, 20]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policies.toml"
    path.write_text(FILE)
    return path


def told(*words: str, command: Any = demo) -> LivePolicies:
    """Return what the options of a command make of the policies."""
    parser = ArgumentParser()
    command.add_arguments(parser)
    needed = ["--replica", "http://127.0.0.1:1"] if command is serve else []
    return live_policies(parser.parse_args([*needed, *words]))


def test_a_policies_file_says_everything(file: Path) -> None:
    live = read_live(file)
    assert isinstance(live.policies.balancer, PowerOfTwo)
    assert isinstance(live.policies.router, Routers)
    assert isinstance(live.policies.admission, AllOf)
    assert isinstance(live.policies.retry, Backoff)
    assert live.autoscaling is not None
    assert live.autoscaling.max_replicas == 3
    assert live.scheduler == SchedulerConfig(turn_tokens=None, max_output_tokens=(100, 50, 20))


def test_regions_are_as_far_as_the_file_says(file: Path) -> None:
    router = read_live(file, [Setting.parse("policies.router=region")]).policies.router
    assert isinstance(router, RegionRouter)
    assert router.distance_s("us", "eu") == 0.04


def test_without_a_file_the_defaults_are_careful() -> None:
    live = read_live()
    assert isinstance(live.policies.balancer, LeastOutstanding)
    assert live.policies.resume
    assert live.policies.progress is not None
    assert live.autoscaling is None
    assert live.scheduler == SchedulerConfig()


@pytest.mark.parametrize("file", SHIPPED_POLICIES, ids=lambda path: str(path.stem))
def test_the_shipped_policies_load_in_both_worlds(file: Path) -> None:
    live, simulated = read_live(file), load(SHIPPED[0], policies=file)
    assert simulated.engine.scheduler == live.scheduler
    assert same(live.policies, resilience(simulated, 0))


@pytest.mark.parametrize("scenario", SHIPPED, ids=lambda path: str(path.stem))
def test_a_whole_scenario_serves_as_a_policies_file(scenario: Path) -> None:
    live, simulated = read_live(scenario), load(scenario)
    assert live.scheduler == simulated.engine.scheduler
    assert same(live.policies, resilience(simulated, 0)), "built by the same code from the same tables"


def same(one: Policies, other: Policies) -> bool:
    """Say whether two bundles have the same parts, of the same kinds."""
    parts = [(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(Policies)]
    return all(type(a) is type(b) and (not isinstance(a, bool | float) or a == b) for a, b in parts)


def test_a_simulation_takes_the_policies_of_another_file(file: Path) -> None:
    scenario = load(SHIPPED[0], policies=file)
    assert isinstance(resilience(scenario, 0).router, Routers)
    assert scenario.engine.scheduler.turn_tokens is None
    assert scenario.workload == load(SHIPPED[0]).workload


def test_own_classes_lie_beside_the_policies_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Mine:\n    def choose(self, request, replicas):\n        return None\n")
    file = tmp_path / "policies.toml"
    file.write_text('[policies]\nbalancer = "mine.py:Mine"\n')
    assert type(read_live(file).policies.balancer).__name__ == "Mine"
    assert load(SHIPPED[0], policies=file).policies.balancer.name == "mine.py:Mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[policies]\nbalancr = 'p2c'", ":2: policies.balancr: unknown key; did you mean `balancer`?"),
        ("[polices]\nbalancer = 'p2c'", ":1: polices: unknown key; did you mean `policies`?"),
        ("[policies]\nrouter = ['version', 'regin']", ':2: policies.router[1]: there is no "regin"; did you mean'),
        ("[policies]\nhedge_after_ms = 3", ":2: policies.hedge_after_ms: unknown key; the unit is wrong"),
        ("[engine.scheduler]\nmax_batch_tokns = 3", ":2: engine.scheduler.max_batch_tokns: unknown key; did you mean"),
        ("[engine.scheduler]\nmax_running = 999", ":2: engine.scheduler.max_running: max_batch_tokens (128) must be"),
        ("[autoscaler]\npolicy = 'reactive'", ":2: autoscaler.policy: `target` is missing"),
        (
            "[autoscaler]\nmin_replicas = 3\nmax_replicas = 2\npolicy = {kind = 'reactive', target = 1}",
            ":1: autoscaler: ",
        ),
        ("[policies\n", "is not valid TOML"),
    ],
)
def test_mistakes_are_named(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    file.write_text(text)
    for read in (read_live, lambda path: load(SHIPPED[0], policies=path)):
        with pytest.raises(SetupError) as refused:
            read(file)
        assert f"{file}" in str(refused.value)
        assert said in str(refused.value)


def test_options_are_named_as_well() -> None:
    with pytest.raises(SetupError, match=r"^--set polices.x=1: polices: unknown key; did you mean `policies`"):
        told("--set", "polices.x=1")
    with pytest.raises(SetupError, match=r'^--retry bakoff: policies.retry: there is no "bakoff"; did you mean'):
        told("--retry", "bakoff")
    with pytest.raises(SetupError, match=r"^--scheduler max_wating=1: max_wating: unknown key; did you mean"):
        read_scheduler(["max_wating=1"])


def test_later_options_win(file: Path) -> None:
    live = told("--policies", str(file), "--router", "version", "--set", "policies.router.salt=x")
    assert isinstance(live.policies.router, VersionPin)
    scaled = told("--autoscaler", "reactive", "--set", "autoscaler.policy.target=4")
    assert scaled.autoscaling is not None
    assert scaled.autoscaling.policy.arguments == {"target": 4.0}
    tabled = told("--autoscaler", '{kind = "reactive", target = 4}', "--router", '["version", "region"]')
    assert tabled.autoscaling is not None
    assert isinstance(tabled.policies.router, Routers)


def test_the_same_options_in_all_three_commands() -> None:
    for command in (demo, serve, simulate):
        parser = ArgumentParser()
        command.add_arguments(parser)
        options = {option for action in parser._actions for option in action.option_strings}
        assert {"--policies", "--balancer", "--router", "--retry", "--autoscaler", "--set"} <= options


# --- nothing sleeps ------------------------------------------------------------------------------------------------

# A value other than the default for each part of the bundle. A part that no file can reach has no place in the bundle.
OTHER = {
    "balancer": ["--set=policies.balancer=p2c", "--balancer=p2c"],
    "admission": ['--set=policies.admission=["shed"]'],
    "router": ["--set=policies.router=version", "--router=version"],
    "retry": ["--set=policies.retry=never", "--retry=never"],
    "budget": ["--set=policies.budget=off"],
    "second_opinions": ["--set=policies.second_opinions=off"],
    "ejector": ["--set=policies.ejector=off"],
    "progress": ["--set=policies.progress=off"],
    "breakers": ["--set=policies.breaker.open_s=2"],
    "hedge_after_s": ["--set=policies.hedge_after_s=0.5"],
    "first_token_s": ["--set=policies.first_token_s=off"],
    "first_token_share": ["--set=policies.first_token_share=0.1"],
    "resume": ["--set=policies.resume=false"],
    "same_replica": ["--set=policies.same_replica=true"],
}
OTHER_SCHEDULER = {
    "max_running": "3",
    "max_batch_tokens": "77",
    "watermark_fraction": "0.2",
    "aging_s": "1.5",
    "turn_tokens": "off",
    "max_output_tokens": "[9, 8, 7]",
    "max_waiting": "5",
}


def test_every_part_of_the_bundle_can_be_set_from_a_command() -> None:
    assert set(OTHER) == {field.name for field in dataclasses.fields(Policies) if field.init}
    for command in (demo, serve):
        usual = told(command=command).policies
        for name, settings in OTHER.items():
            for setting in settings:
                before, now = getattr(usual, name), getattr(told(setting, command=command).policies, name)
                assert type(now) is not type(before) or now != before, name


def test_every_setting_of_the_scheduler_reaches_the_replica() -> None:
    assert set(OTHER_SCHEDULER) == {field.name for field in dataclasses.fields(SchedulerConfig)}
    parser = ArgumentParser()
    replica.add_arguments(parser)
    for name, value in OTHER_SCHEDULER.items():
        live = told("--set", f"engine.scheduler.{name}={value}")
        config = replica.engine_config(parser.parse_args(live.scheduler_arguments())).scheduler
        assert config == live.scheduler
        assert getattr(config, name) != getattr(SchedulerConfig(), name), name
    assert replica.engine_config(parser.parse_args([])).scheduler == SchedulerConfig()


def classes_of(*packages: ModuleType) -> set[type]:
    """Return the classes that are defined in the modules of some packages."""
    names = [f"{package.__name__}.{file.name}" for package in packages for file in iter_modules(package.__path__)]
    modules = [import_module(name) for name in names]
    return {
        one
        for module in modules
        for one in vars(module).values()
        if inspect.isclass(one) and one.__module__ == module.__name__ and not getattr(one, "_is_protocol", False)
    }


def methods_of(role: Any) -> list[str]:
    return [name for name, item in vars(role).items() if inspect.isfunction(item) and not name.startswith("_")]


def test_every_policy_has_a_name_in_files() -> None:
    """Whatever has the methods of a role is registered under a name, unless files say it in another way."""
    in_other_words = {
        AllOf,
        ByModel,
        ModelRouter,
        Routers,
        WithRoom,
    }  # lists; other tables; the model that is asked for
    registered = {make for names in KINDS.values() for make in names.values()}
    roles = {role.__name__: methods for role in KINDS if inspect.isclass(role) and (methods := methods_of(role))}
    for made in classes_of(admission, recovery, routing) - in_other_words - registered:
        plays = [role for role, methods in roles.items() if all(callable(getattr(made, one, None)) for one in methods)]
        assert not plays, f"{made.__name__} could be a {plays[0]}, but no file can name it"
    assert len(BALANCERS) == 10


def test_a_class_may_have_a_pool() -> None:
    made = told("--set", 'policies.router={kind="priority",pools={batch=["r0"]}}').policies.router
    assert made is not None
    views = tuple(ReplicaView(name) for name in ("r0", "r1"))
    request = Request("q", "m", (1,), priority=Priority.BATCH)
    assert [view.replica_id for view in made.route(request, FleetView(views)).replicas] == ["r0"]
