"""Speculative decoding as a model: its closed forms, its limits, and what a scenario makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.config import CacheConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import SetupError
from miniserve.hardware.prices import load_price_list
from miniserve.hardware.speculation import Speculation, blocks_beside
from miniserve.scenario import Scenario, load
from miniserve.scenario.build import replicas
from miniserve.sim.run import simulate
from miniserve.toml.source import Setting

PRICES = load_price_list()
TEXT = """
[run]
requests = 300
[workload]
prompt = { kind = "constant", tokens = 100 }
output = { kind = "constant", tokens = 50 }
arrivals = { kind = "poisson", rate_per_s = 4 }
features = { easy = 0.5, hard = 0.5 }
[fleet]
model = "llama-3.1-8b"
[[fleet.replicas]]
name = "large"
hardware = "l4"
version = "large"
[[fleet.replicas]]
name = "small"
hardware = "l4"
model = "llama-3.2-1b"
version = "small"
"""


def scenario(tmp_path: Path, *settings: str) -> Scenario:
    path = tmp_path / "s.toml"
    path.write_text(TEXT)
    return load(path, settings=[Setting.parse(text) for text in settings])


@pytest.mark.parametrize(
    ("tokens", "acceptance", "made"), [(1, 0.5, 1.5), (4, 0.0, 1.0), (3, 0.8, 2.952), (4, 0.7, 2.7731)]
)
def test_tokens_per_round(tokens: int, acceptance: float, made: float) -> None:
    assert Speculation("d", tokens, acceptance).tokens_per_round == pytest.approx(made, abs=1e-4)


@given(tokens=st.integers(1, 12), acceptance=st.floats(0, 0.99))
def test_a_round_makes_one_to_all_of_its_tokens(tokens: int, acceptance: float) -> None:
    made = Speculation("d", tokens, acceptance).tokens_per_round
    assert 1 <= made <= tokens + 1
    assert made == pytest.approx(sum(acceptance**k for k in range(tokens + 1)))


def test_it_pays_where_weights_are_most_of_a_step_and_not_where_arithmetic_is() -> None:
    large, free = StepTimeModel(0.1, 0.01, 0.001, 0.0, 0.0), StepTimeModel(0.0, 0.0, 0.0, 0.0, 0.0)
    both = Speculation("d", 4, 0.7).applied(large, free)
    alone = [each.decode_seconds(1, 100, 1)[0] for each in (large, both)]
    crowded = [each.decode_seconds(100, 10_000, 1)[0] for each in (large, both)]
    assert alone[0] / alone[1] == pytest.approx(0.11 * 2.7731 / 0.15, rel=1e-4)
    assert crowded[1] > 1.6 * crowded[0]
    assert both.per_prefill_token_s == large.per_prefill_token_s


def test_a_draft_that_is_never_right_costs_all_its_time() -> None:
    large, draft = StepTimeModel(0.1, 0.0, 0.0, 0.0, 0.0), StepTimeModel(0.01, 0.0, 0.0, 0.0, 0.0)
    assert Speculation("d", 3, 0.0).applied(large, draft).base_s == pytest.approx(0.13)


def test_the_draft_takes_room() -> None:
    large, draft = PRICES.model("llama-3.1-8b"), PRICES.model("llama-3.2-1b")
    alone = PRICES.machine("l4").kv_blocks(large)
    beside = blocks_beside(draft, large, CacheConfig(alone))
    used = beside * 16 * (large.kv_bytes_per_token + draft.kv_bytes_per_token) + draft.weight_bytes
    assert used <= alone * 16 * large.kv_bytes_per_token < used + 16 * 2e6


def test_a_scenario_says_it_with_names(tmp_path: Path) -> None:
    plain = dict(replicas(scenario(tmp_path)))
    assert plain["large-0"].step_time.base_s > 5 * plain["small-0"].step_time.base_s
    fast = dict(replicas(scenario(tmp_path, "engine.speculation={draft='llama-3.2-1b', tokens=4, acceptance=0.7}")))
    assert fast["large-0"].step_time.base_s < 0.7 * plain["large-0"].step_time.base_s
    assert fast["large-0"].cache.num_blocks < plain["large-0"].cache.num_blocks
    assert fast["small-0"] == plain["small-0"], "the draft itself needs no draft"
    int8 = dict(replicas(scenario(tmp_path, "engine.bytes_per_weight=1.0")))["large-0"]
    overhead_s = PRICES.machine("l4").step_overhead_s
    assert int8.step_time.base_s - overhead_s == pytest.approx((plain["large-0"].step_time.base_s - overhead_s) / 2)
    assert int8.cache.num_blocks > 2 * plain["large-0"].cache.num_blocks


def test_features_go_to_their_models(tmp_path: Path) -> None:
    routed = scenario(
        tmp_path, "policies.router={kind='feature', shares={easy={small=0.5, large=0.5}, hard={large=1}}}"
    )
    counts = simulate(routed).outcomes.by_replica()
    assert counts["small-0"] == pytest.approx(75, abs=25)
    assert counts["large-0"] == 300 - counts["small-0"]


def test_cached_responses_need_no_replica_and_no_time(tmp_path: Path) -> None:
    outcomes = simulate(scenario(tmp_path, "response_cache.hit_fraction=0.3")).outcomes
    hits = outcomes.where(outcomes.replica < 0)
    assert len(hits) == pytest.approx(90, abs=25)
    assert set(hits.status) == {200}
    assert hits.e2e_s.tolist() == [0.0] * len(hits)
    assert set(hits.output_tokens) == {50}
    more = simulate(scenario(tmp_path, "response_cache.hit_fraction=0.6")).outcomes
    assert set(hits.index) <= set(more.index[more.replica < 0]), "a hit stays a hit when the cache is better"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("fleet.replicas.1.model=gpt", r'fleet.replicas\[1\].model: there is no "gpt"'),
        ("engine.speculation={draft='gpt'}", 'engine.speculation.draft: there is no "gpt"'),
        ("engine.speculation={draft='llama-3.2-1b', acceptance=1.0}", "acceptance"),
        ("engine.speculation={draft='llama-3.2-1b', tokens=0}", "tokens"),
        ("engine.bytes_per_weight=0", "bytes_per_weight"),
        ("response_cache.hit_fraction=1.5", "hit_fraction"),
        ("fleet.replicas=[{name='r', hardware='t4'}]", "does not fit"),
        ("engine={bytes_per_weight=1.0, speculation={draft='llama-3.1-8b'}}", ""),
    ],
)
def test_bad_input_is_refused_by_name(tmp_path: Path, setting: str, message: str) -> None:
    if not message:
        scenario(tmp_path, setting)  # a draft as large as the model is left out
        return
    with pytest.raises(SetupError, match=message):
        scenario(tmp_path, setting)


def test_what_was_measured_has_the_precision_it_was_measured_at(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="smollm2-135m on cpu-2core is measured"):
        scenario(
            tmp_path,
            "fleet={model='smollm2-135m', replicas=[{name='c', hardware='cpu-2core'}]}",
            "engine.bytes_per_weight=1.0",
        )
