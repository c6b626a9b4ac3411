"""From a measured live run to a prediction for another: fit steps and overhead, simulate the same requests, compare.

Knows no server: it takes an engine's steps and what clients saw, as measured by `bench.calibrate`. What the live path
adds to the engine's steps is part of the model: pauses between steps are counted into the steps, and the way in and out
as seconds per request and per token. The simulated engine is the real scheduler and block manager.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import simpy

from miniserve.config import CacheConfig, SchedulerConfig
from miniserve.engine.step_time import StepTimeModel, fit
from miniserve.observe.intervals import percentile_interval
from miniserve.observe.outcomes import Floats, OutcomeLog, Outcomes
from miniserve.observe.percentiles import percentile
from miniserve.replica.step_log import LoggedStep
from miniserve.sim.replica import SimAttempt, SimReplica
from miniserve.types import Request, SamplingParams

TARGETS = {50: 0.10, 95: 0.20}  # allowed relative error of each percentile; the p99 is shown with its interval


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a client waits for beyond the engine's steps: HTTP, tokenizer, event loop, threads waking up."""

    request_s: float = 0.0
    token_s: float = 0.0  # for each token after the first


@dataclass(frozen=True, slots=True)
class _Turn:
    """A step, including the pause after it if the engine had more to do."""

    decode_rows: int
    prefill_tokens: int
    context_tokens: int
    prefill_pairs: int
    seconds: float


def step_turns(steps: Sequence[LoggedStep]) -> list[_Turn]:
    """Return the steps, each lasting until the next one could start."""
    nexts = [step.start_s for step in steps[1:]]
    return [
        _Turn(
            step.decode_rows,
            step.prefill_tokens,
            step.context_tokens,
            step.prefill_pairs,
            next_s - step.start_s if step.running or step.waiting else step.seconds,
        )
        for step, next_s in zip(steps, nexts, strict=False)
    ]


def fit_steps(steps: Sequence[LoggedStep], notes: dict[str, Any]) -> StepTimeModel:
    """Fit, then scale so that the total time of all steps is right.

    The fit minimises relative errors, which overlook the rare slow step. Requests queued behind one do not.
    """
    measured = step_turns(steps)
    model = fit(measured, notes)
    factor = sum(turn.seconds for turn in measured) / sum(model.seconds(turn) for turn in measured)
    return StepTimeModel(
        model.base_s * factor,
        model.per_decode_row_s * factor,
        model.per_prefill_token_s * factor,
        model.per_context_token_s * factor,
        model.per_prefill_pair_s * factor,
        model.fitted_on | {"scaled_by": round(factor, 4)},
    )


def fit_overhead(live: Outcomes, model: StepTimeModel) -> Overhead:
    """Return how much longer clients of the first run waited than in its simulation, as medians; never negative."""
    ours, theirs = by_index(live), by_index(simulate_replica(live, model, Overhead()))
    request_s = max(0.0, float(np.median(ours.ttft_s - theirs.ttft_s)))
    later = ours.output_tokens - 1
    decode_s = (ours.e2e_s - ours.ttft_s) - (theirs.e2e_s - theirs.ttft_s)
    token_s = float(np.median(decode_s[later > 0] / later[later > 0])) if (later > 0).any() else 0.0
    return Overhead(request_s, max(0.0, token_s))


def simulate_replica(live: Outcomes, model: StepTimeModel, overhead: Overhead) -> Outcomes:
    """Return the outcomes of a live run's requests in a simulated replica with the same settings."""
    env, log = simpy.Environment(), OutcomeLog()
    replica = SimReplica(env, "r", SchedulerConfig(), CacheConfig(), model, max_model_len=1 << 20)

    def client() -> Generator[simpy.Event, Any, None]:
        for request in _requests(live):
            wait_s = request.arrived_s + overhead.request_s - env.now
            if wait_s > 0:
                yield env.timeout(wait_s)
            attempt = replica.submit(request)
            assert attempt.ended.callbacks is not None
            attempt.ended.callbacks.append(partial(ended, request, attempt))

    def ended(request: Request, attempt: SimAttempt, event: simpy.Event) -> None:
        tokens = request.sampling.max_tokens
        log.record(
            int(request.request_id),
            request.arrived_s,
            env.now + overhead.token_s * (tokens - 1),
            first_token_s=attempt.first_token_s,
            prompt_tokens=len(request.prompt_ids),
            output_tokens=tokens,
            cached_tokens=attempt.cached_tokens,
        )

    env.process(client())
    env.run()
    return log.outcomes()


def _requests(live: Outcomes) -> Iterator[Request]:
    """Yield the requests in order of arrival, with the lengths counted by the server."""
    ordered = by_index(live)
    rows = zip(ordered.index, ordered.arrived_s, ordered.prompt_tokens, ordered.output_tokens, strict=True)
    for index, arrived_s, prompt, output in rows:
        base = int(index) << 20
        sampling = SamplingParams(max_tokens=int(output), ignore_eos=True)
        yield Request(str(index), "model", range(base, base + int(prompt)), sampling, float(arrived_s))


def by_index(outcomes: Outcomes) -> Outcomes:
    """Return the served requests in the order of the workload."""
    served = outcomes.where(outcomes.served)
    order: Any = np.argsort(served.index)
    return served.where(order)


# --- the verdict ---------------------------------------------------------------------------------------------------


def compare_predictions(live: Outcomes, model: StepTimeModel, overhead: Overhead) -> dict[str, Any]:
    """Return each percentile as measured and predicted, whether it is close enough, and the p99 with its interval."""
    simulated = simulate_replica(live, model, overhead)
    return {
        "ttft": _percentiles(by_index(live).ttft_s, simulated.ttft_s),
        "e2e": _percentiles(by_index(live).e2e_s, simulated.e2e_s),
    }


def _percentiles(live: Floats, simulated: Floats) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for p, allowed in TARGETS.items():
        measured, predicted = percentile(live, p), percentile(simulated, p)
        error = predicted / measured - 1
        rows[f"p{p}"] = {
            "live_s": round(float(measured), 5),
            "simulated_s": round(float(predicted), 5),
            "error": round(float(error), 4),
            "allowed": allowed,
            "met": bool(abs(error) <= allowed),
        }
    interval = percentile_interval(live, 99)
    rows["p99"] = {
        "live_s": round(float(percentile(live, 99)), 5),
        "interval_95_s": None if interval is None else [round(interval.low, 5), round(interval.high, 5)],
        "simulated_s": round(float(percentile(simulated, 99)), 5),
    }
    return rows
