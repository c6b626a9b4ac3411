"""Affinity that gives way to load: the bounded ring, and prefixes weighed against outstanding requests."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import SetupError
from miniserve.policies.routing.affinity import ConsistentHash, PrefixAffinity, prefix_keys
from miniserve.types import ReplicaView, Request, TokenIds


def a_request(
    request_id: str, prompt_ids: TokenIds = (1,), session_key: str | None = None, tenant: str = ""
) -> Request:
    return Request(request_id=request_id, model="m", prompt_ids=prompt_ids, session_key=session_key, tenant=tenant)


def views(load: dict[str, int]) -> list[ReplicaView]:
    return [ReplicaView(replica_id, outstanding=count) for replica_id, count in load.items()]


def idle(count: int) -> dict[str, int]:
    return {f"r{n}": 0 for n in range(count)}


# --- consistent hash -----------------------------------------------------------------------------------------------


def homes(balancer: ConsistentHash, load: dict[str, int], sessions: int = 400) -> dict[str, str | None]:
    return {f"s{n}": balancer.choose(a_request(f"q{n}", session_key=f"s{n}"), views(load)) for n in range(sessions)}


def test_a_session_stays_whatever_it_asks() -> None:
    balancer, fleet = ConsistentHash(), views(idle(8))
    chosen = {balancer.choose(a_request(f"q{n}", (n, n + 1), session_key="s"), fleet) for n in range(50)}
    assert len(chosen) == 1


def test_without_a_session_the_beginning_of_the_prompt_decides() -> None:
    balancer, fleet, system = ConsistentHash(prefix_tokens=3), views(idle(8)), (7, 8, 9)
    chosen = {balancer.choose(a_request(f"q{n}", (*system, n)), fleet) for n in range(50)}
    assert len(chosen) == 1
    others = {balancer.choose(a_request(f"q{n}", (n, 8, 9)), fleet) for n in range(50)}
    assert len(others) > 3


def test_a_replica_that_leaves_moves_only_its_own_sessions() -> None:
    before = homes(ConsistentHash(), idle(8))
    balancer = ConsistentHash()
    homes(balancer, idle(8))
    without = {id_: 0 for id_ in idle(8) if id_ != "r3"}
    after = homes(balancer, without)
    moved = {session for session, home in before.items() if after[session] != home}
    assert moved == {session for session, home in before.items() if home == "r3"}
    assert len({after[session] for session in moved}) > 3, "and they go to many"
    assert homes(balancer, idle(8)) == before, "when it is back, so are they"


def test_sessions_are_spread() -> None:
    """With 100 points per replica each has its eighth of 400 sessions, within a factor of 2."""
    counts = Counter(homes(ConsistentHash(), idle(8)).values())
    assert all(25 <= counts[id_] <= 100 for id_ in idle(8))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=10), st.text(max_size=5), st.floats(1.01, 3))
def test_no_one_gets_more_than_the_bound(outstanding: list[int], session: str, factor: float) -> None:
    load = {f"r{n}": count for n, count in enumerate(outstanding)}
    chosen = ConsistentHash(load_factor=factor, vnodes=5).choose(a_request("q", session_key=session), views(load))
    assert chosen is not None
    assert load[chosen] + 1 <= math.ceil(factor * (sum(outstanding) + 1) / len(outstanding))


def test_a_single_hot_session_spills_to_its_neighbours() -> None:
    balancer, load = ConsistentHash(), idle(8)
    for n in range(80):
        chosen = balancer.choose(a_request(f"q{n}", session_key="hot"), views(load))
        assert chosen is not None
        load[chosen] += 1
    assert max(load.values()) <= math.ceil(1.25 * 80 / 8)


def test_the_ring_forgets_those_who_left() -> None:
    balancer = ConsistentHash(vnodes=3)
    for n in range(300):
        balancer.choose(a_request("q"), views({f"r{n}": 0, f"r{n + 1}": 0}))
    assert len(balancer._ring) <= 3 * 30


# --- prefix affinity -----------------------------------------------------------------------------------------------


def turns(conversation: int, turn: int) -> range:
    """Return the prompt of a turn of a simulated conversation: 200 tokens, then 150 more each time."""
    base = conversation * 2**20
    return range(base, base + 200 + 150 * turn)


def test_a_conversation_returns_to_its_replica() -> None:
    balancer, fleet = PrefixAffinity(), views(idle(8))
    for conversation in range(40):
        chosen = {balancer.choose(a_request(f"{conversation}-{t}", turns(conversation, t)), fleet) for t in range(6)}
        assert len(chosen) == 1


def test_unknown_prompts_go_to_the_least_loaded() -> None:
    balancer = PrefixAffinity()
    for n in range(20):
        assert balancer.choose(a_request(f"q{n}", turns(n, 0)), views({"a": 2, "b": 1, "c": 2})) == "b"


def test_the_longer_match_wins() -> None:
    balancer = PrefixAffinity(block_tokens=10)
    assert balancer.choose(a_request("1", tuple(range(20))), views({"a": 0, "b": 9})) == "a"
    assert balancer.choose(a_request("2", tuple(range(100))), views({"a": 9, "b": 0})) == "b"
    assert balancer.choose(a_request("3", tuple(range(120))), views({"a": 0, "b": 0})) == "b"
    assert balancer.choose(a_request("4", tuple(range(20))), views({"a": 0, "b": 1})) == "a"


def test_a_whole_match_outweighs_a_load_of_twice_the_mean_and_no_more() -> None:
    """score = 1 - (load - mean) / mean: with the others at the mean, it changes sides at twice the mean."""

    def chosen(load_of_a: int) -> str | None:
        balancer, prompt = PrefixAffinity(), turns(1, 0)[:192]
        balancer.choose(a_request("first", prompt), views({"a": 0, **dict.fromkeys("bcdefghi", 1)}))
        return balancer.choose(a_request("q", prompt), views({"a": load_of_a, **dict.fromkeys("bcdefghi", 10)}))

    assert chosen(18) == "a"
    assert chosen(22) != "a"


def serve(balancer: PrefixAffinity, prompts: list[TokenIds], replicas: int, at_once: int) -> Counter[str]:
    """Keep `at_once` requests running, the oldest ending first; return how many each replica got."""
    load, running, got = idle(replicas), [], Counter[str]()
    for n, prompt in enumerate(prompts):
        if len(running) == at_once:
            load[running.pop(0)] -= 1
        chosen = balancer.choose(a_request(f"q{n}", prompt), views(load))
        assert chosen is not None
        load[chosen] += 1
        running.append(chosen)
        got[chosen] += 1
    return got


def test_one_hot_prefix_does_not_make_one_hot_replica() -> None:
    """All requests share one long prefix: nobody gets more than twice its share, nobody starves."""
    system = tuple(range(640))
    prompts: list[TokenIds] = [(*system, 10_000 + n) for n in range(800)]
    got = serve(PrefixAffinity(), prompts, replicas=8, at_once=64)
    assert max(got.values()) <= 2 * 100
    assert min(got.values()) >= 100 / 2


def test_one_hot_prefix_does_not_take_the_others_affinity_away() -> None:
    """Half of the traffic is one hot prefix; the conversations of the other half still find their replicas."""
    balancer, rng, load, running = PrefixAffinity(), Random(1), idle(8), []
    last: dict[int, str] = {}
    found = follow_ups = 0
    for n in range(3000):
        if len(running) == 48:
            load[running.pop(0)] -= 1
        conversation = None if rng.random() < 0.5 else rng.randrange(100)
        prompt = range(640) if conversation is None else turns(1 + conversation, n // 600)
        chosen = balancer.choose(a_request(f"q{n}", prompt), views(load))
        assert chosen is not None
        load[chosen] += 1
        running.append(chosen)
        if conversation is not None:
            follow_ups += conversation in last
            found += last.get(conversation) == chosen
            last[conversation] = chosen
    assert found > 0.75 * follow_ups


def test_a_cold_replica_is_used_and_warms_up() -> None:
    """One replica holds everything, a new one nothing: it still gets work, and then conversations of its own."""
    balancer = PrefixAffinity()
    for conversation in range(100):
        balancer.choose(a_request(f"w{conversation}", turns(conversation, 0)), views({"old": 0}))
    prompts: list[TokenIds] = [turns(n % 100, 1 + n // 100) for n in range(400)]
    load: dict[str, int] = {"old": 0, "new": 0}
    running: list[str] = []
    got = Counter[str]()
    for n, prompt in enumerate(prompts):
        if len(running) == 16:
            load[running.pop(0)] -= 1
        chosen = balancer.choose(a_request(f"q{n}", prompt), views(load))
        assert chosen is not None
        load[chosen] += 1
        running.append(chosen)
        got[chosen] += 1
    assert got["new"] > 60


@pytest.mark.parametrize("prompt", [turns(1, 0), tuple(turns(1, 0))])
def test_tenants_do_not_share_prefixes(prompt: TokenIds) -> None:
    balancer = PrefixAffinity()
    balancer.choose(a_request("1", prompt, tenant="x"), views({"a": 0}))
    assert balancer._matched(prefix_keys("x", prompt, 64)) == {"a": 3}
    assert balancer._matched(prefix_keys("y", prompt, 64)) == {}


def test_memory_is_bounded_and_forgets_the_ends_of_old_prompts_first() -> None:
    balancer = PrefixAffinity(block_tokens=10, max_blocks=10)
    balancer.choose(a_request("1", range(60)), views({"a": 0}))
    balancer.choose(a_request("2", range(1000, 1070)), views({"a": 0}))
    assert len(balancer._holders) == 10
    assert balancer._matched(prefix_keys("", range(60), 10)) == {"a": 3}
    assert balancer._matched(prefix_keys("", range(1000, 1070), 10)) == {"a": 7}


def test_a_prompt_that_is_used_again_is_kept_longer() -> None:
    balancer = PrefixAffinity(block_tokens=10, max_blocks=10)
    for prompt in (range(50), range(1000, 1050), range(50), range(2000, 2030)):
        balancer.choose(a_request("q", prompt), views({"a": 0}))
    assert balancer._matched(prefix_keys("", range(50), 10)) == {"a": 5}
    assert balancer._matched(prefix_keys("", range(1000, 1050), 10)) == {"a": 2}


def test_a_match_begins_at_the_first_token() -> None:
    """Who is known only for a later block has lost the earlier ones, and would have to compute all of it."""
    balancer = PrefixAffinity(block_tokens=10)
    balancer.choose(a_request("q", range(20)), views({"early": 0}))
    for n in range(16):
        balancer.choose(a_request(f"q{n}", range(10)), views({f"r{n}": 0}))
    matched = balancer._matched(prefix_keys("", range(20), 10))
    assert matched == {f"r{n}": 1 for n in range(16)}


def test_a_block_remembers_only_its_latest_holders() -> None:
    balancer = PrefixAffinity(block_tokens=10)
    for n in range(100):
        balancer.choose(a_request(f"q{n}", range(10)), views({f"r{n}": 0}))
    assert list(balancer._holders.values()) == [tuple(f"r{n}" for n in range(84, 100))]


tokens = st.lists(st.integers(0, 3), max_size=40)


@given(tokens, tokens, st.integers(1, 8))
def test_keys_agree_exactly_on_the_common_full_blocks(first: list[int], second: list[int], block_tokens: int) -> None:
    one, two = prefix_keys("", first, block_tokens), prefix_keys("", second, block_tokens)
    assert len(one) == len(first) // block_tokens
    for n, (a, b) in enumerate(zip(one, two, strict=False), 1):
        assert (a == b) == (first[: n * block_tokens] == second[: n * block_tokens])


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 100), st.integers(0, 100))
def test_a_range_agrees_as_far_as_its_tokens_would(a: int, b: int, first: int, second: int) -> None:
    """The short cut for conversations names blocks as hashing their tokens would tell them apart."""
    one, two = range(a * 2**20, a * 2**20 + first), range(b * 2**20, b * 2**20 + second)
    short = [x == y for x, y in zip(prefix_keys("t", one, 16), prefix_keys("t", two, 16), strict=False)]
    hashed = [x == y for x, y in zip(prefix_keys("t", [*one], 16), prefix_keys("t", [*two], 16), strict=False)]
    assert short == hashed


@pytest.mark.parametrize("wrong", [{"beta": -1.0}, {"block_tokens": 0}, {"max_blocks": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SetupError):
        PrefixAffinity(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SetupError):
        ConsistentHash(load_factor=1.0)
