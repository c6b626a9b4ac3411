"""What every router promises: some of the ready replicas, in their order, and the same each time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.policies.routing.router import ROUTERS, Router, Routers, VersionPin
from miniserve.types import FleetView, Priority, ReplicaState, ReplicaView, Request

MAKE: dict[str, Callable[[], Router]] = {
    **ROUTERS,
    "version shares": lambda: VersionPin(shares={"v1": 0.5, "v2": 0.5}),
    "all in a row": lambda: Routers(*(make() for make in ROUTERS.values())),
    "none in a row": Routers,
}
every_router = pytest.mark.parametrize("name", sorted(MAKE))

replica = st.builds(
    ReplicaView,
    replica_id=st.sampled_from("abcdefgh"),
    state=st.sampled_from(ReplicaState),
    outstanding=st.integers(0, 100),
    version=st.sampled_from(["", "v1", "v2", "m@v1"]),
    region=st.sampled_from(["", "eu", "us"]),
)
views = st.lists(replica, max_size=6, unique_by=lambda view: view.replica_id).map(lambda r: FleetView(tuple(r)))
request = st.builds(
    Request,
    request_id=st.text(max_size=3),
    model=st.sampled_from(["m", "m@v1", "m@v9"]),
    prompt_ids=st.just((1,)),
    priority=st.sampled_from(Priority),
    tenant=st.sampled_from(["", "t"]),
    region=st.sampled_from([None, "eu", "us", "mars"]),
)


@every_router
@given(asked=st.lists(st.tuples(request, views), max_size=10))
def test_it_offers_ready_replicas_in_their_order(name: str, asked: list[tuple[Request, FleetView]]) -> None:
    one, other = MAKE[name](), MAKE[name]()
    for one_request, view in asked:
        route = one.route(one_request, view)
        offered = set(route.replicas)
        assert route.replicas == tuple(replica for replica in view.ready() if replica in offered)
        assert other.route(one_request, view) == route


@every_router
def test_in_a_plain_fleet_an_ordinary_request_finds_a_replica(name: str) -> None:
    fleet = FleetView(tuple(ReplicaView(f"r{n}", version=f"v{n}") for n in (1, 2)))
    assert MAKE[name]().route(Request(request_id="q", model="m", prompt_ids=(1,)), fleet).replicas
