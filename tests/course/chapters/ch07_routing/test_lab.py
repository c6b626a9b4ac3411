"""What chapter 7 says in words about its experiments holds for them."""

import tomllib
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from statistics import fmean

import pytest

from miniserve.course.chapters.ch07_routing import lab
from miniserve.observe.percentiles import percentile
from miniserve.policies.routing.affinity import PrefixAffinity
from miniserve.policies.routing.model_router import Cascade
from miniserve.types import Request
from miniserve.workload.arrivals import Poisson
from miniserve.workload.conversations import MESSAGE


def test_forty_guides_by_prefix_find_more_and_wait_less():
    by_load, by_prefix = (lab.day("Friday", policy) for policy in ("by load", "by prefix alone"))
    assert lab.found_share(by_prefix) > 1.3 * lab.found_share(by_load)
    assert lab.ttft_p99_s(by_prefix) < lab.ttft_p99_s(by_load)


def test_a_hot_guide_by_prefix_alone_makes_one_replica_hot():
    by_load, alone = (lab.day("Saturday", policy) for policy in ("by load", "by prefix alone"))
    assert lab.ttft_p99_s(alone) > 3 * lab.ttft_p99_s(by_load)
    assert lab.busiest_share(alone) > 0.6 > 0.3 > lab.busiest_share(by_load)
    assert lab.found_share(alone) > lab.found_share(by_load)


@pytest.mark.parametrize("name", lab.DAYS)
def test_both_together_are_good_on_both_days(name):
    both, by_load, alone = (lab.day(name, policy) for policy in ("by both", "by load", "by prefix alone"))
    assert lab.ttft_p99_s(both) < 1.5 * min(lab.ttft_p99_s(by_load), lab.ttft_p99_s(alone))
    assert lab.found_share(both) > 0.8 * lab.found_share(alone)


def test_by_load_a_larger_fleet_finds_less_and_by_prefix_it_does_not():
    by_load, alone, both = (
        [lab.found_share(lab.evening(policy, n)) for n in (2, 4, 8)]
        for policy in ("by load", "by prefix alone", "by both")
    )
    assert all(more > less for more, less in pairwise(by_load))
    assert all(more > less for less, more in pairwise(alone))
    assert all(less < middle < more for less, middle, more in zip(by_load, both, alone, strict=True))
    assert 0.25 < by_load[1] / alone[1] < 0.42


def test_by_prefix_most_begin_soonest_and_by_both_the_tail_is_shorter():
    p50, p95 = ({policy: percentile(lab.evening(policy).ttft_s, p) for policy in lab.POLICIES} for p in (50, 95))
    assert p50["by prefix alone"] < p50["by both"] < p50["by load"]
    assert p95["by both"] < min(p95["by prefix alone"], p95["by load"])


def test_a_small_cache_forgets():
    room = lab.cache_blocks()
    found = [lab.found_share(lab.evening("by prefix alone", blocks=blocks)) for blocks in (room, room // 2, room // 4)]
    assert found[0] > found[1] > found[2] > 0


def test_guides_are_shared_and_questions_are_not():
    demand = lab.Guides(Poisson(1.0), MESSAGE, guides=3, guide_tokens=50, hot_share=0.5)
    prompts = [request.prompt_ids for request in demand.requests(count=300)]
    count = Counter(prompt[:50] for prompt in prompts)
    assert len(count) == 3
    assert 0.4 < max(count.values()) / 300 < 0.6
    assert len({prompt[50] for prompt in prompts}) == 300


def test_without_a_hot_guide_all_have_an_equal_share():
    demand = lab.Guides(Poisson(1.0), MESSAGE, guides=4, guide_tokens=10, hot_share=0.0)
    count = Counter(request.prompt_ids[:10] for request in demand.requests(count=400))
    assert len(count) == 4
    assert all(60 < times < 140 for times in count.values())


def test_a_larger_fleet_has_fewer_requests_outstanding_on_each():
    means = [lab.mean_outstanding(lab.evening("by both", n), n) for n in (2, 4, 8)]
    assert means[0] > means[1] > 1 > means[2]


def test_four_caches_of_half_the_size_find_about_as_much_as_two():
    half = lab.found_share(lab.evening("by prefix alone", 4, blocks=lab.cache_blocks() // 2))
    assert half == pytest.approx(lab.found_share(lab.evening("by prefix alone", 2)), rel=0.1)


def test_a_replica_holds_whole_blocks_of_what_it_was_sent():
    assert lab.held([], lab.prompt("a", 500)) == 0
    assert lab.held([lab.prompt("b", 500)], lab.prompt("a", 500)) == 200
    assert lab.held([lab.prompt("a", 450)], lab.prompt("a", 500)) == 400


def test_by_hand_the_first_two_rows_are_those_that_the_text_tells():
    assert lab.by_hand(PrefixAffinity(block_tokens=lab.BLOCK_TOKENS))[:2] == [
        ("a1", 0, 0, "B", 0),
        ("b1", 0, 1, "A", 0),
    ]


def test_routing_goes_from_the_small_models_answers_to_the_large_ones():
    small = [lab.Said(right, ()) for right in (True, True, False, False)]
    large = [lab.Said(True, ())] * 4
    assert lab.routed([0.1, 0.2, 0.3, 0.4], small, large, (0, 0.25, 0.5, 1)) == [0.5, 0.75, 1.0, 1.0]


def test_what_is_learned_from_and_what_is_measured_on_are_apart():
    learn, measure = lab.questions(each=100)
    assert not {question for question, _ in learn} & {question for question, _, _ in measure}
    assert 60 < len(measure) < 140


def test_the_real_small_model_answers_easy_questions():
    _, measure = lab.questions(each=40)
    easy = [item for item in measure if not item[2]]
    said, seconds = lab.ask_all("small", easy)
    assert sum(answer.right for answer in said) > 0.8 * len(easy)
    assert all(len(answer.logprobs) >= 2 and max(answer.logprobs) <= 0 for answer in said)
    assert seconds > 0


def test_a_known_prefix_comes_out_of_the_real_cache_faster():
    curve = lab.ttft_curve(lab.long_prompt(480), (0, 464), repeats=3)
    assert set(curve) == {0, 464}
    assert min(curve.values()) > 0, "which is faster is measured, and no test: machines are busy"


def test_prices_follow_the_size():
    usd = lab.usd_per_1000()
    assert 3 < usd["large"] / usd["small"] < 10
    assert lab.capacity_per_s(2000, known=True) > lab.capacity_per_s(2000, known=False) > 0


def test_a_request_of_a_guide_is_a_request():
    request = next(lab.Guides(Poisson(1.0), MESSAGE).requests(count=1))
    assert isinstance(request, Request)
    assert len(request.prompt_ids) > 2000


@pytest.mark.full
def test_the_shipped_cascade_is_as_often_right_as_the_large_model_and_cheaper(
    record_property: Callable[[str, object], None],
) -> None:
    models = tomllib.loads((lab.ROOT / "data/policies/models.toml").read_text(encoding="utf-8"))["models"]
    cascade = Cascade("small", "large", models["careful"]["threshold"])
    _, asked = lab.questions()
    (small, _), (large, _), usd = lab.ask_all("small", asked), lab.ask_all("large", asked), lab.usd_per_1000()
    kept = [cascade.keeps(answer.logprobs) for answer in small]
    right = fmean(a.right if keep else b.right for a, b, keep in zip(small, large, kept, strict=True))
    paid = usd["small"] + (1 - fmean(kept)) * usd["large"]
    record_property("questions", len(asked))
    record_property("kept", fmean(kept))
    record_property("right", right)
    assert right >= fmean(answer.right for answer in large) - 1 / len(asked)  # kernels differ in a last bit
    assert paid < 0.8 * usd["large"]
