"""Routers: versions stick, regions spill over, lower classes leave room."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniserve.errors import SetupError
from miniserve.policies.bundle import Policies, by_model
from miniserve.policies.routing.balancer import LeastOutstanding
from miniserve.policies.routing.router import (
    AnyReplica,
    ByModel,
    FeatureRouter,
    PriorityTier,
    RegionRouter,
    Route,
    Router,
    Routers,
    VersionPin,
)
from miniserve.types import FleetView, Priority, ReplicaState, ReplicaView, Request

REQUEST = Request(request_id="q", model="chat", prompt_ids=(1,))
TWO_VERSIONS = FleetView((ReplicaView("a", version="v1"), ReplicaView("b", version="v2")))


def ids(replicas: tuple[ReplicaView, ...]) -> list[str]:
    return [view.replica_id for view in replicas]


def user(n: int) -> Request:
    return replace(REQUEST, request_id=f"q{n}", session_key=f"user-{n}")


# --- versions ------------------------------------------------------------------------------------------------------


def test_a_pinned_request_gets_its_version_or_nothing() -> None:
    router = VersionPin(shares={"v1": 1.0})
    assert ids(router.route(replace(REQUEST, model="chat@v2"), TWO_VERSIONS).replicas) == ["b"]
    assert router.route(replace(REQUEST, model="chat@v3"), TWO_VERSIONS).replicas == ()


def test_a_replica_may_call_its_version_by_model_and_version() -> None:
    fleet = FleetView((ReplicaView("a", version="chat@v1"), ReplicaView("b", version="chat@v2")))
    assert ids(VersionPin().route(replace(REQUEST, model="chat@v2"), fleet).replicas) == ["b"]


def test_unpinned_requests_are_shared_out_as_told() -> None:
    router = VersionPin(shares={"v2": 0.1, "v1": 0.9})
    counts = Counter(router.version_of(user(n)) for n in range(5000))
    assert abs(counts["v2"] - 500) < 5 * math.sqrt(5000 * 0.09)


def test_a_user_sticks_and_a_growing_share_takes_nobody_back() -> None:
    seen: set[int] = set()
    for share in (0.01, 0.1, 0.5, 1.0):
        router = VersionPin(shares={"v2": share, "v1": 1 - share}, salt="rollout-7")
        now = {n for n in range(1000) if router.version_of(user(n)) == "v2"}
        assert seen <= now
        seen = now
    assert len(seen) == 1000


def test_two_experiments_split_users_independently() -> None:
    first, second = (VersionPin(shares={"v2": 0.5, "v1": 0.5}, salt=salt) for salt in ("x", "y"))
    both = sum(first.version_of(user(n)) == second.version_of(user(n)) for n in range(2000))
    assert abs(both - 1000) < 5 * math.sqrt(500)


def test_a_version_without_replicas_gives_its_part_away() -> None:
    only_v1 = FleetView(TWO_VERSIONS.replicas[:1])
    route = VersionPin(shares={"v2": 1.0, "v1": 0.0}).route(REQUEST, only_v1)
    assert route.replicas == (), "v1 has no share"
    route = VersionPin(shares={"v2": 0.99, "v1": 0.01}).route(REQUEST, only_v1)
    assert (ids(route.replicas), route.version) == (["a"], "v1")


def test_without_shares_anything_goes() -> None:
    assert VersionPin().route(REQUEST, TWO_VERSIONS).replicas == TWO_VERSIONS.replicas


# --- several models ------------------------------------------------------------------------------------------------

VERSIONS = ["small", "large", "large@1", "large@2", "small@1", "larger@1", ""]


def fleet_of(*versions: str, state: ReplicaState = ReplicaState.READY) -> FleetView:
    return FleetView(tuple(ReplicaView(f"r{n}", state, version=version) for n, version in enumerate(versions)))


@pytest.mark.parametrize(
    ("model", "served_by"),
    [("large", ["large", "large@1", "large@2"]), ("large@1", ["large@1"]), ("small", ["small", "small@1"])],
)
def test_a_model_is_served_by_its_versions_and_a_pin_by_one(model: str, served_by: list[str]) -> None:
    route = ByModel().route(replace(REQUEST, model=model), fleet_of(*VERSIONS))
    assert [view.version for view in route.replicas] == served_by


def test_a_pin_never_means_another_models_version_of_the_same_number() -> None:
    route = VersionPin().route(replace(REQUEST, model="large@1"), fleet_of("small@1", "large@1", "small"))
    assert ids(route.replicas) == ["r1"]


def test_shares_of_one_model_leave_the_others_alone() -> None:
    pin = VersionPin(shares={"large@1": 1.0, "small@1": 0.5, "small@2": 0.5})
    fleet = fleet_of("large@1", "large@2", "small@1", "small@2", "other")

    def served(model: str) -> list[str]:
        routes = [pin.route(replace(user(n), model=model), fleet) for n in range(200)]
        return [view.version for route in routes for view in route.replicas]

    small = served("small")
    assert set(served("large")) == {"large@1"}
    assert small.count("small@1") == pytest.approx(100, abs=35)
    pin.set_shares({"large@2": 0.0, "large@1": 1.0})
    pin.set_shares({"large@2": 1.0, "large@1": 0.0})
    assert set(served("large")) == {"large@2"}
    assert served("small") == small
    assert len(served("other")) == 200 * 5, "nothing is said of it: anything goes"


@settings(deadline=None)
@given(
    shares=st.lists(st.dictionaries(st.sampled_from(["large@1", "large@2", "small@1"]), st.floats(0.1, 1)), max_size=4),
    versions=st.lists(st.sampled_from(VERSIONS), max_size=8),
    pin=st.sampled_from(["large@1", "large@2", "small@1", "large@9"]),
    session=st.text(max_size=3),
)
def test_a_pinned_request_never_reaches_another_version_whatever_the_shares(
    shares: list[dict[str, float]], versions: list[str], pin: str, session: str
) -> None:
    router = VersionPin()
    for one in shares:
        router.set_shares(one)
    route = ByModel(router).route(replace(REQUEST, model=pin, session_key=session), fleet_of(*versions))
    assert [view.version for view in route.replicas] == [version for version in versions if version == pin]


def test_why_there_is_no_replica() -> None:
    def why(model: str, fleet: FleetView, then: Router | None = None) -> str:
        route = ByModel(then).route(replace(REQUEST, model=model), fleet)
        assert route.replicas == ()
        return route.why

    starting = fleet_of("large@2", "large@2", "large@1", state=ReplicaState.STARTING)
    assert why("large@2", starting) == "no replica of large@2 is ready (0 of 2)"
    assert why("huge", starting) == "no replica of huge is ready (0 of 0)"
    full = PriorityTier(limits=(0, 0, 0))
    assert why("large", fleet_of("large@1", "large@2"), full) == (
        "none of the 2 ready replicas of large may serve this request now"
    )
    assert why("large", fleet_of("large"), Routers(ByModel(), full)) == (
        "none of the 1 ready replicas of large may serve this request now"
    )


def test_a_route_says_nothing_of_a_reason_where_there_is_none() -> None:
    assert Routers(ByModel(), AnyReplica()).route(replace(REQUEST, model="large"), fleet_of("large")) == Route(
        fleet_of("large").replicas
    )


# --- regions -------------------------------------------------------------------------------------------------------

LATENCY_S = {("eu", "us"): 0.09, ("eu", "asia"): 0.2, ("us", "eu"): 0.09}


def regions(eu: int = 0, us: int = 0, asia: int = 0) -> FleetView:
    load = {"eu": eu, "us": us, "asia": asia}
    return FleetView(tuple(ReplicaView(name, region=name, outstanding=count) for name, count in load.items()))


@pytest.mark.parametrize(
    ("fleet", "chosen"),
    [
        (regions(), "eu"),
        (regions(eu=9), "eu"),
        (regions(eu=10), "us"),
        (regions(eu=10, us=10), "asia"),
        (regions(eu=10, us=10, asia=10), "eu"),
    ],
)
def test_the_nearest_region_with_room(fleet: FleetView, chosen: str) -> None:
    route = RegionRouter(latency_s=LATENCY_S, spill_outstanding=10).route(replace(REQUEST, region="eu"), fleet)
    assert (ids(route.replicas), route.region) == ([chosen], chosen)


def test_a_region_that_is_down_is_passed_over() -> None:
    fleet = FleetView((ReplicaView("eu", region="eu", state=ReplicaState.DOWN), ReplicaView("us", region="us")))
    router = RegionRouter(latency_s=LATENCY_S)
    assert ids(router.route(replace(REQUEST, region="eu"), fleet).replicas) == ["us"]
    assert router.route(replace(REQUEST, region="eu"), FleetView(fleet.replicas[:1])).replicas == ()


def test_an_unmeasured_region_is_the_farthest_but_better_than_none() -> None:
    fleet = FleetView((ReplicaView("m", region="mars"), ReplicaView("a", region="asia", outstanding=5)))
    router = RegionRouter(latency_s=LATENCY_S, spill_outstanding=5)
    assert router.route(replace(REQUEST, region="eu"), fleet).region == "mars"
    assert RegionRouter(latency_s=LATENCY_S).route(replace(REQUEST, region="eu"), fleet).region == "asia"
    assert router.distance_s("eu", "mars") == math.inf


def test_room_is_a_mean_per_replica() -> None:
    fleet = FleetView((*regions(eu=15, us=0).replicas, ReplicaView("eu2", region="eu", outstanding=4)))
    route = RegionRouter(latency_s=LATENCY_S, spill_outstanding=10).route(replace(REQUEST, region="eu"), fleet)
    assert ids(route.replicas) == ["eu", "eu2"]


def test_a_request_from_nowhere_may_go_anywhere() -> None:
    assert len(RegionRouter().route(REQUEST, regions()).replicas) == 3


# --- priorities ----------------------------------------------------------------------------------------------------


def test_lower_classes_leave_room() -> None:
    fleet = FleetView(tuple(ReplicaView(f"r{n}", outstanding=n) for n in (0, 5, 50)))
    router = PriorityTier(limits=(math.inf, 20, 5))
    served = {priority: ids(router.route(replace(REQUEST, priority=priority), fleet).replicas) for priority in Priority}
    assert served == {
        Priority.INTERACTIVE: ["r0", "r5", "r50"],
        Priority.STANDARD: ["r0", "r5"],
        Priority.BATCH: ["r0"],
    }


def test_a_class_may_have_a_pool_of_its_own() -> None:
    router = PriorityTier(pools={Priority.BATCH: {"b"}})
    assert ids(router.route(replace(REQUEST, priority=Priority.BATCH), TWO_VERSIONS).replicas) == ["b"]
    assert ids(router.route(REQUEST, TWO_VERSIONS).replicas) == ["a", "b"]


@given(st.lists(st.integers(0, 100), max_size=6))
def test_what_a_lower_class_may_use_a_higher_one_may_too(outstanding: list[int]) -> None:
    fleet = FleetView(tuple(ReplicaView(f"r{n}", outstanding=count) for n, count in enumerate(outstanding)))
    allowed = [set(ids(PriorityTier().route(replace(REQUEST, priority=p), fleet).replicas)) for p in Priority]
    assert allowed[0] >= allowed[1] >= allowed[2]


# --- in a row ------------------------------------------------------------------------------------------------------


def test_routers_in_a_row_narrow_one_after_the_other() -> None:
    fleet = FleetView(
        (
            ReplicaView("a", version="v1", region="eu"),
            ReplicaView("b", version="v2", region="eu"),
            ReplicaView("c", version="v2", region="us"),
        )
    )
    request = replace(REQUEST, model="chat@v2", region="eu")
    route = Routers(VersionPin(), RegionRouter(latency_s=LATENCY_S), AnyReplica()).route(request, fleet)
    assert (ids(route.replicas), route.version, route.region) == (["b"], "v2", "eu")


@pytest.mark.parametrize(
    "make",
    [
        lambda: VersionPin(shares={"v1": 0.0}),
        lambda: VersionPin(shares={"v1": -1.0, "v2": 2.0}),
        lambda: RegionRouter(spill_outstanding=0),
        lambda: PriorityTier(limits=(1, 2, 3)),
    ],
)
def test_impossible_settings_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SetupError):
        make()


def test_features_go_to_their_versions_stickily_and_others_anywhere() -> None:
    router = FeatureRouter(shares={"easy": {"small": 1.0}, "hard": {"small": 0.25, "large": 0.75}})
    fleet = FleetView((ReplicaView("s", version="small"), ReplicaView("l", version="large")))

    def to(feature: str, session: str) -> list[str]:
        request = Request("q", "m", (1,), session_key=session, feature=feature)
        return [view.replica_id for view in router.route(request, fleet).replicas]

    assert to("easy", "s1") == ["s"]
    assert to("other", "s1") == ["s", "l"]
    hard = [to("hard", f"s{i}") for i in range(400)]
    assert hard == [to("hard", f"s{i}") for i in range(400)]
    assert hard.count(["s"]) == pytest.approx(100, abs=30)


def test_shares_of_a_feature_must_be_shares() -> None:
    with pytest.raises(SetupError, match="version shares"):
        FeatureRouter(shares={"easy": {"small": -1.0}})


def test_a_live_gateway_splits_versions_before_the_configured_router() -> None:
    pin, view = VersionPin(), fleet_of("large@1", "large@2", "small")
    router = by_model(Policies(LeastOutstanding(), router=PriorityTier(pools={Priority.STANDARD: {"r0"}})), pin).router
    assert router is not None
    unpinned, pinned = replace(REQUEST, model="large"), replace(REQUEST, model="large@1")
    assert not pin.splits("large")
    assert ids(router.route(unpinned, view).replicas) == ["r0"]

    pin.set_shares({"large@2": 1.0, "large@1": 0.0})
    assert pin.splits("large")
    assert ids(router.route(unpinned, view).replicas) == [], "the other router leaves nothing of what the pin chose"
    assert ids(router.route(pinned, view).replicas) == ["r0"], "a pin is a promise"

    pin.forget("large")
    assert ids(router.route(unpinned, view).replicas) == ["r0"]
