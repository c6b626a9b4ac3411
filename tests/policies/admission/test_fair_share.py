"""Fair shares: ten times as many requests get no larger share, and nobody loses by having been away."""

from __future__ import annotations

from collections import Counter, deque
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.errors import SetupError
from miniserve.policies.admission.fair_share import FairShare, jain_index
from miniserve.types import Request, SamplingParams


def a_request(request_id: str, tenant: str, prompt: int = 10, output: int = 10) -> Request:
    return Request(
        request_id=request_id,
        model="m",
        prompt_ids=range(prompt),
        sampling=SamplingParams(max_tokens=output),
        tenant=tenant,
    )


def served_tokens(clients: dict[str, int], *, fair: bool, slots: int = 4, until_s: float = 400.0) -> Counter[str]:
    """Serve closed-loop clients (each sends again when it is answered) in `slots`; return the tokens per tenant.

    A token takes 10 ms, whatever it is. Prompts and outputs are drawn per request, the same for both orders.
    """
    queue, fifo, got, now_s = FairShare(), deque[Request](), Counter[str](), 0.0
    running: list[tuple[float, Request]] = []

    def send(tenant: str, client: int, turn: int) -> None:
        rng = Random(f"{tenant} {client} {turn}")
        request = a_request(f"{tenant}/{client}/{turn}", tenant, rng.randint(5, 100), rng.randint(5, 100))
        queue.push(request)
        fifo.append(request)

    for tenant, count in clients.items():
        for client in range(count):
            send(tenant, client, 0)
    while now_s < until_s:
        while len(running) < slots:
            request = queue.pop() if fair else fifo.popleft()
            if request is None:
                break
            tokens = len(request.prompt_ids) + request.sampling.max_tokens
            running.append((now_s + tokens / 100, request))
        now_s, done = min(running, key=lambda item: item[0])
        running.remove((now_s, done))
        queue.charge(done.tenant, output_tokens=done.sampling.max_tokens)
        got[done.tenant] += len(done.prompt_ids) + 2 * done.sampling.max_tokens
        tenant, client, turn = done.request_id.split("/")
        send(tenant, int(client), int(turn) + 1)
    return got


def test_a_noisy_neighbour_gets_no_more_than_the_others() -> None:
    """One tenant with forty clients among four with four: Jain's index 0.95 and more; first come, first served: not."""
    clients = {"noisy": 40, "a": 4, "b": 4, "c": 4, "d": 4}
    fair, unfair = served_tokens(clients, fair=True), served_tokens(clients, fair=False)
    assert jain_index([fair[tenant] for tenant in clients]) >= 0.95
    assert jain_index([unfair[tenant] for tenant in clients]) < 0.5


def test_a_light_tenant_waits_for_nobody_elses_backlog() -> None:
    queue = FairShare()
    for n in range(1000):
        queue.push(a_request(f"n{n}", "noisy"))
    for _ in range(50):
        queue.pop()
    queue.push(a_request("light", "light"))
    first_two = [queue.pop(), queue.pop()]
    assert "light" in [request.request_id for request in first_two if request]


def test_what_is_not_asked_for_is_not_saved_up() -> None:
    """B comes after A has had 100 turns: they then alternate, B does not get 100 in a row."""
    queue = FairShare()
    for n in range(200):
        queue.push(a_request(f"a{n}", "a"))
    for _ in range(100):
        queue.pop()
    for n in range(100):
        queue.push(a_request(f"b{n}", "b"))
    tenants = [request.tenant for request in (queue.pop() for _ in range(40)) if request]
    assert Counter(tenants) == {"a": 20, "b": 20}


def test_away_and_back_into_an_empty_queue_is_no_advantage_either() -> None:
    queue = FairShare()
    for n in range(100):
        queue.push(a_request(f"a{n}", "a"))
        queue.pop()
    queue.push(a_request("b", "b"))
    queue.push(a_request("a", "a"))
    assert queue.counter("b") >= queue.counter("a") - 20, "one request apart, not a hundred"


def test_within_a_tenant_first_come_first_served() -> None:
    queue = FairShare()
    for n in range(5):
        queue.push(a_request(f"q{n}", "t"))
    assert [request.request_id for request in (queue.pop() for _ in range(5)) if request] == [f"q{n}" for n in range(5)]


def test_output_counts_twice() -> None:
    queue = FairShare()
    queue.push(a_request("q", "t", prompt=7))
    queue.pop()
    queue.charge("t", output_tokens=5)
    assert queue.counter("t") == 7 + 2 * 5


def test_a_request_can_be_taken_out() -> None:
    queue = FairShare()
    first, second = a_request("1", "t"), a_request("2", "t")
    queue.push(first)
    queue.push(second)
    assert queue.remove(first)
    assert not queue.remove(first)
    assert queue.pop() == second
    assert queue.pop() is None
    assert not queue.remove(a_request("3", "nobody"))


events = st.lists(st.tuples(st.sampled_from(["push", "pop", "charge"]), st.sampled_from("abc"), st.integers(1, 50)))


@given(events)
def test_waiting_tenants_stay_within_one_request_of_each_other(history: list[tuple[str, str, int]]) -> None:
    """The paper's bound: counters of those who wait differ by no more than the largest single charge ever made.

    And the queue is work-conserving, loses nothing, and never gives a counter back.
    """
    queue, inside, largest, before = FairShare(), 0, 0.0, Counter[str]()
    for n, (what, tenant, tokens) in enumerate(history):
        if what == "push":
            queue.push(a_request(f"q{n}", tenant, prompt=tokens))
            inside += 1
        elif what == "pop":
            popped = queue.pop()
            assert (popped is None) == (inside == 0)
            inside -= popped is not None
            if popped is not None:
                largest = max(largest, len(popped.prompt_ids))
        elif tenant not in queue._waiting:
            continue  # service of what is running; only of those who also wait, as in a full system
        assert len(queue) == inside
        waiting = [queue.counter(t) for t in queue._waiting]
        assert max(waiting, default=0.0) - min(waiting, default=0.0) <= largest
        for t in "abc":
            assert queue.counter(t) >= before[t]
            before[t] = queue.counter(t)  # type: ignore[assignment]


def test_tenants_who_left_are_forgotten() -> None:
    queue = FairShare()
    for n in range(5000):
        queue.push(a_request(f"q{n}", f"t{n}"))
        queue.pop()
    assert len(queue._served) < 1100


def test_jain() -> None:
    assert jain_index([3.0, 3.0, 3.0]) == 1.0
    assert jain_index([1.0, 0.0, 0.0, 0.0]) == 0.25
    assert jain_index([0.0, 0.0]) == 1.0


def test_negative_weights_are_refused() -> None:
    with pytest.raises(SetupError):
        FairShare(output_weight=-1)
