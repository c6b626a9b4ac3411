"""What chapter 3 says in words about its experiments holds for them."""

import pytest

from miniserve.course.chapters.ch03_stateless import lab
from miniserve.policies.routing.affinity import ConsistentHash
from miniserve.types import ReplicaView, Request


@pytest.fixture(scope="module")
def calm():
    return {design: lab.larkspur(design) for design in lab.DESIGNS}


def test_a_replica_finds_whole_blocks_of_all_but_the_answers_last_token():
    for message, answer in ((100, 60), (100, 61), (33, 16), (7, 5)):
        (_, first), (prompt, found) = lab.on_replicas([("A", message, answer), ("A", 50, 10)])
        assert (first, prompt) == (0, message + answer + 50)
        assert found == (message + answer - 1) // lab.BLOCK_TOKENS * lab.BLOCK_TOKENS


def test_a_chat_that_goes_to_and_fro_finds_less():
    stays, goes = (lab.on_replicas([(name, 50, 100) for name in route]) for route in ("AAAA", "ABAB"))
    assert sum(found for _, found in goes) < sum(found for _, found in stays)


@pytest.mark.parametrize("servers", [2, 3, 4, 5])
def test_by_remainder_all_but_one_in_n_move_and_on_a_ring_about_one(servers):
    ring = ConsistentHash()

    def place(i, n):
        views = [ReplicaView(f"server-{k}") for k in range(n)]
        return ring.choose(Request(f"q{i}", "model", (1,), session_key=f"s{i}"), views)

    sessions = 60 * servers * (servers - 1)
    assert lab.moved_share(lambda i, n: i % n, servers, sessions) == pytest.approx(1 - 1 / servers)
    assert lab.moved_share(place, servers, 1000) == pytest.approx(1 / servers, abs=0.1)


def test_two_servers_end_when_their_turns_are_done():
    assert lab.finish_s([3, 1], sticky=True) == 3
    assert lab.finish_s([5], sticky=False) == 5 + lab.REREAD_S * 10
    assert lab.finish_s([1] * 6, sticky=False) == lab.finish_s([1] * 6, sticky=True) == 3


def test_only_a_stateless_service_without_a_cache_computes_all(calm):
    found = {design: lab.found_share(run) for design, run in calm.items()}
    assert found["stateless"] == 0
    assert found["cache per replica"] < found["sticky"]
    assert found["cache per replica"] < found["shared tier"]
    assert all(run.served.all() for run in calm.values())


def test_what_the_tier_saves_is_much_the_same_in_each_run_and_a_p99_is_not():
    times = [lab.times_more([seed]) for seed in lab.SEEDS]
    assert min(times) < lab.times_more() < max(times) < 1.2 * min(times)
    sticky, stateless, tier = (
        [lab.ttft_s(lab.larkspur(design, seed=seed), 99) for seed in lab.SEEDS]
        for design in ("sticky", "stateless", "shared tier")
    )
    assert max(sticky) > 1.5 * min(sticky)
    assert {a > b for a, b in zip(sticky, stateless, strict=True)} == {True, False}
    assert all(c < min(a, b) for a, b, c in zip(sticky, stateless, tier, strict=True))


def test_the_demand_tells_what_the_tier_saves():
    first, first_tokens, later, later_tokens, new_tokens = lab.demand().values()
    without, tier = (first * first_tokens + later * tokens for tokens in (later_tokens, new_tokens))
    assert without / tier == pytest.approx(lab.times_more(), rel=0.03)


def test_a_crash_takes_what_sticky_replicas_know_and_leaves_the_tier():
    before = {design: lab.found_share(lab.larkspur(design)) for design in ("sticky", "shared tier")}
    during = {
        design: lab.found_share(lab.larkspur(design, crash=True).arrived_between(*lab.FAULT_S)) for design in before
    }
    assert during["shared tier"] > during["sticky"]


def test_a_slow_link_is_worse_than_a_fast_one(calm):
    slow = lab.larkspur("shared tier", link_bytes_per_s=1e8)
    assert lab.ttft_s(slow, 50) > lab.ttft_s(calm["shared tier"], 50)
