"""From a scenario to a result: demand meets fleet and policies in virtual time.

    workload ──> clients ──> dispatch (admission, router, balancer, retries, ...) ──> sim.drive ──> fleet ──> outcomes

A run is a function of (scenario, seed). It ends when every request has its answer, or `PATIENCE_S` after the last
arrival (without deadlines, a hung replica would keep it going forever): requests that are still open have failed then,
and the time in which nothing was asked, computed or answered any more is neither shown nor billed. A policy that breaks
its contract, or Ctrl-C, ends it early: the result then holds what happened so far, and says why it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from math import inf
from typing import Any

import simpy

from miniserve.control.decisions import logged_autoscaler
from miniserve.errors import DeadlineExceeded, PolicyError, SetupError
from miniserve.observe.goodput import kept
from miniserve.observe.outcomes import OutcomeLog, Outcomes, status_of
from miniserve.policies.decision_log import OnDecision, logged
from miniserve.policies.dispatch import dispatch
from miniserve.policies.routing.router import VersionPin
from miniserve.scenario.build import distances, prefix_tier, replicas, resilience, scaled_group
from miniserve.scenario.model import Scenario
from miniserve.seeds import uniform
from miniserve.sim import drive
from miniserve.sim.clients import AskService, clients_of
from miniserve.sim.fleet import SimFleet
from miniserve.sim.gateway_queue import gateway_queue, kept_from_the_full
from miniserve.sim.link import Distances
from miniserve.sim.meter import Meter
from miniserve.sim.prefix_tier import PrefixTier
from miniserve.sim.result import SimResult
from miniserve.sim.rollout import comes_later, split_first, start_rollout
from miniserve.sim.samples import Samples
from miniserve.sim.scaling import ScalingLoop
from miniserve.types import Outcome, Request

PATIENCE_S = 3600.0  # simulated
INTERRUPTED = "interrupted"  # how `SimResult.stopped` starts after Ctrl-C
_SAMPLES = 300  # points of each quantity over time
_REPORT_EVERY = 200  # requests

OnProgress = Callable[[int, float], None]  # requests answered, simulated seconds


def simulate(
    scenario: Scenario,
    seed: int | None = None,
    *,
    meter: Meter | None = None,
    on_progress: OnProgress | None = None,
    on_decision: OnDecision | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SimResult:
    """Run `scenario`; `seed` replaces the scenario's own. `should_stop` is called repeatedly, between events.
    With a fresh `meter`, the result has a ledger that shows who caused the bill.

    Raises: SetupError if it has no fleet, or its model does not fit on its hardware.
    """
    if scenario.fleet is None:
        raise SetupError("the scenario has no [fleet]: it describes demand only, so there is nothing to simulate")
    run = _Run(scenario, scenario.run.seed if seed is None else seed, meter, on_progress, on_decision, should_stop)
    stopped = None
    try:
        stopped = run.to_its_end()
    except PolicyError as error:
        stopped = str(error)
    except KeyboardInterrupt:
        stopped = f"{INTERRUPTED} after {run.env.now:,.1f} simulated seconds"
    return run.result(stopped)


class _Run:
    """The state of one run."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        meter: Meter | None,
        on_progress: OnProgress | None,
        on_decision: OnDecision | None,
        should_stop: Callable[[], bool],
    ) -> None:
        assert scenario.fleet is not None
        self.env = simpy.Environment()
        self._scenario = scenario
        self._seed = seed
        self._meter = meter
        self._on_progress = on_progress
        self._on_decision = on_decision
        self._should_stop = should_stop
        self._log = OutcomeLog()
        self._pin = VersionPin()
        self._policies = kept_from_the_full(split_first(resilience(scenario, seed), scenario, self._pin), scenario)
        self._clients = clients_of(scenario, seed)
        self._came = 0
        self._open: dict[int, Request] = {}  # by index; not answered yet
        self._last_arrival_s = self._last_end_s = 0.0
        self._ended_s: float | None = None  # if the run went on for longer than there was anything to see
        self._all_came = False
        self._over = self.env.event()
        self._fleet = self._make_fleet()
        queue = gateway_queue(scenario, self._fleet)
        self._ask: AskService = self._dispatch if queue is None else partial(queue.ask, ask=self._dispatch)
        self._samples = Samples(self._fleet, None if queue is None else queue.__len__)
        self._fleet.every(max(scenario.expected_s / _SAMPLES, 0.01), self._sample)
        self._scaling = self._make_scaling()
        self._rollout = start_rollout(scenario, self._fleet, self._pin, seed, on_decision)

    def _make_fleet(self) -> SimFleet:
        scenario = self._scenario
        assert scenario.fleet is not None
        tier = prefix_tier(scenario)
        fleet = SimFleet(
            self.env,
            seed=self._seed,
            probe_interval_s=scenario.fleet.probe_interval_s,
            distances=Distances(distances(scenario.fleet.latency_s)),
            faults=scenario.faults.plan(self._seed, scenario.fleet.replica_ids),
            tier=None if tier is None else PrefixTier(tier),
            meter=self._meter,
        )
        drive.start_control(fleet, self._policies)
        for replica_id, spec in replicas(scenario):
            if not comes_later(scenario, spec):
                fleet.add(spec, replica_id, ready=True)
        return fleet

    def _make_scaling(self) -> ScalingLoop | None:
        scaling = self._scenario.autoscaler
        if scaling is None:
            return None
        name, spec = scaled_group(self._scenario)
        autoscaler = logged_autoscaler(scaling.build(self._seed), self._on_decision)
        loop = ScalingLoop(self._fleet, autoscaler, spec, name, lambda: self._came)
        self._fleet.every(scaling.period_s, loop.tick)
        return loop

    def to_its_end(self) -> str | None:
        """Run the clock. Return why the run ended early, if it did."""
        self.env.process(self._arrivals())
        self.env.run(self._over)
        if not self._open:
            return None
        unanswered = len(self._open)
        self._give_up()
        return f"{unanswered} requests had no answer {PATIENCE_S:,.0f} s after the last arrival: counted as failed"

    def _give_up(self) -> None:
        """Count what is still open as failed, at the moment after which nothing happened any more."""
        worked_until_s = [member.replica.worked_until_s for member in self._fleet.members()]
        self._ended_s = max(self._last_end_s, self._last_arrival_s, *worked_until_s)
        for index, request in self._open.items():
            self._log.record(
                index,
                request.arrived_s,
                self._ended_s,
                deadline_s=request.deadline_s,
                prompt_tokens=len(request.prompt_ids),
                status=DeadlineExceeded.status,
                tenant=request.tenant,
            )

    # --- requests --------------------------------------------------------------------------------------------------

    def _requests(self) -> Iterator[Request]:
        run = self._scenario.run
        return self._scenario.workload.requests(self._seed, count=run.requests, duration_s=run.duration_s)

    def _arrivals(self) -> Generator[simpy.Event, Any, None]:
        env = self.env
        for index, request in enumerate(self._requests()):
            self._stop_if_asked()
            wait_s = request.arrived_s - env.now
            if wait_s > 0:
                yield env.timeout(wait_s)
            self._came += 1
            self._last_arrival_s = env.now
            self._open[index] = request
            env.process(self._serve(index, request))
        self._all_came = True
        if self._open:
            yield env.timeout(PATIENCE_S)
        self._end()

    def _serve(self, index: int, request: Request) -> Generator[simpy.Event, Any, None]:
        if self._is_cached(request):
            self._record_hit(index, request)
        elif self._clients is None:
            outcome = yield from self._ask(request)
            self._log.record_outcome(index, request, outcome, self.env.now)
        else:
            outcome, attempts = yield from self._clients.ask(self.env, request, self._ask)
            self._record_tries(index, request, outcome, attempts)
        del self._open[index]
        self._last_end_s = self.env.now
        if self._on_progress is not None and len(self._log) % _REPORT_EVERY == 0:
            self._on_progress(len(self._log), self.env.now)
        if self._all_came and not self._open:
            self._end()

    def _is_cached(self, request: Request) -> bool:
        """Return whether the response cache has this request's answer."""
        cache = self._scenario.response_cache
        return cache is not None and uniform(self._seed, "response cache", request.request_id) < cache.hit_fraction

    def _record_hit(self, index: int, request: Request) -> None:
        prompt_tokens = len(request.prompt_ids)
        self._log.record(
            index,
            request.arrived_s,
            self.env.now,
            first_token_s=self.env.now,
            deadline_s=request.deadline_s,
            prompt_tokens=prompt_tokens,
            output_tokens=request.sampling.max_tokens,
            cached_tokens=prompt_tokens,
            attempts=0,
            tenant=request.tenant,
        )

    def _stop_if_asked(self) -> None:
        if self._should_stop():
            raise KeyboardInterrupt

    def _end(self) -> None:
        if not self._over.triggered:
            self._over.succeed()

    def _record_tries(self, index: int, request: Request, outcome: Outcome, attempts: int) -> None:
        """Add a row for a request whose client tried several times; its times are the client's, from the first try."""
        last = outcome.attempts[-1] if outcome.attempts else None
        self._log.record(
            index,
            request.arrived_s,
            self.env.now,
            first_token_s=None if last is None else last.first_token_s,
            deadline_s=request.deadline_s,
            prompt_tokens=len(request.prompt_ids),
            output_tokens=sum(len(attempt.token_ids) for attempt in outcome.attempts),
            cached_tokens=0 if last is None else last.cached_tokens,
            attempts=attempts,
            status=status_of(outcome),
            replica_id=None if last is None else last.replica_id,
            tenant=request.tenant,
        )

    def _dispatch(self, request: Request) -> Generator[simpy.Event, Any, Outcome]:
        story = dispatch(request, self._fleet.view, self._now_s, self._policies)
        if self._on_decision is not None:
            story = logged(story, request.request_id, self._now_s, self._on_decision)
        if self._rollout is not None:
            story = self._rollout.noticed(story, request)
        outcome = yield from drive.run(self.env, story, self._fleet)
        if self._meter is not None:
            self._meter.settle(outcome)
        return outcome

    def _now_s(self) -> float:
        return float(self.env.now)

    # --- observations ----------------------------------------------------------------------------------------------

    def _sample(self, now_s: float) -> None:
        self._stop_if_asked()
        self._samples.take(now_s)

    def result(self, stopped: str | None) -> SimResult:
        until_s = inf if self._ended_s is None else self._ended_s
        sizes = {} if self._scaling is None else self._scaling.series(until_s)
        warmup_s = self._scenario.run.warmup_s
        outcomes = self._log.outcomes()
        if warmup_s > 0:
            outcomes = outcomes.arrived_between(warmup_s, inf)
        return SimResult(
            outcomes,
            self._samples.series(until_s) | sizes,
            self._origin(),
            self._scenario.slo,
            stopped,
            self._scaled(outcomes),
            self._fleet.ledger(self._ended_s),
            unanswered=0 if self._ended_s is None else len(self._open),
            caches=self._fleet.cache_use(),
            rollout=() if self._rollout is None else tuple(self._rollout.events),
        )

    def _origin(self) -> dict[str, object]:
        """Return what the run was, for its title."""
        origin: dict[str, object] = {"seed": self._seed, "balancer": self._scenario.policies.balancer.name}
        if (warmup_s := self._scenario.run.warmup_s) > 0:
            origin["warmup_s"] = f"{warmup_s:g}"
        if usd := self._paid()[1]:
            origin["cost_usd"] = round(usd, 4)
        return origin

    def _scaled(self, outcomes: Outcomes) -> dict[str, float]:
        """Return the totals of an autoscaled run, or of one with a rollout."""
        if self._rollout is not None:
            paid_s, usd = self._paid()
            return {"replica_hours": paid_s / 3600, "cost_usd": usd, **self._rollout.figures()}
        if self._scaling is None:
            return {}
        paid_s, usd = self._paid()
        late = ~kept(outcomes, self._scenario.slo)
        return {
            "replica_hours": paid_s / 3600,
            "cost_usd": usd,
            "late_requests": float(late.sum()),
            "late_fraction": float(late.mean()) if len(outcomes) else 0.0,
        }

    def _paid(self) -> tuple[float, float]:
        """Return the replica-seconds and USD that were paid for, from the end of the warm-up on."""
        whole, warmup_s = self._fleet.bill(self._ended_s).total, self._scenario.run.warmup_s
        if warmup_s <= 0 or warmup_s >= (self._ended_s or self.env.now):
            return whole.paid_s, whole.usd
        before = self._fleet.bill(warmup_s).total
        return whole.paid_s - before.paid_s, whole.usd - before.usd
