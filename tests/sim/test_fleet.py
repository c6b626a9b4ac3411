"""The simulated fleet: lives of replicas, what the gateway believes of them, faults, distances, and the bill."""

import math

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import InvalidRequest, Overloaded, RequestError, SetupError, UpstreamError, draining, stopped
from miniserve.faults import KeyedFaults, ReplicaEvent, ReplicaFault
from miniserve.hardware.prices import ColdStart, load_price_list
from miniserve.hardware.rightsizing import MeanLoad
from miniserve.hardware.spec import ReplicaSpec, replica_spec, weigh_by_speed
from miniserve.policies.routing.balancer import Balancer, RoundRobin, Weighted
from miniserve.sim.fleet import SimFleet
from miniserve.sim.link import Attempt, Distances
from miniserve.types import FinishReason, ReplicaState, ReplicaView, Request, SamplingParams, Send

STEP = StepTimeModel(0.01, 0.0, 0.0, 0.0, 0.0)  # every step takes 10 ms, whatever is in it
SPEC = ReplicaSpec(STEP, SchedulerConfig(max_running=4, max_batch_tokens=64), CacheConfig(64, 16), hardware="test")
EXACT = {"rel": 1e-12, "abs": 1e-12}


def a_request(name: str, tokens: int = 10, prompt: int = 20, region: str | None = None) -> Request:
    first = abs(hash(name)) % 1000 * 2**20 if not name.isdigit() else int(name) * 2**20
    sampling = SamplingParams(max_tokens=tokens, ignore_eos=True)
    return Request(name, "m", range(first, first + prompt), sampling, region=region)


def a_fleet(replicas: int = 1, spec: ReplicaSpec = SPEC, **options: object) -> tuple[simpy.Environment, SimFleet]:
    env = simpy.Environment()
    fleet = SimFleet(env, **options)  # type: ignore[arg-type]
    for _ in range(replicas):
        fleet.add(spec, ready=True)
    return env, fleet


def view_of(fleet: SimFleet, replica_id: str = "r0") -> ReplicaView:
    return next(view for view in fleet.view().replicas if view.replica_id == replica_id)


def send(fleet: SimFleet, request: Request, replica_id: str = "r0", attempt: int = 0) -> Attempt:
    return fleet.start_attempt(Send(replica_id, request, attempt))


def fault_on(fleet: SimFleet, kind: ReplicaFault, seconds: float, factor: float = 1.0, replica_id: str = "r0") -> None:
    fleet.begin_fault(ReplicaEvent(0.0, replica_id, kind, seconds, factor))


def history(fleet: SimFleet, replica_id: str = "r0") -> list[tuple[float, str]]:
    return [(round(event.at_s, 6), event.what) for event in fleet.log if event.replica_id == replica_id]


# ---- requests and what the gateway counts itself ----


def test_an_attempt_runs_and_is_counted_from_start_to_end() -> None:
    env, fleet = a_fleet()
    attempt = send(fleet, a_request("1"))
    assert view_of(fleet).outstanding == 1
    env.run(until=attempt.ended)
    assert env.now == pytest.approx(0.10)
    assert attempt.first_token_s == pytest.approx(0.01)
    assert (attempt.finish_reason, attempt.error, attempt.tokens_sent()) == (FinishReason.LENGTH, None, 10)
    assert view_of(fleet).outstanding == 0


def test_the_count_has_fallen_before_the_driver_hears_of_the_end() -> None:
    env, fleet = a_fleet()
    attempt = send(fleet, a_request("1"))
    seen: list[int] = []
    attempt.ended.callbacks.append(lambda _: seen.append(view_of(fleet).outstanding))
    env.run(until=1)
    assert seen == [0]


def test_a_request_to_nobody_is_an_upstream_error() -> None:
    _, fleet = a_fleet()
    with pytest.raises(UpstreamError, match="replica r7 has left the fleet"):
        send(fleet, a_request("1"), "r7")


def test_what_the_replica_refuses_is_not_counted() -> None:
    _, fleet = a_fleet(spec=ReplicaSpec(STEP, SchedulerConfig(4, 64, max_waiting=1), CacheConfig(64, 16)))
    with pytest.raises(InvalidRequest):
        send(fleet, a_request("1", prompt=5000))
    send(fleet, a_request("2"))
    with pytest.raises(Overloaded):
        send(fleet, a_request("3"))
    assert view_of(fleet).outstanding == 1


def test_an_abort_frees_the_replica_and_the_count() -> None:
    env, fleet = a_fleet()
    attempt = send(fleet, a_request("1", tokens=100))
    env.run(until=0.055)
    attempt.abort()
    env.run(until=0.056)
    assert (attempt.finish_reason, attempt.tokens_sent()) == (FinishReason.ABORT, 5)
    assert view_of(fleet).outstanding == 0
    assert fleet.members()[0].replica.blocks.num_used == 0


# ---- views: fresh where counted here, stale where probed ----


def test_a_view_is_as_old_as_the_last_probe_but_for_what_is_counted_here() -> None:
    env, fleet = a_fleet(probe_interval_s=0.5)
    env.run(until=0.595)
    for number in range(6):
        send(fleet, a_request(str(number), tokens=100))
    env.run(until=0.9)
    stale = view_of(fleet)
    assert (stale.outstanding, stale.running, stale.queue_depth, stale.as_of_s) == (6, 0, 0, 0.5)
    env.run(until=1.1)
    probed = view_of(fleet)
    assert (probed.outstanding, probed.running, probed.queue_depth, probed.as_of_s) == (6, 4, 2, 1.0)
    assert probed.kv_used_fraction > 0
    assert probed.steps == 40
    assert probed.tokens_per_s == pytest.approx(4 * 40 / 0.5, rel=0.05)


def test_without_a_period_a_view_is_always_fresh() -> None:
    env, fleet = a_fleet(probe_interval_s=0)
    send(fleet, a_request("1", tokens=100))
    env.run(until=0.095)
    view = view_of(fleet)
    assert (view.running, view.steps, view.as_of_s) == (1, 9, 0.095)
    fleet.crash("r0")
    assert view_of(fleet).state is ReplicaState.DOWN


def test_a_cached_view_is_the_same_object_until_something_changes() -> None:
    _, fleet = a_fleet(2)
    first, other = fleet.view().replicas
    send(fleet, a_request("1"))
    assert fleet.view().replicas[0] is not first
    assert fleet.view().replicas[1] is other


def test_views_carry_version_region_and_weight() -> None:
    spec = ReplicaSpec(STEP, version="v2", region="eu", weight=2.5)
    _, fleet = a_fleet(spec=spec)
    assert (view_of(fleet).version, view_of(fleet).region, view_of(fleet).weight) == ("v2", "eu", 2.5)


# ---- lives ----


def test_a_cold_start_passes_its_stages_and_then_takes_requests() -> None:
    cold = ColdStart(10.0, 5.0, 1.0, spread_fraction=0.0)
    env, fleet = a_fleet(0)
    fleet.add(ReplicaSpec(STEP, cold_start=cold))
    env.run(until=15.9)
    assert view_of(fleet).state is ReplicaState.STARTING
    assert fleet.num_ready() == 0
    with pytest.raises(UpstreamError) as caught:
        send(fleet, a_request("1"))
    assert caught.value.code == "unreachable"
    env.run(until=16.1)
    assert view_of(fleet).state is ReplicaState.READY
    assert history(fleet) == [(0, "added"), (10, "provision"), (15, "load"), (16, "warm up"), (16, "ready")]


def test_luck_of_a_cold_start_belongs_to_seed_and_replica() -> None:
    def ready_at(seed: int, order: tuple[str, ...]) -> dict[str, float]:
        env, fleet = a_fleet(0, seed=seed)
        for replica_id in order:
            fleet.add(ReplicaSpec(STEP, cold_start=ColdStart(10.0, 5.0, 1.0)), replica_id)
        env.run(until=30)
        return {event.replica_id: event.at_s for event in fleet.log if event.what == "ready"}

    assert ready_at(1, ("a", "b")) == ready_at(1, ("b", "a")) != ready_at(2, ("a", "b"))
    assert all(16 * 0.8 <= at_s <= 16 * 1.2 for at_s in ready_at(1, ("a", "b")).values())


def test_a_draining_replica_finishes_what_runs_takes_nothing_new_and_goes() -> None:
    env, fleet = a_fleet(2)
    attempt = send(fleet, a_request("1", tokens=50))
    env.run(until=0.1)
    fleet.drain("r0")
    assert view_of(fleet).state is ReplicaState.DRAINING
    assert [view.replica_id for view in fleet.view().ready()] == ["r1"]
    with pytest.raises(Overloaded) as caught:
        send(fleet, a_request("2"))
    assert caught.value.code == "draining"
    assert caught.value.args == draining().args, "as from a live one"
    env.run(until=2)
    assert attempt.finish_reason is FinishReason.LENGTH
    assert [member.replica_id for member in fleet.members()] == ["r1"]
    assert history(fleet)[-2:] == [(0.1, "draining"), (0.5, "removed")]


def test_draining_an_idle_replica_removes_it_at_once_and_twice_is_once() -> None:
    _, fleet = a_fleet()
    fleet.drain("r0")
    fleet.drain("r0")
    assert fleet.members() == ()
    assert [what for _, what in history(fleet)] == ["added", "ready", "draining", "removed"]


def test_removal_cuts_off_what_runs() -> None:
    env, fleet = a_fleet()
    attempt = send(fleet, a_request("1"))
    env.run(until=0.05)
    fleet.remove("r0")
    env.run(until=0.06)
    assert isinstance(attempt.error, UpstreamError)
    assert "was stopped before its answer was complete" in str(attempt.error)
    assert attempt.error.args == stopped().args, "as from a live one"


def test_a_crash_fails_what_runs_and_is_believed_after_three_missed_probes() -> None:
    env, fleet = a_fleet(probe_interval_s=0.5)
    attempt = send(fleet, a_request("1", tokens=500))
    env.run(until=0.705)
    fleet.crash("r0")
    env.run(until=0.8)
    assert isinstance(attempt.error, UpstreamError)
    assert attempt.tokens_sent() == 70
    assert view_of(fleet).state is ReplicaState.READY  # nobody has noticed
    with pytest.raises(UpstreamError):
        send(fleet, a_request("2"))
    env.run(until=1.9)
    assert view_of(fleet).state is ReplicaState.READY  # two missed: at 1.0 and 1.5
    env.run(until=2.1)
    assert view_of(fleet).state is ReplicaState.DOWN


def test_only_misses_in_a_row_count() -> None:
    env, fleet = a_fleet(probe_interval_s=0.5)
    for start_s in (0.6, 2.1):  # two probes missed each time, one answered in between
        env.run(until=start_s)
        fault_on(fleet, ReplicaFault.PARTITION, 1.0)
        env.run(until=start_s + 1.0)
        assert view_of(fleet).state is ReplicaState.READY
    env.run(until=4)
    assert view_of(fleet).as_of_s == 3.5


def test_a_replica_is_probed_once_per_interval_in_each_of_its_lives_and_no_more_when_it_has_gone() -> None:
    env, fleet = a_fleet(probe_interval_s=0.5)
    fleet.crash("r0", restart_after_s=0.2)
    env.run(until=1)
    assert view_of(fleet).as_of_s == pytest.approx(0.7)
    env.run(until=1.1)
    assert view_of(fleet).as_of_s == pytest.approx(0.7)  # the first life's probe at 1.0 does not come
    fleet.remove("r0")
    env.run()  # nothing is left to happen
    assert env.now == pytest.approx(1.2, abs=0.3)


def test_mark_down_believes_a_witness_at_once() -> None:
    _, fleet = a_fleet()
    fleet.crash("r0")
    fleet.mark_down("r0")
    assert view_of(fleet).state is ReplicaState.DOWN


def test_a_restart_skips_provisioning_and_begins_with_an_empty_cache() -> None:
    cold = ColdStart(10.0, 2.0, 1.0, spread_fraction=0.0)
    env, fleet = a_fleet(spec=ReplicaSpec(STEP, SPEC.scheduler, SPEC.cache, cold_start=cold))
    env.run(until=send(fleet, a_request("1", prompt=40)).ended)
    assert fleet.members()[0].replica.blocks.num_cached > 0
    fleet.crash("r0", restart_after_s=5.0)
    assert fleet.members()[0].replica.blocks.num_cached == 0
    env.run(until=20)
    assert [what for _, what in history(fleet)][-4:] == ["crashed", "load", "warm up", "ready"]
    assert history(fleet)[-1][0] == pytest.approx(0.1 + 5 + 2 + 1)
    assert view_of(fleet).state is ReplicaState.READY
    env.run(until=send(fleet, a_request("2")).ended)


def test_the_latest_crash_counts() -> None:
    env, fleet = a_fleet()
    fleet.crash("r0", restart_after_s=5.0)
    env.run(until=1)
    fleet.crash("r0", restart_after_s=10.0)
    env.run(until=20)
    assert [event for event in history(fleet) if event[1] == "ready"] == [(0, "ready"), (11, "ready")]


def test_a_spot_machine_gives_notice_drains_and_goes() -> None:
    env, fleet = a_fleet(spec=ReplicaSpec(STEP, SPEC.scheduler, SPEC.cache, spot=True, notice_s=1.0))
    short, long = send(fleet, a_request("1", tokens=20)), send(fleet, a_request("2", tokens=500))
    env.run(until=0.1)
    fleet.interrupt("r0")
    env.run(until=3)
    assert short.finish_reason is FinishReason.LENGTH
    assert isinstance(long.error, UpstreamError)
    assert [what for _, what in history(fleet)] == [
        "added",
        "ready",
        "spot notice",
        "draining",
        "interrupted",
        "removed",
    ]
    assert history(fleet)[-1][0] == pytest.approx(1.1)


def test_spot_interruptions_are_exponential_and_keyed() -> None:
    def lives(seed: int) -> list[float]:
        env, fleet = a_fleet(0, seed=seed, probe_interval_s=0)
        for _ in range(400):
            fleet.add(ReplicaSpec(STEP, spot=True, interruptions_per_hour=2.0), ready=True)
        env.run(until=20 * 3600)
        return [event.at_s for event in fleet.log if event.what == "spot notice"]

    times = lives(3)
    assert times == lives(3)
    assert len(times) == 400
    mean, longer_than_mean = sum(times) / 400, sum(at_s > 1800 for at_s in times) / 400
    assert mean == pytest.approx(1800, rel=4 / math.sqrt(400))
    assert longer_than_mean == pytest.approx(math.exp(-1), abs=4 * math.sqrt(0.368 * 0.632 / 400))


def test_a_replica_that_comes_back_under_its_old_name_has_luck_of_its_own() -> None:
    env, fleet = a_fleet(0, probe_interval_s=0)
    for _ in range(2):
        fleet.add(ReplicaSpec(STEP, spot=True, interruptions_per_hour=60.0, cold_start=ColdStart(0.1)), "r0")
        env.run(until=env.now + 3600)
        assert fleet.members() == ()
    added, ready, notice = (
        [at_s for at_s, what in history(fleet) if what == w] for w in ("added", "ready", "spot notice")
    )
    assert ready[0] - added[0] != ready[1] - added[1]
    assert notice[0] - added[0] != notice[1] - added[1]


def test_a_crash_does_not_put_off_the_end_of_a_spot_machine() -> None:
    def noticed(crash: bool) -> list[float]:
        env, fleet = a_fleet(spec=ReplicaSpec(STEP, spot=True, interruptions_per_hour=60.0), probe_interval_s=0)
        if crash:
            fleet.crash("r0", restart_after_s=0.001)
        env.run(until=3600)
        return [at_s for at_s, what in history(fleet) if what == "spot notice"]

    assert noticed(crash=True) == noticed(crash=False) != []


# ---- troubles ----


def test_a_hung_replica_answers_probes_but_makes_no_progress() -> None:
    env, fleet = a_fleet(probe_interval_s=0.5)
    attempt = send(fleet, a_request("1", tokens=100))
    env.run(until=0.255)
    fault_on(fleet, ReplicaFault.HANG, 5.0)
    waiting = send(fleet, a_request("2", tokens=10))
    env.run(until=4)
    assert attempt.tokens_sent() == 25
    assert view_of(fleet).state is ReplicaState.READY
    assert (view_of(fleet).steps, view_of(fleet).as_of_s) == (25, 4.0 - 0.5)
    env.run(until=attempt.ended)
    assert env.now == pytest.approx(5.255 + 0.74)  # the step in progress ended as soon as it could
    assert waiting.ended.triggered


def test_two_hangs_end_with_the_later_one_and_a_crash_ends_both() -> None:
    env, fleet = a_fleet()
    attempt = send(fleet, a_request("1", tokens=10))
    fault_on(fleet, ReplicaFault.HANG, 1.0)
    fault_on(fleet, ReplicaFault.HANG, 3.0)
    env.run(until=2.5)
    assert attempt.tokens_sent() == 0
    fleet.crash("r0", restart_after_s=0.1)
    env.run(until=2.7)
    fresh = send(fleet, a_request("2", tokens=10))
    env.run(until=fresh.ended)
    assert env.now == pytest.approx(2.8)


def test_slowness_multiplies_and_passes() -> None:
    env, fleet = a_fleet()
    fault_on(fleet, ReplicaFault.SLOW, 2.02, 4.0)
    fault_on(fleet, ReplicaFault.SLOW, 1.0, 2.0)
    attempt = send(fleet, a_request("1", tokens=1000))
    env.run(until=1.001)
    assert attempt.tokens_sent() == 12  # steps of 80 ms; the thirteenth ends at 1.04
    env.run(until=2.041)
    assert attempt.tokens_sent() == 12 + 1 + 25  # then steps of 40 ms from 1.04 on, the last ends at 2.04
    env.run(until=3.041)
    assert attempt.tokens_sent() == pytest.approx(38 + 100, abs=1)


def test_a_fast_replica_is_fast_again_when_its_slowness_has_passed() -> None:
    env, fleet = a_fleet(spec=ReplicaSpec(STEP, SPEC.scheduler, SPEC.cache, speed=2.0))
    fault_on(fleet, ReplicaFault.SLOW, 1.0, factor=4.0)
    env.run(until=2)
    env.run(until=send(fleet, a_request("1", tokens=10)).ended)
    assert env.now == pytest.approx(2.05)


def test_a_partition_breaks_streams_and_probes_and_leaves_the_cache() -> None:
    env, fleet = a_fleet(probe_interval_s=0.5)
    attempt = send(fleet, a_request("1", tokens=500, prompt=40))
    env.run(until=0.6)
    fault_on(fleet, ReplicaFault.PARTITION, 3.0)
    env.run(until=0.7)
    assert isinstance(attempt.error, UpstreamError)
    assert attempt.error.code == "unreachable"
    with pytest.raises(UpstreamError):
        send(fleet, a_request("2"))
    env.run(until=2.1)
    assert view_of(fleet).state is ReplicaState.DOWN
    assert fleet.members()[0].replica.blocks.num_cached > 0
    env.run(until=4.1)
    assert view_of(fleet).state is ReplicaState.READY
    env.run(until=send(fleet, a_request("3")).ended)


def test_a_plan_happens_at_its_times() -> None:
    plan = KeyedFaults(
        events=(
            ReplicaEvent(1.0, "r0", ReplicaFault.HANG, 1.0),
            ReplicaEvent(3.0, "r0", ReplicaFault.SLOW, 1.0, factor=2.0),
            ReplicaEvent(5.0, "r0", ReplicaFault.PARTITION, 1.0),
            ReplicaEvent(7.0, "r0", ReplicaFault.CRASH, 1.0),
            ReplicaEvent(7.5, "r9", ReplicaFault.CRASH, 1.0),
        )
    )
    env, fleet = a_fleet(faults=plan)
    env.run(until=10)
    assert history(fleet) == [
        (0, "added"),
        (0, "ready"),
        *((1, "hang"), (2, "hang over"), (3, "slow"), (4, "slow over"), (5, "partition"), (6, "partition over")),
        (7, "crashed"),
        (8, "ready"),
    ]


def test_an_attempt_is_refused_or_cut_as_the_plan_says() -> None:
    refusing = KeyedFaults(error_fraction=1.0, error_status=503)
    _, fleet = a_fleet(faults=refusing)
    with pytest.raises(Overloaded, match="injected fault"):
        send(fleet, a_request("1"))
    cutting = KeyedFaults(cut_fraction=1.0, cut_after_tokens=(4, 4))
    env, fleet = a_fleet(faults=cutting)
    cut, short = send(fleet, a_request("1")), send(fleet, a_request("2", tokens=3))
    env.run(until=1)
    assert isinstance(cut.error, UpstreamError)
    assert (cut.finish_reason, cut.tokens_sent()) == (None, 4)
    assert (short.finish_reason, short.error, short.tokens_sent()) == (FinishReason.LENGTH, None, 3)
    assert fleet.members()[0].replica.blocks.num_used == 0


def test_a_resumed_request_is_cut_after_tokens_of_its_own() -> None:
    env, fleet = a_fleet(faults=KeyedFaults(cut_fraction=1.0, cut_after_tokens=(4, 4)))
    resumed = Request("1", "m", range(20), SamplingParams(max_tokens=10, ignore_eos=True), resume_ids=range(20, 23))
    attempt = send(fleet, resumed)
    env.run(until=1)
    assert attempt.tokens_sent() == 4
    assert attempt.error is not None


# ---- regions ----

FAR = Distances({("eu", "us"): 0.05})


def test_distance_delays_the_start_and_all_that_comes_back() -> None:
    env, fleet = a_fleet(spec=ReplicaSpec(STEP, SPEC.scheduler, SPEC.cache, region="us"), distances=FAR)
    near, far = send(fleet, a_request("1", region="us")), send(fleet, a_request("2", region="eu"))
    nowhere = send(fleet, a_request("3"))
    far.first_token.callbacks.append(lambda _: None)
    env.run(until=2)
    assert near.first_token_s == nowhere.first_token_s == pytest.approx(0.01)
    assert far.first_token_s == pytest.approx(0.05 + 0.01 + 0.05)
    assert (far.finish_reason, far.tokens_sent()) == (FinishReason.LENGTH, 10)
    assert view_of(fleet).outstanding == 0


def test_refusals_and_aborts_travel_too() -> None:
    env, fleet = a_fleet(spec=ReplicaSpec(STEP, SPEC.scheduler, SPEC.cache, region="us"), distances=FAR)
    fleet.crash("r0", restart_after_s=0.2)
    refused = send(fleet, a_request("1", region="eu"))
    env.run(until=0.09)
    assert not refused.ended.triggered
    env.run(until=0.11)
    assert isinstance(refused.error, UpstreamError)
    env.run(until=1)
    attempt = send(fleet, a_request("2", tokens=100, region="eu"))
    env.run(until=1.5)
    attempt.abort()
    env.run(until=1.54)
    assert view_of(fleet).outstanding == 0
    assert fleet.members()[0].replica.num_running == 1  # the news is on its way
    env.run(until=1.56)
    assert fleet.members()[0].replica.num_running == 0
    assert fleet.members()[0].replica.blocks.num_used == 0


def test_a_distance_that_is_not_given_is_named() -> None:
    _, fleet = a_fleet(spec=ReplicaSpec(STEP, region="asia"), distances=FAR)
    with pytest.raises(SetupError, match="'eu' and 'asia' is not given"):
        send(fleet, a_request("1", region="eu"))
    with pytest.raises(SetupError, match=r"'eu' to 'us' \(-1 s\) must be at least 0"):
        Distances({("eu", "us"): -1})


# ---- control loops ----


def test_a_tick_comes_before_the_arrivals_of_its_instant_and_before_replicas_move() -> None:
    env, fleet = a_fleet(0)
    order: list[str] = []

    def arrival() -> object:
        yield env.timeout(1.0)
        order.append("arrival")

    env.process(arrival())  # set first, yet it comes second
    stop = fleet.every(0.5, lambda now_s: order.append(f"tick {now_s}"))
    env.run(until=1.2)
    assert order == ["tick 0.5", "tick 1.0", "arrival"]
    stop()
    env.run(until=5)
    assert len(order) == 3
    with pytest.raises(ValueError, match="must be positive"):
        fleet.every(0, lambda _: None)


def test_a_control_loop_can_add_and_drain() -> None:
    env, fleet = a_fleet(1)

    def scale(now_s: float) -> None:
        if now_s == 2:
            fleet.add(SPEC, ready=True)
        if now_s == 4:
            fleet.drain("r0")

    fleet.every(1.0, scale)
    env.run(until=4.5)
    assert [view.replica_id for view in fleet.view().replicas] == ["r1"]


# ---- money ----


def test_the_bill_adds_up_by_hand() -> None:
    cold = ColdStart(10.0, 0.0, 0.0, spread_fraction=0.0)
    env, fleet = a_fleet(0)
    slow = ReplicaSpec(STEP, SPEC.scheduler, SPEC.cache, hardware="big", usd_per_hour=36.0, cold_start=cold)
    spot = ReplicaSpec(STEP, SPEC.scheduler, SPEC.cache, hardware="big", usd_per_hour=3.6, spot=True)
    fleet.add(slow)
    fleet.add(slow)
    fleet.add(spot, ready=True)
    env.run(until=20)
    env.run(until=send(fleet, a_request("1", tokens=500)).ended)  # 5 s of work on r0
    env.run(until=40)
    fleet.remove("r1")
    fleet.crash("r2")  # a crashed machine is paid for until it is given back
    env.run(until=100)
    bill = fleet.bill()
    on_demand, cheap = bill.lines
    assert (on_demand.hardware, on_demand.spot, on_demand.replicas) == ("big", False, 2)
    assert on_demand.paid_s == pytest.approx(100 + 40)
    assert on_demand.starting_s == pytest.approx(10 + 10)
    assert on_demand.busy_s == pytest.approx(5)
    assert on_demand.usd == pytest.approx(1.40)
    assert on_demand.idle_fraction == pytest.approx(1 - 5 / 140)
    assert (cheap.paid_s, cheap.usd) == (pytest.approx(100), pytest.approx(0.10))
    assert bill.total.usd == pytest.approx(1.50)
    assert [(name, round(line.usd, 6)) for name, line in bill.replicas] == [("r0", 1.0), ("r1", 0.4), ("r2", 0.1)]
    assert bill.total.paid_s == pytest.approx(240)


def test_work_that_was_heard_of_too_late_is_not_billed_as_busy() -> None:
    spec = ReplicaSpec(STEP, SPEC.scheduler, SPEC.cache, region="us")
    env, fleet = a_fleet(spec=spec, distances=FAR)
    send(fleet, a_request("1", tokens=500, region="eu"))
    env.run(until=1)
    fleet.remove("r0")
    env.run(until=2)
    total = fleet.bill().total
    assert total.paid_s == total.busy_s == 1.0


def test_a_fleet_that_never_was_costs_nothing() -> None:
    _, fleet = a_fleet(0)
    assert (fleet.bill().total.usd, fleet.bill().total.idle_fraction, fleet.bill().lines) == (0.0, 0.0, ())


# ---- hardware ----


def test_a_spec_from_the_price_list_has_its_speed_price_and_pool() -> None:
    prices = load_price_list()
    machine, model = prices.machine("l4"), prices.model("llama-3.1-8b")
    spec = replica_spec(machine, model, spot=True, region="eu")
    assert (spec.hardware, spec.usd_per_hour, spec.spot, spec.region) == ("l4", 0.282, True, "eu")
    assert spec.cache.num_blocks == machine.kv_blocks(model)
    assert spec.interruptions_per_hour > 0
    assert replica_spec(machine, model).interruptions_per_hour == 0
    with pytest.raises(SetupError, match="does not fit"):
        replica_spec(prices.machine("t4"), model)


def test_weights_follow_speed_and_a_mixed_fleet_serves_accordingly() -> None:
    prices = load_price_list()
    model, work = prices.model("llama-3.1-8b"), MeanLoad(1, 500, 100)
    slow, fast = weigh_by_speed([replica_spec(prices.machine(name), model) for name in ("l4", "h100-80gb")], work)
    assert slow.weight == 1.0
    assert 5 < fast.weight < 12
    env, fleet = a_fleet(0)
    fleet.add(slow, ready=True)
    fleet.add(fast, ready=True)
    ends = []
    for replica_id in ("r0", "r1"):
        env.run(until=send(fleet, a_request(replica_id[1:], tokens=100, prompt=500), replica_id).ended)
        ends.append(env.now)
    assert ends[0] / (ends[1] - ends[0]) == pytest.approx(0.0734 / 0.0084, rel=0.1)


def test_a_mixed_fleet_is_used_better_by_weights_from_speed_than_by_turns() -> None:
    prices, work = load_price_list(), MeanLoad(1, 500, 100)
    specs = [replica_spec(prices.machine(name), prices.model("llama-3.1-8b")) for name in ("l4", "l4", "h100-80gb")]

    def mean_seconds(balancer: Balancer) -> float:
        env, fleet = a_fleet(0)
        for spec in weigh_by_speed(specs, work):
            fleet.add(spec, ready=True)
        seconds: list[float] = []

        def one(number: int):
            request, start_s = a_request(str(number), tokens=100, prompt=500), env.now
            replica_id = balancer.choose(request, fleet.view().ready())
            assert replica_id is not None
            yield send(fleet, request, replica_id).ended
            seconds.append(env.now - start_s)

        def arrivals():
            for number in range(200):
                yield env.timeout(0.15)
                env.process(one(number))

        env.process(arrivals())
        env.run(until=500)
        assert len(seconds) == 200
        return sum(seconds) / 200

    assert mean_seconds(Weighted()) < 0.5 * mean_seconds(RoundRobin())


@pytest.mark.parametrize("wrong", [{"weight": 0.0}, {"speed": -1.0}, {"usd_per_hour": -0.1}, {"notice_s": math.nan}])
def test_a_spec_refuses_nonsense(wrong: dict[str, float]) -> None:
    with pytest.raises(SetupError, match=next(iter(wrong))):
        ReplicaSpec(STEP, **wrong)  # type: ignore[arg-type]


def test_a_fleet_refuses_nonsense() -> None:
    env, fleet = a_fleet(1)
    with pytest.raises(ValueError, match="'r0' is already in use"):
        fleet.add(SPEC, "r0")
    with pytest.raises(ValueError, match="must be positive"):
        fault_on(fleet, ReplicaFault.SLOW, 1.0, 0.0)
    with pytest.raises(SetupError, match="misses_until_down"):
        SimFleet(env, misses_until_down=0)


# ---- conservation under random troubles ----

KINDS = ("crash", "crash for good", "hang", "slow", "partition", "drain", "remove", "interrupt", "add", "abort")
TIMELINE = st.lists(
    st.tuples(st.floats(0, 8), st.sampled_from(KINDS), st.integers(0, 3), st.floats(0.01, 3)), max_size=14
)
ARRIVALS = st.lists(
    st.tuples(st.floats(0, 8), st.integers(0, 3), st.integers(1, 60), st.sampled_from(["", "eu", "us"])), max_size=25
)


def befall(fleet: SimFleet, kind: str, replica_id: str, seconds: float, attempts: list[Attempt]) -> None:
    match kind:
        case "crash":
            fleet.crash(replica_id, seconds)
        case "crash for good":
            fleet.crash(replica_id)
        case "hang" | "slow" | "partition":
            fault_on(fleet, ReplicaFault(kind), seconds, 1 + seconds, replica_id)
        case "add":
            fleet.add(ReplicaSpec(STEP, SPEC.scheduler, SPEC.cache, cold_start=ColdStart(seconds, seconds, 0.0)))
        case "abort" if attempts:
            attempts[-1].abort()
        case "drain" | "remove" | "interrupt":
            getattr(fleet, kind)(replica_id)


@settings(max_examples=150, deadline=None)
@given(timeline=TIMELINE, arrivals=ARRIVALS, cut=st.sampled_from([0.0, 0.3]), period=st.sampled_from([0.0, 0.5]))
def test_whatever_happens_every_attempt_ends_once_and_nothing_stays_behind(timeline, arrivals, cut, period) -> None:
    spec = ReplicaSpec(STEP, SPEC.scheduler, CacheConfig(24, 16), region="us", spot=True, notice_s=0.5)
    faults = KeyedFaults(seed=1, cut_fraction=cut, error_fraction=cut / 3)
    env, fleet = a_fleet(3, spec, faults=faults, distances=FAR, probe_interval_s=period)
    replicas = {member.replica_id: member for member in fleet.members()}
    attempts: list[Attempt] = []
    ended: list[int] = []
    refused = 0

    def arrive(number: int, at_s: float, where: int, tokens: int, region: str):
        nonlocal refused
        yield env.timeout(at_s)
        try:
            request = a_request(str(number), tokens, prompt=1 + 3 * number, region=region)
            attempt = send(fleet, request, f"r{where}")
        except RequestError:
            refused += 1
            return
        attempts.append(attempt)
        attempt.ended.callbacks.append(lambda _: ended.append(number))
        yield attempt.ended

    def trouble(at_s: float, kind: str, where: int, seconds: float):
        yield env.timeout(at_s)
        befall(fleet, kind, f"r{where}", seconds, attempts)
        replicas.update({member.replica_id: member for member in fleet.members()})
        fleet.view()

    for number, arrival in enumerate(arrivals):
        env.process(arrive(number, *arrival))
    for event in timeline:
        env.process(trouble(*event))
    env.run(until=60)

    assert len(ended) == len(set(ended)) == len(attempts)
    assert len(attempts) + refused == len(arrivals)
    for attempt in attempts:
        assert (attempt.error is None) != (attempt.finish_reason is None)
    for member in replicas.values():
        assert member.outstanding == 0
        assert member.replica.sequences() == []
        assert member.replica.blocks.num_used == 0
        member.replica.blocks.check_integrity([])
    total = fleet.bill().total
    lives = [(event.at_s, event.what) for event in fleet.log if event.what in ("added", "removed")]
    assert total.paid_s == pytest.approx(sum((60 - at_s) * (1 if what == "added" else -1) for at_s, what in lives))
    assert 0 <= total.busy_s <= total.paid_s + 1e-9
