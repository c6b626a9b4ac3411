"""The tables `[models]` and `[deprecated]`: aliases, rules, days; and what a trained classifier is worth here."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from miniserve.errors import SetupError
from miniserve.policies.routing.model_router import Cascade, HeuristicHardness, is_training_item
from miniserve.scenario import load
from miniserve.scenario.models import ModelRule, learned_hardness, model_routing
from miniserve.training.evalset import read_set

DATA = Path(__file__).resolve().parents[2] / "data"
QUICKSTART = (DATA / "scenarios" / "quickstart.toml").read_text(encoding="utf-8")
TABLES = """
[models]
gpt-4o-mini = "small"
auto = {router = "heuristic", small = "small", large = "large", threshold = 0.4}
careful = {router = "cascade", small = "small", large = "large", threshold = -0.1}

[deprecated]
"large@1" = "2026-12-01"
"large@0" = "2026-12-01T01:00:00+01:00"
"""


def test_a_file_names_aliases_rules_and_days(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(QUICKSTART + TABLES, encoding="utf-8")
    scenario = load(path)
    routing = model_routing(scenario.models, scenario.deprecated)
    assert routing.aliases == {"gpt-4o-mini": "small"}
    assert routing.cascades == {"careful": Cascade("small", "large", -0.1)}
    auto = routing.by_question["auto"]
    assert (auto.small, auto.large, auto.threshold, auto.hardness) == ("small", "large", 0.4, HeuristicHardness())
    assert routing.deprecated == {"large@1": 1_796_083_200, "large@0": 1_796_083_200}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ('router = "oracle", small = "small", large = "large"', 'models.auto.router: there is no "oracle"'),
        ('router = "learned", small = "small"', "`large` is missing"),
        ('router = "learned", small = "a", large = "a"', "must be two models, not 'a' twice"),
        ('router = "learned", small = "a", large = "b", threshold = 2', "models.auto.threshold: threshold (2)"),
        ('router = "cascade", small = "a", large = "b"', "a cascade needs a threshold"),
        ('router = "cascade", small = "a", large = "b", threshold = 1', "models.auto.threshold: threshold (1.0)"),
        ('small = "a", large = "b", kind = "x"', "models.auto.kind: unknown key"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_line_and_key(tmp_path: Path, rule: str, message: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f"{QUICKSTART}\n[models]\nauto = {{{rule}}}\n", encoding="utf-8")
    with pytest.raises(SetupError) as refused:
        load(path)
    assert message in str(refused.value).replace("'models", "models")
    assert str(refused.value).startswith(f"{path}:")


def test_a_day_that_is_none_is_refused() -> None:
    with pytest.raises(SetupError, match="old: 'soon' is no day"):
        model_routing({}, {"old": "soon"})


def test_the_classifier_knows_questions_that_it_has_not_seen() -> None:
    """From the half that was not trained on: the default threshold sends the hard ones to the large model."""
    router = ModelRule("learned", "small", "large").by_question()
    for difficulty, model in (("easy", "small"), ("hard", "large")):
        items = [item for item in read_set(DATA / "eval", difficulty) if not is_training_item(item.key)]
        assert fmean(router.choose(item.question) == model for item in items) > 0.8


def test_without_its_questions_a_classifier_says_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="eval --write-sets"):
        learned_hardness(tmp_path)
